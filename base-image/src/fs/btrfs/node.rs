//! Sorted items, packed into the nodes of a tree.

use std::collections::BTreeMap;

use super::super::bytes::put;
use super::NODE;
use super::crc32c;

/// The header of a node, an item's description in a leaf, and a child's in an inner node.
const HEADER: usize = 101;
const ITEM: usize = 25;
const CHILD: usize = 33;
/// How many children an inner node has at most.
const CHILDREN: usize = (NODE - HEADER) / CHILD;
/// The largest item.
pub(super) const MAX_ITEM: usize = NODE - HEADER - ITEM;
/// The transaction that made everything.
pub(super) const GENERATION: u64 = 1;

/// The key of an item. Its order is that of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) item_type: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) const fn new(object: u64, item_type: u8, offset: u64) -> Self {
        Self {
            object,
            item_type,
            offset,
        }
    }

    pub(super) fn encode(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        put(&mut bytes, 0, &self.object.to_le_bytes());
        bytes[8] = self.item_type;
        put(&mut bytes, 9, &self.offset.to_le_bytes());
        bytes
    }
}

/// The items of a tree.
pub(super) type Items = BTreeMap<Key, Vec<u8>>;

/// What every node of a file system repeats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) file_system: [u8; 16],
    pub(super) chunk_tree: [u8; 16],
    pub(super) device: [u8; 16],
}

/// How many nodes each level of a tree has, from the leaves up; the last has one.
pub(super) fn levels(sizes: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![leaves(sizes).max(1)];
    while let Some(&below) = counts.last()
        && below > 1
    {
        counts.push(below.div_ceil(CHILDREN));
    }
    counts
}

fn leaves(sizes: impl Iterator<Item = usize>) -> usize {
    let (mut leaves, mut room) = (0, 0);
    for size in sizes {
        if size + ITEM > room {
            leaves += 1;
            room = NODE - HEADER;
        }
        room -= size + ITEM;
    }
    leaves
}

/// A node, ready to be written.
pub(super) struct Node {
    pub(super) address: u64,
    pub(super) bytes: Vec<u8>,
}

/// The nodes of a tree at `addresses`, of which there are as many as [`levels`] says; the last is
/// the root.
pub(super) fn pack(
    identity: &Identity,
    owner: u64,
    items: &Items,
    mut addresses: impl Iterator<Item = u64>,
) -> Vec<Node> {
    let mut next = |level| {
        let address = addresses.next().expect("levels() counted the nodes");
        Node {
            address,
            bytes: header(identity, owner, address, level),
        }
    };
    let mut nodes: Vec<Node> = Vec::new();
    // The first key and the address of every node of the level below.
    let mut children = Vec::new();
    let mut leaf: Option<(Node, usize, usize)> = None;
    for (key, value) in items {
        let fits = |(_, count, end): &(Node, usize, usize)| {
            HEADER + (count + 1) * ITEM + value.len() <= *end
        };
        if !leaf.as_ref().is_some_and(fits) {
            nodes.extend(leaf.take().map(|(node, ..)| node));
            let node = next(0);
            children.push((*key, node.address));
            leaf = Some((node, 0, NODE));
        }
        let (node, count, end) = leaf.as_mut().expect("one was just made when none had room");
        *end -= value.len();
        put(&mut node.bytes, *end, value);
        let at = HEADER + *count * ITEM;
        put(&mut node.bytes, at, &key.encode());
        put(&mut node.bytes, at + 17, &small(*end - HEADER));
        put(&mut node.bytes, at + 21, &small(value.len()));
        *count += 1;
        put(&mut node.bytes, 96, &small(*count));
    }
    nodes.push(leaf.map_or_else(|| next(0), |(node, ..)| node));
    let mut level = 0;
    while children.len() > 1 {
        level += 1;
        let mut parents = Vec::new();
        for part in children.chunks(CHILDREN) {
            let mut node = next(level);
            parents.push((part[0].0, node.address));
            put(&mut node.bytes, 96, &small(part.len()));
            for (i, (key, address)) in part.iter().enumerate() {
                let at = HEADER + i * CHILD;
                put(&mut node.bytes, at, &key.encode());
                put(&mut node.bytes, at + 17, &address.to_le_bytes());
                put(&mut node.bytes, at + 25, &GENERATION.to_le_bytes());
            }
            nodes.push(node);
        }
        children = parents;
    }
    for node in &mut nodes {
        seal(&mut node.bytes);
    }
    nodes
}

fn header(identity: &Identity, owner: u64, address: u64, level: u8) -> Vec<u8> {
    // Written, and with back references of the current revision.
    const FLAGS: u64 = 1 | 1 << 56;
    let mut bytes = vec![0; NODE];
    put(&mut bytes, 32, &identity.file_system);
    put(&mut bytes, 48, &address.to_le_bytes());
    put(&mut bytes, 56, &FLAGS.to_le_bytes());
    put(&mut bytes, 64, &identity.chunk_tree);
    put(&mut bytes, 80, &GENERATION.to_le_bytes());
    put(&mut bytes, 88, &owner.to_le_bytes());
    bytes[100] = level;
    bytes
}

/// Puts the checksum of a node or superblock in front of it.
pub(super) fn seal(bytes: &mut [u8]) {
    let crc = crc32c::checksum(&bytes[32..]);
    put(bytes, 0, &crc.to_le_bytes());
}

fn small(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}
