//! btrfs, by `mkfs.btrfs --rootdir`.
//!
//! Its bytes differ between runs: the tool writes times and random UUIDs, and reads directories in
//! any order. It loses the owner, mode, time and attributes of the root directory, nanoseconds, and
//! holes (btrfs-progs 6.2, measured); docs/base-images.md says so. Contents that it would silently
//! change are rejected.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use tree::{Kind, Node, ROOT, Tree, Xattr};
use types::ByteSize;

use super::{Request, uuid_text};
use crate::error::{Error, Result, io};
use crate::tool::Tool;

const MKFS: Tool = Tool {
    name: "mkfs.btrfs",
    package: "btrfs-progs",
    limit: Duration::from_hours(6),
};

/// The tool enlarges whatever is smaller (to 45 MiB for nothing but a directory).
pub(super) const SIZE_MIN: u64 = 48 << 20;
/// The longest extended attribute, name and value, in bytes: a leaf of 16 KiB less its header (101), the header of the
/// item (25) and that of the attribute (30).
const XATTR_MAX: usize = 16_384 - 101 - 25 - 30;

/// The longest target of a symbolic link, in bytes: the tool writes the zero behind it too, and the kernel's limit
/// counts it.
pub(super) const TARGET_MAX: usize = 4094;
/// The longest path that the tool opens, in bytes.
const PATH_MAX: usize = 4095;

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
    let source = request.tree.path(ROOT);
    let source = source.canonicalize().map_err(io("resolve", source))?;
    let (deepest, length) = request.tree.deepest();
    let length = source.as_os_str().len() + 1 + length;
    if length > PATH_MAX {
        let path = request.tree.path(deepest);
        let why = format!(
            "its path has {length} bytes, and mkfs.btrfs takes {PATH_MAX}; use --fs ext4 or xfs"
        );
        return Err(Error::Unsupported { path, why });
    }
    let uuid = uuid_text(&request.uuid);
    let options = [
        "-q", "-d", "single", "-m", "single", "-n", "16384", "-s", "4096", "-U",
    ];
    let mut arguments: Vec<&OsStr> = options.map(OsStr::new).to_vec();
    arguments.extend([&uuid, "-L", request.label, "--rootdir"].map(OsStr::new));
    arguments.extend([source.as_os_str(), request.path.as_os_str()]);
    MKFS.run(&arguments, &[])?;
    // What does not fit makes the tool enlarge the file.
    let made = fs::metadata(request.path).map_err(io("look at", request.path))?;
    if made.len() > request.size {
        return Err(Error::TooSmall {
            file_system: "btrfs",
            size: request.size,
            needed: ByteSize(made.len()),
        });
    }
    Ok(())
}

/// Why a file cannot be put on btrfs, as far as only this kind has the reason.
pub(super) fn refuses(node: &Node) -> Option<String> {
    if matches!(
        node.kind,
        Kind::CharDevice { .. } | Kind::BlockDevice { .. }
    ) {
        let why = "it is a device node, and mkfs.btrfs loses device numbers; use --fs ext4 or xfs";
        return Some(why.into());
    }
    if node.links > node.names {
        let others = node.links - node.names;
        return Some(format!(
            "it has {others} more names (hard links) outside of the directory, which mkfs.btrfs counts; \
             copy the directory first (cp -a), or use --fs ext4 or xfs"
        ));
    }
    for Xattr { name, value } in &node.xattrs {
        if name.len() + value.len() > XATTR_MAX {
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

/// An estimate of the size that is enough for `tree`. If it is too small, the tool says what it needs.
pub(super) fn needed(tree: &Tree) -> ByteSize {
    let size = |node: &Node| match node.kind {
        Kind::Regular { size } => size,
        _ => 0,
    };
    let data = tree.nodes().map(|(_, node)| size(node)).sum::<u64>();
    let files = (tree.count() as u64).saturating_mul(20 << 10);
    let all = data
        .saturating_add(data / 16)
        .saturating_add(files)
        .saturating_add(SIZE_MIN);
    ByteSize(all.checked_next_multiple_of(1 << 20).unwrap_or(u64::MAX))
}
