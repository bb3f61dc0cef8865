//! What can go wrong while a base image is built or inspected, and what the user can do about it.

use std::path::PathBuf;

use types::{Classify, ErrorKind};

/// Why a base image could not be built or inspected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `read`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// An option has a value that cannot work, alone or with the others.
    #[error("{option} {problem}")]
    Option {
        /// The option, as typed.
        option: &'static str,
        /// What is wrong with it and what to write instead.
        problem: String,
    },
}

/// The result of this module's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => Classify::kind(source),
            Self::Option { .. } => ErrorKind::InvalidArgument,
        }
    }
}
