//! A manifest as it arrives over the wire: the file format of the store, parsed as it arrives, so
//! that the manifest of a large image is in memory only once.
//!
//! Its own seal covers it: a damaged manifest is rejected.

use types::Sha512;

use super::protocol::{Geometry, Seal};
use chunks::{Chunk, Manifest, is_zero};

const MAGIC: &[u8; 8] = b"LHCHUNK1";
const HEADER: usize = 80;
const DIGEST: usize = 32;

/// Bytes of the manifest of an image.
pub fn manifest_length(geometry: Geometry) -> u64 {
    HEADER as u64 + (u64::from(geometry.count()) + 1) * DIGEST as u64
}

/// Reads a manifest of an image of known size.
#[derive(Debug)]
pub struct ManifestReader {
    geometry: Geometry,
    hasher: blake3::Hasher,
    /// Bytes that are not yet a whole field.
    field: Vec<u8>,
    checksum: Option<Sha512>,
    chunks: Vec<Chunk>,
    seal: Option<Seal>,
}

/// What is wrong with a manifest.
pub type Wrong = &'static str;

impl ManifestReader {
    /// A reader for the manifest of an image of that shape.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            hasher: blake3::Hasher::new(),
            field: Vec::new(),
            checksum: None,
            chunks: Vec::new(),
            seal: None,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Wrong> {
        while !bytes.is_empty() {
            if self.seal.is_some() {
                return Err("its manifest is longer than its image allows");
            }
            let wanted = if self.checksum.is_none() {
                HEADER
            } else {
                DIGEST
            };
            let (now, rest) = bytes.split_at(bytes.len().min(wanted - self.field.len()));
            self.field.extend_from_slice(now);
            bytes = rest;
            if self.field.len() == wanted {
                self.take_field()?;
                self.field.clear();
            }
        }
        Ok(())
    }

    fn take_field(&mut self) -> Result<(), Wrong> {
        if self.checksum.is_none() {
            return self.take_header();
        }
        let digest: [u8; DIGEST] = self.field[..]
            .try_into()
            .map_err(|_| "its manifest cannot be read")?;
        if self.chunks.len() < self.geometry.count() as usize {
            self.hasher.update(&digest);
            self.chunks.push(if is_zero(&digest) {
                Chunk::Hole
            } else {
                Chunk::Data(blake3::Hash::from_bytes(digest))
            });
            return Ok(());
        }
        if *self.hasher.finalize().as_bytes() != digest {
            return Err("the seal of its manifest is broken");
        }
        self.seal = Some(Seal(digest));
        Ok(())
    }

    fn take_header(&mut self) -> Result<(), Wrong> {
        let (magic, rest) = self.field.split_at(MAGIC.len());
        let (size, checksum) = rest.split_at(8);
        if magic != MAGIC {
            return Err("it sent no valid manifest");
        }
        if size != self.geometry.size.to_le_bytes() {
            return Err("its manifest has another size than announced");
        }
        let checksum = checksum.try_into().expect("the header is so long");
        self.checksum = Some(Sha512::from_bytes(checksum));
        self.hasher.update(&self.field);
        Ok(())
    }

    /// The manifest and its seal, once all of it has come.
    pub fn finish(self) -> Result<(Manifest, Seal), Wrong> {
        let (Some(checksum), Some(seal)) = (self.checksum, self.seal) else {
            return Err("its manifest ends early");
        };
        let manifest = Manifest {
            size: self.geometry.size,
            checksum: Some(checksum),
            chunks: self.chunks,
        };
        Ok((manifest, seal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Geometry, Manifest) {
        let geometry = Geometry::new(25, 10).unwrap();
        let manifest = Manifest {
            size: 25,
            checksum: Some(Sha512::of(b"x")),
            chunks: vec![Chunk::of(b"a"), Chunk::Hole, Chunk::of(b"b")],
        };
        (geometry, manifest)
    }

    fn read(geometry: Geometry, bytes: &[u8], piece: usize) -> Result<(Manifest, Seal), Wrong> {
        let mut reader = ManifestReader::new(geometry);
        for piece in bytes.chunks(piece) {
            reader.push(piece)?;
        }
        reader.finish()
    }

    #[test]
    fn a_manifest_comes_over_in_pieces_of_any_size() {
        let (geometry, manifest) = sample();
        let bytes = manifest.to_bytes();
        assert_eq!(bytes.len() as u64, manifest_length(geometry));
        for piece in [1, 7, 32, 80, 1000] {
            let (read, seal) = read(geometry, &bytes, piece).unwrap();
            assert_eq!(read, manifest);
            assert_eq!(seal.0, bytes[bytes.len() - 32..]);
        }
    }

    /// Row 53: a manifest that is not the one of the image is none.
    #[test]
    fn row_53_every_damage_to_a_manifest_is_found() {
        let (geometry, manifest) = sample();
        let good = manifest.to_bytes();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(read(geometry, &bad, 64).is_err(), "byte {at}");
            assert!(read(geometry, &good[..at], 64).is_err(), "cut at {at}");
        }
        let mut long = good.clone();
        long.push(0);
        assert!(read(geometry, &long, 64).is_err());
        let other = Geometry::new(35, 10).unwrap();
        assert!(read(other, &good, 64).is_err());
    }
}
