//! The blocks of an ext4 directory without an index: names one after the other, a checksum at the end
//! of each block. It must not know where blocks come from: the directory has them.

use probe::crc32c;
use tree::{Kind, NodeId};

use super::disk::{BLOCK, Disk, GENERATION, INODE, put};
use super::{LOST_FOUND, Result, unknown};

/// An entry without its name, and the entry at the end that holds the checksum.
const HEADER: usize = 8;
const TAIL: usize = 12;
/// What the last entry of a block reaches to.
const END: usize = BLOCK - TAIL;

/// The type of a directory, as entries have it.
pub(super) const DIRECTORY: u8 = 2;

/// A name in a directory.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
    pub(super) kind: u8,
}

/// The type of a file, as entries have it.
pub(super) fn kind(kind: &Kind) -> u8 {
    match kind {
        Kind::Regular { .. } => 1,
        Kind::Directory { .. } => DIRECTORY,
        Kind::CharDevice { .. } => 3,
        Kind::BlockDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink { .. } => 7,
    }
}

fn room(name: &[u8]) -> usize {
    (HEADER + name.len()).next_multiple_of(4)
}

/// How many blocks the names need. The root also has a `lost+found`.
pub(super) fn blocks(entries: &[(Vec<u8>, NodeId)], root: bool) -> usize {
    let own: [&[u8]; 3] = [b".", b"..", LOST_FOUND];
    let own = own.into_iter().take(if root { 3 } else { 2 });
    let names = own.chain(entries.iter().map(|(name, _)| name.as_slice()));
    let (mut blocks, mut at) = (1, 0);
    for name in names {
        if at + room(name) > END {
            (blocks, at) = (blocks + 1, 0);
        }
        at += room(name);
    }
    blocks
}

/// Writes the names into the blocks that the directory has.
pub(super) fn write(
    disk: &Disk,
    number: u32,
    inode: &[u8; INODE],
    entries: &[Entry],
) -> Result<()> {
    let seed = crc32c(disk.seed, &number.to_le_bytes());
    let seed = crc32c(seed, &inode[GENERATION..GENERATION + 4]);
    let mut rest = entries;
    for place in disk.blocks(inode)? {
        let (mut block, count) = pack(rest);
        let crc = crc32c(seed, &block[..END]);
        put(&mut block, END + 8, &crc.to_le_bytes());
        disk.write_block(place, &block)?;
        rest = &rest[count..];
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(unknown("a directory with too few blocks"))
    }
}

/// A block with as many of the entries as fit, and their number. The last one reaches to the end.
fn pack(entries: &[Entry]) -> ([u8; BLOCK], usize) {
    let mut block = [0; BLOCK];
    let (mut at, mut last, mut count) = (0, 0, 0);
    for entry in entries {
        let room = room(entry.name);
        if at + room > END {
            break;
        }
        put(&mut block, at, &entry.inode.to_le_bytes());
        put_length(&mut block, at, room);
        block[at + 6] = u8::try_from(entry.name.len()).unwrap_or(u8::MAX);
        block[at + 7] = entry.kind;
        put(&mut block, at + HEADER, entry.name);
        (last, at, count) = (at, at + room, count + 1);
    }
    put_length(&mut block, last, END - last);
    put_length(&mut block, END, TAIL);
    block[END + 7] = 0xDE;
    (block, count)
}

fn put_length(block: &mut [u8; BLOCK], at: usize, length: usize) {
    let length = u16::try_from(length).expect("no entry is longer than its block");
    put(block, at + 4, &length.to_le_bytes());
}
