//! What can go wrong between two managers, seen from the one that receives.

use std::time::Duration;

use types::{Classify, ErrorKind};

use super::address::PeerAddress;

/// Why a peer's answer could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to peer {peer}")]
    Connect {
        peer: PeerAddress,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The connection ended before the answer did.
    #[error("the connection to peer {peer} broke")]
    Cut {
        peer: PeerAddress,
        #[source]
        source: std::io::Error,
    },
    /// Nothing came for too long.
    #[error("peer {peer} sent no data for {} s", after.as_secs_f32())]
    Stalled {
        peer: PeerAddress,
        /// How long it was waited for.
        after: Duration,
    },
    /// The peer has too much to do.
    #[error("peer {0} is busy")]
    Busy(PeerAddress),
    /// The peer does not have the image, or not yet.
    #[error("peer {peer} does not have the image: {why}")]
    NotThere { peer: PeerAddress, why: String },
    /// The peer does not have that chunk (any more).
    #[error("peer {0} does not have the requested chunk")]
    NoChunk(PeerAddress),
    /// The peer's copy is damaged, by its own account.
    #[error("peer {0} found that its own copy is damaged")]
    Damaged(PeerAddress),
    /// The peer does not let this manager in.
    #[error("peer {peer} refuses: {why}")]
    Refused {
        peer: PeerAddress,
        /// Its words.
        why: String,
    },
    /// The peer speaks, but not this protocol.
    #[error(
        "{0} does not speak the sync protocol of this manager; it may be Longhorn's own manager"
    )]
    Foreign(PeerAddress),
    /// The peer's version of the protocol is too far from ours.
    #[error(
        "peer {peer} speaks version {theirs} of the sync protocol, and this manager version \
         {ours}; upgrade the older one"
    )]
    Version {
        peer: PeerAddress,
        theirs: String,
        /// What this program speaks.
        ours: u32,
    },
    /// The peer has other bytes under this name.
    #[error("peer {peer} has another image under this name: {what}")]
    OtherImage { peer: PeerAddress, what: String },
    /// The peer breaks the protocol.
    #[error("peer {peer} violates the protocol: {what}")]
    Broken { peer: PeerAddress, what: String },
    /// A chunk came with other bytes than the manifest says.
    #[error("chunk {index} from peer {peer} is damaged")]
    BadChunk { peer: PeerAddress, index: u32 },
    /// No peer is left that could be asked.
    #[error("no peer can send the missing {missing} chunks of the image: {why}")]
    NoPeers {
        /// Chunks that did not come.
        missing: u32,
        /// What the last ones said.
        why: String,
    },
    /// Nothing came from any peer for too long.
    #[error("no peer sent data for {} s: {why}", after.as_secs())]
    NoProgress {
        after: Duration,
        /// What the peers said.
        why: String,
    },
    /// Whoever asked for the image does not want it any more.
    #[error("cancelled: the image is not wanted")]
    Cancelled,
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled => ErrorKind::Aborted,
            Self::Connect { .. }
            | Self::Cut { .. }
            | Self::Stalled { .. }
            | Self::Busy(_)
            | Self::NoPeers { .. }
            | Self::NoProgress { .. } => ErrorKind::Unavailable,
            Self::NotThere { .. } | Self::NoChunk(_) => ErrorKind::NotFound,
            Self::Refused { .. } => ErrorKind::PermissionDenied,
            Self::Foreign(_) | Self::Version { .. } | Self::OtherImage { .. } => {
                ErrorKind::FailedPrecondition
            }
            Self::Damaged(_) | Self::Broken { .. } | Self::BadChunk { .. } => ErrorKind::DataLoss,
        }
    }
}
