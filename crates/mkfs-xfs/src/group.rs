//! One allocation group: its free space, its inodes, and the headers and trees that list them.

use std::os::unix::fs::FileExt;

use super::bytes::{array, even_parts, put};
use super::error::{Error, Result, io};
use super::layout::{BLOCK, CHUNK, CHUNK_BLOCKS, SECTOR, seal};
use super::request::{Request, read};

/// The header of a block of a tree within a group.
const TREE_HEADER: usize = 56;
/// The bytes of a record of the inode trees, and how many a block holds.
const INODE_RECORD: usize = 16;
const LEAF_RECORDS: usize = (BLOCK - TREE_HEADER) / INODE_RECORD;
/// How many children a block of the inode tree holds: a key and a pointer of 4 bytes each.
const NODE_RECORDS: usize = (BLOCK - TREE_HEADER) / 8;
/// The null of block and inode numbers within a group.
const NULL: u32 = u32::MAX;

/// An allocation group that is being filled.
pub(super) struct Group {
    number: u32,
    /// Where it starts, in blocks of the disk.
    start: u64,
    /// The sectors with the free-space and the inode header.
    free_header: Vec<u8>,
    inode_header: Vec<u8>,
    /// Free extents that are left alone, as (start, length).
    left: Vec<(u32, u32)>,
    /// The free extent that blocks are taken from.
    open: std::ops::Range<u32>,
    /// Blocks not handed out: the kernel wants room for its own trees when it mounts.
    reserve: u32,
    used_blocks: u32,
    /// The chunks of inodes: first inode and how many are used. The used ones come first.
    chunks: Vec<(u32, u64)>,
}

impl Group {
    /// Reads the group as the tool left it.
    pub(super) fn read(request: &Request, number: u32, start: u64) -> Result<Self> {
        let (mut free_header, mut inode_header) = (vec![0; SECTOR], vec![0; SECTOR]);
        read(request, &mut free_header, free_header_at(start))?;
        read(request, &mut inode_header, inode_header_at(start))?;
        let free_at = |at: usize| u32::from_be_bytes(array(&free_header, at));
        let inode_at = |at: usize| u32::from_be_bytes(array(&inode_header, at));
        let unknown = || Error::Unknown {
            what: format!("allocation group {number} in another form"),
        };
        let chunks = if number == 0 { 64 } else { 0 };
        let depths = (
            free_at(28),
            free_at(32),
            inode_at(24),
            inode_at(332),
            inode_at(16),
        );
        if depths != (1, 1, 1, 1, chunks) || &free_header[..4] != b"XAGF" {
            return Err(unknown());
        }
        let mut tree = vec![0; BLOCK];
        read(
            request,
            &mut tree,
            (start + u64::from(free_at(16))) * BLOCK as u64,
        )?;
        let records = usize::from(u16::from_be_bytes(array(&tree, 6)));
        if &tree[..4] != b"AB3B" || records == 0 || records > (BLOCK - TREE_HEADER) / 8 {
            return Err(unknown());
        }
        let mut left: Vec<(u32, u32)> = (0..records)
            .map(|i| TREE_HEADER + i * 8)
            .map(|at| (array(&tree, at), array(&tree, at + 4)))
            .map(|(a, b)| (u32::from_be_bytes(a), u32::from_be_bytes(b)))
            .collect();
        // The largest; of equal ones the last.
        let largest = (0..left.len())
            .max_by_key(|i| left[*i].1)
            .ok_or_else(unknown)?;
        let (open, length) = left.remove(largest);
        let end = open.checked_add(length).ok_or_else(unknown)?;
        let chunks = if number == 0 {
            vec![(128, 3)]
        } else {
            Vec::new()
        };
        let reserve = (free_at(12) / 64).max(16);
        Ok(Self {
            number,
            start,
            free_header,
            inode_header,
            left,
            open: open..end,
            reserve,
            used_blocks: 0,
            chunks,
        })
    }

    /// Takes 1 to `want` blocks in a row; `None` when the group is full.
    pub(super) fn take(&mut self, want: u32) -> Option<(u32, u32)> {
        let room = self.open.end.saturating_sub(self.open.start);
        let length = want.min(room.saturating_sub(self.reserve));
        let start = self.open.start;
        (length > 0).then(|| {
            self.open.start += length;
            self.used_blocks += length;
            (start, length)
        })
    }

    /// Takes `want` blocks in a row, also from the reserve.
    pub(super) fn take_exactly(&mut self, want: u32) -> Option<u32> {
        let start = self.open.start;
        let end = start
            .checked_add(want)
            .filter(|end| *end <= self.open.end)?;
        self.open.start = end;
        self.used_blocks += want;
        Some(start)
    }

    /// Takes the blocks of 64 inodes.
    pub(super) fn take_chunk(&mut self) -> Option<u32> {
        let aligned = self.open.start.checked_next_multiple_of(CHUNK_BLOCKS)?;
        let end = aligned.checked_add(CHUNK_BLOCKS)?;
        if end.checked_add(self.reserve)? > self.open.end {
            return None;
        }
        if aligned > self.open.start {
            self.left.push((self.open.start, aligned - self.open.start));
        }
        self.open.start = end;
        self.used_blocks += CHUNK_BLOCKS;
        self.chunks.push((aligned << 3, 0));
        Some(aligned)
    }

    /// Notes that `count` more inodes of the last chunk are used.
    pub(super) fn use_inodes(&mut self, count: u64) {
        if let Some((_, used)) = self.chunks.last_mut() {
            *used += count;
        }
    }

    pub(super) fn used_blocks(&self) -> u32 {
        self.used_blocks
    }

    /// All inodes, used or not.
    pub(super) fn inodes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK
    }

    pub(super) fn free_inodes(&self) -> u64 {
        self.inodes() - self.chunks.iter().map(|(_, used)| used).sum::<u64>()
    }

    /// How many blocks the inode tree needs besides its root.
    pub(super) fn inode_tree_blocks(&self) -> u32 {
        let leaves = self.chunks.len().div_ceil(LEAF_RECORDS);
        if leaves > 1 {
            u32::try_from(leaves).unwrap_or(u32::MAX)
        } else {
            0
        }
    }

    /// Writes the trees, with the leaves of a large inode tree at `leaves`, and the headers.
    pub(super) fn write(&self, request: &Request, leaves: u32) -> Result<()> {
        let mut free = self.left.clone();
        if !self.open.is_empty() {
            free.push((self.open.start, self.open.end - self.open.start));
        }
        free.sort_unstable();
        let header = |at: usize| u32::from_be_bytes(array(&self.free_header, at));
        self.write_extents(request, *b"AB3B", header(16), &free)?;
        let longest = free.iter().map(|(_, length)| *length).max().unwrap_or(0);
        let blocks = free.iter().map(|(_, length)| *length).sum::<u32>();
        free.sort_unstable_by_key(|(start, length)| (*length, *start));
        self.write_extents(request, *b"AB3C", header(20), &free)?;
        let mut free_header = self.free_header.clone();
        put(&mut free_header, 52, &blocks.to_be_bytes());
        put(&mut free_header, 56, &longest.to_be_bytes());
        seal(&mut free_header, 216);
        request
            .image
            .write_all_at(&free_header, free_header_at(self.start))
            .map_err(io("write", request.path))?;
        self.write_inodes(request, leaves)
    }

    fn write_inodes(&self, request: &Request, leaves: u32) -> Result<()> {
        let header = |at: usize| u32::from_be_bytes(array(&self.inode_header, at));
        let records: Vec<_> = self.chunks.iter().map(chunk_record).collect();
        let free: Vec<_> = self
            .chunks
            .iter()
            .filter(|(_, used)| *used < CHUNK)
            .map(chunk_record)
            .collect();
        let mut inode_header = self.inode_header.clone();
        let extra = self.inode_tree_blocks();
        if extra == 0 {
            self.write_records(request, *b"IAB3", header(20), (NULL, NULL), &records)?;
        } else {
            self.write_large(request, header(20), leaves, &records)?;
            put(&mut inode_header, 24, &2_u32.to_be_bytes());
        }
        self.write_records(request, *b"FIB3", header(328), (NULL, NULL), &free)?;
        let count = u32::try_from(self.inodes()).unwrap_or(NULL);
        let free_count = u32::try_from(self.free_inodes()).unwrap_or(NULL);
        put(&mut inode_header, 16, &count.to_be_bytes());
        put(&mut inode_header, 28, &free_count.to_be_bytes());
        let newest = self.chunks.last().map_or(NULL, |(first, _)| *first);
        put(&mut inode_header, 32, &newest.to_be_bytes());
        put(&mut inode_header, 336, &(1 + extra).to_be_bytes());
        seal(&mut inode_header, 312);
        request
            .image
            .write_all_at(&inode_header, inode_header_at(self.start))
            .map_err(io("write", request.path))
    }

    /// An inode tree of two levels: the root where it was, the leaves in a row.
    fn write_large(
        &self,
        request: &Request,
        root: u32,
        leaves: u32,
        records: &[[u8; INODE_RECORD]],
    ) -> Result<()> {
        let mut node = self.tree_block(*b"IAB3", root, 1, (NULL, NULL));
        let parts: Vec<_> = even_parts(records.len(), LEAF_RECORDS).collect();
        if parts.len() > NODE_RECORDS {
            return Err(Error::TooManyInodes);
        }
        for (i, part) in parts.iter().enumerate() {
            let leaf = leaves + u32::try_from(i).unwrap_or(0);
            let before = if i == 0 { NULL } else { leaf - 1 };
            let after = if i + 1 == parts.len() { NULL } else { leaf + 1 };
            self.write_records(
                request,
                *b"IAB3",
                leaf,
                (before, after),
                &records[part.clone()],
            )?;
            put(&mut node, TREE_HEADER + i * 4, &records[part.start][..4]);
            put(
                &mut node,
                TREE_HEADER + (NODE_RECORDS + i) * 4,
                &leaf.to_be_bytes(),
            );
        }
        put(
            &mut node,
            6,
            &u16::try_from(parts.len()).unwrap_or(0).to_be_bytes(),
        );
        self.write_tree_block(request, root, node)
    }

    fn write_extents(
        &self,
        request: &Request,
        magic: [u8; 4],
        at: u32,
        extents: &[(u32, u32)],
    ) -> Result<()> {
        let records: Vec<[u8; 8]> = extents
            .iter()
            .map(|(start, length)| (u64::from(*start) << 32 | u64::from(*length)).to_be_bytes())
            .collect();
        self.write_records(request, magic, at, (NULL, NULL), &records)
    }

    fn write_records<const N: usize>(
        &self,
        request: &Request,
        magic: [u8; 4],
        at: u32,
        siblings: (u32, u32),
        records: &[[u8; N]],
    ) -> Result<()> {
        let mut block = self.tree_block(magic, at, 0, siblings);
        put(
            &mut block,
            6,
            &u16::try_from(records.len()).unwrap_or(0).to_be_bytes(),
        );
        put(&mut block, TREE_HEADER, records.as_flattened());
        self.write_tree_block(request, at, block)
    }

    fn tree_block(&self, magic: [u8; 4], at: u32, level: u16, siblings: (u32, u32)) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        put(&mut block, 0, &magic);
        put(&mut block, 4, &level.to_be_bytes());
        put(&mut block, 8, &siblings.0.to_be_bytes());
        put(&mut block, 12, &siblings.1.to_be_bytes());
        let sector = (self.start + u64::from(at)) * (BLOCK as u64 / 512);
        put(&mut block, 16, &sector.to_be_bytes());
        put(&mut block, 32, &self.free_header[64..80]);
        put(&mut block, 48, &self.number.to_be_bytes());
        block
    }

    fn write_tree_block(&self, request: &Request, at: u32, mut block: Vec<u8>) -> Result<()> {
        seal(&mut block, 52);
        let at = (self.start + u64::from(at)) * BLOCK as u64;
        request
            .image
            .write_all_at(&block, at)
            .map_err(io("write", request.path))
    }
}

/// The second and the third sector of the group that starts at this block; the first has the superblock.
fn free_header_at(start: u64) -> u64 {
    start * BLOCK as u64 + SECTOR as u64
}

fn inode_header_at(start: u64) -> u64 {
    start * BLOCK as u64 + 2 * SECTOR as u64
}

/// The record of 64 inodes of which the first `used` are taken.
fn chunk_record((first, used): &(u32, u64)) -> [u8; INODE_RECORD] {
    let mut record = [0; INODE_RECORD];
    put(&mut record, 0, &first.to_be_bytes());
    // No holes; then the counts, and the mask of free inodes.
    record[6] = 64;
    record[7] = u8::try_from(CHUNK - used).unwrap_or(0);
    let free = u32::try_from(*used)
        .ok()
        .and_then(|used| u64::MAX.checked_shl(used))
        .unwrap_or(0);
    put(&mut record, 8, &free.to_be_bytes());
    record
}
