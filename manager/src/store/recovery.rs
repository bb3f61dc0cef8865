//! What a start finds on the disk and what it does with it: the table in [`super`].

use std::fs::{self, File};
use std::path::Path;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::{ImageId, Sha512, report};

use super::assembly::Assembly;
use super::chunks::{CHUNK, Chunk, Manifest, still_wanted};
use super::durable;
use super::images::{Examined, Facts, ImageStore, SealedImage};
use super::layout::{EntryName, ImagePaths, Place, split_image_dir};
use super::sidecar::{Sidecar, SidecarFile};
use crate::error::{Error, IoContext, Result};

/// An image's directory as a start finds it.
#[derive(Debug)]
pub enum Found {
    /// Sealed, and untouched since.
    Ready(Box<SealedImage>),
    /// Sealed, but touched since: its bytes must be read before it is ready again.
    Touched(Box<SealedImage>),
    /// Bytes without a seal of ours, but with Longhorn's sidecar, or none at all: to be adopted.
    Unsealed(ImageId, Option<Box<Sidecar>>),
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
        for entry in fs::read_dir(&dir).context("list", &dir)? {
            let entry = entry.context("list", &dir)?;
            let name = entry.file_name();
            match EntryName::of(name.to_str().unwrap_or(".")) {
                EntryName::Leftover => remove_leftover(&entry.path()),
                EntryName::Quarantined(of) => {
                    warn!(of, path = %entry.path().display(), "a damaged image is set aside here");
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
            Ok(meta) if meta.is_file() => {}
            Ok(_) => return Ok(Some(Found::Unusable(id.clone(), not_regular(id)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.place() == Place::Images && !Assembly::left(&paths) {
                    info!(image = %id, "was never completed: removed");
                    self.delete(&id)?;
                }
                return Ok(None);
            }
            Err(error) => return Err(error).context("look at", &paths.backing),
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
            Some(image) => Found::Touched(Box::new(image)),
            None => Found::Unsealed(id, sidecar),
        }))
    }

    /// Reads bytes that have no seal of ours and seals them: they become an image only when they are
    /// what a sidecar or a manifest says, or when neither says anything.
    pub fn adopt(
        &self,
        id: &ImageId,
        sidecar: Option<&Sidecar>,
        cancel: &CancellationToken,
    ) -> Result<SealedImage> {
        let paths = self.paths(id);
        let file = File::open(&paths.backing).context("open", &paths.backing)?;
        let length = file.metadata().context("look at", &paths.backing)?.len();
        let told: Option<Sha512> = sidecar.and_then(|s| s.current_checksum.parse().ok());
        let manifest = Manifest::read(&paths.chunks, length)?;
        let checksum = match manifest {
            // The manifest was written before the bytes got their name: they must agree.
            Some(manifest) if told.is_none_or(|sum| sum == manifest.checksum) => {
                if manifest.verify(&file, &paths.backing, cancel)?.is_some() {
                    let what = "its bytes are not those of its chunk manifest".to_owned();
                    return Err(Error::Damaged {
                        id: id.clone(),
                        what,
                    });
                }
                manifest.checksum
            }
            _ => {
                let manifest = hash_file(&file, &paths.backing, cancel)?;
                if let Some(expected) = told.filter(|sum| *sum != manifest.checksum) {
                    let what = format!(
                        "its SHA-512 is {} and its backing.cfg says {expected}",
                        manifest.checksum
                    );
                    return Err(Error::Damaged {
                        id: id.clone(),
                        what,
                    });
                }
                manifest.write(&paths.chunks)?;
                manifest.checksum
            }
        };
        let expected: Option<Sha512> = sidecar.and_then(|s| s.expected_checksum.parse().ok());
        if let Some(expected) = expected.filter(|expected| *expected != checksum) {
            let what = format!("its SHA-512 is {checksum} and {expected} was expected");
            return Err(Error::Damaged {
                id: id.clone(),
                what,
            });
        }
        let facts = Facts {
            expected,
            // Whoever asks for this name next may say where it is from.
            source: String::new(),
            verified: told.is_some(),
            ..Facts::default()
        };
        let examined = Examined::of(&file, &paths.backing, None)?;
        self.write_sidecar(id, checksum, examined, &facts)
    }
}

/// Removes what an interrupted create or delete left. What cannot be removed now is only in the way
/// of itself.
pub(crate) fn remove_leftover(path: &Path) {
    match durable::remove_dir(path) {
        Ok(()) => info!(path = %path.display(), "removed what a crash left"),
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
fn holds_only_ours(dir: &Path) -> Result<bool> {
    const OURS: [&str; 10] = [
        "backing",
        "backing.cfg",
        "backing.chunks",
        "backing.part",
        "backing.part.chunks",
        "raw",
        "raw.cfg",
        "backing.tmp.qcow2tmp",
        "backing.tmp-raw",
        "backing-raw",
    ];
    for entry in fs::read_dir(dir).context("list", dir)? {
        let name = entry.context("list", dir)?.file_name();
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

/// Computes every digest of a file, holes included.
pub(super) fn hash_file(file: &File, path: &Path, cancel: &CancellationToken) -> Result<Manifest> {
    use std::os::unix::fs::FileExt;

    let size = file.metadata().context("look at", path)?.len();
    let mut sum = ring::digest::Context::new(&ring::digest::SHA512);
    let mut buffer = vec![0; CHUNK];
    let mut chunks = Vec::new();
    let mut offset = 0;
    while offset < size {
        still_wanted(cancel)?;
        let length = usize::try_from(size - offset).map_or(CHUNK, |rest| rest.min(CHUNK));
        let bytes = &mut buffer[..length];
        file.read_exact_at(bytes, offset).context("read", path)?;
        sum.update(bytes);
        chunks.push(Chunk::of(bytes));
        offset += length as u64;
    }
    Ok(Manifest {
        size,
        checksum: Sha512::from_digest(&sum.finish()),
        chunks,
    })
}
