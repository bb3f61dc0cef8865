//! Who holds a file: exclusive locks by flock(2), which are never waited for and end with the file's last
//! descriptor, whatever becomes of its process.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{IoContext, Result};

/// Locks `file`, which is at `path`, until it is closed; `false` when somebody else holds it.
pub fn hold(file: &File, path: &Path) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno).context("lock", path),
    }
}
