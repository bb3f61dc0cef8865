//! The sizes and the checksums that all structures on the disk share. It must not know any of them.

use probe::crc32c;

use super::bytes::put;

/// The block of the file systems made here.
pub(super) const BLOCK: usize = 4096;
/// Its sector, in which the headers are: a block, so that it can be mounted on devices that do direct I/O
/// in whole blocks, as well as on those with small sectors.
pub(super) const SECTOR: usize = BLOCK;
/// Bytes of an inode, and those of them that are left for its forks.
pub(super) const INODE: usize = 512;
pub(super) const LITERAL: usize = INODE - 176;
/// Inodes come in chunks of this many.
pub(super) const CHUNK: u64 = 64;
/// The blocks of a chunk; chunks start at multiples of it.
pub(super) const CHUNK_BLOCKS: u32 = 8;

/// Puts the checksum of `bytes` at `at`, little-endian as nothing else is.
pub(super) fn seal(bytes: &mut [u8], at: usize) {
    put(bytes, at, &[0; 4]);
    let crc = !crc32c(!0, bytes);
    put(bytes, at, &crc.to_le_bytes());
}

/// XFS's hash of a name: shifts and exclusive-or of its bytes.
pub(super) fn hash(name: &[u8]) -> u32 {
    let mix = |hash: u32, part: &[u8]| {
        let shift = u32::try_from(part.len() * 7).unwrap_or(0);
        let value = part
            .iter()
            .fold(0, |value, byte| value << 7 ^ u32::from(*byte));
        value ^ hash.rotate_left(shift)
    };
    name.chunks(4).fold(0, mix)
}
