//! The inputs and outputs of the plan.

use std::ops::Range;
use std::time::Duration;

use crate::address::PeerAddress;
use crate::bits::Bits;

/// Names a peer within one sync.
pub type PeerId = u32;
/// Names a request within one sync.
pub type RequestId = u64;

/// The numbers of the plan.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Requests under way at once, over all peers.
    pub streams_max: u32,
    /// Requests under way at once at one peer.
    pub peer_streams_max: u32,
    /// Chunks in a request at most.
    pub run_max: u32,
    /// The first pause after a failure of a peer; it doubles each time.
    pub pause_first: Duration,
    pub pause_max: Duration,
    /// Without any progress for so long the sync fails.
    pub patience: Duration,
    /// Damaged chunks after which a peer is dropped.
    pub strikes_max: u32,
    /// Failures in a row after which a peer that was only told of is forgotten.
    pub failures_max: u32,
    /// How often a peer that is still receiving is asked what it has.
    pub have_interval: Duration,
    /// A request without progress for so long is doubled when there is nothing else to do.
    pub hedge_after: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            streams_max: 12,
            peer_streams_max: 4,
            run_max: 8,
            pause_first: Duration::from_millis(200),
            pause_max: Duration::from_secs(10),
            patience: Duration::from_secs(45),
            strikes_max: 3,
            failures_max: 5,
            have_interval: Duration::from_millis(200),
            hedge_after: Duration::from_secs(2),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is a peer. `given`: whoever asked for the sync named it.
    Found {
        address: PeerAddress,
        /// Not only heard of from another peer.
        given: bool,
    },
    /// The others know us by this address.
    Named { address: PeerAddress },
    /// A peer said what it has.
    Have { peer: PeerId, have: Bits },
    /// A peer did not say what it has.
    NoAnswer { peer: PeerId, fault: Fault },
    /// A chunk is verified and on the disk.
    Arrived { request: RequestId, index: u32 },
    /// A chunk came with wrong bytes.
    Damaged { request: RequestId, index: u32 },
    /// A request is over: nothing more of it comes.
    Ended {
        request: RequestId,
        /// `None`: all of it came.
        fault: Option<Fault>,
    },
    /// A peer was asked to look at its copy of a chunk that came damaged. `good`: by its own account
    /// it is right; `None`: it did not answer.
    Checked {
        peer: PeerId,
        index: u32,
        good: Option<bool>,
    },
}

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What follows from it.
    pub weight: Weight,
    pub why: String,
}

/// What follows from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The peer is well, but busy: ask again soon.
    Busy,
    /// The peer lacks a chunk that it was thought to have: ask what it has.
    Stale,
    /// Cut, refused, stalled: ask again later.
    Lost,
    /// The peer says that it does not have the image: ask again, but not for ever.
    Absent,
    /// The peer is of no use for this image.
    Unusable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a peer what it has.
    AskHave { peer: PeerId },
    /// Ask a peer for consecutive chunks.
    Fetch {
        /// Its name from now on.
        request: RequestId,
        peer: PeerId,
        chunks: Range<u32>,
    },
    /// Give a request up; no event of it is expected any more.
    Abandon { request: RequestId },
    /// Ask a peer to look at its own copy of a chunk.
    Check { peer: PeerId, index: u32 },
    /// A peer is asked no more: for the log.
    Dropped { peer: PeerId, why: String },
}

/// How the sync stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// There is something to wait for.
    Going,
    /// Every chunk is there.
    Done,
    /// No peer is left that could help, and what they said.
    NoPeers(String),
    /// Nothing came for too long, and what the peers said.
    NoProgress(String),
}
