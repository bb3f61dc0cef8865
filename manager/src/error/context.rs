//! How errors of other rooms, and of the system, become the manager's.

use std::path::Path;

use super::{Error, Result};

impl From<fetch::Error> for Error {
    fn from(error: fetch::Error) -> Self {
        Self::Fetch(Box::new(error))
    }
}

impl From<crate::sync::Error> for Error {
    fn from(error: crate::sync::Error) -> Self {
        Self::Sync(Box::new(error))
    }
}

impl From<image::layer::Error> for Error {
    fn from(error: image::layer::Error) -> Self {
        Self::Layer(Box::new(error))
    }
}

impl From<image::oci::Error> for Error {
    fn from(error: image::oci::Error) -> Self {
        Self::Container(Box::new(error))
    }
}

/// Gives an I/O result the operation and the path that it lacks.
pub(crate) trait IoContext<T> {
    /// Wraps the error as [`Error::Io`].
    fn context(self, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| {
            let source: std::io::Error = error.into();
            let path = path.to_owned();
            match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Error::Full { operation, path }
                }
                _ => Error::Io {
                    operation,
                    path,
                    source,
                },
            }
        })
    }
}
