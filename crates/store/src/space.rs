//! Room on a disk: what is free, what must stay so, and when its volumes are in danger.

/// Images may not take the last of a disk: one part in this many stays free, at most 256 MiB, so that
/// volumes that share extents can still be written to and records can be kept.
const RESERVE_PART: u64 = 64;
const RESERVE_MAX: u64 = 256 << 20;

/// Free and total bytes of a disk.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// Bytes of the file system.
    pub size: u64,
    /// Bytes that an unprivileged process may still take.
    pub available: u64,
}

/// A disk is nearly full with less than this part of it free, at most [`SHORT_MAX`].
const SHORT_PART: u64 = 10;
const SHORT_MAX: u64 = 16 << 30;
/// It is full with less than this: what a volume writes next may fail.
pub const FULL: u64 = 1 << 20;

/// How short of room a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Volumes can still be written to.
    NearlyFull,
    /// Writes to volumes fail.
    Full,
}

impl Space {
    /// Whether the volumes of the disk are in danger.
    pub fn shortage(&self) -> Option<Shortage> {
        if self.available < FULL {
            Some(Shortage::Full)
        } else if self.available < (self.size / SHORT_PART).min(SHORT_MAX) {
            Some(Shortage::NearlyFull)
        } else {
            None
        }
    }

    /// The same for people; `None`: there is room.
    pub fn warning(&self) -> Option<String> {
        let (available, size) = (self.available, self.size);
        let advice = "delete volumes, snapshots or images of it, or run fstrim in its volumes";
        Some(match self.shortage()? {
            Shortage::NearlyFull => format!(
                "the disk is nearly full: {available} of {size} bytes are free; when none is, writes to its \
                 volumes fail; {advice}"
            ),
            Shortage::Full => format!(
                "the disk is full: {available} of {size} bytes are free; writes to its volumes fail, and their \
                 file systems may become read-only; {advice}"
            ),
        })
    }
}

/// Bytes that stay free on a disk of this size.
pub fn floor(size: u64) -> u64 {
    (size / RESERVE_PART).min(RESERVE_MAX)
}
