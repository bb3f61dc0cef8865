//! ext4: `mkfs.ext4 -d`, after which every inode is set to the values of the tree.
//!
//! For every name that it adds, the tool reads the whole directory (before e2fsprogs 1.47.3). So with
//! many names in one directory it only makes the empty file system, which `fill` fills; `e2fsck -D`
//! then indexes the directories, without which a node would search them as slowly.
//!
//! The tool copies access and change times from the source, stamps creation times from the clock,
//! drops the nanoseconds, does not copy the root's owner, mode and time, and puts extended attributes
//! in the order in which the source lists them.

mod attr;
mod directory;
mod disk;
mod fill;
mod inodes;

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use tree::{Kind, Node, ROOT, Tree};

use super::limits::LOST_FOUND;
use super::{Request, uuid_text};
use crate::error::{Error, Result, io};
use crate::tool::Tool;
use disk::{Disk, unknown};

const MKFS: Tool = Tool {
    name: "mkfs.ext4",
    package: "e2fsprogs",
    limit: Duration::from_hours(6),
};
const E2FSCK: Tool = Tool {
    name: "e2fsck",
    package: "e2fsprogs",
    limit: Duration::from_hours(6),
};

/// What `mke2fs.conf` of e2fsprogs 1.46 gives to ext4: any kernel since 4.9 mounts it read-write.
/// The newer `orphan_file` and `metadata_csum_seed` are left out for the sake of old nodes.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,\
                        flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
/// Bytes per inode, as in `mke2fs.conf`.
const INODE_RATIO: u64 = 16384;
/// Inodes that the tree does not use: the reserved ones and `lost+found`.
const RESERVED_INODES: u64 = 11;
/// Below this size the tool makes no journal, and says so only to those who look.
pub(super) const SIZE_MIN: u64 = 8 << 20;
/// The most names of one file, and the most subdirectories that a directory counts.
pub(super) const LINKS_MAX: u32 = 65_000;
/// How many names `mkfs.ext4 -d` may read to add others: what it reads in two seconds on a usual machine
/// (measured with 8,000 names).
const NAMES_READ_MAX: u64 = 40_000_000;
/// The length of a path from which on the tool is known to end by a fault of its own (1.47.0).
const LONG_PATH: usize = 1024;

/// Makes the file system.
pub(super) fn make(request: &Request) -> Result<()> {
    let environment = environment(request.tree);
    let by_mkfs = names_read(request.tree) <= NAMES_READ_MAX;
    run_mkfs(request, by_mkfs, &environment)?;
    if !by_mkfs {
        fill::fill(request, &environment).map_err(|error| explain(request, error))?;
    }
    inodes::set(&Disk::open(request)?, request.tree)?;
    if by_mkfs {
        return Ok(());
    }
    // What is not whole is told, and not repaired by the indexing.
    let path = request.path.as_os_str();
    E2FSCK
        .run(&["-f".as_ref(), "-n".as_ref(), path], &environment)
        .map_err(|error| match error {
            Error::ToolFailed {
                tool,
                status,
                output,
            } => Error::NotWhole {
                tool,
                status,
                output,
            },
            error => error,
        })?;
    let arguments = ["-f", "-y", "-D"].map(OsStr::new);
    E2FSCK.run_changing(&[&arguments[..], &[path]].concat(), &environment)
}

/// Why a file cannot be put on ext4, as far as only this kind has the reason.
pub(super) fn refuses(node: &Node) -> Option<String> {
    attr::Placed::new(&node.xattrs).err()
}

/// How many names `mkfs.ext4 -d` would read in directories to add all of the tree.
fn names_read(tree: &Tree) -> u64 {
    let directories = tree.nodes().map(|(_, node)| match &node.kind {
        Kind::Directory { entries } => entries.len() as u64,
        _ => 0,
    });
    directories
        .map(|names| names.saturating_mul(names))
        .fold(0, u64::saturating_add)
}

/// What decides about the tools besides their options.
fn environment(tree: &Tree) -> [(&'static str, OsString); 5] {
    // Zero would mean the clock to the tools.
    let now = tree.newest().seconds.clamp(1, i64::from(u32::MAX));
    let now = now.to_string();
    [
        // The administrator's defaults must not change the result; everything is given.
        ("MKE2FS_CONFIG", "/dev/null".into()),
        ("E2FSCK_CONFIG", "/dev/null".into()),
        ("E2FSPROGS_FAKE_TIME", now.clone().into()),
        ("E2FSCK_TIME", now.into()),
        ("MKE2FS_SKIP_PROGRESS", "1".into()),
    ]
}

fn run_mkfs(request: &Request, with_tree: bool, environment: &[(&str, OsString)]) -> Result<()> {
    let tree = request.tree;
    let source = tree.path(ROOT);
    let source = source.canonicalize().map_err(io("resolve", source))?;
    let uuid = uuid_text(&request.uuid);
    let files = tree.count() as u64 + RESERVED_INODES;
    let inodes = (request.size / INODE_RATIO).max(files + files / 8);
    let inodes = inodes.to_string();
    let extended = format!("lazy_itable_init=0,lazy_journal_init=0,nodiscard,hash_seed={uuid}");
    let mut arguments: Vec<&OsStr> = [
        "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES, "-N",
    ]
    .map(OsStr::new)
    .to_vec();
    let rest = [&inodes, "-E", &extended, "-U", &uuid, "-L", request.label];
    arguments.extend(rest.map(OsStr::new));
    if with_tree {
        arguments.extend([OsStr::new("-d"), source.as_os_str()]);
    }
    arguments.push(request.path.as_os_str());
    MKFS.run(&arguments, environment)
        .map_err(|error| explain(request, error))
}

/// The error of the tool as one that says what to do.
fn explain(request: &Request, error: Error) -> Error {
    let tree = request.tree;
    let Error::ToolFailed { output, status, .. } = &error else {
        return error;
    };
    if is_full(output) {
        return Error::TooSmall {
            file_system: "ext4",
            size: request.size,
            needed: needed(tree),
        };
    }
    if output.contains("while setting xattrs") {
        let size = |node: &Node| {
            node.xattrs
                .iter()
                .map(|x| x.name.len() + x.value.len())
                .sum()
        };
        let largest = tree.nodes().max_by_key(|(_, node)| -> usize { size(node) });
        let path = tree.path(largest.map_or(ROOT, |(id, _)| id));
        let why = "mkfs.ext4 has no space for its extended attributes; use --fs btrfs".into();
        return Error::Unsupported { path, why };
    }
    let (deepest, length) = tree.deepest();
    if length > LONG_PATH && status.contains("signal") {
        let why = format!(
            "mkfs.ext4 crashed ({status}), as some versions do on paths of this length; use \
             --fs xfs"
        );
        let path = tree.path(deepest);
        return Error::Unsupported { path, why };
    }
    error
}

/// What libext2fs says when blocks or inodes run out.
fn is_full(output: &str) -> bool {
    [
        "Could not allocate",
        "No free",
        "not enough space",
        "too small",
        "No space left",
    ]
    .iter()
    .any(|text| output.contains(text))
}

/// An estimate of the size that is enough for `tree`: data in whole blocks, inodes, directories,
/// the journal, and a sixteenth for bitmaps, extents and the like.
pub(super) fn needed(tree: &Tree) -> types::ByteSize {
    const BLOCK: u64 = 4096;
    let blocks = tree.nodes().map(|(_, node)| match &node.kind {
        Kind::Regular { size } => size.div_ceil(BLOCK) + 1,
        Kind::Directory { entries } => 1 + entries.len() as u64 / 12,
        _ => 1,
    });
    let data = blocks.sum::<u64>().saturating_mul(BLOCK);
    let inodes = (tree.count() as u64 + RESERVED_INODES).saturating_mul(256 + 64);
    // Where many names are in one directory: a block for every batch of files (`fill`).
    let batches = tree.count() as u64 / 200 * BLOCK;
    let data = data.saturating_add(inodes).saturating_add(batches);
    // e2fsprogs: 4 MiB of journal below 128 MiB, 16 below 1 GiB, up to 1 GiB beyond.
    let journal = match data >> 20 {
        0..100 => 5 << 20,
        100..900 => 20 << 20,
        900..7000 => 130 << 20,
        _ => 1100 << 20,
    };
    let all = data.saturating_add(data / 16).saturating_add(journal);
    let all = all.max(SIZE_MIN);
    types::ByteSize(all.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX))
}
