//! The items of the files.

use super::super::super::tree::{Kind, Node, NodeId, Tree};
use super::items::{self, InodeItem, kind};
use super::layout::Layout;
use super::node::{Items, Key, MAX_ITEM};
use super::trees::FILE_TREE;
use super::{Error, Result, SECTOR, copy};

/// Files up to this size are kept in the tree, as the kernel does by default (`max_inline`).
pub(super) const MAX_INLINE: u64 = 2048;
/// The first inode of every tree of files: its root directory.
pub(super) const FIRST_INODE: u64 = 256;
/// The type of extended attributes among the types of directory entries.
const TYPE_XATTR: u8 = 8;

/// The tree of the files, as it is collected.
pub(super) struct Files {
    pub(super) items: Items,
}

/// The inode number of a file.
fn number(id: NodeId) -> u64 {
    FIRST_INODE + id.0 as u64
}

impl Files {
    /// Copies the contents of all files and collects their items.
    pub(super) fn collect(tree: &Tree, layout: &mut Layout) -> Result<Self> {
        let mut files = Self {
            items: Items::new(),
        };
        let root = Key::new(FIRST_INODE, kind::INODE_REF, FIRST_INODE);
        files.items.insert(root, items::inode_ref(0, b".."));
        for (id, node) in tree.nodes() {
            files.add(tree, layout, id, node)?;
        }
        Ok(files)
    }

    fn add(&mut self, tree: &Tree, layout: &mut Layout, id: NodeId, node: &Node) -> Result<()> {
        let inode = number(id);
        let (mut size, mut bytes, mut device) = (0, 0, 0);
        match &node.kind {
            Kind::Directory { entries } => {
                size = entries.iter().map(|(name, _)| 2 * name.len() as u64).sum();
                for (index, (name, to)) in (2..).zip(entries) {
                    self.add_name(inode, index, name, *to, file_type(&tree.node(*to).kind));
                }
            }
            Kind::Regular { size: length } => {
                size = *length;
                bytes = self.add_contents(tree, layout, id, size)?;
            }
            Kind::Symlink { target } => {
                (size, bytes) = (target.len() as u64, target.len() as u64);
                let key = Key::new(inode, kind::EXTENT_DATA, 0);
                self.items.insert(key, items::inline_extent(target));
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                // The kernel's own form: 12 bits and 20 bits.
                device = u64::from(*major) << 20 | u64::from(*minor);
            }
            Kind::Fifo | Kind::Socket => {}
        }
        let item = InodeItem {
            size,
            bytes,
            links: node.names,
            uid: node.uid,
            gid: node.gid,
            mode: node.kind.mode_bits() | node.mode,
            device,
            time: node.mtime,
        };
        self.items
            .insert(Key::new(inode, kind::INODE_ITEM, 0), item.encode());
        for xattr in &node.xattrs {
            let key = Key::new(inode, kind::XATTR_ITEM, items::name_hash(&xattr.name));
            let to = Key::new(0, 0, 0);
            let item = self.items.entry(key).or_default();
            let more = items::dir_item(to, TYPE_XATTR, &xattr.name, &xattr.value);
            if item.len() + more.len() > MAX_ITEM {
                let why = "one of its extended attributes is larger than btrfs can hold".into();
                return Err(Error::Unsupported {
                    path: tree.path(id),
                    why,
                });
            }
            item.extend(more);
        }
        Ok(())
    }

    /// Adds a name to a directory, and to the file that it names.
    fn add_name(&mut self, directory: u64, index: u64, name: &[u8], to: NodeId, file_type: u8) {
        let inode = number(to);
        let target = Key::new(inode, kind::INODE_ITEM, 0);
        let entry = items::dir_item(target, file_type, name, &[]);
        self.items
            .insert(Key::new(directory, kind::DIR_INDEX, index), entry.clone());
        let hashed = Key::new(directory, kind::DIR_ITEM, items::name_hash(name));
        self.items.entry(hashed).or_default().extend(entry);

        let back = self
            .items
            .entry(Key::new(inode, kind::INODE_REF, directory))
            .or_default();
        let name_of = items::inode_ref(index, name);
        if back.len() + name_of.len() <= MAX_ITEM {
            back.extend(name_of);
            return;
        }
        let key = Key::new(
            inode,
            kind::INODE_EXTREF,
            items::extref_hash(directory, name),
        );
        let item = items::inode_extref(directory, index, name);
        self.items.entry(key).or_default().extend(item);
    }

    /// Copies a file's contents; returns how many bytes its extents stand for.
    fn add_contents(
        &mut self,
        tree: &Tree,
        layout: &mut Layout,
        id: NodeId,
        size: u64,
    ) -> Result<u64> {
        let inode = number(id);
        if size <= MAX_INLINE {
            let mut bytes = 0;
            copy::data(tree, id, size, |_, contents| {
                bytes = contents.len() as u64;
                let key = Key::new(inode, kind::EXTENT_DATA, 0);
                self.items.insert(key, items::inline_extent(contents));
                Ok(())
            })?;
            return Ok(bytes);
        }
        let mut extents: Vec<Extent> = Vec::new();
        copy::data(tree, id, size, |offset, contents| {
            let (address, length) = layout.write_data(contents)?;
            match extents.last_mut() {
                Some(last) if last.goes_on(offset, address, length) => last.length += length,
                _ => extents.push(Extent {
                    offset,
                    address,
                    length,
                }),
            }
            Ok(())
        })?;
        for Extent {
            offset,
            address,
            length,
        } in &extents
        {
            let key = Key::new(inode, kind::EXTENT_DATA, *offset);
            self.items.insert(key, items::extent(*address, *length));
            let key = Key::new(*address, kind::EXTENT_ITEM, *length);
            layout
                .extents
                .insert(key, items::data_reference(FILE_TREE, inode, *offset));
        }
        Ok(extents.iter().map(|extent| extent.length).sum())
    }
}

/// A run of a file's bytes on the disk, in whole sectors.
struct Extent {
    offset: u64,
    address: u64,
    length: u64,
}

impl Extent {
    /// Whether more bytes can be added at the end of this.
    fn goes_on(&self, offset: u64, address: u64, length: u64) -> bool {
        /// The kernel's `BTRFS_MAX_EXTENT_SIZE`.
        const MAX_LENGTH: u64 = 128 << 20;
        self.offset + self.length == offset
            && self.address + self.length == address
            && self.length + length <= MAX_LENGTH
            && !address.is_multiple_of(super::layout::DATA_CHUNK)
            && self.length.is_multiple_of(SECTOR)
    }
}

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
