//! Who is connected, counted by address, so that one peer cannot take what is there for all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// Connections in all. Each takes a descriptor and some 20 KiB.
const CONNECTIONS_MAX: usize = 1024;
/// One in so many descriptors of the process may be a connection of one listener: the others are for
/// images.
const DESCRIPTORS_PART: u64 = 4;
/// One in so many connections may be of one address.
const PEER_PART: usize = 4;
/// Calls of one address that may be open, answers being sent included.
const CALLS_PER_PEER: usize = 256;
/// Messages of one address that may be read at once, each held in memory.
const READING_PER_PEER: usize = 16;

/// All connections of one listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    counted: Arc<Mutex<Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    all: usize,
    by_address: HashMap<Option<IpAddr>, (usize, Arc<Peer>)>,
}

/// What all connections of one address share.
#[derive(Debug)]
pub struct Peer {
    /// A permit for each open call.
    pub calls: Arc<Semaphore>,
    /// A permit for each message that is being read.
    pub reading: Arc<Semaphore>,
}

/// A connection that is counted for as long as this lives.
#[derive(Debug)]
pub(super) struct Admission {
    peers: Peers,
    address: Option<IpAddr>,
    peer: Arc<Peer>,
}

/// How many connections there may be, as the limits of the process are now.
fn connections_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let part = limit.unwrap_or(u64::MAX) / DESCRIPTORS_PART;
    usize::try_from(part).map_or(CONNECTIONS_MAX, |part| part.min(CONNECTIONS_MAX))
}

impl Peers {
    /// Counts a connection, unless there are too many; `None` is the address of all unix sockets.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Option<Admission> {
        let most = connections_max();
        let mut counted = self.counted();
        if counted.all >= most {
            return None;
        }
        let (connections, peer) = counted.by_address.entry(address).or_insert_with(|| {
            let peer = Peer {
                calls: Arc::new(Semaphore::new(CALLS_PER_PEER)),
                reading: Arc::new(Semaphore::new(READING_PER_PEER)),
            };
            (0, Arc::new(peer))
        });
        if *connections >= most / PEER_PART {
            return None;
        }
        *connections += 1;
        let peer = peer.clone();
        counted.all += 1;
        Some(Admission {
            peers: self.clone(),
            address,
            peer,
        })
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Where the connection is from; `None` for a unix socket.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    pub(super) fn peer(&self) -> Arc<Peer> {
        self.peer.clone()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counted = self.peers.counted();
        counted.all -= 1;
        if let Some((connections, _)) = counted.by_address.get_mut(&self.address) {
            *connections -= 1;
            if *connections == 0 {
                counted.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_84_one_address_cannot_take_the_connections_of_all() {
        let peers = Peers::default();
        let greedy = Some(IpAddr::from([10, 0, 0, 1]));
        let held: Vec<_> = std::iter::from_fn(|| peers.admit(greedy)).collect();
        assert_eq!(held.len(), connections_max() / PEER_PART);
        let other = Some(IpAddr::from([10, 0, 0, 2]));
        assert!(peers.admit(other).is_some());
        drop(held);
        assert!(peers.admit(greedy).is_some());
        assert!(peers.counted().by_address.is_empty());
    }
}
