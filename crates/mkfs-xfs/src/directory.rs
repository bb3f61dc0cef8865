//! Directories in their four forms: in the inode, in one block, with one leaf, with a tree of leaves.
//!
//! ```text
//! offset in the directory   block form            leaf and node form
//! 0                         header, entries,      header, entries (one block or more)
//!                           leaf, tail
//! 32 GiB                                          leaf, or the root of the hash tree and its leaves
//! 64 GiB                                          (node form) the largest free room of every block
//! ```

use super::bytes::{even_parts, put};
use super::error::Result;
use super::extent::Extents;
use super::fork::Fork;
use super::layout::{BLOCK, hash};
use super::space::{FsBlock, Space};

/// The header of a block with entries, and of all other blocks of a directory.
const HEADER: usize = 64;
/// A hash with the place of its entry.
const LEAF_ENTRY: usize = 8;
/// How many of them, or of children with their last hash, a block holds.
const LEAF_ENTRIES: usize = (BLOCK - HEADER) / LEAF_ENTRY;
/// How many blocks one block of free room describes.
const FREE_ENTRIES: usize = (BLOCK - HEADER) / 2;
/// Where the leaves and the free room start, in blocks of the directory.
const LEAF_START: u64 = (32 << 30) / BLOCK as u64;
const FREE_START: u64 = (64 << 30) / BLOCK as u64;
/// Magic numbers of blocks in the hash tree.
const LEAF_ONE: u16 = 0x3DF1;
const LEAF_MANY: u16 = 0x3DFF;
const NODE: u16 = 0x3EBE;

/// One name in a directory.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    pub(super) file_type: u8,
}

/// A directory that is being made.
struct Directory<'a, 'b> {
    space: &'a mut Space<'b>,
    number: u64,
    extents: Extents,
}

/// The data fork and the size of a directory.
pub(super) fn make(
    space: &mut Space,
    number: u64,
    parent: u64,
    entries: &[Entry],
    room: usize,
) -> Result<(Fork, u64)> {
    if let Some(bytes) = short_form(parent, entries, room) {
        let size = bytes.len() as u64;
        return Ok((Fork::local(bytes), size));
    }
    let contents = Contents::new(number, parent, entries);
    let blocks = contents.blocks.len();
    let mut directory = Directory {
        space,
        number,
        extents: Extents::default(),
    };
    if blocks == 1 && contents.room_after_first() >= contents.hashes.len() * LEAF_ENTRY + 8 {
        directory.write_block_form(contents)?;
    } else if HEADER + contents.hashes.len() * LEAF_ENTRY + blocks * 2 + 4 <= BLOCK {
        directory.write_leaf_form(contents)?;
    } else {
        directory.write_node_form(contents)?;
    }
    let Directory { extents, .. } = directory;
    Ok((
        extents.into_fork(space, number, room)?,
        (blocks * BLOCK) as u64,
    ))
}

/// The bytes of an entry in a block: inode, name, type and the offset at its end.
fn entry_length(name: usize) -> usize {
    (8 + 1 + name + 1 + 2).next_multiple_of(8)
}

/// The directory within the inode; `None` when it does not fit.
fn short_form(parent: u64, entries: &[Entry], room: usize) -> Option<Vec<u8>> {
    // One inode number of more than 32 bits makes all of them wide.
    let wide = std::iter::once(parent)
        .chain(entries.iter().map(|entry| entry.inode))
        .filter(|inode| u32::try_from(*inode).is_err())
        .count();
    let inode = |bytes: &mut Vec<u8>, inode: u64| {
        let all = inode.to_be_bytes();
        bytes.extend(if wide > 0 { &all[..] } else { &all[4..] });
    };
    let count = u8::try_from(entries.len()).ok()?;
    let mut bytes = vec![count, u8::try_from(wide).ok()?];
    inode(&mut bytes, parent);
    // Where the entry would be in a block, behind "." and "..".
    let mut offset = HEADER + entry_length(1) + entry_length(2);
    for entry in entries {
        bytes.push(u8::try_from(entry.name.len()).ok()?);
        bytes.extend(u16::try_from(offset).ok()?.to_be_bytes());
        bytes.extend(entry.name);
        bytes.push(entry.file_type);
        inode(&mut bytes, entry.inode);
        offset += entry_length(entry.name.len());
        if bytes.len() > room {
            return None;
        }
    }
    Some(bytes)
}

/// The blocks with the entries, before their headers, and the hash of every name.
struct Contents {
    /// Each block, and where its last entry ends.
    blocks: Vec<(Vec<u8>, usize)>,
    /// Hash and place (in units of 8 bytes), in their order.
    hashes: Vec<(u32, u32)>,
}

impl Contents {
    fn new(number: u64, parent: u64, entries: &[Entry]) -> Self {
        let mut contents = Self {
            blocks: Vec::new(),
            hashes: Vec::new(),
        };
        contents.add(&Entry {
            name: b".",
            inode: number,
            file_type: 2,
        });
        contents.add(&Entry {
            name: b"..",
            inode: parent,
            file_type: 2,
        });
        for entry in entries {
            contents.add(entry);
        }
        contents.hashes.sort_unstable();
        contents
    }

    fn add(&mut self, entry: &Entry) {
        let length = entry_length(entry.name.len());
        if self
            .blocks
            .last()
            .is_none_or(|(_, end)| end + length > BLOCK)
        {
            self.blocks.push((vec![0; BLOCK], HEADER));
        }
        let index = self.blocks.len() - 1;
        let (block, end) = &mut self.blocks[index];
        let at = *end;
        put(block, at, &entry.inode.to_be_bytes());
        block[at + 8] = u8::try_from(entry.name.len()).unwrap_or(0);
        put(block, at + 9, entry.name);
        block[at + 9 + entry.name.len()] = entry.file_type;
        put(
            block,
            at + length - 2,
            &u16::try_from(at).unwrap_or(0).to_be_bytes(),
        );
        *end += length;
        let place = u32::try_from((index * BLOCK + at) / 8).unwrap_or(u32::MAX);
        self.hashes.push((hash(entry.name), place));
    }

    fn room_after_first(&self) -> usize {
        BLOCK - self.blocks[0].1
    }
}

/// Marks `from..to` of a block as unused and as its best room.
fn put_unused(block: &mut [u8], from: usize, to: usize) {
    if from == to {
        return;
    }
    let (offset, length) = (
        u16::try_from(from).unwrap_or(0),
        u16::try_from(to - from).unwrap_or(0),
    );
    put(block, from, &u16::MAX.to_be_bytes());
    put(block, from + 2, &length.to_be_bytes());
    put(block, to - 2, &offset.to_be_bytes());
    put(block, 48, &offset.to_be_bytes());
    put(block, 50, &length.to_be_bytes());
}

fn put_hashes(block: &mut [u8], mut at: usize, hashes: &[(u32, u32)]) {
    for (hash, place) in hashes {
        put(block, at, &hash.to_be_bytes());
        put(block, at + 4, &place.to_be_bytes());
        at += LEAF_ENTRY;
    }
}

fn small(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

fn large(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes()
}

impl Directory<'_, '_> {
    fn write_block_form(&mut self, contents: Contents) -> Result<()> {
        let Contents { blocks, hashes } = contents;
        for (mut block, end) in blocks {
            let leaf = BLOCK - 8 - hashes.len() * LEAF_ENTRY;
            put_unused(&mut block, end, leaf);
            put_hashes(&mut block, leaf, &hashes);
            put(&mut block, BLOCK - 8, &large(hashes.len()));
            self.write_entries(*b"XDB3", 0, block)?;
        }
        Ok(())
    }

    /// Writes the blocks with the entries; returns the free room of each.
    fn write_data(&mut self, blocks: Vec<(Vec<u8>, usize)>) -> Result<Vec<usize>> {
        let mut rooms = Vec::with_capacity(blocks.len());
        for (i, (mut block, end)) in blocks.into_iter().enumerate() {
            put_unused(&mut block, end, BLOCK);
            rooms.push(BLOCK - end);
            self.write_entries(*b"XDD3", i as u64, block)?;
        }
        Ok(rooms)
    }

    fn write_leaf_form(&mut self, contents: Contents) -> Result<()> {
        let rooms = self.write_data(contents.blocks)?;
        let mut leaf = vec![0; BLOCK];
        put(&mut leaf, 56, &small(contents.hashes.len()));
        put_hashes(&mut leaf, HEADER, &contents.hashes);
        put(&mut leaf, BLOCK - 4, &large(rooms.len()));
        let table = BLOCK - 4 - rooms.len() * 2;
        for (i, room) in rooms.iter().enumerate() {
            put(&mut leaf, table + i * 2, &small(*room));
        }
        let place = self.take(LEAF_START)?;
        self.write_hashed(LEAF_ONE, place, (0, 0), leaf)
    }

    fn write_node_form(&mut self, contents: Contents) -> Result<()> {
        let rooms = self.write_data(contents.blocks)?;
        let root = self.take(LEAF_START)?;
        let mut next = LEAF_START + 1;
        // The level above is made of (last hash, block) of the one below.
        let mut children = Vec::new();
        let parts: Vec<_> = even_parts(contents.hashes.len(), LEAF_ENTRIES).collect();
        for (i, part) in parts.iter().enumerate() {
            let hashes = &contents.hashes[part.clone()];
            let mut leaf = vec![0; BLOCK];
            put(&mut leaf, 56, &small(hashes.len()));
            put_hashes(&mut leaf, HEADER, hashes);
            let place = self.take(next)?;
            self.write_hashed(LEAF_MANY, place, siblings(next, i, parts.len()), leaf)?;
            children.push((
                hashes.last().map_or(0, |(hash, _)| *hash),
                block_number(next),
            ));
            next += 1;
        }
        let mut level = 1;
        while children.len() > LEAF_ENTRIES {
            let parts: Vec<_> = even_parts(children.len(), LEAF_ENTRIES).collect();
            let mut parents = Vec::new();
            for (i, part) in parts.iter().enumerate() {
                let place = self.take(next)?;
                let below = &children[part.clone()];
                let links = siblings(next, i, parts.len());
                self.write_hashed(NODE, place, links, node(level, below))?;
                parents.push((
                    below.last().map_or(0, |(hash, _)| *hash),
                    block_number(next),
                ));
                next += 1;
            }
            children = parents;
            level += 1;
        }
        self.write_hashed(NODE, root, (0, 0), node(level, &children))?;
        self.write_rooms(&rooms)
    }

    fn write_rooms(&mut self, rooms: &[usize]) -> Result<()> {
        for (i, part) in rooms.chunks(FREE_ENTRIES).enumerate() {
            let mut block = vec![0; BLOCK];
            put(&mut block, 48, &large(i * FREE_ENTRIES));
            put(&mut block, 52, &large(part.len()));
            put(&mut block, 56, &large(part.len()));
            for (i, room) in part.iter().enumerate() {
                put(&mut block, HEADER + i * 2, &small(*room));
            }
            self.write_entries(*b"XDF3", FREE_START + i as u64, block)?;
        }
        Ok(())
    }

    /// Takes a block for `offset` of the directory.
    fn take(&mut self, offset: u64) -> Result<FsBlock> {
        let (place, _) = self.space.take(1)?;
        self.extents.push(offset, place, 1);
        Ok(place)
    }

    /// Writes a block of entries or of free room.
    fn write_entries(&mut self, magic: [u8; 4], offset: u64, mut block: Vec<u8>) -> Result<()> {
        let place = self.take(offset)?;
        put(&mut block, 0, &magic);
        put(&mut block, 8, &self.space.sector(place));
        put(&mut block, 24, self.space.uuid());
        put(&mut block, 40, &self.number.to_be_bytes());
        self.space.write_sealed(place, &mut block, 4)
    }

    /// Writes a block of the hash tree.
    fn write_hashed(
        &mut self,
        magic: u16,
        place: FsBlock,
        (after, before): (u32, u32),
        mut block: Vec<u8>,
    ) -> Result<()> {
        put(&mut block, 0, &after.to_be_bytes());
        put(&mut block, 4, &before.to_be_bytes());
        put(&mut block, 8, &magic.to_be_bytes());
        put(&mut block, 16, &self.space.sector(place));
        put(&mut block, 32, self.space.uuid());
        put(&mut block, 48, &self.number.to_be_bytes());
        self.space.write_sealed(place, &mut block, 12)
    }
}

/// A block of the hash tree with the last hash and the place of each block below.
fn node(level: usize, below: &[(u32, u32)]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    put(&mut block, 56, &small(below.len()));
    put(&mut block, 58, &small(level));
    put_hashes(&mut block, HEADER, below);
    block
}

fn block_number(offset: u64) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// The neighbours, after and before, of block `i` of `count` in a row; 0 is none.
fn siblings(at: u64, i: usize, count: usize) -> (u32, u32) {
    let at = block_number(at);
    (
        if i + 1 < count { at + 1 } else { 0 },
        if i > 0 { at - 1 } else { 0 },
    )
}
