//! Why a file system cannot be filled.

use std::path::PathBuf;

use types::{Classify, ErrorKind};

/// Why a file system cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be read or written.
    #[error("cannot {operation} {}", tree::shown(path))]
    Io {
        /// What was tried, as a verb: `read`, `write`.
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file of the tree could not be read.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The empty file system has another form than [`options`](crate::options) asks for.
    #[error("mkfs.xfs made {what}, which this program cannot fill; please report its version")]
    Unknown { what: String },
    /// The tree is larger than the file system.
    #[error("the files do not fit into the file system; give a larger --size")]
    Full,
    /// A tree of inodes would need a third level.
    #[error("one allocation group cannot hold so many inodes; set a larger --size")]
    TooManyInodes,
    /// The attributes of a file do not fit ([`refuses`](crate::refuses) tells it before).
    #[error("cannot use {}: {why}", tree::shown(path))]
    Attributes { path: PathBuf, why: String },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Wraps an I/O error with what was tried and on what.
pub(crate) fn io(
    operation: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io {
        operation,
        path,
        source,
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => Classify::kind(source),
            Self::Tree(source) => source.kind(),
            Self::Unknown { .. } => ErrorKind::Internal,
            Self::Full => ErrorKind::OutOfRange,
            Self::TooManyInodes | Self::Attributes { .. } => ErrorKind::InvalidArgument,
        }
    }
}
