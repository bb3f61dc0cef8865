//! Detects the contents of a disk or a disk image from its superblocks, without writing.
//!
//! The names, and the decisions where it has one, are those of `blkid`: this crate protects volumes
//! from `mkfs`. It knows nothing of image formats (a qcow2 image is a [`Disk`] from the `image`
//! crate), of devices, mounts or Kubernetes.
//!
//! | file | holds |
//! |---|---|
//! | `disk.rs` | the trait that everything is read through, and its file form |
//! | `fs_type.rs` | the names of file systems |
//! | `window.rs` | bounded reads and integers out of a disk |
//! | `ext.rs`, `xfs.rs`, `btrfs.rs` | the file systems that volumes are made of, and what forbids a mount |
//! | `found.rs` | what a superblock says |
//! | `features.rs` | which features a kernel may lack |
//! | `fat.rs`, `foreign.rs` | superblocks of other file systems |
//! | `member.rs` | what is no file system: encryption, RAID, LVM, swap |
//! | `table.rs` | partition tables |

mod btrfs;
mod crc;
mod disk;
mod ext;
mod fat;
mod features;
mod foreign;
mod found;
mod fs_type;
mod member;
mod table;
mod window;
mod xfs;

use std::io;

pub use crc::crc32c;
pub use disk::{Disk, FileDisk, Part, next_data};
pub use features::features;
pub use fs_type::{FsType, UnknownFsType};
pub use table::{Partition, partitions};

use found::Found;
use window::Window;

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One file system over the whole disk.
    FileSystem {
        fs_type: FsType,
        /// Its label; empty when there is none.
        label: String,
        /// Its UUID or serial number as `blkid` writes it; empty when there is none.
        uuid: String,
        /// Why no node mounts it, in words that follow its type, with what to do; `None`: nothing is known
        /// against it. As a block device it can be used.
        refused: Option<String>,
    },
    PartitionTable {
        /// Its kind: `dos` or `gpt`.
        table: &'static str,
    },
    /// Something that cannot be mounted as it is, by `blkid`'s name: `crypto_LUKS`, `LVM2_member`,
    /// `linux_raid_member`, `swap`, …
    Other {
        /// `blkid`'s name.
        what: &'static str,
    },
    /// More than one signature: nobody can say which one is meant.
    Ambiguous(Vec<String>),
    /// There are bytes, and none of the signatures looked for. Never format this.
    Unknown,
    /// Every byte that may be non-zero was read and is zero.
    Blank,
}

/// How many bytes one read of the blank check asks for.
const BLANK_CHUNK: u64 = 1 << 20;

/// Tells what `disk` holds. Reads less than 2 MiB, except that a disk without any signature is read
/// to its first non-zero byte. An error of the disk is an error here, never [`Content::Blank`]. A
/// disk of no bytes is [`Content::Unknown`]: nothing can be said of it.
pub fn probe(disk: &dyn Disk) -> io::Result<Content> {
    let window = Window::new(disk)?;
    // RAID members and encrypted disks come first, as in blkid: what lies behind them is not ours
    // to read (a RAID 1 member with its metadata at the end looks like the file system inside).
    if let Some(what) = member::raid_or_crypto(&window)? {
        return Ok(Content::Other { what });
    }
    let systems = file_systems(&window)?;
    let others = member::others(&window)?;
    let mut table = table::kind(&window)?;
    if table.is_some_and(|t| t.is_weak) && !(systems.is_empty() && others.is_empty()) {
        table = None;
    }
    // An ISO 9660 image that can be started from a disk has a table over itself: nearly all have, and
    // blkid says iso9660.
    let is_optical = |found: &Found| matches!(found.fs_type, FsType::Iso9660 | FsType::Udf);
    if !systems.is_empty() && others.is_empty() && systems.iter().all(is_optical) {
        table = None;
    }
    let names = systems.iter().map(|found| found.fs_type.as_str());
    let names: Vec<&'static str> = names
        .chain(others.iter().copied())
        .chain(table.map(|t| t.name))
        .collect();
    if names.len() > 1 {
        return Ok(Content::Ambiguous(
            names.into_iter().map(str::to_owned).collect(),
        ));
    }
    if let Some(Found {
        fs_type,
        label,
        uuid,
        refused,
    }) = systems.into_iter().next()
    {
        return Ok(Content::FileSystem {
            fs_type,
            label,
            uuid,
            refused,
        });
    }
    if let Some(table) = table {
        return Ok(Content::PartitionTable { table: table.name });
    }
    if let Some(what) = others.first() {
        return Ok(Content::Other { what });
    }
    let blank = disk.size() > 0 && is_zero(disk)?;
    Ok(if blank {
        Content::Blank
    } else {
        Content::Unknown
    })
}

fn file_systems(window: &Window) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    found.extend(ext::find(window)?);
    found.extend(xfs::find(window)?);
    found.extend(btrfs::find(window)?);
    found.extend(fat::vfat(window)?);
    found.extend(foreign::plain_signatures(window)?);
    found.extend(foreign::optical(window)?);
    Ok(found)
}

/// Bytes that the file system on `disk` can grow to, where its superblock sets a bound that volumes may
/// meet: ext2, ext3 and ext4.
///
/// # Errors
/// Those of the disk.
pub fn grows_to(disk: &dyn Disk) -> io::Result<Option<u64>> {
    let window = Window::new(disk)?;
    match ext::find(&window)? {
        Some(_) => ext::grows_to(&window),
        None => Ok(None),
    }
}

/// Whether every byte of `disk` is zero. Ranges that the disk knows to be holes are not read.
pub fn is_zero(disk: &dyn Disk) -> io::Result<bool> {
    let size = disk.size();
    let mut buffer = vec![0; usize::try_from(BLANK_CHUNK.min(size)).unwrap_or(0)];
    let mut offset = 0;
    while offset < size {
        let Some(range) = disk.next_data(offset)? else {
            break;
        };
        let end = range.end.min(size);
        let mut at = range.start.max(offset);
        while at < end {
            let len = usize::try_from((end - at).min(BLANK_CHUNK)).unwrap_or(buffer.len());
            let chunk = &mut buffer[..len];
            disk.read_exact_at(chunk, at)?;
            if chunk.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += len as u64;
        }
        // A disk that goes backwards must not hold us for ever.
        offset = end.max(offset + 1);
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
