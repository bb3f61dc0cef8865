//! Removes unrequested images: images that failed for a driver, and images that only drivers
//! requested and no volume uses.
//!
//! Only images that drivers alone requested are removed here. Images that Longhorn's control plane,
//! a person or another program requested stay, and so do snapshots. Times are those that this
//! process has observed, so changing the clock removes nothing.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{info, warn};
use types::{ImageId, report};

use super::lifecycle::Lifecycle;
use super::status::{Status, count};
use super::{Catalog, Entry};
use crate::error::{Error, Result};
use volume::Volumes;

/// Failed images of drivers that are kept, so that a caller finds why; the oldest goes first.
const FAILED_MAX: usize = 100;
/// How long each of them is kept.
const FAILED_KEPT: Duration = Duration::from_hours(1);

/// How an image is used by volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Volumes that were made from it.
    pub volumes: u32,
    /// Since when there is none, as far as this process has watched.
    pub unused_since: Option<Timestamp>,
    /// The same moment by a clock that nobody sets.
    watched: Instant,
}

impl Catalog {
    /// Notes how many volumes use each image now.
    pub fn note_users(&self, users: &HashMap<ImageId, u32>) {
        let ready = self.ready_ids();
        let mut usage = self
            .inner
            .usage
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *usage);
        for id in ready {
            let volumes = users.get(&id).copied().unwrap_or_default();
            let known = before.get(&id).filter(|known| known.volumes == 0);
            let now = match known {
                Some(known) if volumes == 0 => *known,
                _ => Usage {
                    volumes,
                    unused_since: (volumes == 0).then(Timestamp::now),
                    watched: Instant::now(),
                },
            };
            usage.insert(id, now);
        }
    }

    /// How a ready image was used when that was looked at last.
    pub fn usage(&self, id: &ImageId) -> Option<Usage> {
        let usage = self
            .inner
            .usage
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        usage.get(id).copied()
    }

    fn ready_ids(&self) -> Vec<ImageId> {
        let images = self.images();
        let ready = images.values().filter(|entry| {
            entry
                .board
                .look(|status| matches!(status.state, Lifecycle::Ready(_)))
        });
        ready.map(|entry| entry.id.clone()).collect()
    }

    /// Removes images that drivers had made and that no volume used for `after`.
    pub async fn remove_unused(&self, volumes: &Volumes, after: Duration) {
        for id in self.ready_ids() {
            let long_unused = self
                .usage(&id)
                .is_some_and(|usage| usage.volumes == 0 && usage.watched.elapsed() >= after);
            let goes = |status: &Status| status.for_volumes && status.sending == 0;
            let Ok(entry) = self.entry(&id.name, Some(&id.uuid)) else {
                continue;
            };
            if !long_unused || !entry.board.look(goes) {
                continue;
            }
            let (volumes, asked) = (volumes.clone(), id.clone());
            let in_use = move || match volumes.user_of(&asked)? {
                None => Ok(()),
                Some(volume) => Err(Error::ImageInUse {
                    id: asked.clone(),
                    volume,
                }),
            };
            match self.delete(&id, in_use).await {
                Ok(()) => info!(image = %id, "no volume used it any more: removed"),
                Err(Error::ImageInUse { .. }) => {}
                Err(error) => warn!(image = %id, error = %report(&error), "it is unused and stays"),
            }
        }
    }

    /// Forgets images that failed for drivers some time ago, and all but the last of them.
    pub fn forget_failed(&self, now: Instant) {
        let mut failed: Vec<_> = self
            .images()
            .values()
            .filter(|entry| is_forgettable(entry))
            .cloned()
            .collect();
        // The last one first.
        failed.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.made));
        let old = failed.iter().enumerate().filter(|(number, entry)| {
            *number >= FAILED_MAX || now.saturating_duration_since(entry.made) >= FAILED_KEPT
        });
        for (_, entry) in old {
            let mut images = self.images();
            let is_current = images
                .get(&entry.id)
                .is_some_and(|current| Arc::ptr_eq(current, entry));
            if is_current && is_forgettable(entry) {
                // Who asks for it again at this moment finds it called off, and asks once more.
                entry.cancel().cancel();
                images.remove(&entry.id);
                count(&self.inner.changes);
            }
        }
    }
}

/// Whether nothing but a driver's failed request is known of an image: no file, no work, no other caller.
fn is_forgettable(entry: &Arc<Entry>) -> bool {
    let failed = entry.board.look(|status| {
        matches!(status.state, Lifecycle::Failed(_))
            && status.for_volumes
            && !status.newer
            && status.last.is_none()
    });
    failed && entry.tasks.is_empty()
}

/// How many volumes were made from each image.
pub fn users(volumes: &Volumes) -> Result<HashMap<ImageId, u32>> {
    let mut users = HashMap::new();
    for image in volumes.images()? {
        *users.entry(image).or_default() += 1;
    }
    Ok(users)
}
