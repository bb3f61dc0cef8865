//! What the plan knows of one peer.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::address::PeerAddress;
use crate::bits::Bits;

/// Good chunks after which earlier damage is forgiven.
const FORGIVEN_AFTER: u32 = 64;

/// Failures in a row after which what a peer receives is not counted on.
const UNRELIABLE_AFTER: u32 = 2;

/// Whether a peer is asked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// It was only heard of and does not answer; it comes back when it is heard of again.
    Forgotten,
    /// It lied, or has another image: never again.
    Dropped,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: PeerAddress,
    /// Named by whoever asked for the sync: not forgotten when it fails.
    pub(super) given: bool,
    pub(super) standing: Standing,
    /// Chunks it can send; `None`: not known (any more).
    pub(super) have: Option<Bits>,
    /// It has all of them.
    pub(super) complete: bool,
    /// Chunks it sent damaged: not asked from it again before it has looked at them.
    pub(super) refused: BTreeSet<u32>,
    /// It is being asked what it has.
    pub(super) asking: bool,
    /// When to ask it that again.
    pub(super) ask_again: Duration,
    pub(super) streams: u32,
    /// Chunks that it is being asked to look at.
    pub(super) checking: u32,
    /// Chunks in its next request at most.
    pub(super) window: u32,
    /// Where its last request ended.
    pub(super) next: u32,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Not to be asked for anything before.
    pub(super) not_before: Duration,
    /// Chunks of its copy that are damaged, by its own account.
    pub(super) damaged: u32,
    /// Damaged chunks that were not forgiven.
    pub(super) strikes: u32,
    good: u32,
    /// What it last did wrong, for people.
    pub(super) last_fault: String,
}

impl Peer {
    pub(super) fn new(address: PeerAddress, given: bool) -> Self {
        Self {
            address,
            given,
            standing: Standing::Good,
            have: None,
            complete: false,
            refused: BTreeSet::new(),
            asking: false,
            ask_again: Duration::ZERO,
            streams: 0,
            checking: 0,
            window: 1,
            next: 0,
            failures: 0,
            not_before: Duration::ZERO,
            damaged: 0,
            strikes: 0,
            good: 0,
            last_fault: String::new(),
        }
    }

    /// Takes in what it has; tells whether anything of that is new.
    pub(super) fn learn(&mut self, have: Bits) -> bool {
        let fresh = match &self.have {
            Some(old) => !have.without(old).is_empty(),
            None => true,
        };
        self.complete = have.count() == have.len();
        self.have = Some(have);
        fresh
    }

    /// What it has must be asked anew.
    pub(super) fn forget(&mut self) {
        self.have = None;
        self.complete = false;
    }

    /// Never asked for this chunk again, until [`Peer::admit`].
    pub(super) fn refuse(&mut self, index: u32) {
        self.refused.insert(index);
    }

    pub(super) fn admit(&mut self, index: u32) {
        self.refused.remove(&index);
    }

    /// Which of some chunks it can be asked for.
    pub(super) fn usable(&self, of: &Bits) -> Bits {
        let Some(have) = &self.have else {
            return Bits::none(of.len());
        };
        let mut usable = of.and(have);
        for index in &self.refused {
            usable.remove(*index);
        }
        usable
    }

    /// Whether it can be asked for that chunk.
    pub(super) fn offers(&self, index: u32) -> bool {
        let has = self.have.as_ref().is_some_and(|have| have.contains(index));
        has && !self.refused.contains(&index)
    }

    /// A good chunk came from it.
    pub(super) fn succeeded(&mut self) {
        self.good += 1;
        if self.good >= FORGIVEN_AFTER {
            self.good = 0;
            self.strikes = 0;
        }
    }

    /// Not asked before `until`, and a random part (of 256) of `spread` later, so that receivers that
    /// failed together do not come back together.
    pub(super) fn pause(&mut self, until: Duration, random: u32, spread: Duration) {
        let until = until + spread * random / 256;
        self.not_before = self.not_before.max(until);
    }

    /// Whether it is to be asked what it has.
    pub(super) fn wants_asking(&self, now: Duration) -> bool {
        let due = self.have.is_none() || !self.complete && self.ask_again <= now;
        self.standing == Standing::Good && !self.asking && due && self.not_before <= now
    }

    /// Whether it can take one more request, of at most `limit`.
    pub(super) fn is_free(&self, now: Duration, limit: u32) -> bool {
        // After a failure one request shows whether it is well again.
        let limit = if self.failures > 0 { 1 } else { limit };
        self.standing == Standing::Good
            && self.have.is_some()
            && self.not_before <= now
            && self.streams < limit
    }

    /// Whether it is getting the image too, and takes its part of it from the source.
    pub(super) fn is_receiving(&self) -> bool {
        self.standing == Standing::Good && !self.complete && self.failures < UNRELIABLE_AFTER
    }

    /// Whether something may still come from it: it has something, or may get it.
    pub(super) fn may_help(&self, missing: &Bits) -> bool {
        self.have.is_none()
            || self.asking
            || self.checking > 0
            || !self.complete
            || !self.usable(missing).is_empty()
    }
}
