//! Images whose bytes are already on the disk: found there at a start, left by a data source, or
//! written by Longhorn's own manager.
//!
//! Bytes are trusted without being read if our seal, our chunk manifest and stat(2) agree, or if
//! Longhorn's sidecar has the size and modification time of the file; the latter are read and
//! verified once they are an image (see [`unproven`](super::unproven)). All others are read and hashed
//! here. In no case is a byte removed: the caller quarantines what is wrong.
//!
//! A file is taken over from elsewhere on the disk in these steps:
//!
//! 1. read it there unless it is sealed, sync it
//! 2. create the image's directory, write `backing.chunks` and `backing.cfg` there: void so far
//! 3. rename the file to `backing`
//! 4. sync both directories
//! 5. write `backing.cfg` again, with what stat says of the file under its name
//! 6. only now: announce `ready`; remove what was beside the file
//!
//! A crash up to 3 leaves the file where it was, and a directory without `backing` that the next start
//! removes; a crash after it leaves an image that the next start reads and compares with its manifest.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use image::Format;
use tracing::{error, info};
use types::{Classify, ErrorKind, ImageId, Sha512, crash_point, report};

use super::durable;
use super::hash;
use super::images::{Examined, ImageStore};
use super::layout::{ImagePaths, Place};
use super::reading::Reading;
use super::sealed::{Facts, SealedImage};
use super::sidecar::{Seal, Sidecar, SidecarFile, Stamp};
use crate::error::{Error, IoContext, Result};
use crate::manifest::ManifestFile as _;
use chunks::Manifest;

/// What is known of an image by whoever wants it adopted.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The SHA-512 it must have.
    pub expected: Option<Sha512>,
    /// The bytes it must have.
    pub size: Option<u64>,
    /// The format it was said to have.
    pub format: Option<Format>,
    /// Whether its SHA-512 may be left for [`prove`](super::prove): where neither the caller nor a sidecar names one,
    /// it would vouch for nothing.
    pub checksum_later: bool,
}

impl ImageStore {
    /// Seals bytes that are in their place. They become an image only when they are what their sidecar,
    /// their manifest and the caller say, or when nobody says anything.
    pub fn adopt(&self, id: &ImageId, asked: &Asked, reading: Reading<'_>) -> Result<SealedImage> {
        let paths = self.paths(id);
        let (image, manifest) = self.look_into(id, &paths, asked, reading)?;
        if let Some(manifest) = manifest
            && Manifest::read(&paths.chunks, manifest.size)?.as_ref() != Some(&manifest)
        {
            manifest.write(&paths.chunks)?;
        }
        image.sidecar.write(&paths.sidecar)?;
        Ok(image)
    }

    /// Makes the file at `from`, anywhere on the disk where images are, this image. A file that is not
    /// what it should be is set aside where it is.
    pub fn take_over(
        &self,
        id: &ImageId,
        from: &Path,
        asked: &Asked,
        reading: Reading<'_>,
    ) -> Result<SealedImage> {
        self.disk().check()?;
        let layout = self.disk().layout();
        let (place, name) = layout.parse_path(from)?;
        let (at, to) = (layout.entry(place, &name), self.paths(id));
        // A crash, or an error, may have come after the file had its new name.
        let moved = !is_there(&at.backing)? && is_there(&to.backing)?;
        if at.backing == to.backing || moved {
            let adopted = self.adopt(id, asked, reading);
            let name = id.to_string();
            return adopted.map_err(|error| self.set_aside(self.place(), &name, error));
        }
        let lock = (place == Place::Work).then(|| layout.work_lock(&name));
        if let Some(lock) = &lock {
            durable::create_dir(&layout.work())?;
            self.locks().take(lock, &at.backing)?;
        }
        let taken = self.take_over_unshared(id, (place, &name, &at), asked, reading);
        let unlocked = lock.map_or(Ok(()), |lock| self.locks().give_back(&lock));
        let image = taken?;
        unlocked?;
        Ok(image)
    }

    fn take_over_unshared(
        &self,
        id: &ImageId,
        (place, name, at): (Place, &str, &ImagePaths),
        asked: &Asked,
        reading: Reading<'_>,
    ) -> Result<SealedImage> {
        let to = self.paths(id);
        if is_there(&to.backing)? {
            let aside = self.quarantine(id)?;
            info!(image = %id, path = %aside.display(), "replaced by another file");
        }
        let looked = self.look_into(id, at, asked, reading); // 1
        let (image, manifest) = looked.map_err(|error| self.set_aside(place, name, error))?;
        self.enter(id)?; // 2
        if let Some(manifest) = &manifest {
            manifest.write(&to.chunks)?;
        }
        image.sidecar.write(&to.sidecar)?;
        crash_point!("store.adopt.described");
        durable::rename(&at.backing, &to.backing)?; // 3
        crash_point!("store.adopt.renamed");
        durable::sync_dir(&to.dir)?; // 4
        durable::sync_dir(&at.dir)?;
        crash_point!("store.adopt.named");
        let image = self.stamped(&image)?;
        image.sidecar.write(&to.sidecar)?; // 5
        crash_point!("store.adopt.recorded");
        // 6: what cannot be removed now is void, and removed when its time is up.
        if let Err(error) = self.remove_beside(place, name, at) {
            info!(image = %id, error = %report(&error), "the files beside it are left behind");
        }
        Ok(image)
    }

    /// Removes what described a file that went elsewhere.
    fn remove_beside(&self, place: Place, name: &str, at: &ImagePaths) -> Result<()> {
        match place {
            Place::Work => [
                &at.backing_tmp,
                &at.part,
                &at.sidecar,
                &at.chunks,
                &at.part_chunks,
            ]
            .into_iter()
            .try_for_each(|path| durable::remove_file(path)),
            Place::Images => self.delete_entry(name),
        }
    }

    /// Sets damaged bytes aside, saying where; any other error leaves them where they are.
    pub fn set_aside(&self, place: Place, name: &str, error: Error) -> Error {
        if error.kind() != ErrorKind::DataLoss {
            return error;
        }
        match self.quarantine_entry(place, name) {
            Ok(path) => {
                error!(name, path = %path.display(), error = %report(&error), "damaged: quarantined");
                Error::SetAside {
                    why: Box::new(error),
                    path,
                }
            }
            Err(second) => {
                error!(name, error = %report(&second), "damaged, and cannot be quarantined");
                error
            }
        }
    }

    /// All that can be said of the file at `at` as the image `id`, reading it unless it is sealed. Without a
    /// manifest: Longhorn's sidecar says it, and it is yet to be proven.
    fn look_into(
        &self,
        id: &ImageId,
        at: &ImagePaths,
        asked: &Asked,
        reading: Reading<'_>,
    ) -> Result<(SealedImage, Option<Manifest>)> {
        let damaged = |what| Error::Damaged {
            id: id.clone(),
            what,
        };
        let stamp = Stamp::of(&at.backing)?;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let stamp = stamp.ok_or_else(missing).context("find", &at.backing)?;
        if let Some(size) = asked.size.filter(|size| *size != stamp.size) {
            return Err(Error::WrongSize {
                expected: size,
                actual: stamp.size,
            });
        }
        let file = File::open(&at.backing).context("open", &at.backing)?;
        let told = match Sidecar::read(&at.sidecar)? {
            SidecarFile::Good(sidecar) => Some(*sidecar),
            SidecarFile::Missing | SidecarFile::Damaged(_) => None,
        };
        if let Some(told) = &told
            && let Some(image) = self.as_longhorn_sealed_it(id, at, told)?
        {
            return Ok((fitting(image, asked)?, None));
        }
        let sum: Option<Sha512> = told
            .as_ref()
            .and_then(|told| told.current_checksum.parse().ok());
        let manifest = Manifest::read(&at.chunks, stamp.size)?
            .filter(|manifest| sum.is_none() || sum == manifest.checksum);
        let expected = asked.expected.or_else(|| {
            told.as_ref()
                .and_then(|told| told.expected_checksum.parse().ok())
        });
        // Whoever names a sum waits for it.
        let later = asked.checksum_later && expected.is_none() && sum.is_none();
        let manifest = manifest.filter(|manifest| later || manifest.checksum.is_some());
        let seal = told.as_ref().and_then(|told| told.seal.clone());
        let sealed = seal.as_ref().is_some_and(|seal| seal.stamp == stamp);
        let hashed = manifest.is_none();
        let read = !sealed || hashed;
        let manifest = match manifest {
            Some(manifest) if !read => manifest,
            // Written before the bytes got their name: they must agree.
            Some(manifest) => {
                if manifest.verify(&file, &at.backing, reading)?.is_some() {
                    let what = "its bytes are not those of its chunk manifest";
                    return Err(damaged(what.to_owned()));
                }
                manifest
            }
            None if later => hash::digest_file(&file, &at.backing, reading)?,
            None => hash::hash_file(&file, &at.backing, reading)?,
        };
        let actual = manifest.checksum;
        let unsummed = || Error::Unsummed(id.clone());
        if let Some(expected) = expected.filter(|expected| Some(*expected) != actual) {
            let actual = actual.ok_or_else(unsummed)?;
            return Err(Error::Checksum {
                expected: Box::new(expected),
                actual: Box::new(actual),
            });
        }
        if let (Some(told), None) = (sum, asked.expected)
            && actual != Some(told)
        {
            let actual = actual.ok_or_else(unsummed)?;
            return Err(damaged(format!(
                "its SHA-512 is {actual}, and its backing.cfg says {told}"
            )));
        }
        file.sync_all().context("sync", &at.backing)?;
        let vouched = sum.is_some();
        let facts = Facts {
            expected,
            format: asked.format.or_else(|| seal.as_ref().map(Seal::format)),
            ..seal.as_ref().map_or_else(|| unsealed(vouched), facts_of)
        };
        let examined = Examined::of(&file, &at.backing, facts.format)?;
        let mut image = self.described(id, &at.backing, actual, examined, &facts)?;
        // Digests of chunks prove nothing about the sum over all of them.
        image.seal.checksum_unproven =
            actual.is_none() || (!hashed && seal.is_some_and(|seal| seal.checksum_unproven));
        image.sidecar.seal = Some(image.seal.clone());
        Ok((image, Some(manifest)))
    }
}

/// An image that Longhorn's sidecar describes, if it is the one that is asked for.
fn fitting(image: SealedImage, asked: &Asked) -> Result<SealedImage> {
    let actual = image.checksum()?;
    match asked.expected {
        Some(expected) if expected != actual => Err(Error::Checksum {
            expected: Box::new(expected),
            actual: Box::new(actual),
        }),
        Some(expected) => {
            let mut image = image;
            image.sidecar.expected_checksum = expected.to_string();
            Ok(image)
        }
        None => Ok(image),
    }
}

/// What a seal says of an image that is looked at again.
fn facts_of(seal: &Seal) -> Facts {
    let sums = seal.source_checksums.iter();
    Facts {
        provenance: seal.provenance.clone(),
        manifest_digest: seal.manifest_digest.clone(),
        verified: !seal.unverified,
        source_checksums: sums.filter_map(|sum| sum.parse().ok()).collect(),
        asked: seal.asked,
        created_at: Some(seal.created_at.clone()),
        ..Facts::default()
    }
}

/// What is known of an image without a seal. Whoever asks for its name next may say where it is from.
fn unsealed(verified: bool) -> Facts {
    Facts {
        verified,
        ..Facts::default()
    }
}

fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("inspect", path),
    }
}

#[cfg(test)]
mod tests;
