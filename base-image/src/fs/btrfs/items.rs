//! The items: little-endian structures, by type.

use super::super::super::tree::Time;
use super::crc32c;
use super::node::{GENERATION, Key};

/// The types of items, as in `btrfs_tree.h`.
pub(super) mod kind {
    pub(in super::super) const INODE_ITEM: u8 = 1;
    pub(in super::super) const INODE_REF: u8 = 12;
    pub(in super::super) const INODE_EXTREF: u8 = 13;
    pub(in super::super) const XATTR_ITEM: u8 = 24;
    pub(in super::super) const DIR_ITEM: u8 = 84;
    pub(in super::super) const DIR_INDEX: u8 = 96;
    pub(in super::super) const EXTENT_DATA: u8 = 108;
    pub(in super::super) const EXTENT_CSUM: u8 = 128;
    pub(in super::super) const ROOT_ITEM: u8 = 132;
    pub(in super::super) const EXTENT_ITEM: u8 = 168;
    pub(in super::super) const METADATA_ITEM: u8 = 169;
    pub(in super::super) const BLOCK_GROUP_ITEM: u8 = 192;
    pub(in super::super) const FREE_SPACE_INFO: u8 = 198;
    pub(in super::super) const FREE_SPACE_EXTENT: u8 = 199;
    pub(in super::super) const DEV_EXTENT: u8 = 204;
    pub(in super::super) const DEV_ITEM: u8 = 216;
    pub(in super::super) const CHUNK_ITEM: u8 = 228;
    pub(in super::super) const UUID_KEY_SUBVOL: u8 = 251;
}

/// Appends fields one after the other.
#[derive(Debug, Default)]
pub(super) struct Fields(pub(super) Vec<u8>);

impl Fields {
    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    pub(super) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }
    pub(super) fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
    fn time(self, time: Time) -> Self {
        self.bytes(&time.seconds.to_le_bytes())
            .u32(time.nanoseconds)
    }
}

/// What an inode says.
pub(super) struct InodeItem {
    pub(super) size: u64,
    /// The bytes its extents stand for.
    pub(super) bytes: u64,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) device: u64,
    pub(super) time: Time,
}

impl InodeItem {
    pub(super) fn encode(&self) -> Vec<u8> {
        let fields = Fields::default()
            .u64(GENERATION)
            .u64(GENERATION)
            .u64(self.size);
        let fields = fields
            .u64(self.bytes)
            .u64(0)
            .u32(self.links)
            .u32(self.uid)
            .u32(self.gid);
        let fields = fields.u32(self.mode).u64(self.device).zeros(48);
        let Self { time, .. } = *self;
        fields.time(time).time(time).time(time).time(time).0
    }
}

/// An empty directory that belongs to no user, as roots of internal trees have.
pub(super) fn internal_directory(time: Time) -> InodeItem {
    let mode = 0o40755;
    InodeItem {
        size: 0,
        bytes: 0,
        links: 1,
        uid: 0,
        gid: 0,
        mode,
        device: 0,
        time,
    }
}

/// A name of an inode in a directory, for the inode.
pub(super) fn inode_ref(index: u64, name: &[u8]) -> Vec<u8> {
    Fields::default().u64(index).u16(length(name)).bytes(name).0
}

/// The same when the inode has too many names for one item.
pub(super) fn inode_extref(parent: u64, index: u64, name: &[u8]) -> Vec<u8> {
    Fields::default()
        .u64(parent)
        .u64(index)
        .u16(length(name))
        .bytes(name)
        .0
}

/// The bytes of an item of [`dir_item`] without its name and value.
pub(super) const DIR_ITEM: usize = 30;

/// A name in a directory, or an extended attribute (which has a value and leads nowhere).
pub(super) fn dir_item(to: Key, file_type: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let fields = Fields::default().bytes(&to.encode()).u64(GENERATION);
    fields
        .u16(length(value))
        .u16(length(name))
        .u8(file_type)
        .bytes(name)
        .bytes(value)
        .0
}

/// The hash by which names and attributes are found.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    u64::from(crc32c::update(!1, name))
}

/// The hash of a name that has an item of its own.
pub(super) fn extref_hash(parent: u64, name: &[u8]) -> u64 {
    let [a, b, c, d, ..] = parent.to_le_bytes();
    u64::from(crc32c::update(u32::from_le_bytes([a, b, c, d]), name))
}

/// Contents within the tree.
pub(super) fn inline_extent(bytes: &[u8]) -> Vec<u8> {
    let fields = Fields::default().u64(GENERATION).u64(bytes.len() as u64);
    fields.u8(0).u8(0).u16(0).u8(0).bytes(bytes).0
}

/// Contents on the disk.
pub(super) fn extent(address: u64, length: u64) -> Vec<u8> {
    let fields = Fields::default()
        .u64(GENERATION)
        .u64(length)
        .u8(0)
        .u8(0)
        .u16(0)
        .u8(1);
    fields.u64(address).u64(length).u64(0).u64(length).0
}

/// The owner of a data extent, for the extent.
pub(super) fn data_reference(root: u64, inode: u64, offset: u64) -> Vec<u8> {
    const DATA: u64 = 1;
    const EXTENT_DATA_REF: u8 = 178;
    let fields = Fields::default()
        .u64(1)
        .u64(GENERATION)
        .u64(DATA)
        .u8(EXTENT_DATA_REF);
    fields.u64(root).u64(inode).u64(offset).u32(1).0
}

/// The owner of a node, for the node.
pub(super) fn node_reference(owner: u64) -> Vec<u8> {
    const TREE_BLOCK: u64 = 2;
    const TREE_BLOCK_REF: u8 = 176;
    let fields = Fields::default().u64(1).u64(GENERATION).u64(TREE_BLOCK);
    fields.u8(TREE_BLOCK_REF).u64(owner).0
}

/// The root of a tree.
pub(super) struct RootItem {
    pub(super) address: u64,
    pub(super) level: u8,
    /// Bytes of all its nodes.
    pub(super) used: u64,
    /// The inode of its root directory, if it holds files.
    pub(super) directory: u64,
    pub(super) uuid: [u8; 16],
    pub(super) time: Time,
}

impl RootItem {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut inode = internal_directory(self.time);
        (inode.size, inode.bytes) = (3, super::NODE as u64);
        let fields = Fields(inode.encode()).u64(GENERATION).u64(self.directory);
        let fields = fields
            .u64(self.address)
            .u64(0)
            .u64(self.used)
            .u64(0)
            .u64(0)
            .u32(1);
        let fields = fields
            .zeros(18)
            .u8(self.level)
            .u64(GENERATION)
            .bytes(&self.uuid)
            .zeros(64);
        let Self { time, .. } = *self;
        fields.time(time).time(time).zeros(88).0
    }
}

fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}
