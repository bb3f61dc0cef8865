//! The limits of each type of file system, reported with the name of the file before its tool runs.

use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;

use tree::{Kind, Node, NodeId, Tree};

use super::{Request, btrfs, ext4, xfs};
use crate::error::{Error, Result};
use crate::request::FileSystem;

/// The longest name in a directory, on all of them.
const NAME_MAX: usize = 255;
/// An owner that stands for "none" to the kernel.
const NOBODY: u32 = u32::MAX;

/// Where the tools that repair ext4 and XFS put what they find.
pub(super) const LOST_FOUND: &[u8] = b"lost+found";

/// The limits of one kind.
struct Limits {
    name: &'static str,
    /// The smallest disk, and what its users should know about small ones.
    size_min: u64,
    small: &'static str,
    /// The largest file, in bytes.
    file_max: u64,
    /// The longest target of a symbolic link, in bytes.
    target_max: usize,
    /// The most names of one file.
    names_max: u32,
    /// Times, in seconds since 1970, and what they are to people.
    seconds: RangeInclusive<i64>,
    years: &'static str,
    /// Whatever only this kind refuses.
    other: fn(&Node) -> Option<String>,
    /// Whether `lost+found` at the top must be a directory.
    lost_found: bool,
}

const EXT4: Limits = Limits {
    name: "ext4",
    size_min: ext4::SIZE_MIN,
    small: " (a smaller one has no journal)",
    // 32 bits for the number of a block in a file.
    file_max: ((1 << 32) - 1) << 12,
    target_max: 4095,
    names_max: ext4::LINKS_MAX,
    seconds: -(1 << 31)..=(1 << 34) - (1 << 31) - 1,
    years: "1901-12-13 to 2446-05-10",
    other: ext4::refuses,
    lost_found: true,
};

const XFS: Limits = Limits {
    name: "XFS",
    size_min: 32 << 20,
    small: " (xfsprogs supports XFS from 300Mi on)",
    file_max: i64::MAX.cast_unsigned(),
    target_max: 1023,
    names_max: i32::MAX.cast_unsigned(),
    seconds: xfs::SECONDS,
    years: "1901-12-13 to 2486-07-02",
    other: xfs::refuses,
    lost_found: true,
};

const BTRFS: Limits = Limits {
    name: "btrfs",
    size_min: btrfs::SIZE_MIN,
    small: "",
    file_max: i64::MAX.cast_unsigned(),
    target_max: btrfs::TARGET_MAX,
    names_max: 65_535,
    seconds: i64::MIN..=i64::MAX,
    years: "",
    other: btrfs::refuses,
    lost_found: false,
};

/// Looks at the size and at every file.
pub(super) fn check(kind: FileSystem, request: &Request) -> Result<()> {
    let limits = match kind {
        FileSystem::Ext4 => EXT4,
        FileSystem::Xfs => XFS,
        FileSystem::Btrfs => BTRFS,
        FileSystem::None => return Ok(()),
    };
    if request.size < limits.size_min {
        let problem = format!(
            "must be at least {}Mi for {}{}",
            limits.size_min >> 20,
            limits.name,
            limits.small
        );
        return Err(Error::Option {
            option: "--size",
            problem,
        });
    }
    let tree = request.tree;
    for (id, node) in tree.nodes() {
        limits.check(tree, id, node)?;
    }
    Ok(())
}

impl Limits {
    fn check(&self, tree: &Tree, id: NodeId, node: &Node) -> Result<()> {
        if let Kind::Directory { entries } = &node.kind {
            let long = entries.iter().find(|(name, _)| name.len() > NAME_MAX);
            if let Some((name, _)) = long {
                let path = tree.path(id).join(std::ffi::OsStr::from_bytes(name));
                let why = format!("{} supports names of up to {NAME_MAX} bytes", self.name);
                return Err(Error::Unsupported { path, why });
            }
        }
        let directory = matches!(node.kind, Kind::Directory { .. });
        let found = if self.lost_found && !directory && tree.top(LOST_FOUND) == Some(id) {
            let name = self.name;
            Some(format!(
                "on {name} this name in the root directory must be a directory; rename it"
            ))
        } else {
            self.refuses(node).or_else(|| (self.other)(node))
        };
        found.map_or(Ok(()), |why| {
            let path = tree.path(id);
            Err(Error::Unsupported { path, why })
        })
    }

    fn refuses(&self, node: &Node) -> Option<String> {
        let name = self.name;
        match &node.kind {
            Kind::Regular { size } if *size > self.file_max => {
                let max = self.file_max;
                return Some(format!(
                    "it has {size} bytes; {name} supports files of up to {max}"
                ));
            }
            Kind::Symlink { target } if target.len() > self.target_max => {
                let (length, max) = (target.len(), self.target_max);
                return Some(format!(
                    "it is a symbolic link with a target of {length} bytes; {name} supports \
                     {max}"
                ));
            }
            _ => {}
        }
        if node.names > self.names_max {
            let (count, max) = (node.names, self.names_max);
            return Some(format!(
                "it has {count} names (hard links); {name} supports {max}"
            ));
        }
        if !self.seconds.contains(&node.mtime.seconds) {
            let (seconds, years) = (node.mtime.seconds, self.years);
            return Some(format!(
                "its modification time, {seconds} seconds from 1970, is outside the range of \
                 {name}: {years}"
            ));
        }
        (node.uid == NOBODY || node.gid == NOBODY)
            .then(|| format!("its owner or group is {NOBODY}, which is not a valid id"))
    }
}
