//! What happened since the start, counted where it happens. One process serves one disk, so there is
//! one set of counters.

use std::sync::atomic::{AtomicU64, Ordering};

use types::ErrorKind;

static RECEIVED: AtomicU64 = AtomicU64::new(0);
static SENT: AtomicU64 = AtomicU64::new(0);
static MADE: AtomicU64 = AtomicU64::new(0);
static DAMAGED: AtomicU64 = AtomicU64::new(0);
/// By the number of the kind.
static FAILURES: [AtomicU64; ErrorKind::ALL.len()] =
    [const { AtomicU64::new(0) }; ErrorKind::ALL.len()];

/// The counters at one moment.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Bytes that came from a source or a peer.
    pub received: u64,
    /// Bytes that were sent by Longhorn's protocols.
    pub sent: u64,
    /// Images that became ready.
    pub made: u64,
    /// Ready images that were found to be damaged.
    pub damaged: u64,
    /// Images that failed, by the kind of the error.
    pub failures: Vec<(ErrorKind, u64)>,
}

fn add(counter: &AtomicU64, much: u64) {
    counter.fetch_add(much, Ordering::Relaxed);
}

/// Bytes came from a source or a peer.
pub fn received(bytes: u64) {
    add(&RECEIVED, bytes);
}

/// Bytes went to a peer of Longhorn's protocol or to a client; `sync` counts its own.
pub fn sent(bytes: u64) {
    add(&SENT, bytes);
}

/// An image became ready.
pub fn made() {
    add(&MADE, 1);
}

/// A ready image was found to be damaged.
pub fn damaged() {
    add(&DAMAGED, 1);
}

pub fn failed(reason: ErrorKind) {
    add(&FAILURES[reason as usize], 1);
}

pub fn now() -> Counts {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Counts {
        received: read(&RECEIVED),
        sent: read(&SENT),
        made: read(&MADE),
        damaged: read(&DAMAGED),
        failures: ErrorKind::ALL
            .into_iter()
            .zip(FAILURES.iter().map(read))
            .collect(),
    }
}
