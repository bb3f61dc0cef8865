//! Computing a SHA-512 that a peer's manifest only told, once the image is ready.

use std::fs::File;

use super::adopt::Reading;
use super::hash::hash_file;
use super::images::{ImageStore, SealedImage};
use crate::error::{Error, IoContext, Result};

impl ImageStore {
    /// Computes the SHA-512 of a ready image; [`Error::Checksum`] when it is another one than was told.
    pub fn prove(&self, image: &SealedImage, reading: Reading<'_>) -> Result<()> {
        let path = self.paths(&image.id).backing;
        let file = File::open(&path).context("open", &path)?;
        let (told, found) = (
            image.checksum()?,
            hash_file(&file, &path, reading)?.checksum,
        );
        if told == found {
            return Ok(());
        }
        Err(Error::Checksum {
            expected: Box::new(told),
            actual: Box::new(found),
        })
    }

    /// Writes down that the checksum of an image was computed here.
    pub fn proven(&self, image: &SealedImage) -> Result<SealedImage> {
        let mut proven = image.clone();
        proven.seal.checksum_told = false;
        proven.sidecar.seal = Some(proven.seal.clone());
        proven.sidecar.write(&self.paths(&image.id).sidecar)?;
        Ok(proven)
    }
}
