//! What a program sets once for all the stores that it opens.

use std::path::PathBuf;

/// Where things are on this machine, and how much of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory below which nfs and cifs stores are mounted (by others).
    pub mounts: PathBuf,
    /// A directory for unnamed work files: maps of blocks, and configuration files before they are put.
    pub spool: PathBuf,
    /// Blocks that are worked on at the same time; at least 1.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mounts: PathBuf::from("/var/lib/longhorn-backupstore-mounts"),
            spool: std::env::temp_dir(),
            threads: 2,
        }
    }
}
