//! What sync counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters; they only grow.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Bytes of images received and verified.
    pub received_bytes: Counter,
    /// Bytes of images sent.
    pub sent_bytes: Counter,
    /// Chunks that came damaged and were fetched again.
    pub chunks_refetched: Counter,
    /// Peers that were dropped for what they sent.
    pub peers_dropped: Counter,
    /// Requests that were refused because too many were served.
    pub refused_busy: Counter,
    /// Chunks of our own that a check found damaged.
    pub own_damaged: Counter,
}

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// What it has grown to.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// Each counter with its name in Prometheus' spelling (without `longhorn_backing_image_` and
    /// `_total`) and what it counts.
    pub fn all(&self) -> [(&'static str, &'static str, u64); 6] {
        [
            (
                "sync_received_bytes",
                "Bytes of images received from peers and verified",
                self.received_bytes.get(),
            ),
            (
                "sync_sent_bytes",
                "Bytes of images sent to peers",
                self.sent_bytes.get(),
            ),
            (
                "sync_chunks_refetched",
                "Chunks that were damaged and fetched again",
                self.chunks_refetched.get(),
            ),
            (
                "sync_peers_dropped",
                "Peers dropped because of wrong data",
                self.peers_dropped.get(),
            ),
            (
                "sync_refused_busy",
                "Requests of peers refused because too many were served",
                self.refused_busy.get(),
            ),
            (
                "sync_own_chunks_damaged",
                "Damaged chunks of this disk that a check for a peer found",
                self.own_damaged.get(),
            ),
        ]
    }
}
