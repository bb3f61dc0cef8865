//! Requests for images: the one door into the catalog, whoever asks.
//!
//! A request names an image. If there is none of that name it is made, or the bytes that lie on the disk
//! under its name are used. If there is one the request joins it, provided that they agree.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use image::Format;
use store::recovery::Found;
use store::{Place, Provenance, SealedImage, random_image_uuid};
use tracing::{Instrument, info, warn};
use types::{Checksum, ImageId, ImageName, ImageUuid, Sha512, report};

use super::derived::name_of;
use super::lifecycle::{Lifecycle, Progress};
use super::status::{Status, count};
use super::{Catalog, Entry, checksum_text};
use crate::error::{Error, Result};
use crate::source::Source;

/// A request for an image, checked.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// `None`: derived from the registry reference.
    pub name: Option<ImageName>,
    /// `None`: the uuid of the image of that name, else a new one.
    pub uuid: Option<ImageUuid>,
    /// Where the bytes come from; `None`: they are on the disk, or nowhere.
    pub source: Option<Source>,
    /// The bytes that its file must have; 0: any number.
    pub size: u64,
    /// The SHA-512 they must have.
    pub expected: Option<Sha512>,
    /// The format they are in; `None`: told by magic, once.
    pub format: Option<Format>,
    /// A driver asks, for its volumes.
    pub for_volumes: bool,
    /// What becomes of what is there already.
    pub existing: Existing,
}

/// How a request meets an image, or the bytes of one, that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// The same request again gives the same image: source, checksum and format must agree. Bytes that no
    /// image has are set aside.
    Join,
    /// As Longhorn's manager does: an image on its way is not joined, a ready one must have the size and
    /// the checksum and may be from anywhere, and bytes that no image has are used if they fit.
    TakeOver,
}

impl NewImage {
    /// The name asked for, or one that every caller who names the same reference arrives at:
    /// `<repository>-<tag>-<8 digits of its hash>`.
    fn name(&self) -> Result<ImageName> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let derived = self.source.as_ref().and_then(name_of);
        derived.ok_or_else(|| Error::InvalidField {
            field: "name",
            why: "it is needed for every source but a registry".to_owned(),
        })
    }

    /// Where the bytes are said to come from.
    pub fn provenance(&self) -> Provenance {
        let provenance = self.source.as_ref().map(Source::provenance);
        provenance.unwrap_or_default()
    }

    /// The image that this request is about, if there is one.
    fn find(&self, name: &ImageName, images: &Images) -> Option<Arc<Entry>> {
        let has_name = |entry: &&Arc<Entry>| {
            entry.id.name == *name && self.uuid.as_ref().is_none_or(|uuid| entry.id.uuid == *uuid)
        };
        let has_uuid = |entry: &&Arc<Entry>| self.uuid.as_ref() == Some(&entry.id.uuid);
        let mut entries = images.values();
        match self.existing {
            Existing::Join => entries.find(has_name),
            // A uuid is Longhorn's name of an image: two with one uuid are one.
            Existing::TakeOver => entries.find(|entry| has_name(entry) || has_uuid(entry)),
        }
        .cloned()
    }

    /// Whether an image that is there, and has not failed, is what this request asks for.
    fn agrees(&self, id: &ImageId, status: &Status) -> Result<()> {
        match (self.existing, &status.state) {
            (Existing::Join, _) => self.agrees_with_request(id, status),
            (Existing::TakeOver, Lifecycle::Ready(image)) => fits(image, self.size, self.expected),
            (Existing::TakeOver, Lifecycle::Unknown(_) | Lifecycle::Failed(_)) => Ok(()),
            (
                Existing::TakeOver,
                Lifecycle::Pending | Lifecycle::Starting | Lifecycle::InProgress(_),
            ) => Err(differs(id, "state: it is being made".to_owned())),
        }
    }

    fn agrees_with_request(&self, id: &ImageId, status: &Status) -> Result<()> {
        let (is_from, asked) = (&status.provenance, &self.provenance());
        if *is_from != Provenance::Unknown && is_from != asked {
            let text = format!("source: it is from {is_from}, not {asked}");
            return Err(differs(id, text));
        }
        if let Some(Source::Pieces(pieces)) = &self.source {
            let has = match &status.state {
                Lifecycle::Ready(image) => image.sidecar().size,
                _ => status.size,
            };
            // 0: not known while it is read.
            if has > 0 && !pieces.has_size_of(has) {
                let asked = pieces.size();
                return Err(differs(
                    id,
                    format!("size: it has {has} bytes, not {asked}"),
                ));
            }
        }
        if let Some(expected) = self.expected {
            let (has, agrees) = match &status.state {
                Lifecycle::Ready(image) => {
                    let agrees = image.has_checksum(Checksum::Sha512(expected));
                    let has = if agrees {
                        Some(expected)
                    } else {
                        Some(image.checksum()?)
                    };
                    (has, agrees)
                }
                _ => (status.expected, status.expected == Some(expected)),
            };
            if !agrees {
                let has = checksum_text(has);
                let text = format!("checksum: it has {has:?}, not {expected}");
                return Err(differs(id, text));
            }
        }
        let Lifecycle::Ready(image) = &status.state else {
            return Ok(());
        };
        if let Some(Source::Url(download)) = &self.source
            && let Some(sum) = download.sha256.map(Checksum::Sha256)
            && !image.has_checksum(sum)
        {
            return Err(differs(
                id,
                format!("checksum: it was not created with {sum}"),
            ));
        }
        match self.format.filter(|format| *format != image.format()) {
            Some(format) => {
                let has = image.format();
                Err(differs(id, format!("format: it is {has}, not {format}")))
            }
            None => Ok(()),
        }
    }
}

type Images = BTreeMap<ImageId, Arc<Entry>>;

fn differs(id: &ImageId, difference: String) -> Error {
    Error::ImageExists {
        id: id.clone(),
        difference,
    }
}

/// Whether an image has the size (0: any) and the SHA-512 that were asked for.
pub(super) fn fits(image: &SealedImage, size: u64, expected: Option<Sha512>) -> Result<()> {
    let actual = image.sidecar().size;
    if size > 0 && actual != size {
        let expected = size;
        return Err(store::Error::WrongSize { expected, actual }.into());
    }
    let Some(expected) = expected else {
        return Ok(());
    };
    let actual = image.checksum()?;
    if expected == actual {
        return Ok(());
    }
    let (expected, actual) = (Box::new(expected), Box::new(actual));
    Err(store::Error::Checksum { expected, actual }.into())
}

impl Catalog {
    /// Starts to make an image, or joins the one that is there. A failed one is started anew. Answers with
    /// the state that this request brought it to.
    ///
    /// # Errors
    /// [`Error::ImageExists`] when an image has the name and is not what was asked for.
    pub fn create(&self, new: NewImage) -> Result<Status> {
        let name = new.name()?;
        let mut images = self.images();
        if let Some(entry) = new.find(&name, &images) {
            drop(images);
            if new.existing == Existing::TakeOver && entry.id.name != name {
                return Err(differs(&entry.id, "name".to_owned()));
            }
            return self.join(&entry, new);
        }
        self.takes_work()?;
        if let Some(Source::Pieces(_)) = &new.source {
            Self::require_place(&images)?;
        }
        let uuid = new.uuid.clone().unwrap_or_else(random_image_uuid);
        let id = ImageId { name, uuid };
        // `a` with `b-c` and `a-b` with `c` are different images of one directory.
        let directory = id.to_string();
        if let Some(other) = images.keys().find(|other| other.to_string() == directory) {
            if new.existing == Existing::TakeOver {
                return Err(differs(other, "name".to_owned()));
            }
            return Err(Error::InvalidField {
                field: "uuid",
                why: format!(
                    "with this name it would share a directory with {} (uuid {}); choose another",
                    other.name, other.uuid
                ),
            });
        }
        let there = new.existing == Existing::TakeOver && self.has_bytes(&id);
        let mut status = Status::pending(id.clone(), new.provenance(), new.expected);
        status.for_volumes = new.for_volumes;
        status.size = new.size;
        if new.existing == Existing::TakeOver && !there && new.source.is_some() {
            status.state = Lifecycle::Starting;
        }
        if let Some(Source::Pieces(pieces)) = &new.source {
            status.state = Lifecycle::InProgress(Progress {
                processed: 0,
                total: pieces.size(),
            });
        }
        let entry = Entry::new(status, &self.inner.changes, &self.inner.stop);
        images.insert(id, entry.clone());
        drop(images);
        count(&self.inner.changes);
        let status = entry.status();
        self.bring_later(&entry, new, there);
        self.forget_failed(Instant::now());
        Ok(status)
    }

    /// Answers a request for an image that is there.
    fn join(&self, entry: &Arc<Entry>, new: NewImage) -> Result<Status> {
        let status = entry.status();
        if status.newer {
            return Err(super::not_ready(&entry.id, &status.state));
        }
        if entry.cancel().is_cancelled() {
            return Err(Error::Cancelled("the image is being deleted; try again"));
        }
        if !new.for_volumes && status.for_volumes {
            self.keep(entry);
        }
        if let Lifecycle::Failed(_) = status.state {
            self.takes_work()?;
            let provenance = new.provenance();
            // Two callers may come here at once: one of them makes the move, the other joins it.
            let retried = entry.board.change(|status| {
                let retried = status.retry(&provenance, new.expected);
                if retried {
                    status.size = new.size;
                }
                retried
            });
            if retried {
                let status = entry.status();
                let there = new.existing == Existing::TakeOver && self.has_bytes(&entry.id);
                self.bring_later(entry, new, there);
                return Ok(status);
            }
            return Ok(entry.status());
        }
        new.agrees(&entry.id, &status)?;
        if new.existing == Existing::TakeOver {
            entry.board.change(|status| {
                status.size = new.size;
                status.expected = new.expected.or(status.expected);
                true
            });
            if let (Lifecycle::Ready(_), Some(expected)) = (&status.state, new.expected) {
                self.expect_later(entry, expected);
            }
        }
        Ok(entry.status())
    }

    fn has_bytes(&self, id: &ImageId) -> bool {
        std::fs::symlink_metadata(self.file_path(id)).is_ok()
    }

    /// Uses what is on the disk if it is `there`, or gets the bytes from the source, in a task of the entry.
    pub(super) fn bring_later(&self, entry: &Arc<Entry>, new: NewImage, there: bool) {
        if let Some(Source::Pieces(pieces)) = &new.source {
            *entry.desk() = Some(pieces.desk().clone());
        }
        let (catalog, task) = (self.clone(), entry.clone());
        let span = entry.span();
        let work = async move {
            if there {
                match catalog.reuse(&task, &new).await {
                    Ok(Some(image)) => {
                        task.reporter().sealed(image.clone());
                        return catalog.prove(&task, &image).await;
                    }
                    Ok(None) => {}
                    Err(error) => return task.reporter().failed(&error),
                }
            }
            if let Some(source) = &new.source {
                catalog.make_and_tell(&task, source, &new).await;
            } else {
                let path = catalog.file_path(&task.id);
                task.reporter().failed(&Error::NothingToAdopt(path));
            }
        };
        entry.tasks.spawn(work.instrument(span));
    }

    /// The image that is on the disk already, if it is the one that was asked for. Bytes that are not
    /// are set aside, never deleted; without a source to replace them that is a failure.
    async fn reuse(&self, entry: &Entry, new: &NewImage) -> Result<Option<SealedImage>> {
        let (store, id) = (self.inner.store.clone(), entry.id.clone());
        let Some(found) = super::blocking(move || store.find(&id)).await? else {
            return Ok(None);
        };
        let read = match found {
            Found::Ready(image) => Ok(*image),
            // Longhorn asks for an image of the disk's: an upload is none yet.
            Found::Upload(..) => return Ok(None),
            // Longhorn's control plane takes an image for ready when it has its sum.
            found => self.look_again(entry, found, false).await,
        };
        let read = read.and_then(|image| fits(&image, new.size, new.expected).map(|()| image));
        match read {
            Ok(image) => {
                info!("the file on the disk is the requested image");
                self.expecting(image, new.expected).await.map(Some)
            }
            Err(error @ (Error::Cancelled(_) | Error::Store(store::Error::NewerFormat { .. }))) => {
                Err(error)
            }
            Err(error) if new.source.is_some() => {
                warn!(error = %report(&error), "the file on the disk cannot be used: fetching \
                                                the image again");
                Ok(None)
            }
            Err(error) => Err(self.set_aside(&entry.id, error)),
        }
    }

    /// Writes down the checksum that is expected of an image that has it.
    async fn expecting(&self, image: SealedImage, expected: Option<Sha512>) -> Result<SealedImage> {
        let store = self.inner.store.clone();
        super::blocking(move || store.note_expected(image, expected)).await
    }

    /// Somebody else than a driver asked for the image as well: it stays whether volumes use it or not.
    fn keep(&self, entry: &Arc<Entry>) {
        entry
            .board
            .change(|status| std::mem::take(&mut status.for_volumes));
        let store = self.inner.store.clone();
        restate_later(entry, move |image| store.note_kept(image));
    }

    fn expect_later(&self, entry: &Arc<Entry>, expected: Sha512) {
        let store = self.inner.store.clone();
        restate_later(entry, move |image| {
            store.note_expected(image, Some(expected))
        });
    }

    /// Where on the disk the images are.
    pub fn place(&self) -> Place {
        self.inner.store.place()
    }

    /// The path of an image's file.
    pub fn file_path(&self, id: &ImageId) -> PathBuf {
        self.inner.store.paths(id).backing
    }
}

/// Writes anew what is known of a ready image, in a task of its entry.
fn restate_later(
    entry: &Arc<Entry>,
    write: impl FnOnce(SealedImage) -> store::Result<SealedImage> + Send + 'static,
) {
    let task = entry.clone();
    entry.tasks.spawn(async move {
        let _files = task.files.read().await;
        let _one = task.sidecar.lock().await;
        let Lifecycle::Ready(image) = task.status().state else {
            return;
        };
        match super::blocking(move || write(*image)).await {
            Ok(image) => {
                task.board.change(|status| status.restated(image));
            }
            Err(error) => {
                warn!(image = %task.id, error = %report(&error), "its backing.cfg is as it was");
            }
        }
    });
}
