//! XFS: an empty file system by `mkfs.xfs`, filled by our own writer.
//!
//! The writer only ever fills a fresh file system, so every structure is written once, in its final
//! form: the inodes first, then directories, attributes and data one after the other, each group's
//! free space shrinking from its start; the headers and the roots of the free-space and inode trees
//! last. Offsets and limits are those of "XFS Algorithms & Data Structures", 3rd edition, version 5
//! of the format. Nothing here is random or from the clock. `xfs_repair -n` is the judge in the tests.

mod attr;
mod directory;
mod extent;
mod group;
mod inode;
mod space;

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::error::{Error, Result, io};
use super::super::tool::Tool;
use super::super::tree::{Kind, Node, NodeId, Tree};
use super::{Request, copy, uuid_text};
use extent::Extents;
use inode::{Fork, Inode};
use space::Space;

const MKFS: Tool = Tool {
    name: "mkfs.xfs",
    package: "xfsprogs",
    limit: Duration::from_hours(1),
};

/// The block of the file systems made here.
const BLOCK: usize = 4096;
/// Its sector, in which the headers are: a block, so that it can be mounted on devices that do direct I/O
/// in whole blocks, as well as on those with small sectors.
const SECTOR: usize = BLOCK;
/// Bytes of an inode, and those of them that are left for its forks.
const INODE: usize = 512;
const LITERAL: usize = INODE - 176;
/// Below this size the tool refuses (xfsprogs 5.19 and later) unless told that we know.
const SUPPORTED: u64 = 300 << 20;

/// A device number has 14 bits for the driver and these for the device.
const MINOR_BITS: u32 = 18;
const MAJOR_BITS: u32 = 14;
/// Times in seconds since 1970: 64 bits of nanoseconds from 1901 on, as the kernel bounds them
/// (`XFS_BIGTIME_TIME_MAX`).
pub(super) const SECONDS: RangeInclusive<i64> = -(1 << 31)..=18_446_744_072 - (1 << 31);

/// Why a file cannot be put on XFS, as far as only this kind has the reason.
pub(super) fn refuses(node: &Node) -> Option<String> {
    if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = node.kind
        && (major >> MAJOR_BITS > 0 || minor >> MINOR_BITS > 0)
    {
        return Some(format!("XFS cannot say its device number, {major}:{minor}"));
    }
    attr::refuses(&node.xattrs)
}

/// Makes the file system.
pub(super) fn make(request: &Request) -> Result<()> {
    run_mkfs(request)?;
    let tree = request.tree;
    let mut space = Space::open(request)?;
    let numbers = space.allocate_inodes(tree.len())?;
    let mut filler = Filler {
        tree,
        space,
        numbers,
    };
    for (id, node) in tree.nodes() {
        filler.add(id, node)?;
    }
    filler.space.finish(tree.newest())
}

fn run_mkfs(request: &Request) -> Result<()> {
    const GROUP_MIN: u64 = 16 << 20;
    const GROUP_MAX: u64 = 1 << 40;
    let groups = (request.size / GROUP_MIN)
        .clamp(1, 4)
        .max(request.size.div_ceil(GROUP_MAX));
    let data = format!("agcount={groups},su=0,sw=0");
    let meta = format!(
        "crc=1,finobt=1,inobtcount=1,bigtime=1,reflink=1,rmapbt=0,uuid={}",
        uuid_text(&request.uuid)
    );
    let mut arguments: Vec<&OsStr> = ["-q", "-K", "-b", "size=4096", "-s", "size=4096"]
        .into_iter()
        .chain([
            "-i",
            "size=512,sparse=1",
            "-n",
            "size=4096,ftype=1",
            "-m",
            &meta,
            "-d",
            &data,
        ])
        .map(OsStr::new)
        .collect();
    if !request.label.is_empty() {
        arguments.extend(["-L", request.label].map(OsStr::new));
    }
    arguments.push(request.path.as_os_str());
    if request.size >= SUPPORTED {
        return MKFS.run(&arguments, &[]);
    }
    let mut small = vec![OsStr::new("--unsupported")];
    small.extend(&arguments);
    match MKFS.run(&small, &[]) {
        // Older ones have neither the option nor the limit.
        Err(Error::ToolFailed { output, .. }) if output.contains("unrecognized option") => {
            MKFS.run(&arguments, &[])
        }
        result => result,
    }
}

/// An estimate of the size that is enough for `tree`: data in whole blocks, inodes, directories,
/// the smallest usual log, and a sixteenth for trees and reserves.
pub(super) fn needed(tree: &Tree) -> types::ByteSize {
    let blocks = tree.nodes().map(|(_, node)| match &node.kind {
        Kind::Regular { size } => size.div_ceil(BLOCK as u64) + 1,
        Kind::Directory { entries } => {
            2 + entries
                .iter()
                .map(|(name, _)| name.len() as u64 + 32)
                .sum::<u64>()
                / 3500
        }
        _ => 1,
    });
    let data = blocks.sum::<u64>().saturating_mul(BLOCK as u64);
    let data = data.saturating_add((tree.len() as u64 + 64).saturating_mul(INODE as u64));
    // xfsprogs 6.1: 64 MiB of log from 300 MiB on, 5.3 MiB below.
    let log = if data < 240 << 20 { 7 << 20 } else { 66 << 20 };
    let all = data
        .saturating_add(data / 16)
        .saturating_add(log)
        .max(32 << 20);
    types::ByteSize(all.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX))
}

/// The writer at work.
struct Filler<'a> {
    tree: &'a Tree,
    space: Space<'a>,
    /// The inode number of every file, by [`NodeId`].
    numbers: Vec<u64>,
}

impl Filler<'_> {
    fn add(&mut self, id: NodeId, node: &Node) -> Result<()> {
        let number = self.numbers[id.0];
        let path = || self.tree.path(id);
        let attributes = attr::make(&mut self.space, number, &node.xattrs, path)?;
        let room = attributes
            .as_ref()
            .map_or(LITERAL, attr::Attributes::data_room);
        let mut links = node.names;
        let (fork, size) = match &node.kind {
            Kind::Directory { entries } => {
                // "." and the entry of every subdirectory's ".."; the name itself is the second.
                links = self.tree.subdirectories(id).saturating_add(2);
                self.directory(number, node.parent, entries, room)?
            }
            Kind::Regular { size } => {
                let mut extents = Extents::default();
                copy::data(self.tree, id, *size, |at, bytes| {
                    self.space.write_data(&mut extents, at, bytes)
                })?;
                (extents.into_fork(&mut self.space, number, room)?, *size)
            }
            Kind::Symlink { target } => (
                extent::symlink(&mut self.space, number, target, room)?,
                target.len() as u64,
            ),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                (Fork::device(major << MINOR_BITS | minor), 0)
            }
            Kind::Fifo | Kind::Socket => (Fork::device(0), 0),
        };
        let inode = Inode {
            number,
            mode: u16::try_from(node.kind.mode_bits() | node.mode).unwrap_or(0),
            uid: node.uid,
            gid: node.gid,
            links,
            time: node.mtime,
            size,
            data: fork,
            attributes,
        };
        self.space.write_inode(&inode)
    }

    fn directory(
        &mut self,
        number: u64,
        parent: NodeId,
        entries: &[(Vec<u8>, NodeId)],
        room: usize,
    ) -> Result<(Fork, u64)> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, id)| directory::Entry {
                name,
                inode: self.numbers[id.0],
                file_type: file_type(&self.tree.node(*id).kind),
            })
            .collect();
        let parent = self.numbers[parent.0];
        directory::make(&mut self.space, number, parent, &entries, room)
    }
}

/// The type that a directory entry says, as in `xfs_dir3_ft`.
fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::Regular { .. } => 1,
        Kind::Directory { .. } => 2,
        Kind::CharDevice { .. } => 3,
        Kind::BlockDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink { .. } => 7,
    }
}
