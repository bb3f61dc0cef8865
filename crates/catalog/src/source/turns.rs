//! Slots: how many images are created at once. Each of them holds buffers, threads and connections.
//!
//! Every kind of source has its own slots, and a network source takes one when its first byte
//! arrives: registries that do not answer, or peers that never send, block nobody else.

use std::sync::Arc;

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{OriginKind, Source};
use crate::error::{Error, Result};

/// Makings of one kind at once. Each holds a few MiB of buffers and up to four threads.
const MAKINGS_MAX: usize = 8;

/// Restores at once: each holds several blocks of a backup, which may be 16 MiB.
const RESTORES_MAX: usize = 2;

/// The turns of all kinds.
#[derive(Debug)]
pub struct Turns {
    registries: Arc<Semaphore>,
    urls: Arc<Semaphore>,
    managers: Arc<Semaphore>,
    pushed: Arc<Semaphore>,
    stores: Arc<Semaphore>,
    local: Arc<Semaphore>,
}

/// The turn of one making; clones are the same one, and it ends with the last of them.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// `None`: it needs none.
    of: Option<Arc<Semaphore>>,
    taken: Arc<OnceCell<OwnedSemaphorePermit>>,
}

impl Default for Turns {
    fn default() -> Self {
        let turns = || Arc::new(Semaphore::new(MAKINGS_MAX));
        Self {
            registries: turns(),
            urls: turns(),
            managers: turns(),
            pushed: turns(),
            stores: Arc::new(Semaphore::new(RESTORES_MAX)),
            local: turns(),
        }
    }
}

impl Turns {
    /// The turn of a making from `source`, not taken yet.
    pub fn of(&self, source: &Source) -> Turn {
        let of = match source {
            Source::Registry { .. } => Some(&self.registries),
            Source::Url(_) => Some(&self.urls),
            Source::Peers(_) => Some(&self.managers),
            Source::Upload(_) => Some(&self.pushed),
            Source::OciLayout(_) | Source::Archive(_) | Source::File(_) | Source::Adopt { .. } => {
                Some(&self.local)
            }
            Source::Origin(origin) => Some(match origin.kind() {
                OriginKind::Local => &self.local,
                OriginKind::Manager => &self.managers,
                OriginKind::Pushed => &self.pushed,
                OriginKind::Store { .. } => &self.stores,
            }),
            // A snapshot is of now, not of when others have come.
            // Nor is an upload of those who come first: between two pieces it needs nothing.
            Source::Volume(_) | Source::Pieces(_) => None,
        };
        Turn {
            of: of.cloned(),
            taken: Arc::default(),
        }
    }

    /// Whether any is taken.
    pub fn are_taken(&self) -> bool {
        let all = [
            &self.registries,
            &self.urls,
            &self.managers,
            &self.pushed,
            &self.local,
        ];
        all.iter()
            .any(|turns| turns.available_permits() < MAKINGS_MAX)
            || self.stores.available_permits() < RESTORES_MAX
    }
}

impl Turn {
    /// Waits for the turn, once.
    pub async fn take(&self, cancel: &CancellationToken) -> Result<()> {
        let Some(of) = &self.of else { return Ok(()) };
        let take = || async {
            tokio::select! {
                turn = of.clone().acquire_owned() => {
                    Ok(turn.expect("the turns are never closed"))
                }
                () = cancel.cancelled() => Err(Error::Cancelled("the image is not wanted")),
            }
        };
        self.taken.get_or_try_init(take).await.map(drop)
    }
}
