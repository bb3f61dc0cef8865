//! What can go wrong in the UI itself. What the managers say is [`client::Error`]'s.

use std::io;
use std::path::PathBuf;

use types::{Classify, ErrorKind};

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the UI does not start, or does not know who somebody is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line would not be safe, or says too little.
    #[error("{0}")]
    Options(String),
    /// A file, or what is in it, is of no use.
    #[error("{}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong, without its contents.
        why: String,
    },
    /// The operating system refuses.
    #[error("cannot {operation} {object}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        object: String,
        /// What it says.
        source: io::Error,
    },
    /// The API server cannot be asked.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::Error),
    /// There is no secret to give anybody.
    #[error("the system has no random bytes; try again")]
    NoRandomness,
    /// A password cannot be hashed.
    #[error("cannot hash the password: {0}")]
    Password(String),
}

impl Error {
    /// For `map_err`: an operation on a file.
    pub fn io(
        operation: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let object = object.into();
        move |source| Self::Io {
            operation,
            object,
            source,
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Options(_) | Self::Password(_) => ErrorKind::InvalidArgument,
            Self::File { .. } => ErrorKind::FailedPrecondition,
            Self::Io { source, .. } => Classify::kind(source),
            Self::Kubernetes(error) => error.kind(),
            Self::NoRandomness => ErrorKind::Unavailable,
        }
    }
}
