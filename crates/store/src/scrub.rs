//! Reads ready images again, a few chunks at a time, and compares them with their seals.
//!
//! The copy in the page cache is dropped first, so that the disk itself is read. A raw form needs
//! no digests: it is compared with the conversion of its image, which was just verified.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use probe::Disk as _;
use rustix::fs::{Advice, fadvise};

use super::durable;
use super::health::is_of_the_medium;
use super::images::ImageStore;
use super::sealed::SealedImage;
use crate::error::{IoContext, Result};
use crate::manifest::ManifestFile as _;
use chunks::holes::next_data;
use chunks::{CHUNK, Chunk, Manifest};

/// What a look at some chunks found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scrubbed {
    /// All is well, and so many bytes were read from the disk.
    Good(u64),
    Bad(String),
}

impl ImageStore {
    /// The chunk manifest of a ready image, if it is there and belongs to it.
    pub fn manifest(&self, image: &SealedImage) -> Result<Option<Manifest>> {
        let checksum = image.summed()?;
        let manifest = Manifest::read(&self.paths(&image.id).chunks, image.sidecar.size)?;
        Ok(manifest.filter(|manifest| manifest.checksum == checksum))
    }

    /// Compares `count` chunks of an image, beginning with `first`.
    pub fn scrub(
        &self,
        image: &SealedImage,
        manifest: &Manifest,
        first: usize,
        count: usize,
    ) -> Result<Scrubbed> {
        let path = self.paths(&image.id).backing;
        let file = File::open(&path).context("open", &path)?;
        let mut read = 0;
        let mut buffer = vec![0; CHUNK];
        let last = manifest.chunks.len().min(first + count);
        for index in first..last {
            let bytes = &mut buffer[..manifest.chunk_len(index)];
            let offset = index as u64 * CHUNK as u64;
            let end = offset + bytes.len() as u64;
            let found = if next_data(&file, offset, manifest.size).context("read", &path)? >= end {
                Chunk::Hole
            } else {
                match read_from_disk(&file, &path, bytes, offset) {
                    Ok(()) => {}
                    Err(error) if is_of_the_medium(&error) => {
                        return Ok(Scrubbed::Bad(format!(
                            "the MiB at offset {offset} cannot be read"
                        )));
                    }
                    Err(error) => return Err(error),
                }
                read += bytes.len() as u64;
                Chunk::of(bytes)
            };
            if found != manifest.chunks[index] {
                return Ok(Scrubbed::Bad(format!(
                    "the MiB at offset {offset} has other bytes"
                )));
            }
        }
        Ok(Scrubbed::Good(read))
    }

    /// Compares `count` MiB of the raw form with the image, from the MiB `first` on; `None` when there
    /// is no raw form of its own, or no more of it.
    pub fn scrub_raw_form(
        &self,
        image: &SealedImage,
        first: usize,
        count: usize,
    ) -> Result<Option<Scrubbed>> {
        let paths = self.paths(&image.id);
        if self.raw_form(image)?.as_ref() != Some(&paths.raw) {
            return Ok(None);
        }
        let (raw, backing) = (File::open(&paths.raw), File::open(&paths.backing));
        let (raw, backing) = (
            raw.context("open", &paths.raw)?,
            backing.context("open", &paths.backing)?,
        );
        let source = image::Image::open(backing, image.format())?;
        let start = first as u64 * CHUNK as u64;
        if start >= source.size() {
            return Ok(None);
        }
        let end = source.size().min(start + count as u64 * CHUNK as u64);
        let (mut expected, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut offset = start;
        while offset < end {
            let length = usize::try_from(end - offset).map_or(CHUNK, |left| left.min(CHUNK));
            source
                .read_exact_at(&mut expected[..length], offset)
                .context("read", &paths.backing)?;
            let read = read_from_disk(&raw, &paths.raw, &mut found[..length], offset);
            if read.is_err() || expected[..length] != found[..length] {
                return Ok(Some(Scrubbed::Bad(format!(
                    "the MiB at offset {offset} of its raw form has other bytes"
                ))));
            }
            offset += length as u64;
        }
        Ok(Some(Scrubbed::Good(end - start)))
    }

    /// Removes the raw form: it is made again when it is needed. The caller sees to it that nobody
    /// clones it now.
    pub fn drop_raw_form(&self, image: &SealedImage) -> Result<()> {
        let paths = self.paths(&image.id);
        durable::remove_file(&paths.raw_seal)?;
        durable::remove_file(&paths.raw)?;
        self.forget_spares(&paths);
        durable::sync_dir(&paths.dir)
    }
}

/// Reads past the kernel's cache, and leaves none of it there: others need the memory more.
fn read_from_disk(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<()> {
    let length = std::num::NonZeroU64::new(bytes.len() as u64);
    let drop_cached = || {
        // Advice: what a file system does not heed is no harm.
        let _ = fadvise(file, offset, length, Advice::DontNeed);
    };
    drop_cached();
    let read = file.read_exact_at(bytes, offset).context("read", path);
    drop_cached();
    read
}
