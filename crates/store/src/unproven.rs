//! Images sealed by Longhorn's own manager: its sidecar describes them, and they have no manifest
//! of ours yet.
//!
//! A file with the size and modification time of Longhorn's sidecar becomes an image immediately,
//! as in Longhorn's manager: no byte of it is read, because volumes wait for it. Its checksum
//! counts as claimed (see [`Seal::checksum_unproven`](super::sidecar::Seal)) until
//! [`prove`](super::prove) has read the file and created the chunk manifest. A power cut can leave
//! such a sidecar with a different file: the reading detects this, and the file is quarantined.

use std::fs::File;

use types::{ImageId, Sha512};

use super::images::{Examined, ImageStore};
use super::layout::ImagePaths;
use super::sealed::{Facts, SealedImage};
use super::sidecar::{Sidecar, Stamp};
use crate::error::{IoContext, Result};

impl ImageStore {
    /// The image `id` whose file is at `at`, when Longhorn's sidecar vouches for the file as it is now.
    pub(super) fn as_longhorn_sealed_it(
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
        let mut image = self.described(id, &at.backing, Some(checksum), examined, &facts)?;
        image.seal.checksum_unproven = true;
        image.sidecar.seal = Some(image.seal.clone());
        Ok(Some(image))
    }
}
