//! Why a directory cannot be read, or its files cannot.

use std::path::{Path, PathBuf};

use types::{Classify, ErrorKind};

/// Why a directory cannot be read, or its files cannot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read.
    #[error("cannot {operation} {}", shown(path))]
    Io {
        /// What was tried, as a verb: `open`, `read`.
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// There is something in the directory that is not taken.
    #[error("cannot use {}: {why}", shown(path))]
    Unsupported { path: PathBuf, why: String },
    /// A file changed while it was copied.
    #[error(
        "{} changed while it was being read; build again when no program writes to it",
        shown(path)
    )]
    Changed { path: PathBuf },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// The most characters of a path that are shown.
const SHOWN: usize = 1000;

/// A path as text; of a very long one, both ends.
pub fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let count = text.chars().count();
    if count <= SHOWN {
        return text.into_owned();
    }
    let start: String = text.chars().take(SHOWN / 2).collect();
    let end: String = text.chars().skip(count - SHOWN / 2).collect();
    format!("{start}[…]{end}")
}

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
            Self::Unsupported { .. } => ErrorKind::InvalidArgument,
            Self::Changed { .. } => ErrorKind::Aborted,
        }
    }
}
