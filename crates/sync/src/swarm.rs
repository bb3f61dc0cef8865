//! The shared state of all copies of a manager, receiving and sending: memory, limits, counters,
//! incoming images, and the peers known to want an image.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::ImageId;

use super::address::{PeerAddress, may_be_told};
use super::ask::Asking;
use super::buffers::Buffers;
use super::connect::Patience;
use super::metrics::Metrics;
use super::offer::Offer;
use super::planner::Tuning;
use super::protocol::PEERS_MAX;
use super::rate::RateLimit;
use chunks::CHUNK;

/// How long a peer counts as interested after it last asked.
const INTEREST: Duration = Duration::from_mins(2);
/// Peers remembered for an image, and images for which peers are remembered.
const INTERESTED_MAX: usize = 64;
const IMAGES_MAX: usize = 1024;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The port of our own sync server, where others find what we have got; `None`: we serve nothing.
    pub port: Option<u16>,
    /// Bytes in a chunk: those of the store, but for simulations.
    pub chunk: u32,
    /// Bytes per second that are sent, over all peers; 0: no limit.
    pub rate: u64,
    /// Images sent at once; who asks for more is told to come back.
    pub serves_max: usize,
    /// Chunks in memory while they are received, over all syncs.
    pub buffers: usize,
    /// Bytes read and sent at a time.
    pub piece: usize,
    /// How long a receiver may take nothing before it is cut off.
    pub send_stall: Duration,
    /// What peers are waited for.
    pub patience: Patience,
    /// The numbers of the plan.
    pub tuning: Tuning,
    /// How often the plan is looked at when nothing happens.
    pub tick: Duration,
    /// `None`: taken from the kernel.
    pub seed: Option<u64>,
}

impl Settings {
    /// How peers are asked.
    pub(super) fn asking(&self) -> Asking {
        Asking {
            patience: self.patience,
            port: self.port,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: None,
            chunk: u32::try_from(CHUNK).expect("a MiB"),
            rate: 0,
            serves_max: 32,
            buffers: 16,
            piece: 256 << 10,
            send_stall: Duration::from_secs(30),
            patience: Patience::default(),
            tuning: Tuning::default(),
            tick: Duration::from_millis(100),
            seed: None,
        }
    }
}

/// The shared state. Cheap to clone: clones share everything.
#[derive(Debug, Clone)]
pub struct Swarm {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    buffers: Buffers,
    rate: Arc<RateLimit>,
    serves: Arc<Semaphore>,
    checks: Semaphore,
    metrics: Metrics,
    /// Images on their way: what has come of them is served.
    parts: Mutex<BTreeMap<ImageId, Arc<dyn Offer>>>,
    interested: Mutex<BTreeMap<ImageId, Vec<Interested>>>,
}

#[derive(Debug, Clone, Copy)]
struct Interested {
    address: SocketAddr,
    last: Instant,
}

/// How long what came of a complete image is served on, while the store makes it ready.
const LINGER: Duration = Duration::from_secs(30);

/// Serves a part for as long as it lives.
#[derive(Debug)]
pub struct Served {
    swarm: Swarm,
    id: ImageId,
    part: Arc<dyn Offer>,
}

impl Swarm {
    /// With nothing on its way.
    pub fn new(settings: Settings) -> Self {
        let inner = Inner {
            buffers: Buffers::new(settings.buffers, CHUNK),
            rate: Arc::new(RateLimit::new(settings.rate)),
            serves: Arc::new(Semaphore::new(settings.serves_max)),
            checks: Semaphore::new(1),
            metrics: Metrics::default(),
            parts: Mutex::default(),
            interested: Mutex::default(),
            settings,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(super) fn buffers(&self) -> &Buffers {
        &self.inner.buffers
    }

    /// What all that is sent to other managers keeps to.
    pub fn rate(&self) -> &Arc<RateLimit> {
        &self.inner.rate
    }

    pub(super) fn serves(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.serves)
    }

    /// One check at a time: it reads a whole chunk for a stranger.
    pub(super) fn checks(&self) -> &Semaphore {
        &self.inner.checks
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<ImageId, Arc<dyn Offer>>> {
        self.inner
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come so far of an image that is on its way.
    pub fn part(&self, id: &ImageId) -> Option<Arc<dyn Offer>> {
        self.parts().get(id).cloned()
    }

    /// Serves what has come of an image until the guard is dropped.
    #[must_use]
    pub fn serve_part(&self, id: &ImageId, part: Arc<dyn Offer>) -> Served {
        self.parts().insert(id.clone(), Arc::clone(&part));
        Served {
            swarm: self.clone(),
            id: id.clone(),
            part,
        }
    }

    /// Remembers that a peer wants an image and serves what it has got at that port. Its address is
    /// that of its connection, so that nobody can send others to a third one.
    pub(super) fn interested(&self, id: &ImageId, ip: IpAddr, port: u16) {
        let address = SocketAddr::new(ip.to_canonical(), port);
        let last = Instant::now();
        let mut all = self.lock_interested();
        if all.len() >= IMAGES_MAX && !all.contains_key(id) {
            all.retain(|_, peers| peers.iter().any(|peer| peer.last.elapsed() < INTEREST));
            if all.len() >= IMAGES_MAX {
                return;
            }
        }
        let peers = all.entry(id.clone()).or_default();
        peers.retain(|peer| peer.address != address && peer.last.elapsed() < INTEREST);
        if peers.len() < INTERESTED_MAX {
            peers.push(Interested { address, last });
        }
    }

    fn lock_interested(&self) -> MutexGuard<'_, BTreeMap<ImageId, Vec<Interested>>> {
        self.inner
            .interested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Who else wants the image, for the answer to `asker`: the last who asked first.
    pub(super) fn others(&self, id: &ImageId, asker: Option<SocketAddr>) -> Vec<SocketAddr> {
        let all = self.lock_interested();
        let peers = all.get(id).map(Vec::as_slice).unwrap_or_default();
        let others = peers.iter().rev().filter(|peer| {
            let near = asker.is_none_or(|asker| may_be_told(peer.address, asker.ip()));
            asker != Some(peer.address) && peer.last.elapsed() < INTEREST && near
        });
        others.map(|peer| peer.address).take(PEERS_MAX).collect()
    }

    /// Addresses that a peer told and that may be connected to.
    pub(super) fn acceptable(
        told: impl IntoIterator<Item = PeerAddress>,
        by: &PeerAddress,
    ) -> Vec<PeerAddress> {
        // A peer that was given by name is as far as any.
        let by = by
            .socket()
            .map_or(IpAddr::from([192, 0, 2, 1]), |by| by.ip());
        let fit = |address: &PeerAddress| {
            address
                .socket()
                .is_some_and(|socket| may_be_told(socket, by))
        };
        told.into_iter().filter(fit).collect()
    }
}

impl Served {
    /// Goes on for a while, or until `ended`.
    pub(super) fn linger(self, ended: CancellationToken) {
        // It ends after [`LINGER`], or with the image.
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LINGER, ended.cancelled()).await;
            drop(self);
        });
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut parts = self.swarm.parts();
        // The next attempt at the same image may have begun.
        if parts
            .get(&self.id)
            .is_some_and(|now| Arc::ptr_eq(now, &self.part))
        {
            parts.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn interest_is_told_to_others_and_passes() {
        let swarm = Swarm::new(Settings::default());
        let id = ImageId::new("a", "1").unwrap();
        let ip = |n| IpAddr::from([10, 0, 0, n]);
        swarm.interested(&id, ip(1), 8001);
        swarm.interested(&id, ip(2), 8001);
        swarm.interested(&id, ip(2), 8001);
        let first = SocketAddr::new(ip(1), 8001);
        let second = SocketAddr::new(ip(2), 8001);
        assert_eq!(swarm.others(&id, Some(first)), [second]);
        assert_eq!(swarm.others(&id, None), [second, first]);
        tokio::time::advance(INTEREST).await;
        assert_eq!(swarm.others(&id, None), []);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let swarm = Swarm::new(Settings::default());
        for image in 0..2 * IMAGES_MAX {
            let id = ImageId::new(&format!("i{image}"), "1").unwrap();
            // The first has many, the others few.
            for n in 0..=(255 / (image + 1)) {
                let n = u8::try_from(n).unwrap();
                swarm.interested(&id, IpAddr::from([10, 0, 0, n]), 1);
            }
        }
        let all = swarm.lock_interested();
        assert!(all.len() <= IMAGES_MAX);
        assert!(all.values().all(|peers| peers.len() <= INTERESTED_MAX));
    }
}
