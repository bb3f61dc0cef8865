//! Chunks in fewer bytes on the wire: zstd, for those that it makes smaller.
//!
//! A packed answer has four bytes before each chunk, little endian: how many bytes of zstd follow, fewer
//! than the chunk has; or 0, and the chunk follows as it is.

use std::io;

/// Bytes before each chunk.
pub(super) const HEAD: usize = 4;
/// The fastest of the usual levels: the link must be slower than it to make it worth while.
const LEVEL: i32 = 1;
/// It must save at least one part in this many.
const WORTH: usize = 8;

/// A chunk packed; `None` when that does not save enough. Blocking.
pub(super) fn pack(chunk: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let packed = zstd::bulk::compress(chunk, LEVEL)?;
    let worth_it = packed.len() <= chunk.len() - chunk.len().div_ceil(WORTH);
    Ok(worth_it.then_some(packed))
}

/// The `length` bytes that were packed; `None` when they are not that. Never takes memory for more.
/// Blocking.
pub(super) fn unpack(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    let mut unpacker = zstd::bulk::Decompressor::new().ok()?;
    let came = unpacker.decompress_to_buffer(packed, &mut bytes).ok()?;
    (came == length).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_smaller_comes_back_and_what_does_not_is_left() {
        let text = b"all work and no play ".repeat(1000);
        let packed = pack(&text).unwrap().unwrap();
        assert!(packed.len() < text.len() / 10);
        assert_eq!(unpack(&packed, text.len()).as_ref(), Some(&text));
        let noise: Vec<u8> = (0..4096_u64)
            .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
            .collect();
        assert_eq!(pack(&noise).unwrap(), None);
        assert_eq!(pack(b"x").unwrap(), None);
    }

    #[test]
    fn row_52_what_unpacks_to_something_else_is_refused() {
        let text = vec![7; 1 << 20];
        let packed = pack(&text).unwrap().unwrap();
        for length in [0, 1, text.len() - 1, text.len() + 1] {
            assert_eq!(unpack(&packed, length), None, "{length}");
        }
        assert_eq!(unpack(&packed[..packed.len() - 1], text.len()), None);
        assert_eq!(unpack(b"", text.len()), None);
        assert_eq!(unpack(&[0xff; 100], text.len()), None);
    }
}
