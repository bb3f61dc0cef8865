//! Computes a SHA-512 that a peer's manifest or Longhorn's sidecar only claimed, once the image is
//! ready. Images sealed by Longhorn's manager get their chunk manifest here.

use std::fs::File;

use types::crash_point;

use super::hash::hash_file;
use super::images::ImageStore;
use super::reading::Reading;
use super::sealed::SealedImage;
use super::sealed::unreadable;
use crate::error::{Error, IoContext, Result};
use crate::manifest::ManifestFile as _;

impl ImageStore {
    /// Computes the SHA-512 of a ready image; [`Error::Checksum`] when it is another one than was told.
    pub fn prove(&self, image: &SealedImage, reading: Reading<'_>) -> Result<()> {
        let path = self.paths(&image.id).backing;
        let file = File::open(&path).context("open", &path)?;
        let told = image.checksum()?;
        let manifest =
            hash_file(&file, &path, reading).map_err(|error| unreadable(image, error))?;
        if told != manifest.checksum {
            return Err(Error::Checksum {
                expected: Box::new(told),
                actual: Box::new(manifest.checksum),
            });
        }
        if self.manifest(image)?.is_none() {
            // Longhorn's manager syncs nothing.
            file.sync_all().context("sync", &path)?;
            manifest.write(&self.paths(&image.id).chunks)?;
            crash_point!("store.prove.described");
        }
        Ok(())
    }

    /// Writes down that the checksum of an image was computed here.
    pub fn proven(&self, image: &SealedImage) -> Result<SealedImage> {
        let mut proven = image.clone();
        proven.seal.checksum_unproven = false;
        proven.sidecar.seal = Some(proven.seal.clone());
        proven.sidecar.write(&self.paths(&image.id).sidecar)?;
        Ok(proven)
    }
}
