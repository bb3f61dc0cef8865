//! The raw form, from which volumes are cloned.
//!
//! Cloning a file costs time for each of its extents, so the raw form has few: it is written in
//! order with only large holes, or shares large pieces with the image. A raw image with a suitable
//! layout is its own raw form; for other images it is created once per disk, when the first volume
//! needs it, and can be removed at any time.
//!
//! 1. write `raw.tmp`
//! 2. sync it
//! 3. rename it to `raw`, sync the directory
//! 4. write `raw.cfg` with its stamp (temp, sync, rename)
//!
//! A `raw` whose stamp does not agree is void: it is created again.

use std::fs::File;
use std::path::PathBuf;

use image::Format;
use serde::{Deserialize, Serialize};
use types::{Cancel, Sha512, crash_point};

use super::durable;
use super::images::ImageStore;
use super::layout::ImagePaths;
use super::sealed::SealedImage;
use super::sidecar::Stamp;
use crate::error::{Error, IoContext, Result};

/// Extents up to which a raw image is its own raw form. Cloning 128 extents takes about 2 ms, which
/// is what the handful of syncs of a new volume take anyway (measured on XFS).
pub const EXTENTS_MAX: u64 = 128;

/// The version of `raw.cfg` that this program writes and understands.
const VERSION: u32 = 1;

/// The content of `raw.cfg`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSeal {
    version: u32,
    /// SHA-512 of the image that it is the raw form of; empty when it was made before that was known.
    checksum: String,
    stamp: Stamp,
}

impl RawSeal {
    /// What is written of a raw form; `None`: nothing that can be read.
    fn read(paths: &ImagePaths) -> Option<Self> {
        let content = std::fs::read(&paths.raw_seal).ok()?;
        serde_json::from_slice(&content).ok()
    }

    fn write(&self, paths: &ImagePaths) -> Result<()> {
        let seal = serde_json::to_vec(self).expect("a raw form's seal is plain JSON");
        durable::replace(&paths.raw_seal, &seal)
    }
}

impl ImageStore {
    /// The raw form of a ready image if it is there: the file to clone.
    pub fn raw_form(&self, image: &SealedImage) -> Result<Option<PathBuf>> {
        let paths = self.paths(&image.id);
        let clones_well = image.seal.extents <= EXTENTS_MAX || !self.disk().reflink();
        if image.format() == Format::Raw && clones_well {
            return Ok(Some(paths.backing));
        }
        let Some(stamp) = Stamp::of(&paths.raw)? else {
            return Ok(None);
        };
        Ok(match RawSeal::read(&paths) {
            Some(seal)
                if seal.version == VERSION
                    && seal.checksum == image.sidecar.current_checksum
                    && seal.stamp == stamp =>
            {
                Some(paths.raw)
            }
            _ => None,
        })
    }

    /// Writes down of which image the raw form is that was made before the image's sum was known. The sidecar gets
    /// the sum afterwards: a crash in between costs the raw form.
    pub(super) fn name_raw_form(&self, image: &SealedImage, checksum: Sha512) -> Result<()> {
        let paths = self.paths(&image.id);
        match RawSeal::read(&paths) {
            Some(seal) if seal.checksum.is_empty() => {
                let checksum = checksum.to_string();
                RawSeal { checksum, ..seal }.write(&paths)
            }
            _ => Ok(()),
        }
    }

    /// Makes the raw form and gives its path. The caller sees to it that only one such work on an
    /// image is under way.
    pub fn make_raw_form(&self, image: &SealedImage, cancel: &Cancel) -> Result<PathBuf> {
        if let Some(path) = self.raw_form(image)? {
            return Ok(path);
        }
        self.disk().check()?;
        let paths = self.paths(&image.id);
        for leftover in [&paths.raw_tmp, &paths.raw, &paths.raw_seal] {
            durable::remove_file(leftover)?;
        }
        self.forget_spares(&paths);
        let backing = File::open(&paths.backing).context("open", &paths.backing)?;
        let source = image::Image::open(backing, image.format())?;
        let out = durable::create_file(&paths.raw_tmp)?;
        let made = image::convert::to_raw(&source, &out, &mut |_| {}, &|| cancel.is_cancelled()) // 1
            .map_err(Error::from)
            .and_then(|_| out.sync_all().context("sync", &paths.raw_tmp)); // 2
        if let Err(error) = made {
            durable::remove_file(&paths.raw_tmp)?;
            return Err(error);
        }
        crash_point!("store.raw.synced");
        durable::rename(&paths.raw_tmp, &paths.raw)?; // 3
        durable::sync_dir(&paths.dir)?;
        crash_point!("store.raw.renamed");
        let stamp = Stamp::of(&paths.raw)?.ok_or_else(|| Error::Damaged {
            id: image.id.clone(),
            what: "its raw form disappeared while it was being created".to_owned(),
        })?;
        let seal = RawSeal {
            version: VERSION,
            checksum: image.sidecar.current_checksum.clone(),
            stamp,
        };
        seal.write(&paths)?; // 4
        crash_point!("store.raw.sealed");
        Ok(paths.raw)
    }
}
