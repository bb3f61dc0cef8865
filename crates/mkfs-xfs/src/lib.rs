//! Fills an empty XFS with a tree of files.
//!
//! **Ends with xfsprogs 6.18**: from there on `mkfs.xfs -p DIR` fills a file system itself, with SOURCE_DATE_EPOCH
//! and DETERMINISTIC_SEED to the same bytes each time. The prototype files of older ones know no modification times,
//! hard links, attributes or names with spaces. When no distribution that is supported has an older one, this crate
//! goes. Owns the structures on the disk; it must not know where the tree comes from, nor run a tool.
//!
//! The writer only ever fills a fresh file system, so every structure is written once, in its final
//! form: the inodes first, then directories, attributes and data one after the other, each group's
//! free space shrinking from its start; the headers and the roots of the free-space and inode trees
//! last. Offsets and limits are those of "XFS Algorithms & Data Structures", 3rd edition, version 5
//! of the format. Nothing here is random or from the clock. `xfs_repair -n` is the judge in the tests.

mod attr;
mod bytes;
mod directory;
mod error;
mod extent;
mod fork;
mod group;
mod inode;
mod layout;
mod request;
mod space;

use tree::{Kind, Node, NodeId, Tree};

pub use attr::refuses;
pub use error::{Error, Result};
pub use request::Request;

use extent::Extents;
use fork::{Attributes, Fork};
use inode::Inode;
use layout::LITERAL;
use space::Space;

/// The bits of a device number that say the device.
pub const MINOR_BITS: u32 = 18;
/// The options for `mkfs.xfs` that make what [`fill`] can fill, for a disk of `size` bytes.
pub fn options(size: u64, uuid: &str) -> Vec<String> {
    const GROUP_MIN: u64 = 16 << 20;
    const GROUP_MAX: u64 = 1 << 40;
    let groups = (size / GROUP_MIN).clamp(1, 4).max(size.div_ceil(GROUP_MAX));
    let data = format!("agcount={groups},su=0,sw=0");
    let meta = format!("crc=1,finobt=1,inobtcount=1,bigtime=1,reflink=1,rmapbt=0,uuid={uuid}");
    let options = [
        ["-b", "size=4096"],
        ["-s", "size=4096"],
        ["-i", "size=512,sparse=1"],
        ["-n", "size=4096,ftype=1"],
        ["-m", &meta],
        ["-d", &data],
    ];
    options.concat().into_iter().map(str::to_owned).collect()
}

/// Puts the whole tree into the empty file system.
pub fn fill(request: &Request) -> Result<()> {
    let tree = request.tree;
    let mut space = Space::open(request)?;
    let numbers = space.allocate_inodes(tree.count())?;
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
        let room = attributes.as_ref().map_or(LITERAL, Attributes::data_room);
        let mut links = node.names;
        let (fork, size) = match &node.kind {
            Kind::Directory { entries } => {
                // "." and the entry of every subdirectory's ".."; the name itself is the second.
                links = self.tree.subdirectories(id).saturating_add(2);
                self.directory(number, node.parent, entries, room)?
            }
            Kind::Regular { size } => {
                let mut extents = Extents::default();
                self.tree.data(id, *size, |at, bytes| {
                    extents.write(&mut self.space, at, bytes)
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
