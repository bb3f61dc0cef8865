//! The file `backing.chunks`: an image's manifest on the disk, and files held against it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use chunks::holes::next_data;
use chunks::{CHUNK, Chunk, Manifest};
use types::{Cancel, crash_point};

use crate::durable;
use crate::error::{Error, IoContext, Result};
use crate::reading::Reading;

/// Ends long reading that nobody waits for any more.
pub(crate) fn still_wanted(cancel: &Cancel) -> Result<()> {
    if cancel.is_cancelled() {
        return Err(Error::Cancelled("the image was not read to its end"));
    }
    Ok(())
}

/// The first place where a file is not what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The file has another length.
    Size(u64),
    /// The chunk at this offset has other bytes.
    Chunk(u64),
}

/// What the store does with a manifest.
pub trait ManifestFile: Sized {
    /// Writes the manifest durably (see [`durable::replace`]).
    fn write(&self, path: &Path) -> Result<()>;

    /// Reads the manifest of an image of `size` bytes; `None` when it is missing, damaged, or of
    /// another size: then it is only a help that is not there.
    fn read(path: &Path, size: u64) -> Result<Option<Self>>;

    /// Reads the whole of `file` and compares it; `Ok(None)` when every byte is right. Holes are not
    /// read, but a hole that got bytes is damage. Ends at the first chunk after it is cancelled.
    fn verify(&self, file: &File, path: &Path, reading: Reading<'_>) -> Result<Option<Mismatch>>;
}

impl ManifestFile for Manifest {
    fn write(&self, path: &Path) -> Result<()> {
        durable::replace(path, &self.to_bytes())?;
        crash_point!("store.manifest.written");
        Ok(())
    }

    fn read(path: &Path, size: u64) -> Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("open", path),
        };
        let length = file.metadata().context("inspect", path)?.len();
        if Self::encoded_len(size) != Some(length) {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.read_to_end(&mut bytes).context("read", path)?;
        let read = Self::from_bytes(&bytes);
        Ok(read.filter(|manifest| manifest.size == size))
    }

    fn verify(&self, file: &File, path: &Path, reading: Reading<'_>) -> Result<Option<Mismatch>> {
        let length = file.metadata().context("inspect", path)?.len();
        if length != self.size {
            return Ok(Some(Mismatch::Size(length)));
        }
        let mut buffer = vec![0; CHUNK];
        let mut data = 0;
        for (index, chunk) in self.chunks.iter().enumerate() {
            still_wanted(reading.cancel)?;
            let bytes = &mut buffer[..self.chunk_len(index)];
            let offset = index as u64 * CHUNK as u64;
            let end = offset + bytes.len() as u64;
            if data <= offset {
                data = next_data(file, offset, self.size).context("read", path)?;
            }
            let found = if data >= end {
                Chunk::Hole
            } else {
                file.read_exact_at(bytes, offset).context("read", path)?;
                Chunk::of(bytes)
            };
            if found != *chunk {
                return Ok(Some(Mismatch::Chunk(offset)));
            }
            (reading.progress)(end, self.size);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use types::Sha512;

    use super::*;

    fn sample() -> (tempfile::TempDir, Vec<u8>, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 3 * CHUNK + 512];
        bytes[7] = 1;
        bytes[2 * CHUNK + 9] = 2;
        let manifest = Manifest {
            size: bytes.len() as u64,
            checksum: Some(Sha512::of(&bytes)),
            chunks: bytes.chunks(CHUNK).map(Chunk::of).collect(),
        };
        (dir, bytes, manifest)
    }

    #[test]
    fn a_manifest_reads_back_and_a_damaged_one_does_not() {
        let (dir, _, manifest) = sample();
        let path = dir.path().join("backing.chunks");
        manifest.write(&path).unwrap();
        assert_eq!(
            Manifest::read(&path, manifest.size).unwrap(),
            Some(manifest.clone())
        );
        assert_eq!(Manifest::read(&path, manifest.size + 1).unwrap(), None);
        let good = std::fs::read(&path).unwrap();
        for at in [0, 9, 20, 90, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            durable::replace(&path, &bad).unwrap();
            assert_eq!(
                Manifest::read(&path, manifest.size).unwrap(),
                None,
                "byte {at}"
            );
        }
    }

    #[test]
    fn every_kind_of_damage_is_found_and_placed() {
        let (dir, bytes, manifest) = sample();
        let path = dir.path().join("backing");
        let check = |bytes: &[u8]| {
            let mut file = durable::create_file(&path).unwrap();
            io::Write::write_all(&mut file, bytes).unwrap();
            let found = manifest
                .verify(&file, &path, Reading::silent(&Cancel::never()))
                .unwrap();
            std::fs::remove_file(&path).unwrap();
            found
        };
        assert_eq!(check(&bytes), None);
        for (at, chunk) in [(7, 0), (CHUNK + 5, CHUNK), (3 * CHUNK + 511, 3 * CHUNK)] {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert_eq!(check(&bad), Some(Mismatch::Chunk(chunk as u64)));
        }
        assert_eq!(check(&bytes[..CHUNK]), Some(Mismatch::Size(CHUNK as u64)));
    }
}
