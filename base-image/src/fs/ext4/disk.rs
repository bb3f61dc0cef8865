//! The result of `mkfs.ext4` on disk: the locations of inodes, and the names in directories.
//!
//! Reads only the requested layout: blocks of 4096 bytes, inodes of 256, extents, checksums. It
//! does not decide the contents of inodes.

use std::cell::RefCell;
use std::os::unix::fs::FileExt;

use probe::crc32c;

use super::super::Request;
use super::{Error, MKFS, Result, io};

/// Bytes of a block, and of an inode.
pub(super) const BLOCK: usize = 4096;
pub(super) const INODE: usize = 256;
/// Of an inode: its mode, link count and checksum; where its extents start; its generation.
pub(super) const MODE: usize = 0;
pub(super) const LINKS: usize = 26;
pub(super) const EXTENTS: usize = 40;
pub(super) const GENERATION: usize = 100;
const CHECKSUM: (usize, usize) = (124, 130);
/// An extent whose length is above this is allocated and not written.
const EXTENT_MAX: u16 = 1 << 15;
/// How deep a tree of extents may be (`EXT4_MAX_EXTENT_DEPTH`).
const DEPTH_MAX: u16 = 5;

/// The parts of the file system that lead to its inodes.
pub(super) struct Disk<'a> {
    pub(super) request: &'a Request<'a>,
    inodes_per_group: u64,
    /// The block where each group's inode table starts.
    tables: Vec<u64>,
    /// The checksum of the uuid, with which all others start.
    pub(super) seed: u32,
    /// The block of an inode table that was used last: the next inode is mostly in it too.
    table: RefCell<Option<Table>>,
}

/// A block of an inode table.
struct Table {
    at: u64,
    bytes: [u8; BLOCK],
    changed: bool,
}

/// The error for what is not as it was asked for.
pub(super) fn unknown(what: &str) -> Error {
    Error::ToolUnknown {
        tool: MKFS.name,
        what: what.into(),
    }
}

impl<'a> Disk<'a> {
    pub(super) fn open(request: &'a Request<'a>) -> Result<Self> {
        let superblock = read::<1024>(request, 1024)?;
        let u32_at = |at: usize| u32::from_le_bytes(array(&superblock, at));
        let u16_at = |at: usize| u16::from_le_bytes(array(&superblock, at));
        if (u16_at(56), u32_at(24), u16_at(88)) != (0xEF53, 2, 256) {
            return Err(unknown(
                "another layout than 4096-byte blocks and 256-byte inodes",
            ));
        }
        // Extents, 64-bit and flexible groups, and nothing that moves tables or checksums.
        let (incompatible, descriptor) = (u32_at(96), u16_at(254));
        if incompatible != 0x2C2 || descriptor != 64 || u32_at(100) & 0x400 == 0 {
            return Err(unknown("a file system with other features than requested"));
        }
        if u32_at(92) & 4 == 0 {
            return Err(unknown("a file system without a journal"));
        }
        let inodes_per_group = u64::from(u32_at(40));
        let groups = u64::from(u32_at(0))
            .checked_div(inodes_per_group)
            .unwrap_or(0);
        let mut tables = Vec::new();
        for group in 0..groups {
            let descriptor = read::<64>(request, BLOCK as u64 + group * 64)?;
            let low = u32::from_le_bytes(array(&descriptor, 8));
            let high = u32::from_le_bytes(array(&descriptor, 40));
            tables.push(u64::from(high) << 32 | u64::from(low));
        }
        let seed = crc32c(!0, &request.uuid);
        Ok(Self {
            request,
            inodes_per_group,
            tables,
            seed,
            table: RefCell::new(None),
        })
    }

    pub(super) fn inode(&self, number: u32) -> Result<[u8; INODE]> {
        self.with_inode(number, false, |inode| {
            let mut copy = [0; INODE];
            copy.copy_from_slice(inode);
            copy
        })
    }

    /// Gives an inode to `take`, which may change it if `changes`. Changes are written with the next block or by
    /// [`finish`](Self::finish).
    fn with_inode<T>(
        &self,
        number: u32,
        changes: bool,
        take: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T> {
        let place = self.place(number)?;
        let offset = place % BLOCK as u64;
        let at = place - offset;
        let mut table = self.table.borrow_mut();
        if table.as_ref().is_none_or(|table| table.at != at) {
            self.write_table(table.as_mut())?;
            let bytes = read(self.request, at)?;
            let changed = false;
            *table = Some(Table { at, bytes, changed });
        }
        let table = table.as_mut().expect("it was just read");
        table.changed |= changes;
        let offset = usize::try_from(offset).expect("less than a block");
        Ok(take(&mut table.bytes[offset..offset + INODE]))
    }

    fn write_table(&self, table: Option<&mut Table>) -> Result<()> {
        if let Some(table) = table.filter(|table| table.changed) {
            self.write(table.at, &table.bytes)?;
            table.changed = false;
        }
        Ok(())
    }

    /// Writes what is not written yet.
    pub(super) fn finish(&self) -> Result<()> {
        self.write_table(self.table.borrow_mut().as_mut())
    }

    /// Writes an inode with its checksum: over its number, its generation and itself.
    pub(super) fn write_inode(&self, number: u32, inode: &mut [u8; INODE]) -> Result<()> {
        let (low, high) = CHECKSUM;
        put(inode, low, &[0; 2]);
        put(inode, high, &[0; 2]);
        let seed = crc32c(self.seed, &number.to_le_bytes());
        let seed = crc32c(seed, &inode[GENERATION..GENERATION + 4]);
        let crc = crc32c(seed, inode).to_le_bytes();
        put(inode, low, &crc[..2]);
        put(inode, high, &crc[2..]);
        self.with_inode(number, true, |place| place.copy_from_slice(inode))
    }

    /// Writes a whole block.
    pub(super) fn write_block(&self, block: u64, bytes: &[u8; BLOCK]) -> Result<()> {
        self.write(block.saturating_mul(BLOCK as u64), bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let written = self.request.image.write_all_at(bytes, at);
        written.map_err(io("write", self.request.path))
    }

    fn place(&self, number: u32) -> Result<u64> {
        let index = u64::from(number).checked_sub(1);
        let split = index.and_then(|index| {
            let group = index.checked_div(self.inodes_per_group)?;
            let table = self.tables.get(usize::try_from(group).ok()?)?;
            Some(table * BLOCK as u64 + index % self.inodes_per_group * INODE as u64)
        });
        split.ok_or_else(|| unknown("a name of an inode that does not exist"))
    }

    /// The names in a directory with their inodes, by the bytes of the names; without `.` and `..`.
    ///
    /// The blocks of a hash tree look like blocks without names, so all of them are read alike.
    pub(super) fn names(&self, directory: &[u8; INODE]) -> Result<Vec<(Vec<u8>, u32)>> {
        let mut names = Vec::new();
        for block in self.blocks(directory)? {
            let bytes = read::<BLOCK>(self.request, block.saturating_mul(BLOCK as u64))?;
            entries(&bytes, &mut names)?;
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The blocks of a file, in its order.
    pub(super) fn blocks(&self, inode: &[u8; INODE]) -> Result<Vec<u64>> {
        let mut blocks = Vec::new();
        self.visit(&inode[EXTENTS..GENERATION], DEPTH_MAX, &mut |block| {
            blocks.push(block);
            Ok(())
        })?;
        Ok(blocks)
    }

    /// Calls `take` with every block that a tree of extents names.
    fn visit(
        &self,
        node: &[u8],
        depth_max: u16,
        take: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let damaged = || unknown("a directory without a list of its blocks");
        let u16_at = |at: usize| u16::from_le_bytes(array(node, at));
        let (magic, count, depth) = (u16_at(0), usize::from(u16_at(2)), u16_at(6));
        if magic != 0xF30A || depth > depth_max || 12 + count * 12 > node.len() {
            return Err(damaged());
        }
        for entry in node[12..].chunks_exact(12).take(count) {
            let u16_at = |at: usize| u16::from_le_bytes(array(entry, at));
            let low = u64::from(u32::from_le_bytes(array(
                entry,
                if depth > 0 { 4 } else { 8 },
            )));
            if depth > 0 {
                let child = u64::from(u16_at(8)) << 32 | low;
                let child = read::<BLOCK>(self.request, child.saturating_mul(BLOCK as u64))?;
                self.visit(&child, depth - 1, take)?;
                continue;
            }
            let (length, start) = (u16_at(4), u64::from(u16_at(6)) << 32 | low);
            if length > EXTENT_MAX {
                return Err(damaged());
            }
            for block in start..start + u64::from(length) {
                take(block)?;
            }
        }
        Ok(())
    }
}

/// Adds the names in one block of a directory.
fn entries(block: &[u8; BLOCK], names: &mut Vec<(Vec<u8>, u32)>) -> Result<()> {
    let mut at = 0;
    while at < BLOCK {
        let entry = &block[at..];
        let damaged = || unknown("a directory that cannot be read");
        if entry.len() < 8 {
            return Err(damaged());
        }
        let length = usize::from(u16::from_le_bytes(array(entry, 4)));
        let name = entry
            .get(8..8 + usize::from(entry[6]))
            .ok_or_else(damaged)?;
        if length < 8 || length > entry.len() {
            return Err(damaged());
        }
        let inode = u32::from_le_bytes(array(entry, 0));
        if inode != 0 && name != b"." && name != b".." {
            names.push((name.to_vec(), inode));
        }
        at += length;
    }
    Ok(())
}

fn read<const N: usize>(request: &Request, at: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let done = request.image.read_exact_at(&mut bytes, at);
    done.map_err(io("read", request.path))?;
    Ok(bytes)
}

/// The `N` bytes at `at` of a structure whose size is known.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("the slice has the array's length")
}

/// Puts `value` at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
