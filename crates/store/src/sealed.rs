//! A complete, durable image, and what is known of it besides its bytes.

use image::Format;
use types::{Checksum, ImageId, Sha512};

use super::health::is_of_the_medium;
use super::sidecar::{AskedFor, Seal, Sidecar};
use crate::error::{Error, Result};
use crate::provenance::Provenance;

/// What is known of an image besides its bytes.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The SHA-512 it must have.
    pub expected: Option<Sha512>,
    /// The format it was said to have; `None`: told by its magic, this once.
    pub format: Option<Format>,
    /// Where the bytes are from.
    pub provenance: Provenance,
    /// Digest of the container image's manifest.
    pub manifest_digest: String,
    /// Something besides the bytes vouches for the bytes: a checksum, or a registry's digest.
    pub verified: bool,
    /// Sums of what came, where they are not the SHA-512 of what is stored: of a file that was
    /// unpacked, converted or padded.
    pub source_checksums: Vec<Checksum>,
    /// How it was asked for.
    pub asked: AskedFor,
    /// When its bytes were what they are, RFC 3339; `None`: when it is sealed.
    pub created_at: Option<String>,
}

/// A complete, durable image. There is no other way to one than [`ImageStore::seal`] and recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedImage {
    pub(crate) id: ImageId,
    pub(crate) sidecar: Sidecar,
    pub(crate) seal: Seal,
}

impl Facts {
    /// The same, and that the image had the sum `came` before it was padded.
    pub(super) fn of_what_came(&self, came: Option<Sha512>) -> Self {
        let mut facts = self.clone();
        facts.source_checksums.extend(came.map(Checksum::Sha512));
        facts
    }

    /// Whether `sum` is that of the image, or of what it was made from.
    pub(super) fn has(&self, stored: Option<Sha512>, sum: Sha512) -> bool {
        stored == Some(sum) || self.source_checksums.contains(&Checksum::Sha512(sum))
    }
}

impl SealedImage {
    /// Whose bytes these are.
    pub fn id(&self) -> &ImageId {
        &self.id
    }

    /// All that is known of it.
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// Our part of the sidecar.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// One that no store has, for the simulation of syncs: its hosts have no disks.
    #[doc(hidden)]
    pub fn for_tests(id: ImageId, sidecar: Sidecar, seal: Seal) -> Self {
        Self { id, sidecar, seal }
    }

    /// Whether `sum` is that of its bytes, or of what they were unpacked, converted or padded from.
    pub fn has_checksum(&self, sum: Checksum) -> bool {
        let text = sum.to_string();
        self.seal.source_checksums.contains(&text)
            || matches!(sum, Checksum::Sha512(sum) if self.checksum().ok() == Some(sum))
    }

    /// The format the image was sealed with.
    pub fn format(&self) -> Format {
        self.seal.format()
    }

    /// The SHA-512 of its bytes.
    ///
    /// # Errors
    /// [`Error::Unsummed`] as long as it is being computed.
    pub fn checksum(&self) -> Result<Sha512> {
        self.summed()?
            .ok_or_else(|| Error::Unsummed(self.id.clone()))
    }

    /// The same; `None`: it is being computed.
    pub fn summed(&self) -> Result<Option<Sha512>> {
        let text = &self.sidecar.current_checksum;
        if text.is_empty() && self.seal.checksum_unproven {
            return Ok(None);
        }
        let sum = text.parse().map_err(|_| Error::Damaged {
            id: self.id.clone(),
            what: "its recorded checksum is not valid".to_owned(),
        });
        sum.map(Some)
    }
}

/// Bytes that the medium does not give back are as damaged as other ones.
pub(super) fn unreadable(image: &SealedImage, error: Error) -> Error {
    if is_of_the_medium(&error) {
        Error::Damaged {
            id: image.id.clone(),
            what: format!("it cannot be read: {}", types::report(&error)),
        }
    } else {
        error
    }
}
