//! Connections per address, so that one peer cannot occupy all of them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections in all of a listener for requests. Each takes a descriptor and some 20 KiB.
const CONNECTIONS_MAX: usize = 1024;
/// One in so many descriptors of the process may be a connection of one listener: the others are for
/// images.
const DESCRIPTORS_PART: u64 = 4;
/// One in so many connections may be of one address.
const PEER_PART: usize = 4;
/// Connections of a listener for probes: a kubelet and a Prometheus open one each.
const PROBES_MAX: usize = 64;
/// One in so many descriptors may be one of those.
const PROBES_PART: u64 = 16;
/// The last part of the connections is for addresses that have few.
const NEWCOMERS_PART: usize = 4;
const FEW: usize = 8;
/// Calls of one address that may be open, answers being sent included.
const CALLS_PER_PEER: usize = 256;
/// Messages of one address that may be read at once, each held in memory.
const READING_PER_PEER: usize = 16;

/// What a listener has room for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Room {
    /// Requests of any length.
    #[default]
    Requests,
    /// Questions about how the daemon is.
    Probes,
}

impl Room {
    /// How many connections there may be, as the limits of the process are now.
    fn connections_max(self) -> usize {
        let (most, part) = match self {
            Self::Requests => (CONNECTIONS_MAX, DESCRIPTORS_PART),
            Self::Probes => (PROBES_MAX, PROBES_PART),
        };
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let part = limit.unwrap_or(u64::MAX) / part;
        usize::try_from(part).map_or(most, |part| part.clamp(PEER_PART, most))
    }
}

/// All connections of one listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    room: Room,
    counted: Arc<Mutex<Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    /// The number of the next connection: an older one has a smaller number.
    next: u64,
    all: usize,
    by_address: HashMap<Option<IpAddr>, OfAddress>,
}

/// The connections of one address.
#[derive(Debug)]
struct OfAddress {
    peer: Arc<Peer>,
    open: usize,
    /// Those that have not asked for anything yet, and what ends them.
    silent: BTreeMap<u64, CancellationToken>,
}

/// What all connections of one address share.
#[derive(Debug)]
pub struct Peer {
    /// A permit for each open call.
    pub calls: Arc<Semaphore>,
    /// A permit for each message that is being read.
    pub reading: Arc<Semaphore>,
}

/// A connection that is counted for as long as this lives, or until it makes way.
#[derive(Debug)]
pub(super) struct Admission {
    peers: Peers,
    address: Option<IpAddr>,
    number: u64,
    peer: Arc<Peer>,
    makes_way: CancellationToken,
}

impl Peers {
    pub(super) fn new(room: Room) -> Self {
        let counted = Arc::default();
        Self { room, counted }
    }

    /// Counts a connection; `None` is the address of all unix sockets. Where there is no room for it,
    /// the oldest one that has not asked for anything makes way: of the same address when that has its
    /// share, else of the address that has most. Nothing makes way for who has more than anybody.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> Option<Admission> {
        let most = self.room.connections_max();
        let mut counted = self.counted();
        let open = counted.by_address.get(&address).map_or(0, |of| of.open);
        let is_for_newcomers = counted.all >= most - most / NEWCOMERS_PART && open >= FEW;
        if open >= most / PEER_PART || is_for_newcomers {
            counted.end_one(address)?;
        } else if counted.all >= most {
            let greedy = counted.greediest(address);
            counted.end_one(greedy)?;
        }
        Some(self.count(&mut counted, address))
    }

    fn count(&self, counted: &mut Counted, address: Option<IpAddr>) -> Admission {
        let number = counted.next;
        counted.next += 1;
        counted.all += 1;
        let of = counted.by_address.entry(address).or_insert_with(|| {
            let peer = Peer {
                calls: Arc::new(Semaphore::new(CALLS_PER_PEER)),
                reading: Arc::new(Semaphore::new(READING_PER_PEER)),
            };
            OfAddress {
                peer: Arc::new(peer),
                open: 0,
                silent: BTreeMap::new(),
            }
        });
        of.open += 1;
        let makes_way = CancellationToken::new();
        of.silent.insert(number, makes_way.clone());
        Admission {
            peers: self.clone(),
            address,
            number,
            peer: of.peer.clone(),
            makes_way,
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// The address with most connections of those that have one to end, of equals the one whose is
    /// oldest; `newcomer` itself when it has more than that.
    fn greediest(&self, newcomer: Option<IpAddr>) -> Option<IpAddr> {
        let own = self.by_address.get(&newcomer).map_or(0, |of| of.open);
        let others = self.by_address.iter().filter(|(_, of)| of.open >= own);
        let ends = others.filter_map(|(address, of)| {
            let (oldest, _) = of.silent.first_key_value()?;
            Some(((of.open, std::cmp::Reverse(*oldest)), *address))
        });
        ends.max_by_key(|(size, _)| *size)
            .map_or(newcomer, |(_, address)| address)
    }

    /// Ends the oldest connection of an address that has not asked for anything; `None`: there is none.
    fn end_one(&mut self, address: Option<IpAddr>) -> Option<()> {
        let of = self.by_address.get_mut(&address)?;
        let (_, makes_way) = of.silent.pop_first()?;
        makes_way.cancel();
        self.remove(address);
        Some(())
    }

    fn remove(&mut self, address: Option<IpAddr>) {
        let Some(of) = self.by_address.get_mut(&address) else {
            return;
        };
        self.all -= 1;
        of.open -= 1;
        if of.open == 0 {
            self.by_address.remove(&address);
        }
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

    /// Is cancelled when the connection has to make way for another one.
    pub(super) fn makes_way(&self) -> CancellationToken {
        self.makes_way.clone()
    }

    /// The connection has asked for something: it stays.
    pub(super) fn asked(&self) {
        if let Some(of) = self.peers.counted().by_address.get_mut(&self.address) {
            of.silent.remove(&self.number);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut counted = self.peers.counted();
        // One that made way was counted off then.
        if self.makes_way.is_cancelled() {
            return;
        }
        if let Some(of) = counted.by_address.get_mut(&self.address) {
            of.silent.remove(&self.number);
        }
        counted.remove(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Connections of an address that have all asked for something, as many as it gets.
    fn asking(peers: &Peers, of: Option<IpAddr>) -> Vec<Admission> {
        let admit = || {
            let admission = peers.admit(of)?;
            admission.asked();
            Some(admission)
        };
        std::iter::from_fn(admit).collect()
    }

    #[test]
    fn row_84_one_address_cannot_take_the_connections_of_all() {
        let peers = Peers::default();
        let held = asking(&peers, Some(ip(1)));
        assert_eq!(held.len(), Room::Requests.connections_max() / PEER_PART);
        assert!(peers.admit(Some(ip(2))).is_some());
        drop(held);
        assert!(peers.admit(Some(ip(1))).is_some());
        assert!(peers.counted().by_address.is_empty());
    }

    #[test]
    fn row_199_silent_connections_make_way_those_of_the_greediest_first() {
        for room in [Room::Requests, Room::Probes] {
            let peers = Peers::new(room);
            let most = room.connections_max();
            let first = peers.admit(Some(ip(1))).unwrap();
            let quiet: Vec<_> = (0..most).filter_map(|_| peers.admit(Some(ip(2)))).collect();
            assert_eq!(quiet.len(), most, "each of them was taken");
            let ended = |of: &[Admission]| of.iter().filter(|a| a.makes_way.is_cancelled()).count();
            assert_eq!(ended(&quiet), most - most / PEER_PART, "a share stays");
            assert!(quiet[0].makes_way.is_cancelled() && !quiet[most - 1].makes_way.is_cancelled());
            assert!(
                !first.makes_way.is_cancelled(),
                "the other address has more"
            );
            // Many addresses fill all of it, and the next one finds room.
            let more: Vec<_> = (3..=200u8)
                .flat_map(|of| std::iter::repeat_n(of, most))
                .filter_map(|of| peers.admit(Some(ip(of))))
                .collect();
            assert!(peers.counted().all <= most);
            assert!(peers.admit(Some(ip(201))).is_some());
            drop((quiet, more, first));
            assert_eq!(peers.counted().all, 0);
            assert!(peers.counted().by_address.is_empty());
        }
    }

    #[test]
    fn row_199_four_addresses_that_ask_leave_room_for_others() {
        let peers = Peers::default();
        let held: Vec<_> = (1..=4)
            .flat_map(|of| asking(&peers, Some(ip(of))))
            .collect();
        assert!(held.iter().all(|held| !held.makes_way.is_cancelled()));
        let others: Vec<_> = (5..=9)
            .map(|of| peers.admit(Some(ip(of))).unwrap())
            .collect();
        others.iter().for_each(Admission::asked);
        assert!(
            peers.admit(Some(ip(1))).is_none(),
            "who has a share gets no more"
        );
    }
}
