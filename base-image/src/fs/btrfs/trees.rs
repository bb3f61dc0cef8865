//! The trees of the file system: their numbers, where their nodes are, and the ones whose items are
//! always the same.

use super::super::super::tree::Time;
use super::super::bytes::array;
use super::NODE;
use super::files::FIRST_INODE;
use super::items::{self, RootItem, kind};
use super::node::{self, Items, Key};

pub(super) const ROOT_TREE: u64 = 1;
pub(super) const EXTENT_TREE: u64 = 2;
pub(super) const CHUNK_TREE: u64 = 3;
pub(super) const DEVICE_TREE: u64 = 4;
pub(super) const FILE_TREE: u64 = 5;
pub(super) const CHECKSUM_TREE: u64 = 7;
pub(super) const UUID_TREE: u64 = 9;
pub(super) const FREE_SPACE_TREE: u64 = 10;
pub(super) const RELOCATION_TREE: u64 = 0u64.wrapping_sub(9);
/// The directory of the root tree, which names the default subvolume.
pub(super) const ROOT_TREE_DIRECTORY: u64 = 6;

/// A tree and its place: its nodes are in a row, the root last.
pub(super) struct Tree {
    pub(super) id: u64,
    pub(super) items: Items,
    pub(super) first: u64,
    /// The inode of its root directory, if it holds files.
    pub(super) directory: u64,
    pub(super) uuid: [u8; 16],
}

impl Tree {
    pub(super) fn new(id: u64, items: Items) -> Self {
        Self {
            id,
            items,
            first: 0,
            directory: 0,
            uuid: [0; 16],
        }
    }

    pub(super) fn levels(&self) -> Vec<usize> {
        node::levels(self.items.values().map(Vec::len))
    }

    pub(super) fn nodes(&self) -> usize {
        self.levels().iter().sum()
    }

    pub(super) fn root(&self) -> u64 {
        self.first + ((self.nodes() - 1) * NODE) as u64
    }

    pub(super) fn level(&self) -> u8 {
        u8::try_from(self.levels().len() - 1).unwrap_or(u8::MAX)
    }

    /// Adds the items of the extent tree for this tree's nodes.
    pub(super) fn describe(&self, levels: &[usize], items: &mut Items) {
        let mut at = self.first;
        for (level, count) in (0..).zip(levels) {
            for _ in 0..*count {
                let key = Key::new(at, kind::METADATA_ITEM, level);
                items.insert(key, items::node_reference(self.id));
                at += NODE as u64;
            }
        }
    }

    /// Whether `key` describes one of this tree's `nodes` nodes.
    pub(super) fn contains(&self, key: &Key, nodes: usize) -> bool {
        let end = self.first + (nodes * NODE) as u64;
        key.item_type == kind::METADATA_ITEM && (self.first..end).contains(&key.object)
    }
}

/// The root tree: where all others are, and the name of the default subvolume.
pub(super) fn root_items(trees: &[Tree], time: Time) -> Items {
    let mut roots = Items::new();
    for tree in trees {
        let item = RootItem {
            address: tree.root(),
            level: tree.level(),
            used: (tree.nodes() * NODE) as u64,
            directory: tree.directory,
            uuid: tree.uuid,
            time,
        };
        roots.insert(Key::new(tree.id, kind::ROOT_ITEM, 0), item.encode());
    }
    let directory = ROOT_TREE_DIRECTORY;
    let mut inode = items::internal_directory(time);
    inode.bytes = NODE as u64;
    roots.insert(Key::new(directory, kind::INODE_ITEM, 0), inode.encode());
    roots.insert(
        Key::new(directory, kind::INODE_REF, directory),
        items::inode_ref(0, b".."),
    );
    let to = Key::new(FILE_TREE, kind::ROOT_ITEM, u64::MAX);
    let name = Key::new(directory, kind::DIR_ITEM, items::name_hash(b"default"));
    roots.insert(name, items::dir_item(to, 2, b"default", &[]));
    let back = Key::new(FILE_TREE, kind::INODE_REF, directory);
    roots.insert(back, items::inode_ref(0, b"default"));
    roots
}

pub(super) fn uuid_items(uuid: &[u8; 16]) -> Items {
    let half = |at: usize| u64::from_le_bytes(array(uuid, at));
    let key = Key::new(half(0), kind::UUID_KEY_SUBVOL, half(8));
    Items::from([(key, FILE_TREE.to_le_bytes().to_vec())])
}

/// The tree that the kernel uses when it moves data: an empty directory.
pub(super) fn relocation_items(time: Time) -> Items {
    let inode = FIRST_INODE;
    Items::from([
        (
            Key::new(inode, kind::INODE_ITEM, 0),
            items::internal_directory(time).encode(),
        ),
        (
            Key::new(inode, kind::INODE_REF, inode),
            items::inode_ref(0, b".."),
        ),
    ])
}
