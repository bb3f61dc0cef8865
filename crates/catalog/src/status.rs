//! What the world may know of an image, and the one place that changes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{error, info, warn};
use types::{Classify, ImageId, Sha512, report};

use super::lifecycle::{Event, Failure, Lifecycle, Progress};
use crate::counters;
use crate::error::Error;
use crate::source::Report;
use store::recovery::Found;
use store::sidecar::Sidecar;
use store::{Provenance, SealedImage};

/// An image as it is at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    pub id: ImageId,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// Where its bytes are from.
    pub provenance: Provenance,
    /// The SHA-512 that was asked for.
    pub expected: Option<Sha512>,
    /// The digest that its reference was resolved to.
    pub manifest_digest: String,
    /// Why it failed before it was asked for again; empty once it is ready.
    pub last_failure: String,
    /// Only drivers asked for it, for their volumes.
    pub for_volumes: bool,
    /// When it was last repaired; `None`: this process has not repaired it.
    pub repaired_at: Option<Timestamp>,
    /// Written by a newer version of this program: it must not be touched, not even deleted.
    pub newer: bool,
    /// The size that was asked for, in bytes; 0: any.
    pub size: u64,
    /// Copies of it that are being sent now.
    pub sending: u32,
    /// Bytes taken from the source so far.
    pub processed: u64,
    /// What was known of it when it was ready last; kept while it is looked at again.
    pub last: Option<Box<Sidecar>>,
    /// Tells an image from one of the same name that was there before it: no two in one process share it.
    pub serial: u64,
}

/// A number for [`Status::serial`].
fn next_serial() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

impl Status {
    /// An image that nothing was done for yet.
    pub fn pending(id: ImageId, provenance: Provenance, expected: Option<Sha512>) -> Self {
        let manifest_digest = String::new();
        Self {
            id,
            state: Lifecycle::Pending,
            provenance,
            expected,
            manifest_digest,
            last_failure: String::new(),
            for_volumes: false,
            repaired_at: None,
            newer: false,
            size: 0,
            sending: 0,
            processed: 0,
            last: None,
            serial: next_serial(),
        }
    }

    /// What is known of the image's file: of the one that is ready, else of the last that was.
    pub fn sidecar(&self) -> Option<&Sidecar> {
        match &self.state {
            Lifecycle::Ready(image) => Some(image.sidecar()),
            _ => self.last.as_deref(),
        }
    }

    /// An image as a start finds it.
    pub(super) fn found(found: &Found) -> Self {
        let unknown = |why: &str| Lifecycle::Unknown(why.to_owned());
        let sealed = |image: &SealedImage, state| Self {
            id: image.id().clone(),
            state,
            provenance: image.seal().provenance.clone(),
            expected: image.sidecar().expected_checksum.parse().ok(),
            manifest_digest: image.seal().manifest_digest.clone(),
            last_failure: String::new(),
            for_volumes: image.seal().asked.for_volumes,
            repaired_at: None,
            newer: false,
            size: 0,
            sending: 0,
            processed: 0,
            last: Some(Box::new(image.sidecar().clone())),
            serial: next_serial(),
        };
        let bare = |id: &ImageId, state, newer| Self {
            state,
            newer,
            ..Self::pending(id.clone(), Provenance::Unknown, None)
        };
        match found {
            Found::Ready(image) => sealed(image, Lifecycle::Ready(image.clone())),
            Found::Modified(image) => sealed(image, unknown("its file was touched; reading it")),
            Found::Unsealed(id, _) => bare(id, unknown("it has no seal; reading it"), false),
            Found::Upload(id, record) => {
                let provenance = Provenance::uploaded(&record.file_name);
                Self {
                    state: Lifecycle::InProgress(Progress {
                        processed: record.synced,
                        total: record.size,
                    }),
                    for_volumes: record.for_volumes,
                    size: record.size,
                    processed: record.synced,
                    ..Self::pending(id.clone(), provenance, record.expected())
                }
            }
            Found::Unusable(id, error @ store::Error::NewerFormat { .. }) => {
                bare(id, Lifecycle::Unknown(report(error).to_string()), true)
            }
            Found::Unusable(id, error) => {
                let message = report(error).to_string();
                let kind = error.kind();
                let found = sum_found_in_store(error);
                let failure = Failure {
                    kind,
                    message,
                    found,
                };
                bare(id, Lifecycle::Failed(failure), false)
            }
        }
    }
}

/// The checksum that whole bytes had when it was not the one that was asked for.
fn sum_found(error: &Error) -> Option<Sha512> {
    match error {
        Error::Store(error) => sum_found_in_store(error),
        Error::SetAside { why, .. } => sum_found(why),
        _ => None,
    }
}

fn sum_found_in_store(error: &store::Error) -> Option<Sha512> {
    match error {
        store::Error::Checksum { actual, .. } => Some(**actual),
        store::Error::SetAside { why, .. } => sum_found_in_store(why),
        _ => None,
    }
}

/// The status of an image, where all changes of it are made and told to whoever watches.
#[derive(Debug, Clone)]
pub(super) struct StatusCell {
    status: watch::Sender<Status>,
    /// Counts the changes of all images.
    changes: watch::Sender<u64>,
}

impl StatusCell {
    pub(super) fn new(status: Status, changes: watch::Sender<u64>) -> Self {
        let status = watch::Sender::new(status);
        Self { status, changes }
    }

    /// The status as it is now.
    pub(super) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Looks at the status without copying it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&self.status.borrow())
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Changes the status; `change` says whether it did.
    pub(super) fn change(&self, change: impl FnOnce(&mut Status) -> bool) -> bool {
        let changed = self.status.send_if_modified(change);
        if changed {
            count(&self.changes);
        }
        changed
    }
}

/// One more change: there is an image more or less, or one is not as it was.
pub(super) fn count(changes: &watch::Sender<u64>) {
    changes.send_modify(|changes| *changes += 1);
}

/// Moves an image through its life.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    board: StatusCell,
    /// The last percent told: progress is told once a percent, not once a buffer.
    percent: Arc<AtomicU32>,
    /// The last number of bytes told.
    processed: Arc<AtomicU64>,
}

impl Reporter {
    pub(super) fn new(board: StatusCell) -> Self {
        Self {
            board,
            percent: Arc::new(AtomicU32::new(u32::MAX)),
            processed: Arc::default(),
        }
    }

    /// Applies an event; an illegal one is a bug of ours, logged and not applied.
    fn apply(&self, event: Event) -> bool {
        self.board.change(|status| match status.state.on(event) {
            Ok(next) => {
                status.moved(next);
                true
            }
            Err(illegal) => {
                error!(image = %status.id, %illegal, "an event out of order was ignored");
                false
            }
        })
    }

    /// The work begins; fine when it was said before.
    pub(super) fn begin(&self) {
        if self.board.look(|status| status.state == Lifecycle::Pending) {
            self.apply(Event::Begin);
        }
    }

    pub(super) fn sealed(&self, image: SealedImage) {
        info!(image = %image.id(), size = image.sidecar().size, "ready");
        counters::made();
        self.board.change(|status| {
            status.provenance.clone_from(&image.seal().provenance);
            status
                .manifest_digest
                .clone_from(&image.seal().manifest_digest);
            status.last = Some(Box::new(image.sidecar().clone()));
            true
        });
        self.apply(Event::Sealed(Box::new(image)));
    }

    pub(super) fn failed(&self, error: &Error) {
        let message = report(error).to_string();
        counters::failed(error.kind());
        warn!(image = %self.board.look(|status| status.id.clone()), error = message, "failed");
        self.apply(Event::Failed(Failure {
            kind: error.kind(),
            message,
            found: sum_found(error),
        }));
    }

    /// Tells whether the image was ready until now.
    pub(super) fn modified(&self, why: &str) -> bool {
        let ready = self
            .board
            .look(|status| matches!(status.state, Lifecycle::Ready(_)));
        ready && self.apply(Event::Modified(why.to_owned()))
    }
}

impl Status {
    /// Takes the next state, and keeps what the state before knew of the bytes.
    fn moved(&mut self, next: Lifecycle) {
        match &next {
            Lifecycle::InProgress(progress) => self.processed = progress.processed,
            Lifecycle::Ready(image) => {
                self.processed = image.sidecar().size;
                self.last_failure.clear();
            }
            Lifecycle::Pending => self.processed = 0,
            Lifecycle::Starting | Lifecycle::Failed(_) | Lifecycle::Unknown(_) => {}
        }
        self.state = next;
    }

    /// What is written about a ready image was written anew; false when it is not ready any more.
    pub(super) fn restated(&mut self, image: SealedImage) -> bool {
        let ready = matches!(self.state, Lifecycle::Ready(_));
        if ready {
            self.last = Some(Box::new(image.sidecar().clone()));
            self.state = Lifecycle::Ready(Box::new(image));
        }
        ready
    }

    /// A failed image is asked for again, from `source`; false when it is not failed any more.
    pub(super) fn retry(&mut self, provenance: &Provenance, expected: Option<Sha512>) -> bool {
        let Ok(next) = self.state.on(Event::Retry) else {
            return false;
        };
        if let Lifecycle::Failed(failure) = &self.state {
            self.last_failure.clone_from(&failure.message);
        }
        self.moved(next);
        self.provenance.clone_from(provenance);
        self.expected = expected;
        self.manifest_digest.clear();
        self.last = None;
        true
    }
}

impl Report for Reporter {
    fn progress(&self, processed: u64, total: u64) {
        let before = self.processed.swap(processed, Ordering::Relaxed);
        counters::received(processed.saturating_sub(before));
        let progress = Progress { processed, total };
        // Without a total, every 16 MiB counts as a step.
        let step = if total == 0 {
            u32::try_from(processed >> 24).unwrap_or(u32::MAX)
        } else {
            progress.percent()
        };
        if self.percent.swap(step, Ordering::Relaxed) != step {
            self.apply(Event::Bytes(progress));
        }
    }

    fn exactly(&self, processed: u64, total: u64) {
        let before = self.processed.swap(processed, Ordering::Relaxed);
        // What is there at the first call has not come now.
        if self.percent.swap(0, Ordering::Relaxed) != u32::MAX {
            counters::received(processed.saturating_sub(before));
        }
        self.apply(Event::Bytes(Progress { processed, total }));
    }

    fn pinned(&self, manifest_digest: &str) {
        self.board.change(|status| {
            manifest_digest.clone_into(&mut status.manifest_digest);
            true
        });
    }
}
