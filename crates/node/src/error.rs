//! The errors of the node service. Those of the node pass through unchanged.

use std::io;
use std::path::PathBuf;

use types::{Classify, ErrorKind, InvalidName, VolumeName};

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
    /// The layouts that are kept cannot be used.
    #[error("cannot {what} the layouts in {}", path.display())]
    Kept {
        /// What was tried: completes "cannot … the layouts".
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// A thread of ours panicked.
    #[error("the call ended without a result; this is a bug of the plugin")]
    Lost,
    /// This node says so.
    #[error(transparent)]
    Host(#[from] host::Error),
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } | Self::Field { .. } => ErrorKind::InvalidArgument,
            Self::Older { .. } | Self::NoLayout { .. } => ErrorKind::FailedPrecondition,
            Self::Kept { source, .. } => Classify::kind(source),
            Self::Lost => ErrorKind::Internal,
            Self::Host(error) => error.kind(),
        }
    }
}
