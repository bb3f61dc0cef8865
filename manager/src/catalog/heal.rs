//! Damaged images become good again, where that is possible: the chunks that are still good are kept
//! and the others come from a peer, or the image is made anew from its own source.
//!
//! Where neither works the image stays failed and says so: its bytes are in quarantine, and whoever has
//! them elsewhere can sync, upload or create it again.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tracing::{Instrument, info, info_span, warn};
use types::{ImageId, report};

use super::lifecycle::Lifecycle;
use super::making::NewImage;
use super::status::Status;
use super::{Catalog, Entry};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::store::{Assembly, Facts, Received, SealedImage};

/// Pauses between the attempts; the last is repeated. Peers and sources come back.
const PAUSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
];

/// Who can bring chunks of an image from elsewhere.
pub trait Healer: Send + Sync + Debug {
    /// Puts the chunks that the assembly is missing into it. An error, or a chunk that is missing
    /// still, means that nobody has them now; what came is kept for the next attempt.
    fn refetch<'a>(
        &'a self,
        id: &'a ImageId,
        assembly: &'a Arc<Assembly>,
    ) -> BoxFuture<'a, Result<()>>;
}

impl Catalog {
    /// Names the one who brings chunks from elsewhere; the first stays.
    pub fn set_healer(&self, healer: Arc<dyn Healer>) {
        if self.inner.healer.set(healer).is_err() {
            warn!("there is a healer already");
        }
    }

    /// Tries to make a damaged image good again, in a task of its entry. Its files are in `aside`.
    pub(super) fn heal_later(&self, entry: &Arc<Entry>, lost: SealedImage, aside: PathBuf) {
        let (catalog, task) = (self.clone(), entry.clone());
        let span = info_span!("image", id = %entry.id);
        let work = async move {
            let pauses = PAUSES
                .iter()
                .chain(std::iter::repeat(&PAUSES[PAUSES.len() - 1]));
            for pause in pauses {
                let cancel = task.cancel();
                tokio::select! {
                    () = tokio::time::sleep(*pause) => {}
                    () = cancel.cancelled() => return,
                }
                if !catalog.can_heal(&task, &lost) {
                    task.board.change(say_nobody_has_it);
                    continue;
                }
                if catalog.heal(&task, &lost, &aside).await {
                    return;
                }
            }
        };
        entry.tasks.spawn(work.instrument(span));
    }

    fn can_heal(&self, entry: &Entry, lost: &SealedImage) -> bool {
        self.inner.healer.get().is_some() || own_source(entry, lost).is_some()
    }

    /// One attempt; tells whether it is over, for good or because somebody else took the image up.
    async fn heal(&self, entry: &Arc<Entry>, lost: &SealedImage, aside: &Path) -> bool {
        if !matches!(entry.status().state, Lifecycle::Failed(_)) || !self.is_current(entry) {
            return true;
        }
        let by_peers = self.heal_from_peers(entry, lost, aside).await;
        let received = match by_peers {
            Ok(Some(received)) => Some(received),
            Ok(None) => None,
            Err(error) => {
                info!(error = %report(&error), "no peer has brought what is missing");
                None
            }
        };
        let expected = lost.checksum().ok();
        let taken = entry.board.change(|status| {
            let longhorn = status.longhorn.clone();
            let taken = status.retry(&lost.seal.source, expected);
            status.longhorn = longhorn;
            taken
        });
        if !taken {
            return true;
        }
        let reporter = entry.reporter();
        reporter.begin();
        let healed = match received {
            Some(received) => self.seal_again(entry, lost, received).await,
            None => self.make_again(entry, lost, aside).await,
        };
        match healed {
            Ok(image) => {
                info!("is good again");
                self.inner
                    .store
                    .disk()
                    .counters()
                    .healed
                    .fetch_add(1, Ordering::Relaxed);
                reporter.sealed(image);
                true
            }
            Err(error) => {
                let path = aside.to_owned();
                let why = Box::new(error);
                reporter.failed(&Error::SetAside { why, path });
                false
            }
        }
    }

    /// `None`: there is nobody to ask, or nothing to build on.
    async fn heal_from_peers(
        &self,
        entry: &Entry,
        lost: &SealedImage,
        aside: &Path,
    ) -> Result<Option<Received>> {
        let Some(healer) = self.inner.healer.get().cloned() else {
            return Ok(None);
        };
        let (store, lost, aside) = (self.inner.store.clone(), lost.clone(), aside.to_owned());
        let cancel = entry.cancel();
        let begin = move || store.assemble_around(&lost, &aside, &cancel);
        let begun = tokio::task::spawn_blocking(begin)
            .await
            .map_err(Error::Task)??;
        let Some(assembly) = begun.map(Arc::new) else {
            return Ok(None);
        };
        let cancel = entry.cancel();
        tokio::select! {
            refetched = healer.refetch(&entry.id, &assembly) => refetched?,
            () = cancel.cancelled() => return Err(Error::Cancelled("the image is being deleted")),
        }
        let finish = move || assembly.finish();
        tokio::task::spawn_blocking(finish)
            .await
            .map_err(Error::Task)?
            .map(Some)
    }

    async fn seal_again(
        &self,
        entry: &Entry,
        lost: &SealedImage,
        received: Received,
    ) -> Result<SealedImage> {
        let facts = Facts {
            expected: lost.sidecar.expected_checksum.parse().ok(),
            format: Some(lost.format()),
            source: lost.seal.source.clone(),
            manifest_digest: lost.seal.manifest_digest.clone(),
            verified: !lost.seal.unverified,
            ..Facts::default()
        };
        let (store, id) = (self.inner.store.clone(), entry.id.clone());
        let seal = move || store.seal(&id, received, &facts);
        tokio::task::spawn_blocking(seal)
            .await
            .map_err(Error::Task)?
    }

    async fn make_again(
        &self,
        entry: &Entry,
        lost: &SealedImage,
        aside: &Path,
    ) -> Result<SealedImage> {
        let source = own_source(entry, lost).ok_or(Error::NobodyHas)?;
        if let Source::Peers(_) = &source {
            // What is good is kept as a part, which is where their sync goes on from.
            let (store, lost, aside) = (self.inner.store.clone(), lost.clone(), aside.to_owned());
            let cancel = entry.cancel();
            let begin = move || store.assemble_around(&lost, &aside, &cancel).map(drop);
            tokio::task::spawn_blocking(begin)
                .await
                .map_err(Error::Task)??;
        }
        let new = NewImage {
            name: Some(entry.id.name.clone()),
            uuid: Some(entry.id.uuid.clone()),
            source,
            // Whatever the source says today: only the same bytes are the same image.
            expected: Some(lost.checksum()?),
            format: Some(lost.format()),
            convert: None,
        };
        let made = self.make(entry, &new, &entry.reporter()).await;
        if let Err(error) = &made {
            self.remove_remains(&entry.id, error).await;
        }
        made
    }
}

/// Adds to why an image failed that it cannot be healed; false when that is said already.
fn say_nobody_has_it(status: &mut Status) -> bool {
    let text = Error::NobodyHas.to_string();
    match &mut status.state {
        Lifecycle::Failed(failure) if !failure.message.contains(&text) => {
            failure.message = format!("{}; {text}", failure.message);
            true
        }
        _ => false,
    }
}

/// Where the image is from, as it was asked for in this process or as it is stored.
fn own_source(entry: &Entry, lost: &SealedImage) -> Option<Source> {
    let asked = entry.made_from().clone();
    asked.or_else(|| Source::again(&lost.seal.source, &lost.seal.manifest_digest))
}
