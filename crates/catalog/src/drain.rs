//! Stops a manager in two steps: first it rejects new work while incoming images may complete, then
//! it cancels all work.

use std::sync::atomic::Ordering;

use super::{Catalog, Lifecycle};
use crate::error::{Error, Result};

impl Catalog {
    /// Refuses when the manager is about to stop.
    pub fn takes_work(&self) -> Result<()> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(Error::Draining);
        }
        Ok(())
    }

    /// Begins nothing new, and waits for the images that are on their way. Images whose bytes are only
    /// read again are not waited for: the next start does that as well.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        let entries: Vec<_> = self.images().values().cloned().collect();
        // An upload goes on after the next start.
        for entry in entries.into_iter().filter(|entry| !entry.is_uploaded()) {
            let mut changes = entry.board.subscribe();
            let arrived = changes.wait_for(|status| {
                !matches!(
                    status.state,
                    Lifecycle::Pending | Lifecycle::Starting | Lifecycle::InProgress(_)
                )
            });
            // An entry that is gone is not on its way either.
            let _ = arrived.await;
        }
    }

    /// Is done when the daemon stops.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        self.inner.stop.clone().cancelled_owned()
    }

    /// Ends all work and waits for it.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        let entries: Vec<_> = self.images().values().cloned().collect();
        for entry in entries {
            entry.tasks.close();
            entry.tasks.wait().await;
        }
    }
}
