//! Where a file's blocks are: the extent list in the inode, or a tree when it is too long for that.

use super::bytes::{even_parts, put};
use super::error::Result;
use super::fork::{Fork, Format};
use super::layout::BLOCK;
use super::space::{FsBlock, Space};

/// The longest extent: 21 bits.
const MAX_LENGTH: u64 = (1 << 21) - 1;
/// The bytes of an extent, and of a key with its pointer.
const RECORD: usize = 16;
/// The header of a tree block, and how many extents or children follow it.
const HEADER: usize = 72;
const RECORDS: usize = (BLOCK - HEADER) / RECORD;
/// The null of file system blocks.
const NULL: u64 = u64::MAX;
/// The header of a block with the target of a symbolic link.
const LINK_HEADER: usize = 56;

/// The extents of a file, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Extents(Vec<Extent>);

#[derive(Debug, Clone, Copy)]
struct Extent {
    /// In blocks of the file.
    offset: u64,
    start: u64,
    length: u64,
}

impl Extents {
    /// Adds blocks behind all others.
    pub(super) fn push(&mut self, offset: u64, start: FsBlock, length: u32) {
        let length = u64::from(length);
        if let Some(last) = self.0.last_mut()
            && last.offset + last.length == offset
            && last.start + last.length == start.0
            && last.length + length <= MAX_LENGTH
        {
            last.length += length;
            return;
        }
        self.0.push(Extent {
            offset,
            start: start.0,
            length,
        });
    }

    /// Writes `bytes` of the file, at `offset` of it, into new blocks behind all others.
    pub(super) fn write(&mut self, space: &mut Space, offset: u64, mut bytes: &[u8]) -> Result<()> {
        let mut file_block = offset / BLOCK as u64;
        while !bytes.is_empty() {
            let want = u32::try_from(bytes.len().div_ceil(BLOCK)).unwrap_or(u32::MAX);
            let (start, length) = space.take(want)?;
            let (now, rest) = bytes.split_at(bytes.len().min(length as usize * BLOCK));
            space.write_block(start, now)?;
            self.push(file_block, start, length);
            file_block += u64::from(length);
            bytes = rest;
        }
        Ok(())
    }

    /// The data fork that says where the blocks are, in `room` bytes of the inode.
    pub(super) fn into_fork(self, space: &mut Space, owner: u64, room: usize) -> Result<Fork> {
        let extents = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let mut blocks: u64 = self.0.iter().map(|extent| extent.length).sum();
        let records: Vec<_> = self
            .0
            .iter()
            .map(|extent| (extent.offset, record(extent)))
            .collect();
        if records.len() * RECORD <= room {
            let bytes = records.iter().flat_map(|(_, record)| *record).collect();
            return Ok(Fork {
                format: Format::Extents,
                bytes,
                extents,
                blocks,
            });
        }
        let (mut children, taken) = write_level(space, owner, 0, &records)?;
        blocks += taken;
        let most = (room - 4) / RECORD;
        let mut level: u16 = 1;
        while children.len() > most {
            let (next, taken) = write_node_level(space, owner, level, &children)?;
            children = next;
            blocks += taken;
            level += 1;
        }
        let mut bytes = vec![0; 4 + most * RECORD];
        put(&mut bytes, 0, &level.to_be_bytes());
        put(
            &mut bytes,
            2,
            &u16::try_from(children.len()).unwrap_or(0).to_be_bytes(),
        );
        put_children(&mut bytes[4..], most, &children);
        Ok(Fork {
            format: Format::Tree,
            bytes,
            extents,
            blocks,
        })
    }
}

/// Writes the leaves; returns the first offset and the place of each, and how many there are.
fn write_level(
    space: &mut Space,
    owner: u64,
    level: u16,
    records: &[(u64, [u8; RECORD])],
) -> Result<(Vec<(u64, FsBlock)>, u64)> {
    let parts: Vec<_> = even_parts(records.len(), RECORDS).collect();
    let places = space.take_all(parts.len())?;
    for (i, part) in parts.iter().enumerate() {
        let mut block = tree_block(space, owner, level, &places, i, part.len());
        let flat: Vec<u8> = records[part.clone()]
            .iter()
            .flat_map(|(_, record)| *record)
            .collect();
        put(&mut block, HEADER, &flat);
        space.write_sealed(places[i], &mut block, 64)?;
    }
    let children = parts
        .iter()
        .zip(&places)
        .map(|(part, place)| (records[part.start].0, *place));
    Ok((children.collect(), places.len() as u64))
}

/// Writes a level of blocks that point to `children`.
fn write_node_level(
    space: &mut Space,
    owner: u64,
    level: u16,
    children: &[(u64, FsBlock)],
) -> Result<(Vec<(u64, FsBlock)>, u64)> {
    let parts: Vec<_> = even_parts(children.len(), RECORDS).collect();
    let places = space.take_all(parts.len())?;
    for (i, part) in parts.iter().enumerate() {
        let mut block = tree_block(space, owner, level, &places, i, part.len());
        put_children(&mut block[HEADER..], RECORDS, &children[part.clone()]);
        space.write_sealed(places[i], &mut block, 64)?;
    }
    let parents = parts
        .iter()
        .zip(&places)
        .map(|(part, place)| (children[part.start].0, *place));
    Ok((parents.collect(), places.len() as u64))
}

/// All keys, then, from where they could end at most, all pointers.
fn put_children(bytes: &mut [u8], most: usize, children: &[(u64, FsBlock)]) {
    for (i, (key, place)) in children.iter().enumerate() {
        put(bytes, i * 8, &key.to_be_bytes());
        put(bytes, (most + i) * 8, &place.0.to_be_bytes());
    }
}

fn tree_block(
    space: &Space,
    owner: u64,
    level: u16,
    places: &[FsBlock],
    i: usize,
    records: usize,
) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let before = i.checked_sub(1).map_or(NULL, |i| places[i].0);
    let after = places.get(i + 1).map_or(NULL, |place| place.0);
    put(&mut block, 0, b"BMA3");
    put(&mut block, 4, &level.to_be_bytes());
    put(
        &mut block,
        6,
        &u16::try_from(records).unwrap_or(0).to_be_bytes(),
    );
    put(&mut block, 8, &before.to_be_bytes());
    put(&mut block, 16, &after.to_be_bytes());
    put(&mut block, 24, &space.sector(places[i]));
    put(&mut block, 40, space.uuid());
    put(&mut block, 56, &owner.to_be_bytes());
    block
}

/// 1 bit "unwritten", 54 bits offset, 52 bits start, 21 bits length.
fn record(extent: &Extent) -> [u8; RECORD] {
    let value = u128::from(extent.offset) << 73
        | u128::from(extent.start) << 21
        | u128::from(extent.length);
    value.to_be_bytes()
}

/// The data fork of a symbolic link.
pub(super) fn symlink(space: &mut Space, owner: u64, target: &[u8], room: usize) -> Result<Fork> {
    if target.len() <= room {
        return Ok(Fork::local(target.to_vec()));
    }
    let mut extents = Extents::default();
    // A target is at most 1023 bytes long on XFS and 4095 elsewhere: one or two blocks.
    for (i, part) in target.chunks(BLOCK - LINK_HEADER).enumerate() {
        let (place, _) = space.take(1)?;
        let mut block = vec![0; BLOCK];
        put(&mut block, 0, b"XSLM");
        let offset = u32::try_from(i * (BLOCK - LINK_HEADER)).unwrap_or(0);
        put(&mut block, 4, &offset.to_be_bytes());
        put(
            &mut block,
            8,
            &u32::try_from(part.len()).unwrap_or(0).to_be_bytes(),
        );
        put(&mut block, 16, space.uuid());
        put(&mut block, 32, &owner.to_be_bytes());
        put(&mut block, 40, &space.sector(place));
        put(&mut block, LINK_HEADER, part);
        space.write_sealed(place, &mut block, 12)?;
        extents.push(i as u64, place, 1);
    }
    extents.into_fork(space, owner, room)
}
