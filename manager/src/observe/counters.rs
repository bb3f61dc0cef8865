//! What happened since the start, counted where it happens. One process serves one disk, so there is
//! one set of counters.

use std::sync::atomic::{AtomicU64, Ordering};

use types::ErrorKind;

static RECEIVED: AtomicU64 = AtomicU64::new(0);
static SENT: AtomicU64 = AtomicU64::new(0);
static MADE: AtomicU64 = AtomicU64::new(0);
static SCRUBBED: AtomicU64 = AtomicU64::new(0);
static DAMAGED: AtomicU64 = AtomicU64::new(0);
static HEALED: AtomicU64 = AtomicU64::new(0);
static FAILURES: [AtomicU64; REASONS.len()] = [const { AtomicU64::new(0) }; REASONS.len()];

/// Every reason that an image can fail for.
const REASONS: [ErrorKind; 14] = [
    ErrorKind::InvalidArgument,
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::FailedPrecondition,
    ErrorKind::Aborted,
    ErrorKind::OutOfRange,
    ErrorKind::ResourceExhausted,
    ErrorKind::Unimplemented,
    ErrorKind::Unavailable,
    ErrorKind::DeadlineExceeded,
    ErrorKind::Unauthenticated,
    ErrorKind::PermissionDenied,
    ErrorKind::DataLoss,
    ErrorKind::Internal,
];

/// The counters at one moment.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) made: u64,
    pub(super) scrubbed: u64,
    pub(super) damaged: u64,
    pub(super) healed: u64,
    pub(super) failures: Vec<(ErrorKind, u64)>,
}

fn add(counter: &AtomicU64, much: u64) {
    counter.fetch_add(much, Ordering::Relaxed);
}

/// Bytes came from a source or a peer.
pub fn received(bytes: u64) {
    add(&RECEIVED, bytes);
}

/// Bytes went to a peer or a client.
pub fn sent(bytes: u64) {
    add(&SENT, bytes);
}

/// An image became ready.
pub fn made() {
    add(&MADE, 1);
}

/// The scrubber read so many bytes.
pub fn scrubbed(bytes: u64) {
    add(&SCRUBBED, bytes);
}

/// A ready image was found to be damaged.
pub fn damaged() {
    add(&DAMAGED, 1);
}

/// A damaged image was replaced from a good copy.
pub fn healed() {
    add(&HEALED, 1);
}

/// An image failed.
pub fn failed(reason: ErrorKind) {
    let place = REASONS.iter().position(|known| *known == reason);
    if let Some(counter) = place.and_then(|place| FAILURES.get(place)) {
        add(counter, 1);
    }
}

pub(super) fn now() -> Counts {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Counts {
        received: read(&RECEIVED),
        sent: read(&SENT),
        made: read(&MADE),
        scrubbed: read(&SCRUBBED),
        damaged: read(&DAMAGED),
        healed: read(&HEALED),
        failures: REASONS.into_iter().zip(FAILURES.iter().map(read)).collect(),
    }
}
