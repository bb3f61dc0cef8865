//! ext4: `mkfs.ext4 -d`, after which every inode is set to the values of the tree.
//!
//! The tool copies access and change times from the source, stamps creation times from the clock,
//! drops the nanoseconds, does not copy the root's owner, mode and time, and puts extended attributes
//! in the order in which the source lists them.

mod attr;
mod disk;
mod inodes;

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use tree::{Kind, Node, ROOT, Tree};

use super::limits::LOST_FOUND;
use super::{Request, uuid_text};
use crate::error::{Error, Result, io};
use crate::tool::Tool;
use disk::Disk;

const MKFS: Tool = Tool {
    name: "mkfs.ext4",
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
/// For every name that it adds, the tool reads the whole directory: this many names a second are read
/// on a usual machine (measured with 8,000 names).
const NAMES_READ_PER_SECOND: u64 = 20_000_000;
/// The length of a path from which on the tool is known to end by a fault of its own (1.47.0).
const LONG_PATH: usize = 1024;

/// Makes the file system.
pub(super) fn make(request: &Request) -> Result<()> {
    run_mkfs(request)?;
    inodes::set(&Disk::open(request)?, request.tree)
}

/// Why a file cannot be put on ext4, as far as only this kind has the reason.
pub(super) fn refuses(node: &Node) -> Option<String> {
    if filling_time(node) > MKFS.limit {
        return Some(format!(
            "mkfs.ext4 would need more than {} hours for so many names in one directory; use \
             --fs xfs, or more directories",
            MKFS.limit.as_secs() / 3600
        ));
    }
    attr::Placed::new(&node.xattrs).err()
}

/// How long the tool takes for the names of a directory, as an estimate: it grows with their square.
fn filling_time(node: &Node) -> Duration {
    let Kind::Directory { entries } = &node.kind else {
        return Duration::ZERO;
    };
    let names = entries.len() as u64;
    Duration::from_secs(names.saturating_mul(names) / NAMES_READ_PER_SECOND)
}

/// What takes the tool long, with an estimate.
pub(super) fn slow(tree: &Tree) -> Option<String> {
    let (id, node) = tree.nodes().max_by_key(|(_, node)| filling_time(node))?;
    let minutes = filling_time(node).as_secs() / 60;
    (minutes > 0).then(|| {
        format!(
            "{} holds very many names: mkfs.ext4 needs about {minutes} minutes for it; \
             --fs xfs needs seconds",
            tree.path(id).display()
        )
    })
}

fn run_mkfs(request: &Request) -> Result<()> {
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
    let rest = [
        &inodes,
        "-E",
        &extended,
        "-U",
        &uuid,
        "-L",
        request.label,
        "-d",
    ];
    arguments.extend(rest.map(OsStr::new));
    arguments.extend([source.as_os_str(), request.path.as_os_str()]);
    // Zero would mean the clock to the tool.
    let now = tree
        .newest()
        .seconds
        .clamp(1, i64::from(u32::MAX))
        .to_string();
    let environment = [
        // The administrator's defaults must not change the result; everything is given above.
        ("MKE2FS_CONFIG", OsString::from("/dev/null")),
        ("E2FSPROGS_FAKE_TIME", OsString::from(now)),
        ("MKE2FS_SKIP_PROGRESS", OsString::from("1")),
    ];
    MKFS.run(&arguments, &environment)
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
    let data = data.saturating_add(inodes);
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
