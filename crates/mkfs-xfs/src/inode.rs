//! The inode, version 3.

use super::bytes::put;
use super::fork::{Attributes, Fork, Format};
use super::layout::{INODE, LITERAL, seal};
use tree::Time;

/// Where the forks start.
const CORE: usize = INODE - LITERAL;
/// Where the checksum is.
const CRC: usize = 100;
/// The generation of every inode: it tells files apart that had the same inode one after the other,
/// and in a fresh file system none had.
const GENERATION: u32 = 1;
/// `di_flags2`: times are 64-bit counts of nanoseconds.
const BIGTIME: u64 = 1 << 3;

pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) time: Time,
    pub(super) size: u64,
    pub(super) data: Fork,
    pub(super) attributes: Option<Attributes>,
}

impl Inode {
    /// The bytes on disk.
    pub(super) fn encode(&self, uuid: &[u8; 16]) -> [u8; INODE] {
        let mut bytes = blank(self.number, uuid);
        put(&mut bytes, 2, &self.mode.to_be_bytes());
        bytes[5] = self.data.format as u8;
        put(&mut bytes, 8, &self.uid.to_be_bytes());
        put(&mut bytes, 12, &self.gid.to_be_bytes());
        put(&mut bytes, 16, &self.links.to_be_bytes());
        put(&mut bytes, 56, &self.size.to_be_bytes());
        let mut blocks = self.data.blocks;
        put(&mut bytes, 76, &self.data.extents.to_be_bytes());
        put(&mut bytes, CORE, &self.data.bytes);
        // The format of an attribute fork that is not there is "extents" too.
        bytes[83] = Format::Extents as u8;
        if let Some(attributes) = &self.attributes {
            blocks += attributes.blocks;
            put(
                &mut bytes,
                80,
                &u16::from(attributes.blocks > 0).to_be_bytes(),
            );
            bytes[82] = u8::try_from(attributes.data_room() / 8).unwrap_or(0);
            bytes[83] = attributes.format as u8;
            put(&mut bytes, CORE + attributes.data_room(), &attributes.bytes);
        }
        put(&mut bytes, 64, &blocks.to_be_bytes());
        set_clock(&mut bytes, self.time);
        bytes
    }
}

/// An inode that no file uses.
pub(super) fn free(number: u64, uuid: &[u8; 16]) -> [u8; INODE] {
    let mut bytes = blank(number, uuid);
    seal(&mut bytes, CRC);
    bytes
}

fn blank(number: u64, uuid: &[u8; 16]) -> [u8; INODE] {
    let mut bytes = [0; INODE];
    put(&mut bytes, 0, b"IN");
    bytes[4] = 3;
    put(&mut bytes, 92, &GENERATION.to_be_bytes());
    // On no list of files that were removed while open.
    put(&mut bytes, 96, &u32::MAX.to_be_bytes());
    put(&mut bytes, 152, &number.to_be_bytes());
    put(&mut bytes, 160, uuid);
    bytes
}

/// Sets all times to `time` (nanoseconds since 1901), sets the generation, and seals the inode.
pub(super) fn set_clock(bytes: &mut [u8; INODE], time: Time) {
    let seconds = time.seconds.saturating_add(1 << 31);
    let value = u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::from(time.nanoseconds);
    for at in [32, 40, 48, 144] {
        put(bytes, at, &value.to_be_bytes());
    }
    put(bytes, 92, &GENERATION.to_be_bytes());
    put(bytes, 120, &BIGTIME.to_be_bytes());
    seal(bytes, CRC);
}
