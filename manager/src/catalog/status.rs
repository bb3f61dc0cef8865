//! What the world may know of an image, and the one place that changes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;
use tracing::{error, info, warn};
use types::{Classify, ImageId, Sha512, report};

use super::lifecycle::{Event, Failure, Lifecycle, Progress};
use crate::error::Error;
use crate::source::Report;
use crate::store::SealedImage;
use crate::store::recovery::Found;

/// An image as it is at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Which image.
    pub id: ImageId,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// The source as text.
    pub source: String,
    /// The SHA-512 that was asked for.
    pub expected: Option<Sha512>,
    /// The digest that its reference was resolved to.
    pub manifest_digest: String,
    /// Written by a newer version of this program: it must not be touched, not even deleted.
    pub newer: bool,
}

impl Status {
    /// An image that nothing was done for yet.
    pub fn pending(id: ImageId, source: String, expected: Option<Sha512>) -> Self {
        let manifest_digest = String::new();
        Self {
            id,
            state: Lifecycle::Pending,
            source,
            expected,
            manifest_digest,
            newer: false,
        }
    }

    /// An image as a start finds it.
    pub(super) fn found(found: &Found) -> Self {
        let unknown = |why: &str| Lifecycle::Unknown(why.to_owned());
        let sealed = |image: &SealedImage, state| Self {
            id: image.id.clone(),
            state,
            source: image.seal.source.clone(),
            expected: image.sidecar.expected_checksum.parse().ok(),
            manifest_digest: image.seal.manifest_digest.clone(),
            newer: false,
        };
        let bare = |id: &ImageId, state, newer| Self {
            state,
            newer,
            ..Self::pending(id.clone(), String::new(), None)
        };
        match found {
            Found::Ready(image) => sealed(image, Lifecycle::Ready(image.clone())),
            Found::Touched(image) => sealed(image, unknown("its file was touched; reading it")),
            Found::Unsealed(id, _) => bare(id, unknown("it has no seal; reading it"), false),
            Found::Unusable(id, error @ Error::NewerFormat { .. }) => {
                bare(id, Lifecycle::Unknown(report(error).to_string()), true)
            }
            Found::Unusable(id, error) => {
                let message = report(error).to_string();
                let kind = error.kind();
                bare(id, Lifecycle::Failed(Failure { kind, message }), false)
            }
        }
    }
}

/// Moves an image through its life and tells whoever watches.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    status: watch::Sender<Status>,
    /// The last percent told: progress is told once a percent, not once a buffer.
    percent: Arc<AtomicU32>,
}

impl Reporter {
    pub(super) fn new(status: watch::Sender<Status>) -> Self {
        Self {
            status,
            percent: Arc::new(AtomicU32::new(u32::MAX)),
        }
    }

    /// Applies an event; an illegal one is a bug of ours, logged and not applied.
    fn apply(&self, event: Event) -> bool {
        self.status
            .send_if_modified(|status| match status.state.on(event) {
                Ok(next) => {
                    status.state = next;
                    true
                }
                Err(illegal) => {
                    error!(image = %status.id, %illegal, "an event out of order was ignored");
                    false
                }
            })
    }

    pub(super) fn begin(&self) {
        self.apply(Event::Begin);
    }

    pub(super) fn sealed(&self, image: SealedImage) {
        info!(image = %image.id, size = image.sidecar.size, "ready");
        self.status.send_modify(|status| {
            status.source.clone_from(&image.seal.source);
            status
                .manifest_digest
                .clone_from(&image.seal.manifest_digest);
        });
        self.apply(Event::Sealed(Box::new(image)));
    }

    pub(super) fn failed(&self, error: &Error) {
        let message = report(error).to_string();
        warn!(image = %self.status.borrow().id, error = message, "failed");
        self.apply(Event::Failed(Failure {
            kind: error.kind(),
            message,
        }));
    }

    /// Tells whether the image was ready until now.
    pub(super) fn touched(&self, why: &str) -> bool {
        let ready = matches!(self.status.borrow().state, Lifecycle::Ready(_));
        ready && self.apply(Event::Touched(why.to_owned()))
    }
}

impl Report for Reporter {
    fn progress(&self, processed: u64, total: u64) {
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

    fn pinned(&self, manifest_digest: &str) {
        self.status
            .send_modify(|status| manifest_digest.clone_into(&mut status.manifest_digest));
    }
}
