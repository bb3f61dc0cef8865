//! How blocks are packed and unpacked.
//!
//! What a block was packed with is told by its first bytes, and whether that was right by its checksum:
//! the method of a volume changes while its blocks stay, and a block that looks packed may be one that
//! is not. What comes out is bounded by the length of the block before it is unpacked.

use std::io::{self, Read, Write};

use bytes::Bytes;
use chunks::direct::PageBuffer;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, FrameDecoder, FrameEncoder, FrameInfo};

use super::{BlockChecksum, Compression};
use crate::BlockError;

const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
const LZ4: &[u8] = &[0x04, 0x22, 0x4d, 0x18];
/// The level that other writers of the store use.
const GZIP_LEVEL: u32 = 6;

/// The most bytes to store of a block: one that does not shrink grows by less.
pub(crate) fn packed_max(length: usize) -> usize {
    length + length / 1000 + 128
}

/// The bytes to store of a block.
pub(crate) fn encode(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut packed = Vec::with_capacity(packed_max(bytes.len()));
    encode_onto(&mut packed, bytes, compression);
    packed
}

/// The same, behind what `packed` holds.
pub(crate) fn encode_onto(packed: &mut Vec<u8>, bytes: &[u8], compression: Compression) {
    let done: io::Result<()> = match compression {
        Compression::None => {
            packed.extend_from_slice(bytes);
            Ok(())
        }
        Compression::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut encoder = GzEncoder::new(packed, level);
            (encoder.write_all(bytes)).and_then(|()| encoder.finish().map(drop))
        }
        Compression::Lz4 => {
            let frame = FrameInfo::new()
                .block_mode(BlockMode::Independent)
                // Any size is read by everybody; of 4 MiB the encoder would hold 8 MiB in memory.
                .block_size(lz4_flex::frame::BlockSize::Max1MB)
                .content_checksum(true);
            let mut encoder = FrameEncoder::with_frame_info(frame, packed);
            encoder
                .write_all(bytes)
                .and_then(|()| encoder.finish().map(drop).map_err(io::Error::other))
        }
    };
    done.expect("memory takes all that is written to it");
}

/// A block as it came from a store, and what it must be.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    /// Bytes of the block, unpacked.
    pub(crate) length: u64,
    pub(crate) checksum: BlockChecksum,
}

/// The block of `length` bytes and of this checksum that `stored` is, however it is packed.
pub(crate) fn decode(
    stored: &Bytes,
    length: u64,
    checksum: &BlockChecksum,
) -> Result<Bytes, BlockError> {
    let stored = Stored {
        bytes: stored.clone(),
        length,
        checksum: *checksum,
    };
    let unpacked = unpack(&stored);
    let actual = unpacked.as_deref().ok().map(BlockChecksum::of);
    proven(&stored, unpacked, actual)
}

/// As [`decode`] for several blocks, in order, which takes less time.
pub(crate) fn decode_all(mut stored: Vec<Stored>) -> Vec<Result<Bytes, BlockError>> {
    let unpacked: Vec<_> = stored.iter_mut().map(unpack_and_drop).collect();
    let whole: Vec<&[u8]> = unpacked.iter().flatten().map(AsRef::as_ref).collect();
    let mut actual = BlockChecksum::of_all(&whole).into_iter();
    let blocks = stored.iter().zip(unpacked);
    blocks
        .map(|(stored, unpacked)| {
            let actual = unpacked.as_ref().ok().and_then(|_| actual.next());
            proven(stored, unpacked, actual)
        })
        .collect()
}

/// The block if its checksum, which is `actual`, fits; else the stored bytes if theirs does.
fn proven(
    stored: &Stored,
    unpacked: Result<Bytes, BlockError>,
    actual: Option<BlockChecksum>,
) -> Result<Bytes, BlockError> {
    if actual == Some(stored.checksum) {
        return unpacked;
    }
    let may_be_raw = stored.bytes.len() as u64 == stored.length;
    if may_be_raw && BlockChecksum::of(&stored.bytes) == stored.checksum {
        return Ok(stored.bytes.clone());
    }
    unpacked.and_then(|_| {
        Err(BlockError::Checksum {
            length: stored.length,
            actual: actual.map_or_else(String::new, |actual| actual.to_string()),
        })
    })
}

/// Lets go of the packed bytes as well, unless they may be the block itself.
fn unpack_and_drop(stored: &mut Stored) -> Result<Bytes, BlockError> {
    let unpacked = unpack(stored);
    if stored.bytes.len() as u64 != stored.length {
        stored.bytes = Bytes::new();
    }
    unpacked
}

/// Exactly as many bytes as the block has, of which nothing is proven.
fn unpack(stored: &Stored) -> Result<Bytes, BlockError> {
    if stored.bytes.starts_with(GZIP) {
        read(flate2::bufread::GzDecoder::new(&*stored.bytes), stored)
    } else if stored.bytes.starts_with(LZ4) {
        read(FrameDecoder::new(&*stored.bytes), stored)
    } else {
        let length = stored.length;
        match stored.bytes.len() as u64 {
            more if more > length => Err(BlockError::TooMuch { length }),
            less if less < length => Err(cut_short(stored, less)),
            _ => Ok(stored.bytes.clone()),
        }
    }
}

fn read(packed: impl Read, stored: &Stored) -> Result<Bytes, BlockError> {
    let length = stored.length;
    // One more, so that more is seen.
    let room =
        usize::try_from(length.saturating_add(1)).map_err(|_| BlockError::TooMuch { length })?;
    // From where a disk takes them as they are.
    let mut bytes = PageBuffer::with_capacity(room);
    let read = packed.take(room as u64).read_to_end(bytes.end());
    let got = bytes.len() as u64;
    match read {
        _ if got > length => Err(BlockError::TooMuch { length }),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(cut_short(stored, got)),
        Err(error) => Err(BlockError::Damaged {
            why: types::shown(&error.to_string()),
        }),
        Ok(_) if got < length => Err(cut_short(stored, got)),
        Ok(_) => Ok(Bytes::from_owner(bytes)),
    }
}

fn cut_short(stored: &Stored, got: u64) -> BlockError {
    BlockError::CutShort {
        stored: stored.bytes.len() as u64,
        got,
        length: stored.length,
    }
}
