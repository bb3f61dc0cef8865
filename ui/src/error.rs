//! What can go wrong in this program, but for its answers to people, which are [`crate::act::Refused`].

use std::io;
use std::path::PathBuf;

use types::{Classify, ErrorKind};

/// A failure that ends the program, or keeps it from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option cannot be meant so.
    #[error("{flag} {why}")]
    Flag {
        /// The option.
        flag: &'static str,
        /// What is wrong, and what would be right.
        why: &'static str,
    },
    /// Options that would not be safe, or say too little.
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
    /// The API server cannot be asked.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::Error),
    /// There is no secret to give anybody.
    #[error("the system has no random bytes; try again")]
    NoRandomness,
    /// A password cannot be hashed.
    #[error("cannot hash the password: {0}")]
    Password(String),
    /// The options about certificates.
    #[error(transparent)]
    Certificates(#[from] trust::Error),
    /// An address, or a client of one.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The operating system refuses.
    #[error("cannot {operation} {object}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        object: String,
        /// What it says.
        #[source]
        source: io::Error,
    },
}

/// The result of what may end the program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps what the operating system says.
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
            Self::Flag { .. } | Self::Options(_) | Self::Password(_) => ErrorKind::InvalidArgument,
            Self::Certificates(_) | Self::File { .. } => ErrorKind::FailedPrecondition,
            Self::Kubernetes(error) => error.kind(),
            Self::NoRandomness => ErrorKind::Unavailable,
            Self::Client(error) => error.kind(),
            Self::Io { source, .. } => Classify::kind(source),
        }
    }
}
