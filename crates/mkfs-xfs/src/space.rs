//! The disk as the writer sees it: blocks and inodes to take, and the superblock at the end.
//!
//! A file system block is named by its group and its number there, packed as XFS does it.

use std::os::unix::fs::FileExt;

use super::bytes::{array, put};
use super::error::{Error, Result, io};
use super::group::Group;
use super::inode::{self, Inode};
use super::layout::{BLOCK, CHUNK, CHUNK_BLOCKS, INODE, SECTOR, seal};
use super::request::{Request, read};
use tree::Time;

/// The bits of an inode number that count within a block.
const INODES_PER_BLOCK_LOG: u32 = 3;
/// Bit of the superblock's `versionnum`: some inode has attributes.
const VERSION_ATTR: u16 = 0x10;

/// The place of a block: `group << log | block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FsBlock(pub(super) u64);

/// The free space and the inodes of a file system that is being filled.
pub(super) struct Space<'a> {
    request: &'a Request<'a>,
    superblock: Vec<u8>,
    pub(super) groups: Vec<Group>,
    /// The group that new blocks come from.
    current: usize,
    group_blocks: u32,
    group_log: u32,
    /// Whether any inode has extended attributes.
    pub(super) has_attributes: bool,
}

impl<'a> Space<'a> {
    /// Reads the headers of what `mkfs.xfs` made, and checks that it is what was asked for.
    pub(super) fn open(request: &'a Request<'a>) -> Result<Self> {
        let mut superblock = vec![0; SECTOR];
        read(request, &mut superblock, 0)?;
        let u32_at = |at: usize| u32::from_be_bytes(array(&superblock, at));
        let u64_at = |at: usize| u64::from_be_bytes(array(&superblock, at));
        let unknown = |what: String| Error::Unknown { what };
        // ftype, sparse inodes and bigtime are needed; large extent counters and range exchange
        // (newer tools) change nothing for inodes that do not use them.
        let incompatible = u32_at(216) & !0x60;
        if (&superblock[..4], u32_at(4), incompatible) != (b"XFSB", 4096, 0xB) {
            return Err(unknown(format!("features {:#x}", u32_at(216))));
        }
        // Free inode tree, reflink and inode tree counters; no reverse map.
        if u32_at(212) != 0xD || u32_at(220) != 0 || u64_at(128) != CHUNK {
            return Err(unknown(format!("read-only features {:#x}", u32_at(212))));
        }
        let layout = (
            superblock[121],
            superblock[122],
            superblock[192],
            u32_at(180),
        );
        if layout != (12, 9, 0, CHUNK_BLOCKS) || u64_at(64) >= u64_at(72) || u64_at(72) != 130 {
            return Err(unknown("another layout of sectors and inodes".into()));
        }
        let (group_blocks, count) = (u32_at(84), u32_at(88));
        let group_log = u32::from(superblock[124]);
        let mut groups = Vec::new();
        for number in 0..count {
            groups.push(Group::read(
                request,
                number,
                u64::from(number) * u64::from(group_blocks),
            )?);
        }
        let has_attributes = false;
        Ok(Self {
            request,
            superblock,
            groups,
            current: 0,
            group_blocks,
            group_log,
            has_attributes,
        })
    }

    /// The uuid that every block carries.
    pub(super) fn uuid(&self) -> &[u8; 16] {
        &self.request.uuid
    }

    /// Takes 1 to `want` blocks in a row.
    pub(super) fn take(&mut self, want: u32) -> Result<(FsBlock, u32)> {
        while let Some(group) = self.groups.get_mut(self.current) {
            if let Some((start, length)) = group.take(want) {
                return Ok((self.block(self.current, start), length));
            }
            self.current += 1;
        }
        Err(Error::Full)
    }

    /// Takes `count` blocks, wherever they are.
    pub(super) fn take_all(&mut self, count: usize) -> Result<Vec<FsBlock>> {
        let mut blocks = Vec::with_capacity(count);
        while blocks.len() < count {
            let want = u32::try_from(count - blocks.len()).unwrap_or(u32::MAX);
            let (start, length) = self.take(want)?;
            blocks.extend((0..u64::from(length)).map(|i| FsBlock(start.0 + i)));
        }
        Ok(blocks)
    }

    fn block(&self, group: usize, block: u32) -> FsBlock {
        FsBlock((group as u64) << self.group_log | u64::from(block))
    }

    /// Numbers for `count` files, the root's first; their chunks hold free inodes until
    /// [`write_inode`](Self::write_inode) fills them.
    pub(super) fn allocate_inodes(&mut self, count: usize) -> Result<Vec<u64>> {
        let root = u64::from_be_bytes(array(&self.superblock, 56));
        let first_chunk = root / CHUNK * CHUNK;
        let mut numbers = vec![root];
        // The root shares its chunk with the two inodes of the (empty) realtime section.
        self.clear_inodes(root + 3..first_chunk + CHUNK)?;
        numbers.extend(root + 3..first_chunk + CHUNK);
        numbers.truncate(count);
        self.groups[0].use_inodes(numbers.len() as u64 - 1);
        let mut group = 0;
        while numbers.len() < count {
            let Some(start) = self.groups.get_mut(group).map(Group::take_chunk) else {
                return Err(Error::Full);
            };
            let Some(start) = start else {
                group += 1;
                continue;
            };
            let first = self.block(group, start).0 << INODES_PER_BLOCK_LOG;
            self.clear_inodes(first..first + CHUNK)?;
            let used = CHUNK.min((count - numbers.len()) as u64);
            numbers.extend(first..first + used);
            self.groups[group].use_inodes(used);
        }
        Ok(numbers)
    }

    fn clear_inodes(&self, numbers: std::ops::Range<u64>) -> Result<()> {
        for number in numbers {
            self.write_raw_inode(number, &inode::free(number, self.uuid()))?;
        }
        Ok(())
    }

    /// Writes a file's inode.
    pub(super) fn write_inode(&mut self, inode: &Inode) -> Result<()> {
        self.has_attributes |= inode.attributes.is_some();
        self.write_raw_inode(inode.number, &inode.encode(self.uuid()))
    }

    fn write_raw_inode(&self, number: u64, bytes: &[u8; INODE]) -> Result<()> {
        let (at, within) = (
            number >> INODES_PER_BLOCK_LOG,
            number % (1 << INODES_PER_BLOCK_LOG),
        );
        self.write(self.offset(FsBlock(at)) + within * INODE as u64, bytes)
    }

    /// Where a block is, in bytes.
    fn offset(&self, block: FsBlock) -> u64 {
        let group = block.0 >> self.group_log;
        let within = block.0 & ((1 << self.group_log) - 1);
        (group * u64::from(self.group_blocks) + within) * BLOCK as u64
    }

    /// The place that a block's header repeats: in 512-byte sectors.
    pub(super) fn sector(&self, block: FsBlock) -> [u8; 8] {
        (self.offset(block) / 512).to_be_bytes()
    }

    /// Puts the checksum of a metadata block at `crc` and writes the block.
    pub(super) fn write_sealed(&self, at: FsBlock, bytes: &mut [u8], crc: usize) -> Result<()> {
        seal(bytes, crc);
        self.write(self.offset(at), bytes)
    }

    /// Writes into a block, from its beginning.
    pub(super) fn write_block(&self, at: FsBlock, bytes: &[u8]) -> Result<()> {
        self.write(self.offset(at), bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.request
            .image
            .write_all_at(bytes, at)
            .map_err(io("write", self.request.path))
    }

    /// Writes the headers: from here on the file system is whole.
    pub(super) fn finish(mut self, newest: Time) -> Result<()> {
        let root = u64::from_be_bytes(array(&self.superblock, 56));
        for number in [root + 1, root + 2] {
            let at = self.offset(FsBlock(number >> INODES_PER_BLOCK_LOG))
                + number % (1 << INODES_PER_BLOCK_LOG) * INODE as u64;
            let mut bytes = [0; INODE];
            read(self.request, &mut bytes, at)?;
            inode::set_clock(&mut bytes, newest);
            self.write_raw_inode(number, &bytes)?;
        }
        let (mut inodes, mut free_inodes, mut used_blocks) = (0, 0, 0);
        for number in 0..self.groups.len() {
            let trees = self.groups[number].inode_tree_blocks();
            let start = self.groups[number].take_exactly(trees).ok_or(Error::Full)?;
            let group = &self.groups[number];
            group.write(self.request, start)?;
            inodes += group.inodes();
            free_inodes += group.free_inodes();
            used_blocks += u64::from(group.used_blocks());
        }
        let free = u64::from_be_bytes(array(&self.superblock, 144)).saturating_sub(used_blocks);
        put(&mut self.superblock, 128, &inodes.to_be_bytes());
        put(&mut self.superblock, 136, &free_inodes.to_be_bytes());
        put(&mut self.superblock, 144, &free.to_be_bytes());
        let version = u16::from_be_bytes(array(&self.superblock, 100));
        let version = if self.has_attributes {
            version | VERSION_ATTR
        } else {
            version
        };
        put(&mut self.superblock, 100, &version.to_be_bytes());
        seal(&mut self.superblock, 224);
        self.write(0, &self.superblock)?;
        self.finish_copies(version)
    }

    /// The copies of the superblock say the same version.
    fn finish_copies(&self, version: u16) -> Result<()> {
        for group in 1..self.groups.len() as u64 {
            let at = group * u64::from(self.group_blocks) * BLOCK as u64;
            let mut copy = vec![0; SECTOR];
            read(self.request, &mut copy, at)?;
            put(&mut copy, 100, &version.to_be_bytes());
            seal(&mut copy, 224);
            self.write(at, &copy)?;
        }
        Ok(())
    }
}
