//! What can go wrong while an image is packed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error; its causes are its sources.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file system said no.
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A recipe that is not one.
    #[error("the recipe {} is not valid", path.display())]
    Recipe {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    /// A recipe asks for what the command line does not give.
    #[error("the recipe uses {path:?} from {input:?}; set its directory with --input {input}=DIR")]
    NoInput { input: String, path: String },
    /// A program of the distribution is not installed.
    #[error("{program} is not installed, and the image needs it")]
    NoProgram { program: String },
    /// A path in an image that is not absolute and plain.
    #[error("{path:?} is not a path in an image; write an absolute path without '.' and '..'")]
    Path { path: String },
    /// The same path twice, with other content.
    #[error("{path:?} is in the image twice")]
    Twice { path: String },
    /// A tool of the distribution or cargo failed.
    #[error("{program} failed: {said}")]
    Tool { program: &'static str, said: String },
    /// cargo's answer is not what it has been so far.
    #[error("cargo metadata does not name {what}")]
    Metadata { what: String },
    /// The image could not be written.
    #[error("cannot write the image {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: image::oci::Error,
    },
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// For `map_err`: what was done, and to which file.
pub(crate) fn io(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        operation,
        path: path.clone(),
        source,
    }
}

/// An error and its causes on one line.
pub(crate) struct Report<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
