//! What has come of an image, complete and not durable yet.

use std::fs::File;
use std::path::PathBuf;

use chunks::Manifest;
use image::Format;
use types::Sha512;

use super::durable;
use super::padding::Padded;
use crate::error::{IoContext, Result};

/// All bytes are there and counted, but nothing is durable yet. Dropping it removes the file.
#[derive(Debug)]
pub struct Received {
    /// The file, open for reading and writing.
    pub file: File,
    pub path: PathBuf,
    /// Digests of the whole and of each chunk.
    pub manifest: Manifest,
    /// What they are once the image is padded, where it is no whole number of sectors.
    pub(super) padded: Option<Padded>,
    /// The SHA-512 is left for later, or is what a manifest from elsewhere says: every chunk is proven to be the
    /// manifest's, but the sum over all of them was not computed here.
    pub(super) unproven: bool,
    /// Unset once the file has its final name.
    pub(super) armed: bool,
}

impl Drop for Received {
    fn drop(&mut self) {
        if self.armed {
            let _ = durable::remove_file(&self.path);
        }
    }
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
        Ok(came)
    }
}
