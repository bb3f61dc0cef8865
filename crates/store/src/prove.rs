//! Computes the SHA-512 of an image that is ready: one that was left for later, or one that a peer's manifest or
//! Longhorn's sidecar only claimed. Images sealed by Longhorn's manager get their chunk manifest here.
//!
//! 1. read the image, compare each chunk with the manifest if there is one, and compute the sum
//! 2. write `backing.chunks` if it lacks the sum, or is missing
//! 3. write `backing.cfg` with the sum
//!
//! A crash before 3 leaves an image that the next start reads again.

use std::fs::File;

use types::{Sha512, crash_point};

use super::hash::hash_gently;
use super::images::ImageStore;
use super::reading::Reading;
use super::sealed::SealedImage;
use super::sealed::unreadable;
use super::sidecar;
use crate::error::{Error, IoContext, Result};
use crate::manifest::ManifestFile as _;

impl ImageStore {
    /// Computes the SHA-512 of a ready image, while others need the processors more.
    ///
    /// # Errors
    /// [`Error::Checksum`] when it is another one than was told; [`Error::Damaged`] when a chunk is not what it was.
    pub fn prove(&self, image: &SealedImage, reading: Reading<'_>) -> Result<Sha512> {
        let path = self.paths(&image.id).backing;
        let file = File::open(&path).context("open", &path)?;
        let known = self.manifest(image)?;
        let manifest =
            hash_gently(&file, &path, reading).map_err(|error| unreadable(image, error))?; // 1
        let actual = manifest.checksum;
        let actual = actual.ok_or_else(|| Error::Unsummed(image.id.clone()))?;
        if let Some(told) = image.summed()?.filter(|told| *told != actual) {
            return Err(Error::Checksum {
                expected: Box::new(told),
                actual: Box::new(actual),
            });
        }
        let differs = known
            .as_ref()
            .is_some_and(|known| known.size != manifest.size || known.chunks != manifest.chunks);
        if differs {
            return Err(Error::Damaged {
                id: image.id.clone(),
                what: "its bytes are not those of its chunk manifest".to_owned(),
            });
        }
        if known.is_none_or(|known| known.checksum.is_none()) {
            // Longhorn's manager syncs nothing.
            file.sync_all().context("sync", &path)?;
            manifest.write(&self.paths(&image.id).chunks)?; // 2
            crash_point!("store.prove.described");
        }
        Ok(actual)
    }

    /// Writes down the checksum of an image, which was computed here.
    pub fn proven(&self, image: &SealedImage, checksum: Sha512) -> Result<SealedImage> {
        self.name_raw_form(image, checksum)?;
        let mut proven = image.clone();
        proven.sidecar.current_checksum = checksum.to_string();
        proven.seal.checksum_unproven = false;
        proven.seal.version = sidecar::version(true);
        proven.sidecar.seal = Some(proven.seal.clone());
        proven.sidecar.write(&self.paths(&image.id).sidecar)?; // 3
        Ok(proven)
    }
}
