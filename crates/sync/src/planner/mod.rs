//! Which peer is asked for which chunks: the decisions of a receiver, without any I/O.
//!
//! Events come in, requests go out. The same events at the same times with the same seed give the
//! same requests. It knows neither sockets nor files nor clocks: the caller supplies the time.
//!
//! The plan in short: chunks are fetched in order from a single peer. As soon as others fetch the
//! image too, each receiver takes its own share from the source and the rest from the others, so
//! the source sends each chunk about once. Requests start small and grow while all goes well. A
//! failing peer is retried with growing pauses; a lying one is dropped. At the end, chunks that
//! wait for a slow peer are requested from a second one.

mod choose;
mod events;
mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::PEERS_KNOWN_MAX;
use super::address::PeerAddress;
use super::bits::Bits;
pub use events::{Action, Event, Fault, Outlook, PeerId, RequestId, Tuning, Weight};
use peer::{Peer, Standing};

#[derive(Debug)]
struct Request {
    peer: PeerId,
    /// Chunks that have not come.
    rest: BTreeSet<u32>,
    /// When something of it last came.
    touched: Duration,
}

/// The plan of one sync.
#[derive(Debug)]
pub struct Planner {
    tuning: Tuning,
    seed: u64,
    count: u32,
    /// Not on the disk.
    missing: Bits,
    /// Missing, and not asked for.
    wanted: Bits,
    /// How many requests are to bring a chunk.
    flying: BTreeMap<u32, u32>,
    peers: Vec<Peer>,
    /// Our own address, as the others know it.
    me: Option<PeerAddress>,
    requests: BTreeMap<RequestId, Request>,
    next_request: RequestId,
    /// When something useful last happened.
    progress: Duration,
    /// What a chunk took lately, from one to the next of a request.
    pace: Duration,
    /// Decided while an event was taken in.
    decided: Vec<Action>,
}

impl Planner {
    /// The plan for an image of which these chunks are missing; holes never are.
    pub fn new(missing: Bits, tuning: Tuning, seed: u64) -> Self {
        Self {
            tuning,
            seed,
            count: missing.len(),
            wanted: missing.clone(),
            missing,
            flying: BTreeMap::new(),
            peers: Vec::new(),
            me: None,
            requests: BTreeMap::new(),
            next_request: 0,
            progress: Duration::ZERO,
            pace: Duration::ZERO,
            decided: Vec::new(),
        }
    }

    /// Chunks that are not on the disk.
    pub fn missing(&self) -> u32 {
        self.missing.count()
    }

    /// Peers that were ever known; their ids are below that.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Where a peer is.
    pub fn address(&self, peer: PeerId) -> &PeerAddress {
        &self.peers[peer as usize].address
    }

    fn peer(&mut self, peer: PeerId) -> &mut Peer {
        &mut self.peers[peer as usize]
    }

    /// SplitMix64: good enough to spread receivers over an image.
    fn random(&mut self, below: u32) -> u32 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        u32::try_from(z % u64::from(below.max(1))).expect("below a u32")
    }

    /// Takes in what happened. Events of requests that were abandoned are ignored.
    pub fn on(&mut self, event: Event, now: Duration) {
        match event {
            Event::Found { address, given } => self.found(address, given, now),
            Event::Named { address } => self.me = Some(address),
            Event::Have { peer, have } => self.have(peer, have, now),
            Event::NoAnswer { peer, fault } => {
                self.peer(peer).asking = false;
                self.fault(peer, &fault, now);
            }
            Event::Arrived { request, index } => self.arrived(request, index, now),
            Event::Damaged { request, index } => self.damaged(request, index, now),
            Event::Ended { request, fault } => self.ended(request, fault.as_ref(), now),
            Event::Checked { peer, index, good } => {
                let peer = self.peer(peer);
                peer.checking = peer.checking.saturating_sub(1);
                // A copy that is bad by its owner's account is never asked for again. If it is good,
                // or nobody knows, the damage may have been done on the way.
                if good == Some(false) {
                    peer.damaged += 1;
                    peer.last_fault = format!("its copy of chunk {index} is damaged");
                } else {
                    peer.refused.remove(&index);
                    peer.admit(index);
                }
            }
        }
    }

    fn found(&mut self, address: PeerAddress, given: bool, now: Duration) {
        let room = self.peers.len() < PEERS_KNOWN_MAX;
        let known = self.peers.iter_mut().find(|peer| peer.address == address);
        match known {
            Some(peer) => {
                peer.given |= given;
                if peer.standing == Standing::Forgotten {
                    peer.standing = Standing::Good;
                    peer.failures = 0;
                    peer.not_before = now + self.tuning.pause_first;
                }
            }
            None if room => {
                self.peers.push(Peer::new(address, given));
            }
            None => {}
        }
    }

    fn have(&mut self, id: PeerId, have: Bits, now: Duration) {
        let interval = self.tuning.have_interval;
        let peer = self.peer(id);
        peer.asking = false;
        peer.failures = 0;
        peer.ask_again = now + interval;
        let fresh = peer.learn(have);
        // Only what is of use counts as progress: a peer with nothing new must not keep the sync alive.
        if fresh && !self.peers[id as usize].usable(&self.missing).is_empty() {
            self.progress = now;
        }
    }

    fn arrived(&mut self, id: RequestId, index: u32, now: Duration) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.rest.remove(&index);
        let took = now.saturating_sub(request.touched);
        request.touched = now;
        // A slow one counts at once and is forgotten slowly.
        self.pace = took.max(self.pace * 7 / 8);
        let peer = request.peer;
        self.peer(peer).succeeded();
        self.land(index);
        self.wanted.remove(index);
        if self.missing.remove(index) {
            self.progress = now;
        }
        self.call_off(index);
    }

    /// One request less is to bring this chunk.
    fn land(&mut self, index: u32) {
        if let Some(count) = self.flying.get_mut(&index) {
            *count -= 1;
            if *count == 0 {
                self.flying.remove(&index);
                if self.missing.contains(index) {
                    self.wanted.insert(index);
                }
            }
        }
    }

    /// Gives up other requests for a chunk that came, when they bring nothing else.
    fn call_off(&mut self, index: u32) {
        if !self.flying.contains_key(&index) {
            return;
        }
        let idle: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| {
                let mut rest = request.rest.iter();
                !request.rest.is_empty() && rest.all(|index| !self.missing.contains(*index))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.decided.push(Action::Abandon { request: id });
            self.close(id);
        }
    }

    /// Forgets a request; what it did not bring is wanted again.
    fn close(&mut self, id: RequestId) -> Option<PeerId> {
        let request = self.requests.remove(&id)?;
        for index in request.rest {
            self.land(index);
        }
        let peer = self.peer(request.peer);
        peer.streams = peer.streams.saturating_sub(1);
        Some(request.peer)
    }

    fn damaged(&mut self, id: RequestId, index: u32, now: Duration) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.rest.remove(&index);
        request.touched = now;
        let peer = request.peer;
        self.land(index);
        let strikes_max = self.tuning.strikes_max;
        let known = self.peer(peer);
        known.refuse(index);
        known.strikes += 1;
        known.last_fault = format!("chunk {index} was damaged");
        known.checking += 1;
        let strikes = known.strikes;
        self.decided.push(Action::Check { peer, index });
        if strikes >= strikes_max {
            self.drop_peer(peer, format!("{strikes} chunks from it were damaged"));
        }
    }

    fn ended(&mut self, id: RequestId, fault: Option<&Fault>, now: Duration) {
        let complete = self
            .requests
            .get(&id)
            .is_some_and(|request| request.rest.is_empty());
        let Some(peer) = self.close(id) else {
            return;
        };
        match fault {
            Some(fault) => self.fault(peer, fault, now),
            None if complete => {
                let run_max = self.tuning.run_max;
                let peer = self.peer(peer);
                peer.failures = 0;
                peer.window = (peer.window * 2).min(run_max);
            }
            // Damaged chunks have had their consequences already.
            None => self.peer(peer).window = 1,
        }
    }

    fn fault(&mut self, id: PeerId, fault: &Fault, now: Duration) {
        let random = self.random(256);
        let Tuning {
            pause_first,
            pause_max,
            failures_max,
            ..
        } = self.tuning;
        let peer = self.peer(id);
        // What follows from a damaged copy, which its owner sets aside, is not what is wrong with it.
        if peer.damaged == 0 {
            peer.last_fault.clone_from(&fault.why);
        }
        match fault.weight {
            Weight::Busy => {
                peer.pause(now + pause_first * 2, random, pause_first);
                self.progress = now;
            }
            Weight::Stale => {
                peer.forget();
                peer.ask_again = now + pause_first;
                peer.pause(now, random, pause_first);
            }
            // It has set its damaged copy aside, or has none: others may.
            Weight::Absent if peer.damaged > 0 || peer.failures + 1 >= failures_max => {
                let why = peer.last_fault.clone();
                self.drop_peer(id, why);
            }
            Weight::Lost | Weight::Absent => {
                peer.failures += 1;
                let doubled = pause_first * 2_u32.pow(peer.failures.min(16) - 1);
                peer.pause(now + doubled.min(pause_max), random, pause_first);
                peer.window = 1;
                if !peer.given && peer.failures >= failures_max {
                    peer.standing = Standing::Forgotten;
                }
            }
            Weight::Unusable => self.drop_peer(id, fault.why.clone()),
        }
    }

    fn drop_peer(&mut self, id: PeerId, why: String) {
        let peer = self.peer(id);
        if peer.standing == Standing::Dropped {
            return;
        }
        peer.standing = Standing::Dropped;
        peer.last_fault.clone_from(&why);
        self.decided.push(Action::Dropped { peer: id, why });
        let its: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| request.peer == id)
            .map(|(request, _)| *request)
            .collect();
        for request in its {
            self.decided.push(Action::Abandon { request });
            self.close(request);
        }
    }

    /// What to do now. To be called after each event, and now and then.
    pub fn plan(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = std::mem::take(&mut self.decided);
        for id in 0..self.peers.len() {
            let peer = &mut self.peers[id];
            if peer.wants_asking(now) {
                peer.asking = true;
                let peer = u32::try_from(id).expect("few peers");
                actions.push(Action::AskHave { peer });
            }
        }
        while let Some((peer, chunks)) = self.next_run(now) {
            actions.push(self.start(peer, chunks, now));
        }
        while let Some((peer, chunks)) = self.next_double(now) {
            actions.push(self.start(peer, chunks, now));
        }
        actions
    }

    fn start(&mut self, peer: PeerId, chunks: Range<u32>, now: Duration) -> Action {
        let request = self.next_request;
        self.next_request += 1;
        for index in chunks.clone() {
            self.wanted.remove(index);
            *self.flying.entry(index).or_default() += 1;
        }
        let known = self.peer(peer);
        known.streams += 1;
        known.next = chunks.end;
        let rest = chunks.clone().collect();
        let touched = now;
        self.requests.insert(
            request,
            Request {
                peer,
                rest,
                touched,
            },
        );
        Action::Fetch {
            request,
            peer,
            chunks,
        }
    }

    /// How the sync stands.
    pub fn outlook(&self, now: Duration) -> Outlook {
        if self.missing.is_empty() {
            return Outlook::Done;
        }
        let left = |peer: &&Peer| peer.standing == Standing::Good;
        let waiting = !self.requests.is_empty()
            || self
                .peers
                .iter()
                .filter(left)
                .any(|peer| peer.may_help(&self.missing));
        if !waiting {
            return Outlook::NoPeers(self.faults());
        }
        if now.saturating_sub(self.progress) >= self.tuning.patience {
            return Outlook::NoProgress(self.faults());
        }
        Outlook::Going
    }

    /// What the peers said last, for people.
    fn faults(&self) -> String {
        let said = self.peers.iter().filter(|peer| !peer.last_fault.is_empty());
        let said: Vec<String> = said
            .take(4)
            .map(|peer| format!("{}: {}", peer.address, peer.last_fault))
            .collect();
        if said.is_empty() {
            "no peer is known".to_owned()
        } else {
            said.join("; ")
        }
    }
}

#[cfg(test)]
mod tests;
