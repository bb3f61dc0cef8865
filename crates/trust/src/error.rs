//! What can go wrong with certificates, and what the caller does about it.

use std::io;
use std::path::{Path, PathBuf};

use types::{Classify, ErrorKind};

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something is not trusted, or cannot be proven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that names no program.
    #[error("{text:?} is not the identity of a program: {why}")]
    Identity {
        /// The text, cut.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file, or what is in it, is of no use.
    #[error("{}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The operating system refuses.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried: a verb.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Bytes that are not what they are said to be.
    #[error("the {what} is not valid: {why}")]
    Invalid {
        /// What it should be: "certificate", "certificate request".
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The cryptographic library failed.
    #[error("cannot {operation}: {why}")]
    Crypto {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        why: String,
    },
    /// The command line says too little, or too much.
    #[error("{0}")]
    Options(String),
    /// Who is to issue the certificate does not, for now.
    #[error("no certificate from {from}: {why}")]
    NotIssued {
        /// Who was asked.
        from: String,
        /// What came of it.
        why: String,
    },
}

impl Error {
    /// For `map_err`: an operation on a file.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// For `map_err`: bytes that are not what they should be.
    pub(crate) fn invalid<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Invalid {
            what,
            why: error.to_string(),
        }
    }

    /// For `map_err`: what the cryptographic library could not do.
    pub(crate) fn crypto<E: std::fmt::Display>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Crypto {
            operation,
            why: error.to_string(),
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Identity { .. } | Self::Invalid { .. } | Self::Options(_) => {
                ErrorKind::InvalidArgument
            }
            Self::File { .. } => ErrorKind::FailedPrecondition,
            Self::Io { source, .. } => Classify::kind(source),
            Self::Crypto { .. } => ErrorKind::Internal,
            Self::NotIssued { .. } => ErrorKind::Unavailable,
        }
    }
}
