//! The errors of the node service. Those of the node pass through unchanged.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use types::{Classify, DiskUuid, ErrorKind, InvalidName, VolumeName};

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name of the request can be that of nothing.
    #[error("{field} is not valid")]
    Name {
        /// The field, as node.proto has it.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidName,
    },
    /// A field of a layout, or of a call about one, is not valid.
    #[error("{field} is not valid: {why}")]
    Field {
        /// The field, as node.proto has it.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The node has a newer layout than the one that it is told.
    #[error(
        "the layout of volume {volume} has generation {asked}, and this node keeps generation {kept}; the record of \
         the volume is older than it should be: compare it with `volume rebuild-record`"
    )]
    Older {
        /// Which.
        volume: VolumeName,
        /// The generation that is kept.
        kept: u64,
        /// The generation of the request.
        asked: u64,
    },
    /// The node was told nothing of the volume.
    #[error("this node keeps no layout of volume {volume}; put it there first")]
    NoLayout {
        /// Which.
        volume: VolumeName,
    },
    /// The records that are kept cannot be used.
    #[error("cannot {what} the records in {}", path.display())]
    Kept {
        /// What was tried: completes "cannot … the records".
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// A file or a name of ours cannot be used.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried: completes "cannot … PATH".
        what: &'static str,
        /// Of what.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The volume is used without a pod already, in another way.
    #[error("volume {volume} is exposed {difference} already; unexpose it first")]
    ExposedOtherwise {
        /// Which.
        volume: VolumeName,
        /// How it is exposed: completes "is exposed …".
        difference: &'static str,
    },
    /// Somebody uses the volume without a pod.
    #[error(
        "volume {volume} is exposed without a pod on this node; take that access back first (backing-image-manager \
         node unexpose)"
    )]
    Exposed {
        /// Which.
        volume: VolumeName,
    },
    /// Another program has a file where the name of a device would be.
    #[error(
        "{} is there already and is not ours; if it is the device of a volume of Longhorn's, use another name for \
         this volume",
        path.display()
    )]
    NameTaken {
        /// Where.
        path: PathBuf,
    },
    /// The node serves no targets.
    #[error(
        "this node serves no iSCSI targets; install the component iscsi (iscsi.enabled of the chart), which gives \
         the node plugin --target-socket and --target-portal"
    )]
    NoTargets,
    /// A device is no file, and tgtd serves files.
    #[error(
        "volume {volume} is replicated, and a target serves the file of a volume of one disk; expose it as a block \
         device, or make a volume with one replica"
    )]
    ReplicatedTarget {
        /// Which.
        volume: VolumeName,
    },
    /// The manager of a disk of this node cannot be found.
    #[error(
        "the backing image manager of disk {disk} does not answer: {why}; check that it runs, and --manager"
    )]
    NoManager {
        /// Which.
        disk: DiskUuid,
        /// What another one said, or nobody.
        why: String,
    },
    /// The managers do not answer in time.
    #[error("the backing image manager did not answer within {} seconds; try again", after.as_secs())]
    ManagerSilent {
        /// The time that it had.
        after: Duration,
    },
    /// A manager says so.
    #[error(transparent)]
    Manager(#[from] client::Error),
    /// A thread of ours panicked.
    #[error("the call ended without a result; this is a bug of the plugin")]
    Lost,
    /// This node says so.
    #[error(transparent)]
    Host(#[from] host::Error),
}

impl Error {
    /// Wraps an I/O error: `map_err(Error::io("open", path))`.
    pub(crate) fn io(what: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path, source }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } | Self::Field { .. } => ErrorKind::InvalidArgument,
            Self::Older { .. }
            | Self::NoLayout { .. }
            | Self::Exposed { .. }
            | Self::NameTaken { .. }
            | Self::NoTargets
            | Self::ReplicatedTarget { .. } => ErrorKind::FailedPrecondition,
            Self::ExposedOtherwise { .. } => ErrorKind::AlreadyExists,
            Self::NoManager { .. } => ErrorKind::Unavailable,
            Self::ManagerSilent { .. } => ErrorKind::DeadlineExceeded,
            Self::Kept { source, .. } | Self::Io { source, .. } => Classify::kind(source),
            Self::Manager(error) => error.kind(),
            Self::Lost => ErrorKind::Internal,
            Self::Host(error) => error.kind(),
        }
    }
}
