//! Makes a file system in a file from a [`Tree`], without mounting it.
//!
//! ext4 is created by `mkfs.ext4 -d` (with very many names in one directory, by `debugfs`), after which every inode
//! is set to the values of the tree. XFS
//! is created empty by `mkfs.xfs` and filled by the crate `mkfs_xfs`. Both produce the same bytes
//! for the same tree, size, label and UUID. btrfs is created by `mkfs.btrfs --rootdir`, whose bytes
//! differ between runs.
//!
//! Unsupported contents are rejected before the tool runs (`limits`), and its own tool checks the
//! result (`check`).

mod btrfs;
mod check;
mod ext4;
mod limits;
mod xfs;

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use tree::Tree;
use types::ByteSize;

use crate::error::Result;
use crate::request::FileSystem;

/// What is to be made.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) tree: &'a Tree,
    /// The size of the disk in bytes; a multiple of 4096.
    pub(super) size: u64,
    /// The label; checked by [`FileSystem::check_label`].
    pub(super) label: &'a str,
    /// The file system's uuid.
    pub(super) uuid: [u8; 16],
    /// The file it goes into: all holes, of the right size.
    pub(super) image: &'a File,
    /// The same file, for tools and messages.
    pub(super) path: &'a Path,
}

pub(super) use check::check;

/// Makes a file system of the given kind; of no kind, nothing.
pub(super) fn make(kind: FileSystem, request: &Request) -> Result<()> {
    limits::check(kind, request)?;
    match kind {
        FileSystem::Ext4 => ext4::make(request),
        FileSystem::Xfs => xfs::make(request),
        FileSystem::Btrfs => btrfs::make(request),
        FileSystem::None => Ok(()),
    }
}

/// An estimate of the size that a file system for `tree` needs.
pub(super) fn needed(kind: FileSystem, tree: &Tree) -> ByteSize {
    match kind {
        FileSystem::Ext4 => ext4::needed(tree),
        FileSystem::Xfs => xfs::needed(tree),
        FileSystem::Btrfs => btrfs::needed(tree),
        FileSystem::None => ByteSize(0),
    }
}

/// A uuid of version 8 (made in a way of our own) from a hash.
pub(super) fn uuid_from(hash: ring::digest::Context) -> [u8; 16] {
    let digest = hash.finish();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest.as_ref()[..16]);
    uuid[6] = uuid[6] & 0x0F | 0x80;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}

/// A uuid of version 4. The same for each build would only tell that it was the same input, where the bytes differ
/// anyhow; and `mkfs.btrfs` refuses one that is in use on this machine.
pub(super) fn random_uuid() -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut uuid).ok()?;
    uuid[6] = uuid[6] & 0x0F | 0x40;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    Some(uuid)
}

/// The usual text form of a uuid.
pub(super) fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
