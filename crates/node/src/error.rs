//! The errors of the node service. Those of the node pass through unchanged.

use types::{Classify, ErrorKind, InvalidName};

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
            Self::Name { .. } => ErrorKind::InvalidArgument,
            Self::Lost => ErrorKind::Internal,
            Self::Host(error) => error.kind(),
        }
    }
}
