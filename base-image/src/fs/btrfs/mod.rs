//! btrfs, wholly by our own writer: every tree is a sorted list of items, packed into nodes at once.
//!
//! ```text
//! 1 MiB      system chunk      the chunk tree
//! 5 MiB      data chunks       as the files are copied, one extent after the other
//! then       metadata chunk    all other trees, when their items are known
//! the rest   unallocated       for the kernel
//! ```
//! Logical and physical addresses are the same. One copy of metadata (`single`): a volume's copies
//! are made below the file system. Every number follows from the tree, so the result does too;
//! the inode numbers count from 257 in the order of the scan. `btrfs check` is the judge in the tests.
//! Formats: the kernel's `btrfs_tree.h`, and what `btrfs inspect-internal dump-tree` shows.

mod files;
mod items;
mod layout;
mod node;
mod superblock;
mod trees;

use super::super::error::{Error, Result, io};
use super::super::tree::{Kind, Node, Tree, Xattr};
use super::{Request, copy, crc32c};
use files::Files;
use layout::Layout;

/// The unit of data and of its checksums.
const SECTOR: u64 = 4096;
/// The unit of metadata.
const NODE: usize = 16384;

/// The extended attributes that it takes, by the start of their names.
const SPACES: [&[u8]; 5] = [
    b"user.",
    b"trusted.",
    b"security.",
    b"system.posix_acl_",
    b"btrfs.",
];

/// Makes the file system.
pub(super) fn make(request: &Request) -> Result<()> {
    let mut layout = Layout::new(request)?;
    let files = Files::collect(request.tree, &mut layout)?;
    layout.finish(files.items)
}

/// Why a file cannot be put on btrfs, as far as only this kind has the reason.
pub(super) fn refuses(node: &Node) -> Option<String> {
    for Xattr { name, value } in &node.xattrs {
        if name.len() + value.len() > node::MAX_ITEM - items::DIR_ITEM {
            return Some(format!(
                "its extended attribute {} is larger than btrfs can hold",
                String::from_utf8_lossy(name)
            ));
        }
        let known = SPACES.iter().any(|space| name.starts_with(space));
        if !known {
            let name = String::from_utf8_lossy(name);
            return Some(format!(
                "btrfs has no place for its extended attribute {name}"
            ));
        }
    }
    None
}

/// The error for a full file system.
fn full(request: &Request) -> Error {
    Error::TooSmall {
        file_system: "btrfs",
        size: request.size,
        needed: needed(request.tree),
    }
}

/// An estimate of the size that is enough for `tree`: data in whole blocks, four items a file, and
/// the room that the last data chunk and the metadata chunk keep.
pub(super) fn needed(tree: &Tree) -> types::ByteSize {
    let mut data = 0_u64;
    let mut metadata = 0_u64;
    for (_, node) in tree.nodes() {
        let size = if let Kind::Regular { size } = node.kind {
            size
        } else {
            0
        };
        let inline = size <= files::MAX_INLINE;
        data = data.saturating_add(if inline {
            0
        } else {
            size.next_multiple_of(SECTOR)
        });
        let names: usize = match &node.kind {
            Kind::Directory { entries } => entries.iter().map(|(n, _)| 3 * n.len() + 150).sum(),
            _ => 0,
        };
        let xattrs: usize = node
            .xattrs
            .iter()
            .map(|x| x.name.len() + x.value.len() + 60)
            .sum();
        metadata += 400 + names as u64 + xattrs as u64 + if inline { size } else { size / 512 };
    }
    let metadata = metadata + metadata / 2;
    let all = data
        .saturating_add(metadata + metadata / 2)
        .saturating_add(24 << 20);
    types::ByteSize(all.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX))
}
