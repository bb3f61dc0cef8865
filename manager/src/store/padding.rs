//! Raw images whose size is not a multiple of a sector, and how they are stored.
//!
//! The rule: a raw image whose size is not a multiple of 512 is stored with zeros up to the next
//! multiple, and that is the image from then on: its size, its SHA-512, its chunks. An expected
//! checksum is compared with the bytes as received, whose checksum stays in the sidecar. A qcow2
//! image is never padded, because a guest does not see the size of the file.

use image::Format;
use types::{SECTOR, Sha512};

use super::chunks::Chunk;
use super::ingest::Received;
use crate::error::{IoContext, Result};

/// What an image of an odd size is with zeros up to its next whole sector.
#[derive(Debug)]
pub(super) struct Padded {
    /// A multiple of 512.
    pub(super) size: u64,
    /// Of all of it.
    pub(super) checksum: Sha512,
    /// What its last chunk becomes.
    pub(super) last: Chunk,
}

/// Zeros that `size` bytes lack to be whole sectors.
pub(super) fn missing(size: u64) -> usize {
    let size = size.next_multiple_of(SECTOR) - size;
    usize::try_from(size).expect("less than a sector")
}

impl Received {
    /// Makes a raw image a whole number of sectors. Gives the sum of what came, if that is no longer
    /// the image's own.
    pub(super) fn pad(&mut self, declared: Option<Format>) -> Result<Option<Sha512>> {
        let Some(padded) = self.padded.take() else {
            return Ok(None);
        };
        let format = match declared {
            Some(format) => format,
            None => Format::detect(&self.file)?,
        };
        if format != Format::Raw {
            return Ok(None);
        }
        self.file
            .set_len(padded.size)
            .context("pad to whole sectors", &self.path)?;
        let manifest = &mut self.manifest;
        let came = std::mem::replace(&mut manifest.checksum, padded.checksum);
        manifest.size = padded.size;
        if let Some(last) = manifest.chunks.last_mut() {
            *last = padded.last;
        }
        Ok(Some(came))
    }
}
