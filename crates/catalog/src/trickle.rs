//! Sources that give a few bytes now and then: they would keep their turn from others for ever.

use std::pin::pin;
use std::time::Duration;

use super::lifecycle::{Lifecycle, Progress};
use super::{Catalog, Entry};
use crate::error::{Error, Result};
use crate::source::{Job, OriginKind, Source};
use store::{Facts, Place, Received};

/// An image on its way gets at least so many bytes (or what is missing) in so much time.
const SLOW_AFTER: Duration = Duration::from_mins(5);
const SLOW_BYTES: u64 = 1 << 20;

impl Catalog {
    /// Takes in the bytes of a source, unless it is too slow: it would keep its turn from others for ever.
    pub(super) async fn take_in(
        &self,
        entry: &Entry,
        source: &Source,
        job: &Job,
    ) -> Result<(Received, Facts)> {
        let mut taking = pin!(self.inner.sources.take_in(source, job));
        // Of these each byte comes from the other side. A data source has one image, and a client that goes
        // on with its upload has its time.
        let other_side = match source {
            Source::Url(_) | Source::Upload(_) => true,
            Source::Origin(origin) => origin.kind() != OriginKind::Local,
            _ => false,
        };
        if !other_side || self.place() == Place::Work {
            return taking.await;
        }
        tokio::select! {
            taken = &mut taking => taken,
            error = too_slow(entry) => {
                job.cancel.cancel();
                // Nothing works on it when this returns.
                let _ = taking.await;
                Err(error)
            }
        }
    }
}

/// Comes back when an image that has begun to come gets too few bytes.
async fn too_slow(entry: &Entry) -> Error {
    let come = || {
        entry.board.look(|status| match &status.state {
            Lifecycle::InProgress(Progress { processed, total }) if processed != total => {
                Some(*processed)
            }
            _ => None,
        })
    };
    let mut before = come();
    loop {
        tokio::time::sleep(SLOW_AFTER).await;
        let now = come();
        if let (Some(before), Some(now)) = (before, now)
            && now.saturating_sub(before) < SLOW_BYTES
        {
            return Error::TooSlow {
                bytes: now.saturating_sub(before),
                minutes: SLOW_AFTER.as_secs() / 60,
            };
        }
        before = now;
    }
}
