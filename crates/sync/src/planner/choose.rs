//! Which peer is asked for which chunks next.

use std::ops::Range;
use std::time::Duration;

use super::peer::{Peer, Standing};
use super::{PeerId, Planner, Request};
use crate::address::PeerAddress;
use crate::bits::Bits;

impl Planner {
    /// Peers that may be asked for chunks now, the least used and the least complete first.
    fn free_peers(&self, now: Duration) -> Vec<PeerId> {
        let streams: u32 = self.peers.iter().map(|peer| peer.streams).sum();
        if streams >= self.tuning.streams_max {
            return Vec::new();
        }
        let able = |peer: &&Peer| peer.standing == Standing::Good && peer.have.is_some();
        let active = u32::try_from(self.peers.iter().filter(able).count()).unwrap_or(u32::MAX);
        let most = self.tuning.peer_streams_max;
        let limit = (2 * most / active.max(1)).clamp(2.min(most), most);
        // What comes twice from the source is lost to the others: where it is not known who takes what,
        // little is asked of it at a time.
        let receivers = self.peers.iter().filter(|peer| peer.is_receiving());
        let blind = self.me.is_none() && receivers.count() > 1;
        let source_limit = if blind { 1 } else { limit };
        let mut free: Vec<(u32, bool, PeerId)> = (0..)
            .zip(&self.peers)
            .filter(|(_, peer)| {
                let limit = if peer.complete { source_limit } else { limit };
                peer.is_free(now, limit)
            })
            .map(|(id, peer)| (peer.streams, peer.complete, id))
            .collect();
        free.sort_unstable();
        free.into_iter().map(|(_, _, id)| id).collect()
    }

    /// The next request for chunks that nobody was asked for.
    pub(super) fn next_run(&mut self, now: Duration) -> Option<(PeerId, Range<u32>)> {
        if self.wanted.is_empty() {
            return None;
        }
        let free = self.free_peers(now);
        free.into_iter()
            .find_map(|peer| self.run_from(peer, now).map(|run| (peer, run)))
    }

    fn run_from(&mut self, id: PeerId, now: Duration) -> Option<Range<u32>> {
        let peer = &self.peers[id as usize];
        let candidates = peer.usable(&self.wanted);
        if candidates.is_empty() {
            return None;
        }
        let others = self.peers.iter().zip(0..);
        let others = others.filter(|(peer, other)| *other != id && peer.is_receiving());
        let mut shared = Bits::none(self.count);
        let mut receivers = Vec::new();
        for (other, _) in others {
            receivers.push(&other.address);
            if let Some(have) = &other.have {
                shared = shared.or(have);
            }
        }
        let rare = candidates.without(&shared);
        // Small pieces towards the end, and where there is little to do at all.
        let share = candidates.count() / (2 * self.tuning.streams_max);
        let most = peer.window.min(share.max(1));
        let (complete, next) = (peer.complete, peer.next);
        let set = if rare.is_empty() { candidates } else { rare };
        let start = if receivers.is_empty() {
            // What was lost on the way comes first: the checksum of the whole waits for it.
            set.next(0)?
        } else if let (Some(me), true) = (&self.me, complete) {
            let split = Split::new(self.count, me, &receivers);
            let mine = set.iter().find(|index| split.is_mine(*index));
            if let Some(start) = mine {
                let own = (start + 1..start + most)
                    .take_while(|index| set.contains(*index) && split.is_mine(*index));
                return Some(start..start + 1 + u32::try_from(own.count()).ok()?);
            }
            // What is the part of others comes from them, unless they take too long.
            if self.progress + 3 * self.tuning.have_interval.max(self.pace) > now {
                return None;
            }
            self.anywhere(&set)?
        } else if set.contains(next) {
            next
        } else {
            self.anywhere(&set)?
        };
        let mut end = start + 1;
        while end - start < most && set.contains(end) {
            end += 1;
        }
        Some(start..end)
    }

    fn anywhere(&mut self, set: &Bits) -> Option<u32> {
        let from = self.random(self.count);
        set.next(from).or_else(|| set.next(0))
    }

    /// A second request for chunks whose first one does not get on, when there is nothing else to do.
    pub(super) fn next_double(&mut self, now: Duration) -> Option<(PeerId, Range<u32>)> {
        if !self.wanted.is_empty() && self.requests.is_empty() {
            return None;
        }
        let late = |request: &&Request| request.touched + self.tuning.hedge_after <= now;
        let late: Vec<&Request> = self.requests.values().filter(late).collect();
        if late.is_empty() {
            return None;
        }
        self.free_peers(now).into_iter().find_map(|id| {
            let peer = &self.peers[id as usize];
            let mut chunks = late
                .iter()
                .filter(|request| request.peer != id)
                .flat_map(|request| request.rest.iter().copied());
            let index =
                chunks.find(|index| self.flying.get(index) == Some(&1) && peer.offers(*index))?;
            Some((id, index..index + 1))
        })
    }
}

/// Who of the receivers takes which part from the source: each computes the same, by rendezvous hashing
/// over the addresses that all know, so that nothing is taken twice and nobody has to agree to it.
struct Split<'a> {
    me: &'a PeerAddress,
    others: &'a [&'a PeerAddress],
    /// Consecutive chunks that go to one receiver.
    group: u32,
}

impl<'a> Split<'a> {
    fn new(count: u32, me: &'a PeerAddress, others: &'a [&'a PeerAddress]) -> Self {
        let receivers = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
        let group = (count / receivers.saturating_mul(32)).clamp(1, 8);
        Self { me, others, group }
    }

    fn is_mine(&self, index: u32) -> bool {
        let group = index / self.group;
        let mine = weight(self.me, group);
        self.others.iter().all(|other| weight(other, group) <= mine)
    }
}

/// FNV-1a over the address, mixed with the number: the same on every machine.
fn weight(address: &PeerAddress, group: u32) -> u64 {
    let bytes = address.as_str().bytes();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut z = (hash ^ u64::from(group)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
