//! The chunk manifest: a digest for each MiB of an image, bound to its SHA-512.
//!
//! With it, a reader can check any part without the whole, and locate damage in an image. A chunk
//! of zeros has no digest and no blocks on disk: it is a hole.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     8  magic "LHCHUNK1"
//!      8     8  size of the image in bytes
//!     16    64  SHA-512 of the image, zeros as long as nobody has computed it
//!     80  32×n  BLAKE3 of each chunk, zeros for a hole; n = size / CHUNK rounded up
//!   80+…    32  BLAKE3 of everything above
//! ```

use types::Sha512;

/// The largest image, in bytes of its stored form: 4 TiB. Its chunk manifest has 128 MiB and its
/// SHA-512 takes two hours.
pub const IMAGE_SIZE_MAX: u64 = 4 << 40;

/// Bytes in a chunk: 1 MiB hashes at memory speed and keeps the manifest at 1/32768 of the image.
pub const CHUNK: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"LHCHUNK1";
const DIGEST: usize = 32;
const HEADER: usize = 80;

/// What one chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// Zeros, stored as a hole.
    Hole,
    /// Bytes with this digest.
    Data(blake3::Hash),
}

impl Chunk {
    /// The chunk that `bytes` make.
    pub fn of(bytes: &[u8]) -> Self {
        if is_zero(bytes) {
            Self::Hole
        } else {
            Self::Data(blake3::hash(bytes))
        }
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // A line at a time, so that the compiler can compare with vector instructions.
    let (lines, tail) = bytes.as_chunks::<64>();
    lines
        .iter()
        .all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
        && tail.iter().all(|byte| *byte == 0)
}

/// Bytes of chunk `index` of an image of `size` bytes.
pub fn chunk_len(size: u64, index: usize) -> usize {
    let rest = size.saturating_sub(index as u64 * CHUNK as u64);
    usize::try_from(rest).map_or(CHUNK, |rest| rest.min(CHUNK))
}

/// The digests of a whole image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Bytes of the image.
    pub size: u64,
    /// SHA-512 of the image; `None`: not computed yet.
    pub checksum: Option<Sha512>,
    /// One entry for each [`CHUNK`] bytes; the last may be shorter.
    pub chunks: Vec<Chunk>,
}

impl Manifest {
    /// The bytes of the file format above, which is also that of the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + (self.chunks.len() + 1) * DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.size.to_le_bytes());
        let none = Sha512::from_bytes([0; 64]);
        bytes.extend_from_slice(self.checksum.unwrap_or(none).as_bytes());
        for chunk in &self.chunks {
            bytes.extend_from_slice(match chunk {
                Chunk::Hole => &[0; DIGEST],
                Chunk::Data(digest) => digest.as_bytes(),
            });
        }
        let seal = blake3::hash(&bytes);
        bytes.extend_from_slice(seal.as_bytes());
        bytes
    }

    /// The manifest that these bytes are; `None` when they are none, or one that does not fit itself.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let size = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
        if bytes.len() as u64 != Self::encoded_len(size)? {
            return None;
        }
        Self::parse(bytes, size)
    }

    /// Bytes of the manifest of an image of `size` bytes; `None` for sizes that no image has.
    pub fn encoded_len(size: u64) -> Option<u64> {
        (size <= IMAGE_SIZE_MAX)
            .then(|| HEADER as u64 + (size.div_ceil(CHUNK as u64) + 1) * DIGEST as u64)
    }

    /// Bytes of chunk `index`: a whole [`CHUNK`] but for the last.
    pub fn chunk_len(&self, index: usize) -> usize {
        chunk_len(self.size, index)
    }

    /// Bytes that are not in holes: what the image takes on a disk, at most.
    pub fn data_bytes(&self) -> u64 {
        let data = |(index, chunk): (usize, &Chunk)| match chunk {
            Chunk::Hole => 0,
            Chunk::Data(_) => self.chunk_len(index) as u64,
        };
        self.chunks.iter().enumerate().map(data).sum()
    }

    fn parse(bytes: &[u8], size: u64) -> Option<Self> {
        let (body, seal) = bytes.split_last_chunk::<DIGEST>()?;
        let (header, digests) = body.split_at_checked(HEADER)?;
        let sealed = blake3::hash(body).as_bytes() == seal;
        if !sealed || header[..8] != *MAGIC || header[8..16] != size.to_le_bytes() {
            return None;
        }
        let checksum: [u8; 64] = header[16..HEADER].try_into().ok()?;
        let checksum = (!is_zero(&checksum)).then(|| Sha512::from_bytes(checksum));
        let chunks = digests
            .as_chunks::<DIGEST>()
            .0
            .iter()
            .map(|digest| match digest {
                [0, ..] if is_zero(digest) => Chunk::Hole,
                digest => Chunk::Data(blake3::Hash::from_bytes(*digest)),
            })
            .collect();
        Some(Self {
            size,
            checksum,
            chunks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_manifest_read_back_and_damaged_ones_do_not() {
        let mut bytes = vec![0; 3 * CHUNK + 512];
        bytes[7] = 1;
        bytes[2 * CHUNK + 9] = 2;
        let chunks = bytes.chunks(CHUNK).map(Chunk::of).collect::<Vec<_>>();
        assert_eq!(chunks[1], Chunk::Hole);
        let manifest = Manifest {
            size: bytes.len() as u64,
            checksum: Some(Sha512::of(&bytes)),
            chunks,
        };
        let good = manifest.to_bytes();
        assert_eq!(Manifest::from_bytes(&good), Some(manifest.clone()));
        let owed = Manifest {
            checksum: None,
            ..manifest
        };
        assert_eq!(Manifest::from_bytes(&owed.to_bytes()), Some(owed));
        for at in [0, 9, 20, 90, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(Manifest::from_bytes(&bad), None, "byte {at}");
        }
        assert_eq!(Manifest::from_bytes(&good[..40]), None);
    }
}
