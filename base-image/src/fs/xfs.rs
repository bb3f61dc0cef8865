//! XFS: an empty file system by `mkfs.xfs`, filled by the crate `mkfs_xfs`.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tree::{Kind, Node, Tree};

use super::{Request, uuid_text};
use crate::error::{Error, Result};
use crate::tool::Tool;

const MKFS: Tool = Tool {
    name: "mkfs.xfs",
    package: "xfsprogs",
    limit: Duration::from_hours(1),
};

const BLOCK: u64 = 4096;
/// Bytes of an inode.
const INODE: u64 = 512;
/// Below this size the tool refuses (xfsprogs 5.19 and later) unless told that we know.
const SUPPORTED: u64 = 300 << 20;

/// The bits of a device number that say the driver.
const MAJOR_BITS: u32 = 14;
/// Times in seconds since 1970: 64 bits of nanoseconds from 1901 on, as the kernel bounds them
/// (`XFS_BIGTIME_TIME_MAX`).
pub(super) const SECONDS: RangeInclusive<i64> = -(1 << 31)..=18_446_744_072 - (1 << 31);

/// Why a file cannot be put on XFS, as far as only this kind has the reason.
pub(super) fn refuses(node: &Node) -> Option<String> {
    if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = node.kind
        && (major >> MAJOR_BITS > 0 || minor >> mkfs_xfs::MINOR_BITS > 0)
    {
        return Some(format!(
            "XFS cannot store its device number, {major}:{minor}"
        ));
    }
    mkfs_xfs::refuses(&node.xattrs)
}

/// Makes the file system.
pub(super) fn make(request: &Request) -> Result<()> {
    run_mkfs(request)?;
    let fill = mkfs_xfs::Request {
        tree: request.tree,
        image: request.image,
        path: request.path,
        uuid: request.uuid,
    };
    mkfs_xfs::fill(&fill).map_err(|error| match error {
        mkfs_xfs::Error::Full => Error::TooSmall {
            file_system: "xfs",
            size: request.size,
            needed: needed(request.tree),
        },
        error => Error::Xfs(error),
    })
}

fn run_mkfs(request: &Request) -> Result<()> {
    let options = mkfs_xfs::options(request.size, &uuid_text(&request.uuid));
    let mut arguments: Vec<&OsStr> = ["-q", "-K"].map(OsStr::new).to_vec();
    arguments.extend(options.iter().map(OsStr::new));
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
        Kind::Regular { size } => size.div_ceil(BLOCK) + 1,
        Kind::Directory { entries } => {
            2 + entries
                .iter()
                .map(|(name, _)| name.len() as u64 + 32)
                .sum::<u64>()
                / 3500
        }
        _ => 1,
    });
    let data = blocks.sum::<u64>().saturating_mul(BLOCK);
    let data = data.saturating_add((tree.count() as u64 + 64).saturating_mul(INODE));
    // xfsprogs 6.1: 64 MiB of log from 300 MiB on, 5.3 MiB below.
    let log = if data < 240 << 20 { 7 << 20 } else { 66 << 20 };
    let all = data
        .saturating_add(data / 16)
        .saturating_add(log)
        .max(32 << 20);
    types::ByteSize(all.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX))
}
