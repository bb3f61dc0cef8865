//! What happened on a disk since this process opened it, counted where it happens.

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened on a disk since this process opened it: for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Errors of the medium (EIO and its kin) in a row; 0 after work that went well.
    pub errors_in_a_row: AtomicU64,
    /// The same in all.
    pub io_errors: AtomicU64,
    /// Images that were set aside.
    pub quarantined: AtomicU64,
    /// Images that were damaged and are good again.
    pub healed: AtomicU64,
    /// Bytes that the scrubber read.
    pub scrubbed_bytes: AtomicU64,
    /// Images that the scrubber's pass goes over; after it, those that it went over.
    pub scrub_images: AtomicU64,
    /// Those of them that it is done with.
    pub scrub_images_done: AtomicU64,
    /// Passes of the scrubber that are over.
    pub scrub_passes: AtomicU64,
    /// When the last of them ended, in seconds since 1970; 0: none has.
    pub scrub_passed_at: AtomicU64,
    /// Damaged files that the scrubber found.
    pub scrub_damage: AtomicU64,
    /// Looks for orphans that ended in a panic, a bug of ours.
    pub tidy_panics: AtomicU64,
    /// Orphans that were removed.
    pub orphans_removed: AtomicU64,
    /// Bytes promised to images on their way.
    pub reserved_bytes: AtomicU64,
}

impl Counters {
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
