//! File systems on volumes: made on blank volumes only, checked before they are written to, grown to
//! the size of their volume.

mod format;
mod grow;
mod options;
mod sector;

use std::path::Path;
use std::time::Duration;

use probe::FsType;

pub use format::{can_format, format, tools};
pub(crate) use format::{describe, part_content};
pub use grow::{can_grow_unmounted, grow, grow_unmounted, grows_only_unmounted};
pub use options::mkfs_options;
pub(crate) use sector::sector_max;

use crate::command::Tool;
use crate::{Error, Result};

const E2FSCK: Tool = Tool {
    name: "e2fsck",
    package: "e2fsprogs",
};

/// How much of a file system is looked at before it is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Check {
    /// What is needed to write to it: the journal is replayed, and what can be repaired without loss is.
    #[default]
    Needed,
    /// All of it, and nothing is repaired: a file system of somebody else's making is not given to the
    /// kernel unless it is whole.
    All,
}

const XFS_REPAIR: Tool = Tool {
    name: "xfs_repair",
    package: "xfsprogs",
};
const BTRFS: Tool = Tool {
    name: "btrfs",
    package: "btrfs-progs",
};

/// Reads all of a file system and changes nothing of it.
///
/// # Errors
/// [`Error::NeedsRepair`] when it is not whole.
pub fn check_all(fs_type: FsType, device: &Path) -> Result<()> {
    let device_text = device.as_os_str();
    let outcome = match fs_type {
        FsType::Ext2 | FsType::Ext3 | FsType::Ext4 => {
            E2FSCK.run(&["-f".as_ref(), "-n".as_ref(), device_text], CHECK_LIMIT)
        }
        FsType::Xfs => XFS_REPAIR.run(&["-n".as_ref(), device_text], CHECK_LIMIT),
        FsType::Btrfs => {
            let check = ["check".as_ref(), "--readonly".as_ref(), device_text];
            BTRFS.run(&check, CHECK_LIMIT)
        }
        _ => return Ok(()),
    }?;
    if outcome.code == Some(0) {
        return Ok(());
    }
    Err(Error::NeedsRepair {
        device: device.to_owned(),
        said: outcome.said,
    })
}

/// How long a check may take. `e2fsck -p` replays the journal and stops unless the file system is
/// marked as broken; this is for those.
const CHECK_LIMIT: Duration = Duration::from_mins(10);

/// Checks a file system before it is mounted for writing, and repairs what can be repaired without
/// loss (`e2fsck -p`). XFS and btrfs check themselves when they are mounted. Never called for a
/// read-only mount, which must not write.
///
/// # Errors
/// [`Error::NeedsRepair`] when a person has to decide.
pub fn check(fs_type: FsType, device: &Path) -> Result<()> {
    if !is_ext(fs_type) {
        return Ok(());
    }
    let outcome = E2FSCK.run(&["-p".as_ref(), device.as_os_str()], CHECK_LIMIT)?;
    match outcome.code {
        Some(0) => Ok(()),
        // Bits of e2fsck(8): 1 is repaired, 2 asks for a reboot if it is the root file system.
        Some(1..=3) => {
            tracing::warn!(device = %device.display(), said = outcome.said, "file system repaired");
            Ok(())
        }
        Some(code) if code & 4 != 0 => Err(Error::NeedsRepair {
            device: device.to_owned(),
            said: outcome.said,
        }),
        _ => Err(E2FSCK.failed(outcome)),
    }
}

fn is_ext(fs_type: FsType) -> bool {
    matches!(fs_type, FsType::Ext2 | FsType::Ext3 | FsType::Ext4)
}
