//! The keys of a store: the only place that makes them.
//!
//! ```text
//! backupstore/
//!   volumes/AA/BB/VOLUME/              AABB: the first digits of the SHA-512 of VOLUME
//!     volume.cfg
//!     backups/backup_NAME.cfg
//!     blocks/CC/DD/CHECKSUM.blk        CCDD: the first digits of CHECKSUM
//!     locks/lock-<16 hex>.lck
//!   backing-images/
//!     backing-images/NAME/backing-image.cfg
//!     blocks/CC/DD/CHECKSUM.blk        of all backing images together
//! ```
//!
//! The locks of a backing image are those of a volume of its name that has nothing else.

use crate::{BlockChecksum, Name};

/// The folder that everything is in.
pub(crate) const ROOT: &str = "backupstore";
/// Folders of two digits, then of two digits, then of volumes.
pub(crate) const VOLUMES: &str = "backupstore/volumes";
/// Folders, one for each backing image.
pub(crate) const BACKING_IMAGES: &str = "backupstore/backing-images/backing-images";

/// Where the blocks of a backup are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pool {
    Volume(Name),
    BackingImages,
}

impl Pool {
    /// The folder of its blocks.
    pub(crate) fn blocks(&self) -> String {
        match self {
            Self::Volume(volume) => format!("{}/blocks", self::volume(volume)),
            Self::BackingImages => "backupstore/backing-images/blocks".to_owned(),
        }
    }

    /// The folder of the blocks whose checksums begin with these two bytes.
    pub(crate) fn folder(&self, [first, second]: [u8; 2]) -> String {
        format!("{}/{first:02x}/{second:02x}", self.blocks())
    }

    /// The key of a block.
    pub(crate) fn block(&self, checksum: &BlockChecksum) -> String {
        let BlockChecksum([first, second, ..]) = *checksum;
        format!("{}/{checksum}.blk", self.folder([first, second]))
    }
}

/// The folder of a volume.
pub(crate) fn volume(volume: &Name) -> String {
    let BlockChecksum([first, second, ..]) = BlockChecksum::of(volume.as_str().as_bytes());
    format!("{VOLUMES}/{first:02x}/{second:02x}/{volume}")
}

pub(crate) fn volume_config(volume: &Name) -> String {
    format!("{}/volume.cfg", self::volume(volume))
}

/// The folder of a volume's backups.
pub(crate) fn backups(volume: &Name) -> String {
    format!("{}/backups", self::volume(volume))
}

pub(crate) fn backup_config(volume: &Name, backup: &Name) -> String {
    format!("{}/backup_{backup}.cfg", backups(volume))
}

/// The folder of the locks of a volume or backing image.
pub(crate) fn locks(volume: &Name) -> String {
    format!("{}/locks", self::volume(volume))
}

pub(crate) fn lock(volume: &Name, lock: &str) -> String {
    format!("{}/{lock}.lck", locks(volume))
}

pub(crate) fn backing_image_config(image: &Name) -> String {
    format!("{BACKING_IMAGES}/{image}/backing-image.cfg")
}

/// The backup whose cfg is at this key or file name; `None`: it is none, or its name is not valid.
pub(crate) fn backup_of(key: &str) -> Option<Name> {
    file_name(key)
        .strip_prefix("backup_")?
        .strip_suffix(".cfg")?
        .parse()
        .ok()
}

/// The block that is at this key or file name.
pub(crate) fn block_of(key: &str) -> Option<BlockChecksum> {
    file_name(key).strip_suffix(".blk")?.parse().ok()
}

/// The lock that is at this key or file name, without its suffix.
pub(crate) fn lock_of(key: &str) -> Option<&str> {
    let name = file_name(key).strip_suffix(".lck")?;
    name.parse::<Name>().ok().map(|_| name)
}

fn file_name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}
