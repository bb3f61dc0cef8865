//! How a start handles the contents of the disk: the table in [`super`].

use std::fs;
use std::path::Path;

use tracing::{info, warn};
use types::{ImageId, report};

use super::assembly::Assembly;
use super::durable;
use super::images::ImageStore;
use super::layout::{EntryName, ImagePaths, Place, split_image_dir};
use super::sealed::SealedImage;
use super::sidecar::{Sidecar, SidecarFile};
use super::upload::{self, UploadRecord};
use crate::error::{Error, IoContext, Result};

/// An image's directory as a start finds it.
#[derive(Debug)]
pub enum Found {
    /// Sealed, by us or by Longhorn's manager, and untouched since.
    Ready(Box<SealedImage>),
    /// Sealed, but touched since: its bytes must be read before it is ready again.
    Modified(Box<SealedImage>),
    /// Bytes without a seal of ours, but with Longhorn's sidecar, or none at all: to be adopted.
    Unsealed(ImageId, Option<Box<Sidecar>>),
    /// A client brings its bytes in pieces, and has not brought all of them.
    Upload(ImageId, Box<UploadRecord>),
    /// Cannot be touched or read, and why.
    Unusable(ImageId, Error),
}

impl ImageStore {
    /// Removes leftovers and tells what images there are. Reads no image's bytes. Of work files nothing
    /// is told and nothing removed: they belong to the data sources that make them, which may be other
    /// processes, and even other programs (see [`find`](Self::find)).
    pub fn load(&self) -> Result<Vec<Found>> {
        if self.place() == Place::Work {
            return Ok(Vec::new());
        }
        let dir = self.disk().layout().images();
        let mut found = Vec::new();
        for entry in durable::list(&dir)? {
            let name = entry.file_name();
            match EntryName::of(name.to_str().unwrap_or(".")) {
                EntryName::Leftover => remove_leftover(&entry.path()),
                EntryName::Quarantined(of) => {
                    warn!(of, path = %entry.path().display(), "a damaged image is quarantined here");
                }
                EntryName::Foreign => {
                    info!(path = %entry.path().display(), "not ours: left alone");
                }
                EntryName::Item(name) => match self.load_one(name) {
                    Ok(Some(image)) => found.push(image),
                    Ok(None) => {}
                    Err(error) => {
                        warn!(name, error = %report(&error), "cannot be read: left alone");
                        let id = split_image_dir(name, None);
                        found.extend(id.map(|id| Found::Unusable(id, error)));
                    }
                },
            }
        }
        Ok(found)
    }

    /// One image as a start would find it.
    pub fn find(&self, id: &ImageId) -> Result<Option<Found>> {
        self.load_one(&id.to_string())
    }

    fn load_one(&self, name: &str) -> Result<Option<Found>> {
        let paths = self.disk().layout().entry(self.place(), name);
        let unnamed = split_image_dir(name, None);
        let sidecar = match Sidecar::read(&paths.sidecar) {
            Ok(SidecarFile::Good(sidecar)) => Some(sidecar),
            Ok(SidecarFile::Missing) => None,
            Ok(SidecarFile::Damaged(why)) => {
                warn!(
                    name,
                    why, "its backing.cfg is damaged: the image is read again"
                );
                None
            }
            Err(error @ Error::NewerFormat { .. }) => {
                return Ok(unnamed.map(|id| Found::Unusable(id, error)));
            }
            Err(error) => return Err(error),
        };
        // A sidecar that belongs to another directory says nothing about this one.
        let named = sidecar
            .as_ref()
            .and_then(|s| split_image_dir(name, Some(&s.uuid)));
        let (id, sidecar) = match (named, unnamed) {
            (Some(id), _) => (id, sidecar),
            (None, Some(id)) => (id, None),
            (None, None) => {
                info!(name, "not the directory of an image: left alone");
                return Ok(None);
            }
        };
        if self.place() == Place::Images && !clear(&paths)? {
            return Ok(None);
        }
        match fs::symlink_metadata(&paths.backing) {
            Ok(meta) if meta.is_file() => {
                if self.place() == Place::Images {
                    upload::remove_leftover(&paths)?;
                }
            }
            Ok(_) => return Ok(Some(Found::Unusable(id.clone(), not_regular(id)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.place() == Place::Images
                    && let Some(found) = uploaded(name, &id, &paths)
                {
                    return Ok(Some(found));
                }
                if self.place() == Place::Images && !Assembly::left(&paths) {
                    info!(image = %id, "was never completed: removed");
                    self.delete(&id)?;
                }
                return Ok(None);
            }
            Err(error) => return Err(error).context("inspect", &paths.backing),
        }
        let sealed = sidecar.as_ref().and_then(|sidecar| {
            let seal = sidecar.seal.clone()?;
            Some(SealedImage {
                id: id.clone(),
                sidecar: (**sidecar).clone(),
                seal,
            })
        });
        Ok(Some(match sealed {
            Some(image) if self.is_untouched(&image)? => Found::Ready(Box::new(image)),
            Some(image) => Found::Modified(Box::new(image)),
            None => match sidecar
                .as_deref()
                .map(|told| self.as_longhorn_sealed_it(&id, &paths, told))
            {
                Some(Ok(Some(image))) => Found::Ready(Box::new(image)),
                // What cannot be looked into now is read, which says why.
                Some(Ok(None) | Err(_)) | None => Found::Unsealed(id, sidecar),
            },
        }))
    }
}

/// The upload that is under way in a directory without an image.
fn uploaded(name: &str, id: &ImageId, paths: &ImagePaths) -> Option<Found> {
    match UploadRecord::read(paths) {
        Ok(record) => {
            let record = record?;
            let id = split_image_dir(name, Some(record.uuid()))?;
            Some(Found::Upload(id, Box::new(record)))
        }
        Err(error) => Some(Found::Unusable(id.clone(), error)),
    }
}

/// Removes what an interrupted create or delete left. What cannot be removed now is only in the way
/// of itself.
pub fn remove_leftover(path: &Path) {
    match durable::remove_dir(path) {
        Ok(()) => info!(path = %path.display(), "removed leftovers of a crash"),
        Err(error) => warn!(error = %report(&error), "a leftover cannot be removed"),
    }
}

/// Removes void files from an image's directory; tells whether it is one.
fn clear(paths: &ImagePaths) -> Result<bool> {
    // An operator's `old-images` has the shape of a name and is not ours to clear up.
    if !paths.backing.exists() && !holds_only_ours(&paths.dir)? {
        info!(path = %paths.dir.display(), "holds files of others: left alone");
        return Ok(false);
    }
    durable::remove_work_files(&paths.dir)?;
    Ok(true)
}

/// Whether all names in a directory are ones that this program, or Longhorn, gives to files of an
/// image.
pub(super) fn holds_only_ours(dir: &Path) -> Result<bool> {
    const OURS: [&str; 13] = [
        "backing",
        "backing.cfg",
        "backing.chunks",
        "backing.access",
        "backing.part",
        "backing.part.chunks",
        "backing.upload",
        "backing.upload.cfg",
        "raw",
        "raw.cfg",
        "backing.tmp.qcow2tmp",
        "backing.tmp-raw",
        "backing-raw",
    ];
    for entry in durable::list(dir)? {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        if !OURS.contains(&name.strip_suffix(".tmp").unwrap_or(name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn not_regular(id: ImageId) -> Error {
    Error::Damaged {
        id,
        what: "its `backing` is not a regular file".to_owned(),
    }
}
