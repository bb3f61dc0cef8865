//! Where everything is on the disk: chunks, data, and the trees that describe them.

use std::os::unix::fs::FileExt;

use super::files::FIRST_INODE;
use super::items::{Fields, kind};
use super::node::{self, Identity, Items, Key};
use super::superblock::SUPERBLOCKS;
use super::trees::{
    CHECKSUM_TREE, CHUNK_TREE, DEVICE_TREE, EXTENT_TREE, FILE_TREE, FREE_SPACE_TREE,
    RELOCATION_TREE, ROOT_TREE, Tree, UUID_TREE, relocation_items, root_items, uuid_items,
};
use super::{NODE, Request, Result, SECTOR, crc32c, full, io};

/// The trees, by their object ids.
/// The object of all checksums, and of all chunks.
const CHECKSUMS: u64 = 0u64.wrapping_sub(10);
const CHUNKS: u64 = 256;
/// The only device.
const DEVICE: u64 = 1;

/// What chunks hold.
const DATA: u64 = 1;
const SYSTEM: u64 = 2;
const METADATA: u64 = 4;

/// The first MiB is left to boot loaders; the superblock is within.
const SYSTEM_START: u64 = 1 << 20;
const SYSTEM_LENGTH: u64 = 4 << 20;
const DATA_START: u64 = SYSTEM_START + SYSTEM_LENGTH;
/// The longest data chunk.
pub(super) const DATA_CHUNK: u64 = 1 << 30;
/// Chunks start and end at multiples of this.
const CHUNK_UNIT: u64 = 1 << 20;
/// Room left in the last data chunk and in the metadata chunk, if the disk has it.
const SLACK: u64 = 8 << 20;
const SUPERBLOCK_ROOM: u64 = 64 << 10;
/// [`SECTOR`], as the length of a slice.
const SECTOR_BYTES: usize = 4096;
/// The checksums in one item: two items fill a leaf.
const CHECKSUMS_PER_ITEM: usize = 2000;

/// A chunk, which is its own block group and device extent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    start: u64,
    length: u64,
    holds: u64,
    pub(super) used: u64,
}

/// A file system that is being written.
pub(super) struct Layout<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) identity: Identity,
    /// Where the next data goes.
    next: u64,
    /// The data extents, as runs of used bytes.
    used: Vec<(u64, u64)>,
    /// The items of the extent tree for data.
    pub(super) extents: Items,
    checksums: Items,
}

impl<'a> Layout<'a> {
    pub(super) fn new(request: &'a Request<'a>) -> Result<Self> {
        if request.size < DATA_START + SLACK {
            return Err(full(request));
        }
        let identity = Identity {
            file_system: request.uuid,
            chunk_tree: super::super::derived_uuid(request.uuid, b"chunk tree"),
            device: super::super::derived_uuid(request.uuid, b"device"),
        };
        let (used, extents, checksums) = (Vec::new(), Items::new(), Items::new());
        Ok(Self {
            request,
            identity,
            next: DATA_START,
            used,
            extents,
            checksums,
        })
    }

    /// Writes up to 64 KiB of a file into whole new sectors; returns where they are and how long.
    pub(super) fn write_data(&mut self, contents: &[u8]) -> Result<(u64, u64)> {
        let length = (contents.len() as u64).next_multiple_of(SECTOR);
        let address = Self::place(self.next, length);
        let end = address + length;
        if end > self.request.size {
            return Err(full(self.request));
        }
        self.next = end;
        self.request
            .image
            .write_all_at(contents, address)
            .map_err(io("write", self.request.path))?;
        match self.used.last_mut() {
            Some((_, last)) if *last == address => *last = end,
            _ => self.used.push((address, end)),
        }
        self.add_checksums(address, contents);
        Ok((address, length))
    }

    /// The first place at or after `at` that is in one chunk and clear of superblocks.
    fn place(mut at: u64, length: u64) -> u64 {
        if (at - DATA_START) / DATA_CHUNK != (at + length - 1 - DATA_START) / DATA_CHUNK {
            at = (at - DATA_START).next_multiple_of(DATA_CHUNK) + DATA_START;
        }
        for superblock in SUPERBLOCKS {
            if at < superblock + SUPERBLOCK_ROOM && at + length > superblock {
                at = superblock + SUPERBLOCK_ROOM;
            }
        }
        at
    }

    fn add_checksums(&mut self, address: u64, contents: &[u8]) {
        let sums = contents.chunks(SECTOR_BYTES).flat_map(|sector| {
            let mut whole = [0; SECTOR_BYTES];
            whole[..sector.len()].copy_from_slice(sector);
            crc32c::checksum(&whole).to_le_bytes()
        });
        let goes_on = self.checksums.last_entry().filter(|last| {
            let count = last.get().len() / 4;
            last.key().offset + count as u64 * SECTOR == address && count + 16 <= CHECKSUMS_PER_ITEM
        });
        if let Some(mut last) = goes_on {
            last.get_mut().extend(sums);
        } else {
            let key = Key::new(CHECKSUMS, kind::EXTENT_CSUM, address);
            self.checksums.insert(key, sums.collect());
        }
    }

    /// The data chunks around what was written, with room at the end.
    fn data_chunks(&self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut start = DATA_START;
        while start < self.next {
            let end = self.next.min(start + DATA_CHUNK);
            let used = self
                .used
                .iter()
                .map(|(from, to)| (*to).min(end).saturating_sub((*from).max(start)));
            let used = used.sum();
            let length = if end == self.next {
                (end - start + SLACK)
                    .next_multiple_of(CHUNK_UNIT)
                    .min(DATA_CHUNK)
            } else {
                DATA_CHUNK
            };
            chunks.push(Chunk {
                start,
                length,
                holds: DATA,
                used,
            });
            start += DATA_CHUNK;
        }
        chunks
    }

    /// Packs and writes all trees, then the superblocks: from here on the file system is whole.
    ///
    /// The sizes of all items are known before their values are, so every tree is given its place
    /// first; only then are the items written that name places.
    pub(super) fn finish(mut self, files: Items) -> Result<()> {
        let time = self.request.tree.newest();
        let system = Chunk {
            start: SYSTEM_START,
            length: SYSTEM_LENGTH,
            holds: SYSTEM,
            used: 0,
        };
        let mut chunks = vec![system];
        chunks.extend(self.data_chunks());
        let uuid = super::super::derived_uuid(self.request.uuid, b"files");
        let checksums = std::mem::take(&mut self.checksums);
        let mut trees = vec![
            Tree {
                directory: FIRST_INODE,
                uuid,
                ..Tree::new(FILE_TREE, files)
            },
            Tree::new(CHECKSUM_TREE, checksums),
            Tree::new(UUID_TREE, uuid_items(&uuid)),
            Tree {
                directory: FIRST_INODE,
                ..Tree::new(RELOCATION_TREE, relocation_items(time))
            },
        ];
        let known: usize = trees.iter().map(Tree::nodes).sum();
        let metadata = self.metadata_chunk(&chunks, known)?;
        chunks.push(metadata);
        // With every chunk listed but not yet its use: right in number and size.
        trees.push(Tree::new(DEVICE_TREE, self.device_items(&chunks)));
        trees.push(Tree::new(FREE_SPACE_TREE, self.free_items(&chunks)));
        trees.push(Tree::new(EXTENT_TREE, Items::new()));
        trees.push(Tree::new(ROOT_TREE, root_items(&trees, time)));
        let mut chunk_tree = Tree::new(CHUNK_TREE, self.chunk_items(&chunks));
        chunk_tree.first = SYSTEM_START;
        self.place_trees(&mut trees, &chunk_tree, &mut chunks)?;

        // Now with their values; the extent tree has its own already.
        for i in 0..trees.len() {
            match trees[i].id {
                FREE_SPACE_TREE => trees[i].items = self.free_items(&chunks),
                ROOT_TREE => trees[i].items = root_items(&trees[..i], time),
                _ => {}
            }
        }
        for tree in trees.iter().chain([&chunk_tree]) {
            let places = (tree.first..).step_by(NODE);
            for node in node::pack(&self.identity, tree.id, &tree.items, places) {
                self.write(&node.bytes, node.address)?;
            }
        }
        let root = trees.last().expect("the root tree was pushed last");
        self.write_superblocks(&chunks, root, &chunk_tree)
    }

    /// A chunk for the trees, with room to spare, behind the others and clear of superblocks.
    fn metadata_chunk(&self, chunks: &[Chunk], known: usize) -> Result<Chunk> {
        let end = chunks.iter().map(|chunk| chunk.start + chunk.length).max();
        let end = end.unwrap_or(DATA_START);
        // An extent's item, or a node's, takes less than 80 bytes.
        let described = self.extents.len() + known + known / 64 + 64;
        let nodes = (known + described / 150 + 64) as u64;
        let wanted = (nodes * NODE as u64 + SLACK).next_multiple_of(CHUNK_UNIT);
        let mut start = end;
        for superblock in SUPERBLOCKS {
            let reached = superblock < self.request.size;
            if reached && start < superblock + SUPERBLOCK_ROOM && start + wanted > superblock {
                start = (superblock + SUPERBLOCK_ROOM).next_multiple_of(CHUNK_UNIT);
            }
        }
        let room = self.request.size.saturating_sub(start) / SUPERBLOCK_ROOM * SUPERBLOCK_ROOM;
        let length = wanted.min(room);
        if length == 0 {
            return Err(full(self.request));
        }
        Ok(Chunk {
            start,
            length,
            holds: METADATA,
            used: 0,
        })
    }

    /// Gives every tree its place and fills the extent tree, which also describes itself.
    fn place_trees(
        &mut self,
        trees: &mut [Tree],
        chunk_tree: &Tree,
        chunks: &mut [Chunk],
    ) -> Result<()> {
        let data = std::mem::take(&mut self.extents);
        let metadata = *chunks.last().expect("the metadata chunk was pushed last");
        let mut own = 1;
        loop {
            let mut at = metadata.start;
            for tree in &mut *trees {
                tree.first = at;
                let nodes = if tree.id == EXTENT_TREE {
                    own
                } else {
                    tree.nodes()
                };
                at += (nodes * NODE) as u64;
            }
            let used = at - metadata.start;
            if used > metadata.length {
                return Err(full(self.request));
            }
            for chunk in &mut *chunks {
                match chunk.holds {
                    SYSTEM => chunk.used = (chunk_tree.nodes() * NODE) as u64,
                    METADATA => chunk.used = used,
                    _ => {}
                }
            }
            let mut items = data.clone();
            for chunk in &*chunks {
                let value = Fields::default()
                    .u64(chunk.used)
                    .u64(CHUNKS)
                    .u64(chunk.holds)
                    .0;
                items.insert(
                    Key::new(chunk.start, kind::BLOCK_GROUP_ITEM, chunk.length),
                    value,
                );
            }
            for tree in trees.iter().chain([chunk_tree]) {
                let levels = if tree.id == EXTENT_TREE {
                    vec![own]
                } else {
                    tree.levels()
                };
                tree.describe(&levels, &mut items);
            }
            let extent_tree = trees.iter_mut().find(|tree| tree.id == EXTENT_TREE);
            let extent_tree = extent_tree.expect("the extent tree is among the trees");
            extent_tree.items = items;
            // More nodes to describe never need fewer nodes, so this ends.
            let needed = extent_tree.nodes();
            if needed == own {
                let levels = extent_tree.levels();
                let mut items = std::mem::take(&mut extent_tree.items);
                items.retain(|key, _| !extent_tree.contains(key, own));
                extent_tree.describe(&levels, &mut items);
                extent_tree.items = items;
                return Ok(());
            }
            own = needed;
        }
    }

    fn chunk_items(&self, chunks: &[Chunk]) -> Items {
        let device = Key::new(DEVICE, kind::DEV_ITEM, DEVICE);
        let mut items = Items::from([(device, self.device_item(chunks))]);
        for chunk in chunks {
            items.insert(chunk.key(), chunk.encode(&self.identity));
        }
        items
    }

    pub(super) fn device_item(&self, chunks: &[Chunk]) -> Vec<u8> {
        let used = chunks.iter().map(|chunk| chunk.length).sum();
        let sector = u32::try_from(SECTOR).unwrap_or(4096);
        let size = self.request.size / SECTOR * SECTOR;
        let fields = Fields::default().u64(DEVICE).u64(size).u64(used);
        let fields = fields.u32(sector).u32(sector).u32(sector).zeros(30);
        fields
            .bytes(&self.identity.device)
            .bytes(&self.identity.file_system)
            .0
    }

    fn device_items(&self, chunks: &[Chunk]) -> Items {
        let item = |chunk: &Chunk| {
            let fields = Fields::default()
                .u64(CHUNK_TREE)
                .u64(CHUNKS)
                .u64(chunk.start);
            let value = fields.u64(chunk.length).bytes(&self.identity.chunk_tree).0;
            (Key::new(DEVICE, kind::DEV_EXTENT, chunk.start), value)
        };
        chunks.iter().map(item).collect()
    }

    /// What is free in every chunk.
    fn free_items(&self, chunks: &[Chunk]) -> Items {
        let mut items = Items::new();
        for chunk in chunks {
            let mut free = Vec::new();
            let mut at = chunk.start;
            let end = chunk.start + chunk.length;
            let trees = [(chunk.start, chunk.start + chunk.used)];
            let used = if chunk.holds == DATA {
                &self.used[..]
            } else {
                &trees
            };
            for (from, to) in used
                .iter()
                .filter(|(from, to)| *from < end && *to > chunk.start)
            {
                if *from > at {
                    free.push((at, *from - at));
                }
                at = (*to).min(end);
            }
            if at < end {
                free.push((at, end - at));
            }
            let count = u32::try_from(free.len()).unwrap_or(u32::MAX);
            let info = Key::new(chunk.start, kind::FREE_SPACE_INFO, chunk.length);
            items.insert(info, Fields::default().u32(count).u32(0).0);
            for (start, length) in free {
                items.insert(Key::new(start, kind::FREE_SPACE_EXTENT, length), Vec::new());
            }
        }
        items
    }

    pub(super) fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.request
            .image
            .write_all_at(bytes, at)
            .map_err(io("write", self.request.path))
    }
}

impl Chunk {
    pub(super) fn key(&self) -> Key {
        Key::new(CHUNKS, kind::CHUNK_ITEM, self.start)
    }

    pub(super) fn encode(&self, identity: &Identity) -> Vec<u8> {
        const STRIPE: u32 = 65536;
        let fields = Fields::default()
            .u64(self.length)
            .u64(EXTENT_TREE)
            .u64(u64::from(STRIPE));
        let fields = fields
            .u64(self.holds)
            .u32(STRIPE)
            .u32(STRIPE)
            .u32(4096)
            .u16(1)
            .u16(1);
        fields.u64(DEVICE).u64(self.start).bytes(&identity.device).0
    }
}
