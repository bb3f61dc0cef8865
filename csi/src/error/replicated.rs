//! What can go wrong with replicated volumes.

use std::io;

use replication::Shortage;
use types::{ByteSize, Classify, ErrorKind, NodeId, VolumeName};

/// The result of this module.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of the volume can be that of no object.
    #[error(
        "volume {volume} cannot be replicated: its record in Kubernetes has its name, so use lower case letters, \
         digits, '-' and '.' only, or numberOfReplicas: \"1\""
    )]
    Name {
        /// Which.
        volume: VolumeName,
    },
    /// The record changed while it was worked on.
    #[error("the record of volume {volume} was changed meanwhile; try again")]
    Changed {
        /// Whose.
        volume: VolumeName,
    },
    /// Its Secret is of no use.
    #[error(
        "Secret {name} has no entry shared-secret of 1 to 63 printable characters; the nodes of its volume keep the \
         secret that they have: write that one back (drbdsetup show --show-defaults as root), or delete the Secret \
         and detach the volume"
    )]
    Secret {
        /// Its name, in our namespace.
        name: String,
    },
    /// The kernel gives no random bytes.
    #[error("cannot make a secret")]
    Random(#[source] io::Error),
    /// There is no disk for it, or fewer than it requires.
    #[error("{0}")]
    Shortage(Shortage),
    /// All port numbers are taken.
    #[error(
        "the ports {first} to {last} are used by other replicated volumes; give more with --replication-ports"
    )]
    NoPort {
        /// Of the range.
        first: u16,
        /// Of the range.
        last: u16,
    },
    /// The size asked for is less than what the volume begins with.
    #[error("a volume of {asked} is too small: its source has {content}; request at least that")]
    TooSmall {
        /// What was asked for.
        asked: ByteSize,
        /// What its source has.
        content: ByteSize,
    },
    /// In whole blocks it is more than the limit.
    #[error("it would be {size} with whole 4 KiB blocks, more than the limit of {limit}")]
    Limit {
        /// What it would have.
        size: ByteSize,
        /// What it may have.
        limit: ByteSize,
    },
    /// A step is not done yet.
    #[error("volume {volume} is not there yet: {why}; it goes on, try again")]
    Waiting {
        /// Which.
        volume: VolumeName,
        /// What it waits for.
        why: String,
    },
    /// Another node may use the volume.
    #[error(
        "volume {volume} is published on node {node}; delete the pods that use it there first, or, if the node is \
         lost, taint it with node.kubernetes.io/out-of-service"
    )]
    Held {
        /// Which.
        volume: VolumeName,
        /// Who has it.
        node: NodeId,
    },
    /// It is published there in another way.
    #[error("volume {volume} is published on node {node} for {how}; unpublish it first")]
    HeldDifferently {
        /// Which.
        volume: VolumeName,
        /// Where.
        node: NodeId,
        /// How.
        how: &'static str,
    },
    /// A node cannot take part.
    #[error("node {node} cannot use replicated volume {volume}: {why}")]
    Node {
        /// Which.
        volume: VolumeName,
        /// Which node.
        node: NodeId,
        /// What it lacks.
        why: String,
    },
    /// It is being deleted.
    #[error("volume {0} is being deleted; try again when it is gone, or use another name")]
    Deleting(VolumeName),
    /// The image that its replicas begin with is on no disk that answers.
    #[error(
        "no disk that answers has image {image}, with which the replicas of volume {volume} begin"
    )]
    NoImage {
        /// Which.
        volume: VolumeName,
        /// Its name.
        image: String,
    },
    /// Snapshots of several volumes cannot be of one moment.
    #[error("the volumes have no moment in common: {why}; take their snapshots one by one")]
    Together {
        /// What keeps them apart.
        why: String,
    },
    /// The API server.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::Error),
    /// A manager or a node.
    #[error(transparent)]
    Client(#[from] client::Error),
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } => ErrorKind::InvalidArgument,
            Self::Changed { .. } | Self::Waiting { .. } | Self::Deleting(_) => ErrorKind::Aborted,
            Self::Secret { .. }
            | Self::Held { .. }
            | Self::Node { .. }
            | Self::NoImage { .. }
            | Self::Together { .. } => ErrorKind::FailedPrecondition,
            Self::HeldDifferently { .. } => ErrorKind::AlreadyExists,
            Self::Shortage(_) | Self::NoPort { .. } => ErrorKind::ResourceExhausted,
            Self::TooSmall { .. } | Self::Limit { .. } => ErrorKind::OutOfRange,
            Self::Random(_) => ErrorKind::Internal,
            Self::Kubernetes(error) => error.kind(),
            Self::Client(error) => error.kind(),
        }
    }
}
