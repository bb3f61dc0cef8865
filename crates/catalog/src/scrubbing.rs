//! The scrubber: reads every ready image again, one after the other, at a bounded rate.
//!
//! Its state does not outlive the process: a start begins with any image. It waits while images are
//! being created, and holds the files of an image only as long as a few MiB take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};
use types::report;

use super::lifecycle::Lifecycle;
use super::{Catalog, Entry};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use store::counters::Counters;
use store::scrub::Scrubbed;
use store::{Manifest, SealedImage};

/// Chunks that are read in one go.
const STEP: usize = 8;
/// The longest that a step waits for images on their way: a busy disk is scrubbed too.
const YIELD_MAX: Duration = Duration::from_mins(1);

/// How fast and how often images are read again.
#[derive(Debug, Clone, Copy)]
pub struct Scrubbing {
    /// Bytes a second; 0: never.
    pub rate: u64,
    /// From the beginning of one pass to that of the next, if it is over by then.
    pub interval: Duration,
}

impl Catalog {
    /// Scrubs until the daemon stops.
    pub async fn scrub(&self, scrubbing: Scrubbing) {
        if scrubbing.rate == 0 {
            info!("images are not read again: the scrubber is off");
            return;
        }
        let stop = self.inner.stop.clone();
        let work = async {
            loop {
                let begun = Instant::now();
                self.scrub_all(scrubbing.rate).await;
                sleep(
                    scrubbing
                        .interval
                        .saturating_sub(begun.elapsed())
                        .max(Duration::from_secs(1)),
                )
                .await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// One pass over all images that are ready now.
    async fn scrub_all(&self, rate: u64) {
        let mut entries: Vec<_> = self.images().values().cloned().collect();
        if entries.is_empty() {
            return;
        }
        // Restarts that come again and again must not leave out the same images each time.
        let first = store::random_uuid().bytes().map(usize::from).sum::<usize>();
        let count = entries.len();
        entries.rotate_left(first % count);
        let counters = self.inner.store.disk().counters();
        counters.scrub_images_done.store(0, Ordering::Relaxed);
        counters.scrub_images.store(count as u64, Ordering::Relaxed);
        for entry in entries {
            if let Lifecycle::Ready(image) = entry.status().state {
                match self.scrub_one(&entry, &image, rate).await {
                    Ok(()) => debug!(image = %entry.id, "read again, and intact"),
                    Err(Error::Cancelled(_)) => {}
                    Err(error) => {
                        self.inner.store.disk().note(&error);
                        warn!(image = %entry.id, error = %report(&error), "cannot be scrubbed");
                    }
                }
            }
            Counters::count(&counters.scrub_images_done);
        }
        Counters::count(&counters.scrub_passes);
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        counters.scrub_passed_at.store(now, Ordering::Relaxed);
    }

    async fn scrub_one(&self, entry: &Arc<Entry>, image: &SealedImage, rate: u64) -> Result<()> {
        if image.seal().checksum_unproven {
            // It is read as a whole already, and may have no manifest before that.
            return Ok(());
        }
        let (store, of) = (self.inner.store.clone(), image.clone());
        let read = self.while_it_stays(entry, image, move || store.manifest(&of));
        let Some(manifest) = read.await? else {
            self.seems_damaged(entry, "its chunk manifest is missing");
            return Ok(());
        };
        let manifest = Arc::new(manifest);
        for first in (0..manifest.chunks.len()).step_by(STEP) {
            let (store, of, manifest) = (self.inner.store.clone(), image.clone(), manifest.clone());
            let look = move || {
                store
                    .scrub(&of, &manifest as &Manifest, first, STEP)
                    .map(Some)
            };
            if let Some(Scrubbed::Bad(what)) = self.step(entry, image, rate, look).await? {
                self.seems_damaged(entry, &what);
                return Ok(());
            }
        }
        for first in (0..).step_by(STEP) {
            let (store, of) = (self.inner.store.clone(), image.clone());
            let look = move || store.scrub_raw_form(&of, first, STEP);
            match self.step(entry, image, rate, look).await? {
                None => break,
                Some(Scrubbed::Good(_)) => {}
                Some(Scrubbed::Bad(what)) => return self.drop_raw_form(entry, image, &what).await,
            }
        }
        Ok(())
    }

    /// One look, and the pause after it.
    async fn step(
        &self,
        entry: &Arc<Entry>,
        image: &SealedImage,
        rate: u64,
        look: impl FnOnce() -> store::Result<Option<Scrubbed>> + Send + 'static,
    ) -> Result<Option<Scrubbed>> {
        self.wait_for_quiet().await;
        let begun = Instant::now();
        let looked = self.while_it_stays(entry, image, look).await?;
        if let Some(Scrubbed::Good(read)) = looked {
            let counters = self.inner.store.disk().counters();
            counters.scrubbed_bytes.fetch_add(read, Ordering::Relaxed);
            let wanted = Duration::from_millis(read * 1000 / rate);
            sleep(wanted.saturating_sub(begun.elapsed())).await;
        }
        Ok(looked)
    }

    /// Does work on the files of an image that is in its place, ready, and what it was when the pass came
    /// to it. The list of a pass is hours old at its end: what is on it may have been deleted, or made
    /// anew, by then.
    async fn while_it_stays<T: Send + 'static>(
        &self,
        entry: &Arc<Entry>,
        image: &SealedImage,
        work: impl FnOnce() -> store::Result<T> + Send + 'static,
    ) -> Result<T> {
        let _files = entry.files.read().await;
        let ready = entry
            .board
            .look(|status| matches!(&status.state, Lifecycle::Ready(now) if **now == *image));
        if !ready || !self.is_wanted(entry) {
            return Err(Error::Cancelled("the image has changed"));
        }
        blocking(work).await
    }

    /// Lets images on their way have the disk for themselves, for a while.
    async fn wait_for_quiet(&self) {
        let begun = Instant::now();
        while self.inner.turns.are_taken() && begun.elapsed() < YIELD_MAX {
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Has an image that seems damaged read as a whole: what comes of that is what is done with any
    /// doubtful image.
    fn seems_damaged(&self, entry: &Arc<Entry>, what: &str) {
        if !self.is_wanted(entry) {
            return;
        }
        Counters::count(self.scrub_damage());
        error!(image = %entry.id, what, "the scrubber found a ready image damaged");
        let why = format!("the scrubber found that {what}; reading the whole image");
        self.doubt_entry(entry, &why);
    }

    fn scrub_damage(&self) -> &AtomicU64 {
        &self.inner.store.disk().counters().scrub_damage
    }

    /// The image is good and what was made from it is not: it is made again when it is needed.
    async fn drop_raw_form(
        &self,
        entry: &Arc<Entry>,
        image: &SealedImage,
        what: &str,
    ) -> Result<()> {
        let _one = entry.raw_form.lock().await;
        let _files = entry.files.write().await;
        if !self.is_wanted(entry) {
            return Ok(());
        }
        Counters::count(self.scrub_damage());
        error!(image = %entry.id, what, "the raw form is damaged and was removed; volumes \
                                         created from it may share the damaged extents: verify \
                                         their data");
        let (store, image) = (self.inner.store.clone(), image.clone());
        blocking(move || store.drop_raw_form(&image)).await
    }
}
