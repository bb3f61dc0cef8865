//! Images as Longhorn's faces ask for them: by the path of their file, each once.
//!
//! Longhorn's registry is in memory, and a second request for a path or a UUID is rejected until
//! the first is deleted or forgotten, whatever its result. Ours is also filled from the disk: the
//! first request for an image found there takes it over.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Instrument, info, warn};
use types::{DiskUuid, ImageId, Sha512, report};

use super::lifecycle::Lifecycle;
use super::making::NewImage;
use super::status::{LonghornStatus, Status, count};
use super::{Catalog, Entry};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::store::recovery::Found;
use crate::store::{Place, SealedImage};

/// A request for an image by one of Longhorn's faces, checked.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Which image.
    pub id: ImageId,
    /// Where its bytes come from when they are not on the disk; `None`: then there are none.
    pub source: Option<Source>,
    /// The bytes that its file must have; 0: any number.
    pub size: u64,
    /// The SHA-512 they must have.
    pub expected: Option<Sha512>,
    /// The format they are in; `None`: told by magic, once.
    pub format: Option<image::Format>,
    /// The disk that the request named.
    pub disk_uuid: Option<DiskUuid>,
}

impl Registration {
    fn new_image(&self) -> Option<NewImage> {
        Some(NewImage {
            name: Some(self.id.name.clone()),
            uuid: Some(self.id.uuid.clone()),
            source: self.source.clone()?,
            expected: self.expected,
            format: self.format,
            for_volumes: false,
        })
    }

    fn source_text(&self) -> String {
        self.source.as_ref().map(Source::text).unwrap_or_default()
    }

    fn longhorn(&self) -> LonghornStatus {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        LonghornStatus {
            size: self.size,
            disk_uuid: self.disk_uuid.clone(),
            asked: Some(ASKED.fetch_add(1, Ordering::Relaxed)),
            ..LonghornStatus::default()
        }
    }
}

impl Catalog {
    /// Where on the disk the images are.
    pub fn place(&self) -> Place {
        self.inner.store.place()
    }

    /// The path of an image's file.
    pub fn file_path(&self, id: &ImageId) -> PathBuf {
        self.inner.store.paths(id).backing
    }

    /// Whether the chunk manifest of an image is there: what Longhorn's manager sealed has none until it
    /// was read.
    pub fn has_manifest(&self, id: &ImageId) -> bool {
        self.inner.store.paths(id).chunks.exists()
    }

    /// The image whose directory or work file has this name.
    pub fn by_name(&self, name: &str) -> Option<ImageId> {
        let images = self.images();
        images.keys().find(|id| is_named(id, name)).cloned()
    }

    /// Takes an image up, and answers with the state that this request brought it to.
    pub fn register(&self, registration: Registration) -> Result<Status> {
        let id = &registration.id;
        let path = self.file_path(id);
        let there = std::fs::symlink_metadata(&path).is_ok();
        let mut images = self.images();
        let directory = id.to_string();
        let same =
            |entry: &&Arc<Entry>| entry.id.uuid == id.uuid || is_named(&entry.id, &directory);
        if let Some(entry) = images.values().find(same).cloned() {
            drop(images);
            if entry.id != *id {
                return Err(self.exists(id));
            }
            return self.take_over(&entry, registration);
        }
        self.takes_work()?;
        let mut status = Status::pending(
            id.clone(),
            registration.source_text(),
            registration.expected,
        );
        status.longhorn = registration.longhorn();
        if !there && registration.source.is_some() {
            status.state = Lifecycle::Starting;
        }
        let told = status.clone();
        let entry = Entry::new(status, &self.inner.changes, &self.inner.stop);
        images.insert(id.clone(), entry.clone());
        drop(images);
        count(&self.inner.changes);
        self.bring(&entry, registration, there);
        Ok(told)
    }

    /// The path, or the uuid, is taken.
    fn exists(&self, id: &ImageId) -> Error {
        let layout = self.inner.store.disk().layout();
        Error::FileExists(layout.shown(&self.file_path(id)))
    }

    /// The first request for an image that was there before anybody asked: it stays as it is when it
    /// fits, and only a failed one is made anew.
    fn take_over(&self, entry: &Arc<Entry>, registration: Registration) -> Result<Status> {
        let exists = || self.exists(&entry.id);
        let status = entry.status();
        if status.newer {
            return Err(super::not_ready(&entry.id, &status.state));
        }
        match &status.state {
            Lifecycle::Ready(image) => fits(image, registration.size, registration.expected)?,
            Lifecycle::Failed(_) | Lifecycle::Unknown(_) => {}
            Lifecycle::Pending | Lifecycle::Starting | Lifecycle::InProgress(_) => {
                return Err(exists());
            }
        }
        let (mut taken, mut failed) = (false, false);
        let text = registration.source_text();
        entry.board.change(|status| {
            taken = status.longhorn.asked.is_none() && !entry.cancel().is_cancelled();
            if taken {
                failed = status.retry(&text, registration.expected);
                status.longhorn = LonghornStatus {
                    last: status.longhorn.last.take(),
                    ..registration.longhorn()
                };
                status.expected = registration.expected.or(status.expected);
                status.for_volumes = false;
            }
            taken
        });
        if !taken {
            return Err(exists());
        }
        let status = entry.status();
        if failed {
            let there = std::fs::symlink_metadata(self.file_path(&entry.id)).is_ok();
            self.bring(entry, registration, there);
        } else if let (Lifecycle::Ready(_), Some(expected)) = (&status.state, registration.expected)
        {
            self.expect_later(entry, expected);
        }
        Ok(status)
    }

    /// Uses what is on the disk, or gets the bytes from the source, in a task of the entry.
    fn bring(&self, entry: &Arc<Entry>, registration: Registration, there: bool) {
        let (catalog, task) = (self.clone(), entry.clone());
        let span = entry.span();
        let work = async move {
            if there {
                match catalog.reuse(&task, &registration).await {
                    Ok(Some(image)) => {
                        task.reporter().sealed(image.clone());
                        return catalog.prove(&task, &image).await;
                    }
                    Ok(None) => {}
                    Err(error) => return task.reporter().failed(&error),
                }
            }
            if let Some(new) = registration.new_image() {
                catalog.make_and_tell(&task, &new).await;
            } else {
                let path = catalog.file_path(&task.id);
                task.reporter().failed(&Error::NothingToAdopt(path));
            }
        };
        entry.tasks.spawn(work.instrument(span));
    }

    /// The image that is on the disk already, if it is the one that was asked for. Bytes that are not
    /// are set aside, never deleted; without a source to replace them that is a failure.
    async fn reuse(
        &self,
        entry: &Entry,
        registration: &Registration,
    ) -> Result<Option<SealedImage>> {
        let (store, id) = (self.inner.store.clone(), entry.id.clone());
        let find = move || store.find(&id);
        let found = tokio::task::spawn_blocking(find)
            .await
            .map_err(Error::Task)??;
        let Some(found) = found else { return Ok(None) };
        let read = match found {
            Found::Ready(image) => Ok(*image),
            found => self.look_again(entry, found).await,
        };
        let read = match read {
            Ok(image) => fits(&image, registration.size, registration.expected).map(|()| image),
            Err(error) => Err(error),
        };
        match read {
            Ok(image) => {
                info!("the file on the disk is the requested image");
                let expected = registration.expected;
                self.expecting(image, expected).await.map(Some)
            }
            Err(error @ (Error::Cancelled(_) | Error::NewerFormat { .. })) => Err(error),
            Err(error) if registration.source.is_some() => {
                warn!(error = %report(&error), "the file on the disk cannot be used: fetching \
                                                the image again");
                Ok(None)
            }
            Err(error) => Err(self.set_aside(&entry.id, error)),
        }
    }

    /// Writes down the checksum that is expected of an image that has it.
    async fn expecting(
        &self,
        mut image: SealedImage,
        expected: Option<Sha512>,
    ) -> Result<SealedImage> {
        let text = expected.map(String::from).unwrap_or_default();
        if text.is_empty() || image.sidecar.expected_checksum == text {
            return Ok(image);
        }
        image.sidecar.expected_checksum = text;
        let path = self.inner.store.paths(&image.id).sidecar;
        let write = move || image.sidecar.write(&path).map(|()| image);
        tokio::task::spawn_blocking(write)
            .await
            .map_err(Error::Task)?
    }

    /// Somebody else than a driver asked for the image as well: it stays whether volumes use it or not.
    pub(super) fn keep(&self, entry: &Arc<Entry>) {
        entry
            .board
            .change(|status| std::mem::take(&mut status.for_volumes));
        let (task, paths) = (entry.clone(), self.inner.store.paths(&entry.id));
        entry.tasks.spawn(async move {
            let _files = task.files.read().await;
            let _one = task.sidecar.lock().await;
            let Lifecycle::Ready(mut image) = task.status().state else {
                return;
            };
            image.seal.asked.for_volumes = false;
            image.sidecar.seal = Some(image.seal.clone());
            let write = move || image.sidecar.write(&paths.sidecar).map(|()| image);
            match tokio::task::spawn_blocking(write).await.map_err(Error::Task) {
                Ok(Ok(image)) => {
                    task.board.change(|status| status.restated(*image));
                }
                Ok(Err(error)) | Err(error) => {
                    warn!(image = %task.id, error = %report(&error), "its backing.cfg is as it was");
                }
            }
        });
    }

    fn expect_later(&self, entry: &Arc<Entry>, expected: Sha512) {
        let (catalog, task) = (self.clone(), entry.clone());
        entry.tasks.spawn(async move {
            let _files = task.files.read().await;
            let _one = task.sidecar.lock().await;
            let Lifecycle::Ready(image) = task.status().state else {
                return;
            };
            match catalog.expecting(*image, Some(expected)).await {
                Ok(image) => {
                    task.board.change(|status| status.restated(image));
                }
                Err(error) => {
                    warn!(image = %task.id, error = %report(&error), "its backing.cfg is as it was");
                }
            }
        });
    }

    /// Ends the work on an image and forgets it; its files stay as they are. Fine when there is none.
    pub async fn forget(&self, id: &ImageId) {
        let Ok(entry) = self.entry(&id.name, Some(&id.uuid)) else {
            return;
        };
        entry.cancel().cancel();
        entry.tasks.close();
        entry.tasks.wait().await;
        if self.is_current(&entry) {
            self.images().remove(id);
            count(&self.inner.changes);
            info!(image = %id, "forgotten; its files stay");
        }
    }
}

/// Whether an image is what was asked for.
pub(super) fn fits(image: &SealedImage, size: u64, expected: Option<Sha512>) -> Result<()> {
    let actual = image.sidecar.size;
    if size > 0 && actual != size {
        let expected = size;
        return Err(Error::WrongSize { expected, actual });
    }
    let actual = image.checksum()?;
    match expected.filter(|expected| *expected != actual) {
        None => Ok(()),
        Some(expected) => Err(Error::Checksum {
            expected: Box::new(expected),
            actual: Box::new(actual),
        }),
    }
}

/// Whether `name` is the name of the image's directory or work file.
fn is_named(id: &ImageId, name: &str) -> bool {
    name.strip_prefix(id.name.as_str())
        .and_then(|rest| rest.strip_prefix('-'))
        == Some(id.uuid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_that_of_one_image_however_it_is_split() {
        for (name, uuid) in [("a", "b-c"), ("a-b", "c")] {
            assert!(is_named(&ImageId::new(name, uuid).unwrap(), "a-b-c"));
        }
        for other in ["a-b", "a-b-c-d", "ab-c", "", "-"] {
            assert!(!is_named(&ImageId::new("a-b", "c").unwrap(), other));
        }
    }
}
