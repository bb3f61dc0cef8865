//! Images that Longhorn's own manager sealed: its sidecar says what they are, and no manifest of ours is
//! there yet.
//!
//! A file whose size and modification time are those of Longhorn's sidecar is an image at once, as it is
//! for Longhorn's manager: no byte of it is read, as volumes wait for it. Its checksum counts as told (see
//! [`Seal::checksum_told`](super::sidecar::Seal)) until [`prove`](super::prove) has read the file, which
//! makes the chunk manifest as well. A power cut can leave such a sidecar with a file that is not what it
//! says: the reading finds that, and the file is set aside then.

use std::fs::File;

use types::{ImageId, Sha512};

use super::images::{Examined, Facts, ImageStore, SealedImage};
use super::layout::ImagePaths;
use super::sidecar::{Sidecar, Stamp};
use crate::error::{IoContext, Result};

impl ImageStore {
    /// The image `id` whose file is at `at`, when Longhorn's sidecar vouches for the file as it is now.
    pub(super) fn told(
        &self,
        id: &ImageId,
        at: &ImagePaths,
        sidecar: &Sidecar,
    ) -> Result<Option<SealedImage>> {
        let Some(stamp) = Stamp::of(&at.backing)? else {
            return Ok(None);
        };
        let Ok(checksum) = sidecar.current_checksum.parse::<Sha512>() else {
            return Ok(None);
        };
        let fits = sidecar.seal.is_none()
            && sidecar.size == stamp.size
            && sidecar.modification_time == stamp.modification_time();
        if !fits {
            return Ok(None);
        }
        let file = File::open(&at.backing).context("open", &at.backing)?;
        let examined = Examined::of(&file, &at.backing, None)?;
        let facts = Facts {
            expected: sidecar.expected_checksum.parse().ok(),
            verified: true,
            ..Facts::default()
        };
        let mut image = self.described(id, &at.backing, checksum, examined, &facts)?;
        image.seal.checksum_told = true;
        image.sidecar.seal = Some(image.seal.clone());
        Ok(Some(image))
    }
}
