//! What has been done since the start, for the metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use types::ErrorKind;

/// Volumes of which the last success is told: one more takes the place of the oldest.
const VOLUMES_MAX: usize = 1000;

/// Counts since the start.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Backups that were completed.
    pub completed: u64,
    /// Backups that failed, by the kind of error.
    pub failed: BTreeMap<ErrorKindKey, u64>,
    /// Bytes as stored that they uploaded.
    pub uploaded: u64,
    /// How long those took that were completed.
    pub took: Duration,
    /// Bytes of images that were restored.
    pub restored: u64,
    /// When the last backup of each volume was completed.
    pub last_success: BTreeMap<String, SystemTime>,
}

/// An [`ErrorKind`] in the order of its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorKindKey(usize);

impl ErrorKindKey {
    /// The kind.
    pub fn kind(self) -> ErrorKind {
        ErrorKind::ALL[self.0]
    }
}

/// Where it is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Counts>);

impl Counters {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Counts {
        self.counts().clone()
    }

    /// A backup of `volume` (`None`: of an image) was completed.
    pub(crate) fn completed(&self, volume: Option<&str>, uploaded: u64, took: Duration) {
        let mut counts = self.counts();
        counts.completed += 1;
        counts.uploaded += uploaded;
        counts.took += took;
        let Some(volume) = volume else { return };
        let last = &mut counts.last_success;
        if last.len() >= VOLUMES_MAX && !last.contains_key(volume) {
            let oldest = last.iter().min_by_key(|(_, at)| **at);
            let oldest = oldest.map(|(name, _)| name.clone());
            last.remove(&oldest.unwrap_or_default());
        }
        last.insert(volume.to_owned(), SystemTime::now());
    }

    pub(crate) fn failed(&self, kind: ErrorKind) {
        *(self.counts().failed)
            .entry(ErrorKindKey(kind as usize))
            .or_default() += 1;
    }

    pub(crate) fn restored(&self, bytes: u64) {
        self.counts().restored += bytes;
    }

    /// The volume is gone, and nobody waits for its next backup.
    pub(crate) fn forget(&self, volume: &str) {
        self.counts().last_success.remove(volume);
    }
}
