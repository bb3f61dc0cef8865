//! File systems on volumes: made on blank volumes only, checked before they are written to, grown to
//! the size of their volume.

mod defaults;
mod format;
mod format_device;
mod grow;
mod health;
mod options;
mod sector;

use std::path::Path;
use std::time::Duration;

use probe::FsType;

pub(crate) use defaults::defaults_to_override;
pub use format::{can_format, format, sizes, tools};
pub(crate) use format::{describe, part_content};
pub(crate) use format_device::{FORMATTING, format_device};
pub use grow::{can_grow_unmounted, grow, grow_unmounted, grows_only_unmounted, shortfall};
pub(crate) use health::reported;
pub use options::mkfs_options;
pub(crate) use sector::sector_max;

use crate::command::{Outcome, Tool};
use crate::{Error, Result};

/// What a blank volume gets when nothing else is asked.
pub const DEFAULT: FsType = FsType::Ext4;

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
    let (device, said) = (device.to_owned(), outcome.said);
    // They end as with a finding when they do not know a feature.
    let words = said.to_lowercase();
    let is_too_old = [
        "unsupported",
        "unknown",
        "unrecognized",
        "more recent",
        "newer version",
    ]
    .iter()
    .any(|word| words.contains(word));
    let judged = match outcome.code {
        // e2fsck(8): 4 is a finding, which may come with other bits.
        Some(code) => !is_too_old && (!is_ext(fs_type) || code & 4 != 0),
        None => false,
    };
    Err(if judged {
        Error::NeedsRepair { device, said }
    } else {
        Error::NotJudged { device, said }
    })
}

/// The least exit code of e2fsck(8) that is no finding: 8 is an operational error, such as a feature that this
/// version of it does not know; the bits of findings mean nothing then.
const FSCK_OPERATIONAL: i32 = 8;

/// How long a check may take. `e2fsck -p` replays the journal and stops unless the file system is
/// marked as broken; this is for those.
const CHECK_LIMIT: Duration = Duration::from_mins(10);

/// Checks a file system before it is mounted for writing, and repairs what can be repaired without
/// loss (`e2fsck -p`). XFS and btrfs check themselves when they are mounted. Never called for a
/// read-only mount, which must not write. A file system that the tool cannot judge is left to the kernel, which
/// may know it better.
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
        Some(4..FSCK_OPERATIONAL) => Err(Error::NeedsRepair {
            device: device.to_owned(),
            said: outcome.said,
        }),
        _ => {
            let Outcome { status, said, .. } = outcome;
            let device = device.display();
            tracing::warn!(%device, status, said, "e2fsck cannot check the file system; it is \
                                                   mounted unchecked");
            Ok(())
        }
    }
}

fn is_ext(fs_type: FsType) -> bool {
    matches!(fs_type, FsType::Ext2 | FsType::Ext3 | FsType::Ext4)
}
