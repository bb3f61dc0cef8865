//! Repairs damaged images if possible: intact chunks are kept and the others come from peers, or
//! the image is fetched again from its own source.
//!
//! If neither works, the image stays failed and says so: the damaged file is quarantined, and the
//! image can be synced, uploaded or created again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{Instrument, info, info_span};
use types::report;

use super::lifecycle::Lifecycle;
use super::making::Known;
use super::status::Status;
use super::{Catalog, Entry, ends};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::source::Source;
use store::{Facts, SealedImage};

/// Pauses between the attempts; the last is repeated. Peers and sources come back.
const PAUSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
];

impl Catalog {
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
                let ways = catalog.ways(&task, &lost).await;
                if ways.is_empty() {
                    task.board.change(say_nobody_has_it);
                    continue;
                }
                if catalog.heal(&task, &lost, &aside, ways).await {
                    return;
                }
            }
        };
        entry.tasks.spawn(work.instrument(span));
    }

    /// Where the bytes may come from, the best first: of peers only what is damaged is fetched.
    async fn ways(&self, entry: &Entry, lost: &SealedImage) -> Vec<Source> {
        let peers = self.inner.sources.peers().await.map(Source::Peers);
        peers.into_iter().chain(own_source(entry, lost)).collect()
    }

    /// One attempt; tells whether it is over, for good or because somebody else took the image up.
    async fn heal(
        &self,
        entry: &Arc<Entry>,
        lost: &SealedImage,
        aside: &Path,
        ways: Vec<Source>,
    ) -> bool {
        if !matches!(entry.status().state, Lifecycle::Failed(_)) || !self.is_current(entry) {
            return true;
        }
        let expected = lost.checksum().ok();
        let taken = entry.board.change(|status| {
            let last = status.last.clone();
            let taken = status.retry(&lost.seal().provenance, expected);
            status.last = last;
            taken
        });
        if !taken {
            return true;
        }
        let reporter = entry.reporter();
        reporter.begin();
        let mut healed = Err(Error::NobodyHas);
        for source in ways {
            let from = source.provenance();
            healed = self.make_again(entry, lost, aside, source).await;
            match &healed {
                Ok(_) => break,
                Err(error) => info!(%from, error = %report(error), "it is not repaired"),
            }
        }
        match healed {
            Ok(image) => {
                info!("is good again");
                self.inner
                    .store
                    .disk()
                    .counters()
                    .healed
                    .fetch_add(1, Ordering::Relaxed);
                entry.board.change(|status| {
                    status.repaired_at = Some(Timestamp::now());
                    true
                });
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

    async fn make_again(
        &self,
        entry: &Entry,
        lost: &SealedImage,
        aside: &Path,
        source: Source,
    ) -> Result<SealedImage> {
        let mut facts = None;
        if let Source::Peers(_) = &source {
            // What is good is kept as a part, which is where a sync goes on from.
            let (store, kept, aside) = (self.inner.store.clone(), lost.clone(), aside.to_owned());
            let cancel = ends(&entry.cancel());
            let begin = move || store.assemble_around(&kept, &aside, &cancel).map(drop);
            blocking(begin).await?;
            // Whoever brings its bytes, it is the image that it was.
            facts = Some(facts_of(lost));
        }
        // Whatever the source says today: only the same bytes are the same image.
        let known = Known {
            expected: Some(lost.checksum()?),
            format: Some(lost.format()),
            facts,
            checksum_later: false,
        };
        let made = self.make(entry, &source, known).await;
        if let Err(error) = &made {
            self.remove_remains(&entry.id, error).await;
        }
        made
    }
}

/// What was known of an image.
fn facts_of(lost: &SealedImage) -> Facts {
    Facts {
        expected: lost.sidecar().expected_checksum.parse().ok(),
        format: Some(lost.format()),
        provenance: lost.seal().provenance.clone(),
        manifest_digest: lost.seal().manifest_digest.clone(),
        verified: !lost.seal().unverified,
        asked: lost.seal().asked,
        ..Facts::default()
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
    asked.or_else(|| Source::again(&lost.seal().provenance, &lost.seal().manifest_digest))
}
