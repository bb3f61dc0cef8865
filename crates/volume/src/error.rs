//! What can go wrong with volumes.

use types::{ByteSize, Classify, ErrorKind, ImageName, NodeId, VolumeName};

use crate::users::Use;

/// An error about volumes. A variant's text is its own layer only; causes are sources.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of a request that can never work.
    #[error("{field}: {why}")]
    InvalidField {
        /// The field, as the API spells it.
        field: &'static str,
        /// What is wrong with it and what would be right.
        why: String,
    },
    /// No volume of that name.
    #[error("there is no volume {0}")]
    VolumeNotFound(String),
    /// The name is taken by a volume of another shape.
    #[error("volume {name} exists with another {difference}; use another name")]
    VolumeExists {
        /// The volume that has the name.
        name: VolumeName,
        /// Which part of the request differs, and how.
        difference: String,
    },
    /// Another request works on the volume.
    #[error("another operation on volume {0} is running; try again")]
    VolumeBusy(VolumeName),
    /// Another request takes the snapshots of the group.
    #[error("another operation on the group {0} is running; try again")]
    GroupBusy(ImageName),
    /// The volume may be in use on a node.
    #[error("volume {name} is published on node {node} for {by}; {}", by.way_out())]
    VolumePublished {
        name: VolumeName,
        /// Where it is published.
        node: NodeId,
        /// For whom.
        by: Use,
    },
    /// The volume is in use on a node, though it is not published there.
    #[error(
        "volume {name} is attached to a loop device of node {node}: a pod uses it, or used it \
         until now; delete the pods that use it first"
    )]
    VolumeAttached {
        name: VolumeName,
        /// Whose device that is.
        node: NodeId,
    },
    /// Its file is DRBD's, and nobody else's.
    #[error(
        "volume {0} is one replica of a replicated volume: it is used through its device /dev/drbdN, on the node \
         that its record names (kubectl get replicatedvolumes)"
    )]
    Replica(VolumeName),
    /// The volume is being written to, and cannot be had as it is at one moment.
    #[error(
        "volume {name} is being written to on node {node}: {why}; delete the pods that use it \
         first"
    )]
    CannotClone {
        name: VolumeName,
        node: NodeId,
        why: String,
    },
    /// The volume is published on that node in another way.
    #[error("volume {name} is already published on node {node} with readonly={readonly}")]
    PublishedDifferently {
        name: VolumeName,
        node: NodeId,
        /// How it is published.
        readonly: bool,
    },
    /// A node that this manager has never heard of.
    #[error("node {0} is not known to this manager")]
    NodeUnknown(NodeId),
    /// A size that cannot be had.
    #[error("volume size {asked}: {why}")]
    Size {
        /// What was asked, in bytes.
        asked: ByteSize,
        /// What would be possible.
        why: String,
    },
    /// The disk has promised its volumes as much as it may.
    #[error(
        "volume size {asked}: the disk can promise {creatable} bytes more; {promised} of {most} \
         bytes are promised to its volumes and images; delete some of them, add a disk, or set \
         a larger --overcommit"
    )]
    Overcommitted {
        /// What was asked, in bytes.
        asked: ByteSize,
        /// What the others have.
        promised: u64,
        /// What all may have.
        most: u64,
        /// What is left; nothing on a disk that is full.
        creatable: u64,
    },
    /// The work was called off.
    #[error("cancelled: {0}")]
    Cancelled(&'static str),
    /// The disk said no.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<image::Error> for Error {
    fn from(error: image::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidField { .. } => ErrorKind::InvalidArgument,
            Self::VolumeNotFound(_) | Self::NodeUnknown(_) => ErrorKind::NotFound,
            Self::VolumeExists { .. } | Self::PublishedDifferently { .. } => {
                ErrorKind::AlreadyExists
            }
            Self::VolumeBusy(_) | Self::GroupBusy(_) | Self::Cancelled(_) => ErrorKind::Aborted,
            Self::VolumePublished { .. }
            | Self::VolumeAttached { .. }
            | Self::Replica(_)
            | Self::CannotClone { .. } => ErrorKind::FailedPrecondition,
            Self::Size { .. } => ErrorKind::OutOfRange,
            Self::Overcommitted { .. } => ErrorKind::ResourceExhausted,
            Self::Store(error) => error.kind(),
        }
    }
}
