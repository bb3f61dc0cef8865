//! The images that this manager has or makes: one entry and at most one task for each.
//!
//! The catalog is a view of the disk: it is filled from it at the start, and an image that is `ready`
//! here is sealed there. What exists only here is the progress of images on their way, and why the
//! last attempt failed.

mod access;
mod blocking;
pub mod counters;
mod deleting;
mod derived;
mod drain;
mod error;
mod heal;
mod inspect;
mod library;
pub mod lifecycle;
mod making;
mod naming;
mod offer;
mod proving;
mod request;
mod scrubbing;
mod sending;
pub mod source;
mod status;
mod trickle;
mod unused;
mod uploading;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedRwLockReadGuard, RwLock, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Span, info, info_span, warn};
use types::{Cancel, ImageId, ImageName, ImageUuid, Sha512, report};

pub use self::blocking::blocking;
pub use self::derived::short_hash;
pub use self::error::{Error, OriginError, Result};
pub use self::inspect::Look;
pub use self::library::Images;
pub use self::lifecycle::{Lifecycle, Progress};
pub use self::request::{Existing, NewImage};
pub use self::scrubbing::Scrubbing;
pub use self::sending::{Reading, SendGuard};
pub use self::status::Status;
use self::status::{Reporter, StatusCell};
pub use self::unused::{Usage, users};
use crate::source::{Desk, Source, Sources, Turns};
use store::recovery::Found;
use store::{ImageStore, SealedImage};

/// How long who needs an image waits while its bytes are being read again: some GiB.
const PATIENCE: Duration = Duration::from_secs(8);

/// The images of one disk. Cheap to clone: clones share everything.
#[derive(Debug, Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: ImageStore,
    sources: Sources,
    /// Never held across an await.
    images: Mutex<BTreeMap<ImageId, Arc<Entry>>>,
    /// One disk, one verifying reader: more would only seek.
    verifying: Arc<Semaphore>,
    /// Bounds the makings that run at once; more wait as `starting`.
    turns: Turns,
    /// Held while a proof of it is written down.
    access: Arc<Mutex<()>>,
    /// How volumes use the images that are ready, as it was looked at last.
    usage: Mutex<HashMap<ImageId, Usage>>,
    /// Counts the changes of all images.
    changes: watch::Sender<u64>,
    /// Set when the daemon is about to stop: nothing new is begun.
    draining: AtomicBool,
    /// Cancelled when the daemon stops; every task's token is a child of it.
    stop: CancellationToken,
}

#[derive(Debug)]
struct Entry {
    id: ImageId,
    board: StatusCell,
    /// Ends the work on this image. Cancelled while it is being deleted; renewed if that is refused.
    cancel: Mutex<CancellationToken>,
    /// The tasks that work on this image; deleting joins them.
    tasks: TaskTracker,
    /// Held shared by who reads the image's files, exclusively by who deletes them.
    files: Arc<RwLock<()>>,
    /// Held while the raw form is made, so that it is made once.
    raw_form: tokio::sync::Mutex<()>,
    /// Held while what is written about a ready image is written anew, from the look at what is known of
    /// it to the change of that.
    sidecar: tokio::sync::Mutex<()>,
    /// What it was made from in this process, where that can be read again: what is stored of a source
    /// leaves out secrets and peers.
    made_from: Mutex<Option<Source>>,
    /// Where a client brings its bytes in pieces, if it is made so in this process.
    desk: Mutex<Option<Desk>>,
    /// When it was asked for, or found.
    made: Instant,
}

/// Keeps the files of an image where they are for as long as a clone of it lives.
pub type FilesGuard = Arc<OwnedRwLockReadGuard<()>>;

impl Entry {
    fn new(status: Status, changes: &watch::Sender<u64>, stop: &CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            id: status.id.clone(),
            board: StatusCell::new(status, changes.clone()),
            cancel: Mutex::new(stop.child_token()),
            tasks: TaskTracker::new(),
            files: Arc::new(RwLock::new(())),
            raw_form: tokio::sync::Mutex::new(()),
            sidecar: tokio::sync::Mutex::new(()),
            made_from: Mutex::new(None),
            desk: Mutex::new(None),
            made: Instant::now(),
        })
    }

    /// The token of the work on this image.
    fn cancel(&self) -> CancellationToken {
        self.cancel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets the image be worked on again after its deletion was refused.
    fn renew(&self, stop: &CancellationToken) {
        *self.cancel.lock().unwrap_or_else(PoisonError::into_inner) = stop.child_token();
    }

    fn made_from(&self) -> MutexGuard<'_, Option<Source>> {
        self.made_from
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn desk(&self) -> MutexGuard<'_, Option<Desk>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Status {
        self.board.status()
    }

    /// What every line that is logged for this image carries.
    fn span(&self) -> Span {
        let source = self.status().provenance;
        info_span!("image", name = %self.id.name, uuid = %self.id.uuid, %source)
    }

    fn reporter(&self) -> Reporter {
        Reporter::new(self.board.clone())
    }
}

impl Catalog {
    /// Reads what the disk holds. Images whose bytes must be read first are `unknown` until then; that
    /// work goes on after this returns, one image at a time.
    pub fn load(store: ImageStore, sources: Sources, stop: CancellationToken) -> Result<Self> {
        let changes = watch::Sender::new(0);
        let mut images = BTreeMap::new();
        let (mut doubtful, mut unproven, mut uploads) = (Vec::new(), Vec::new(), Vec::new());
        for found in store.load()? {
            let status = Status::found(&found);
            let entry = Entry::new(status, &changes, &stop);
            images.insert(entry.id.clone(), entry.clone());
            match found {
                Found::Ready(image) if image.seal().checksum_unproven => unproven.push(entry),
                Found::Ready(_) => {}
                Found::Modified(_) | Found::Unsealed(..) => doubtful.push((entry, found)),
                Found::Upload(_, record) => uploads.push((entry, record)),
                Found::Unusable(id, error) => {
                    warn!(image = %id, error = %report(&error), "left alone");
                }
            }
        }
        info!(
            images = images.len(),
            doubtful = doubtful.len(),
            "loaded the disk"
        );
        let inner = Inner {
            store,
            sources,
            images: Mutex::new(images),
            verifying: Arc::new(Semaphore::new(1)),
            turns: Turns::default(),
            access: Arc::default(),
            usage: Mutex::default(),
            changes,
            draining: AtomicBool::new(false),
            stop,
        };
        let catalog = Self {
            inner: Arc::new(inner),
        };
        catalog.verify_later(doubtful);
        for entry in &unproven {
            catalog.prove_later(entry);
        }
        for (entry, record) in &uploads {
            catalog.go_on_with(entry, record);
        }
        Ok(catalog)
    }

    fn images(&self) -> MutexGuard<'_, BTreeMap<ImageId, Arc<Entry>>> {
        // A panic elsewhere leaves the map whole: each change of it is one insert or remove.
        self.inner
            .images
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of that name, and of that uuid if one is given.
    fn entry(&self, name: &ImageName, uuid: Option<&ImageUuid>) -> Result<Arc<Entry>> {
        let images = self.images();
        let mut matching = images
            .values()
            .filter(|entry| entry.id.name == *name && uuid.is_none_or(|u| entry.id.uuid == *u));
        let text = || uuid.map_or_else(|| name.to_string(), |uuid| format!("{name}-{uuid}"));
        let entry = matching
            .next()
            .ok_or_else(|| Error::ImageNotFound(text()))?;
        if matching.next().is_some() {
            return Err(Error::InvalidField {
                field: "uuid",
                why: format!("there are several images named {name}; give the UUID"),
            });
        }
        Ok(entry.clone())
    }

    /// One image as it is now.
    pub fn get(&self, name: &ImageName, uuid: Option<&ImageUuid>) -> Result<Status> {
        let entry = self.entry(name, uuid)?;
        self.notice_changes(&entry);
        Ok(entry.status())
    }

    /// See [`Status::serial`]; without a look at the disk.
    pub fn serial(&self, id: &ImageId) -> Option<u64> {
        let images = self.images();
        images
            .get(id)
            .map(|entry| entry.board.look(|status| status.serial))
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        self.images().len()
    }

    /// All images, in the order of their names.
    pub fn list(&self) -> Vec<Status> {
        let entries: Vec<_> = self.images().values().cloned().collect();
        entries
            .iter()
            .map(|entry| {
                self.notice_changes(entry);
                entry.status()
            })
            .collect()
    }

    /// One image as it is now and at each change.
    pub fn watch(
        &self,
        name: &ImageName,
        uuid: Option<&ImageUuid>,
    ) -> Result<watch::Receiver<Status>> {
        let entry = self.entry(name, uuid)?;
        self.notice_changes(&entry);
        Ok(entry.board.subscribe())
    }

    /// Counts the changes of all images, so that who watches need not ask again and again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Looks whether the files of all ready images are as they were sealed.
    pub fn notice_all(&self) {
        let entries: Vec<_> = self.images().values().cloned().collect();
        for entry in &entries {
            self.notice_changes(entry);
        }
    }

    /// Looks whether a ready image's file is as it was sealed, by stat alone; if not it is `unknown`
    /// until its bytes were read.
    fn notice_changes(&self, entry: &Arc<Entry>) {
        if entry.cancel().is_cancelled() {
            return;
        }
        let ready = entry.board.look(|status| match &status.state {
            Lifecycle::Ready(image) => Some(image.clone()),
            _ => None,
        });
        let Some(image) = ready else { return };
        let why = match self.inner.store.is_untouched(&image) {
            Ok(true) => return,
            Ok(false) => "its file was changed or replaced; reading it".to_owned(),
            Err(error) => report(&error).to_string(),
        };
        if entry.reporter().modified(&why) {
            warn!(image = %entry.id, why, "a ready image was touched");
            self.verify_later(vec![(entry.clone(), Found::Modified(image))]);
        }
    }

    /// A ready image, and a guard that keeps its files in place.
    pub async fn ready(
        &self,
        name: &ImageName,
        uuid: Option<&ImageUuid>,
    ) -> Result<(SealedImage, FilesGuard)> {
        let (entry, guard) = loop {
            let entry = self.entry(name, uuid)?;
            let guard = entry.files.clone().read_owned().await;
            // It may have been deleted, and made anew, while this waited.
            if self.is_current(&entry) {
                break (entry, guard);
            }
        };
        if entry.cancel().is_cancelled() {
            return Err(Error::Cancelled("the image is being deleted; try again"));
        }
        self.notice_changes(&entry);
        // An image that somebody merely touched is ready again as soon as it was read.
        let mut watch = entry.board.subscribe();
        let doubtful = |status: &Status| matches!(status.state, Lifecycle::Unknown(_));
        if doubtful(&entry.status()) {
            let settled = watch.wait_for(|status| !doubtful(status));
            // When the time is up, the state says so below.
            let _ = tokio::time::timeout(PATIENCE, settled).await;
        }
        match entry.status().state {
            Lifecycle::Ready(image) => Ok((*image, Arc::new(guard))),
            state => Err(not_ready(&entry.id, &state)),
        }
    }

    /// The paths of an image's files.
    pub(crate) fn paths(&self, id: &ImageId) -> store::layout::ImagePaths {
        self.inner.store.paths(id)
    }

    /// Is cancelled when the image is deleted, or the daemon stops.
    pub(crate) fn ended(&self, id: &ImageId) -> Result<CancellationToken> {
        Ok(self.entry(&id.name, Some(&id.uuid))?.cancel())
    }

    /// Somebody found a part of a ready image to be damaged: it is `unknown` until its bytes were
    /// read.
    pub(crate) fn doubt(&self, id: &ImageId, why: &str) {
        let Ok(entry) = self.entry(&id.name, Some(&id.uuid)) else {
            return;
        };
        self.doubt_entry(&entry, why);
    }

    fn doubt_entry(&self, entry: &Arc<Entry>, why: &str) {
        let Lifecycle::Ready(image) = entry.status().state else {
            return;
        };
        if entry.reporter().modified(why) {
            warn!(image = %entry.id, why, "a ready image is in doubt");
            self.verify_later(vec![(entry.clone(), Found::Modified(image))]);
        }
    }

    /// Whether the image of an entry is in its place and nobody deletes it.
    fn is_wanted(&self, entry: &Arc<Entry>) -> bool {
        self.is_current(entry) && !entry.cancel().is_cancelled()
    }

    /// Whether this entry still is the one of its image.
    fn is_current(&self, entry: &Arc<Entry>) -> bool {
        self.images()
            .get(&entry.id)
            .is_some_and(|now| Arc::ptr_eq(now, entry))
    }

    /// The file to clone for a ready image, made now if it is not there. The work goes on when the
    /// caller is gone; who asks meanwhile waits for the same work.
    pub async fn raw_form(&self, image: &SealedImage, files: &FilesGuard) -> Result<PathBuf> {
        let store = self.inner.store.clone();
        if let Some(path) = store.raw_form(image)? {
            return Ok(path);
        }
        let entry = self.entry(&image.id().name, Some(&image.id().uuid))?;
        let (task_entry, image, files) = (entry.clone(), image.clone(), files.clone());
        let work = async move {
            let _one = task_entry.raw_form.lock().await;
            let _files = files;
            let cancel = ends(&task_entry.cancel());
            let make = move || store.make_raw_form(&image, &cancel);
            blocking(make).await
        };
        entry.tasks.spawn(work).await.map_err(Error::Task)?
    }

    /// Whether volumes can be cloned from the image at once. An answer that the disk does not give
    /// counts as no.
    pub fn has_raw_form(&self, image: &SealedImage) -> bool {
        matches!(self.inner.store.raw_form(image), Ok(Some(_)))
    }
}

/// Ends blocking work when the token is cancelled.
fn ends(cancel: &CancellationToken) -> Cancel {
    let cancel = cancel.clone();
    Cancel::when(move || cancel.is_cancelled())
}

fn not_ready(id: &ImageId, state: &Lifecycle) -> Error {
    let message = match state {
        Lifecycle::Failed(failure) => format!(": {}", failure.message),
        Lifecycle::Unknown(why) => format!(": {why}"),
        Lifecycle::InProgress(progress) => format!(": {}% received", progress.percent()),
        Lifecycle::Pending | Lifecycle::Starting | Lifecycle::Ready(_) => String::new(),
    };
    Error::ImageNotReady {
        id: id.clone(),
        state: state.name(),
        message,
    }
}

/// Text of a checksum, or nothing.
fn checksum_text(checksum: Option<Sha512>) -> String {
    checksum.map(String::from).unwrap_or_default()
}
