//! Computes checksums that were left for later, or that a peer's manifest or Longhorn's sidecar claimed, once the
//! image is ready: nobody waits until gigabytes are hashed, and a wrong checksum is still detected.

use std::sync::Arc;

use tracing::{Instrument, debug, info_span, warn};
use types::{ImageName, ImageUuid, report};

use super::lifecycle::Lifecycle;
use super::status::Status;
use super::{Catalog, Entry, FilesGuard, PATIENCE, ends};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use store::{Reading, SealedImage};

impl Catalog {
    /// A ready image with its SHA-512, which may follow it by a while: that is waited for.
    ///
    /// # Errors
    /// [`store::Error::Unsummed`] when it takes more than 8 seconds.
    pub(crate) async fn summed(
        &self,
        name: &ImageName,
        uuid: Option<&ImageUuid>,
    ) -> Result<(SealedImage, FilesGuard)> {
        let (image, guard) = self.ready(name, uuid).await?;
        if image.checksum().is_ok() {
            return Ok((image, guard));
        }
        // Whoever deletes it need not wait for this.
        drop(guard);
        let mut watch = self.entry(name, uuid)?.board.subscribe();
        let has_sum = |status: &Status| match &status.state {
            Lifecycle::Ready(image) => image.checksum().is_ok(),
            _ => true,
        };
        // When the time is up, the image says so below.
        let _ = tokio::time::timeout(PATIENCE, watch.wait_for(has_sum)).await;
        let (image, guard) = self.ready(name, uuid).await?;
        image.checksum()?;
        Ok((image, guard))
    }

    /// The same, in a task of the entry.
    pub(super) fn prove_later(&self, entry: &Arc<Entry>) {
        let Lifecycle::Ready(image) = entry.status().state else {
            return;
        };
        let (catalog, task) = (self.clone(), entry.clone());
        let span = info_span!("image", id = %entry.id);
        let work = async move { catalog.prove(&task, &image).await };
        entry.tasks.spawn(work.instrument(span));
    }

    /// Computes the checksum of a ready image if it is not known, or was only told.
    pub(super) async fn prove(&self, entry: &Entry, image: &SealedImage) {
        if !image.seal().checksum_unproven {
            return;
        }
        match self.compute(entry, image).await {
            Ok(()) => debug!("its checksum is computed"),
            // Called off by a deletion or the end: the next start goes on.
            Err(Error::Cancelled(_)) => {}
            Err(
                error @ Error::Store(store::Error::Checksum { .. } | store::Error::Damaged { .. }),
            ) => {
                let reporter = entry.reporter();
                if reporter.modified("its checksum does not match its record") {
                    reporter.failed(&self.set_aside(&entry.id, error));
                }
            }
            Err(error) => warn!(error = %report(&error), "its checksum cannot be computed now"),
        }
    }

    async fn compute(&self, entry: &Entry, image: &SealedImage) -> Result<()> {
        let cancel = entry.cancel();
        let waiting = async {
            let turn = self.inner.verifying.acquire().await;
            (turn, entry.files.read().await)
        };
        let _turn = tokio::select! {
            turn = waiting => turn,
            () = cancel.cancelled() => return Err(Error::Cancelled("it was not read to its end")),
        };
        let (store, of) = (self.inner.store.clone(), image.clone());
        let prove = move || store.prove(&of, Reading::silent(&ends(&cancel)));
        let checksum = blocking(prove).await?;
        // What is known of it may have been written anew meanwhile.
        let _one = entry.sidecar.lock().await;
        let Lifecycle::Ready(now) = entry.status().state else {
            return Ok(());
        };
        let store = self.inner.store.clone();
        let write = move || store.proven(&now, checksum);
        let proven = blocking(write).await?;
        entry.board.change(|status| status.restated(proven));
        Ok(())
    }
}
