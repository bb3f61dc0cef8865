//! What can go wrong in this program, but for its answers to people, which are [`crate::act::Refused`].

use std::io;

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
pub type Result<T> = std::result::Result<T, Error>;

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
            Self::Flag { .. } => ErrorKind::InvalidArgument,
            Self::Certificates(_) => ErrorKind::FailedPrecondition,
            Self::Client(error) => error.kind(),
            Self::Io { source, .. } => Classify::kind(source),
        }
    }
}
