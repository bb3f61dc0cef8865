//! What can go wrong at Longhorn's faces, in the words that its callers know where they have some.

use std::path::PathBuf;

use types::{Classify, ErrorKind};

/// An error of Longhorn's faces. A variant's text is its own layer only; causes are sources.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of a request that can never work.
    #[error("{field}: {why}")]
    InvalidField {
        /// The field, as the API spells it.
        field: &'static str,
        /// What is wrong with it and what would be right.
        why: String,
    },
    /// The work was called off.
    #[error("cancelled: {0}")]
    Cancelled(&'static str),
    /// The path or the uuid of an image is taken. Longhorn's own text, which its callers know.
    #[error("file {} already exists", .0.display())]
    FileExists(PathBuf),
    /// A size that Longhorn's engine could not read with direct I/O. Longhorn's own text.
    #[error(
        "the uploaded file size {0} should be a multiple of 512 bytes since Longhorn uses directIO by \
         default"
    )]
    UnalignedSize(u64),
    /// Nobody knows a file of that path. Longhorn's own text.
    #[error("can not find sync file {}", .0.display())]
    FileNotFound(PathBuf),
    /// A data source, or another manager, did not answer, or not with what was asked.
    #[error("{address}: {what}")]
    Peer { address: String, what: String },
    /// Another manager was asked for an image and did not give it.
    #[error("manager {address} does not send the image")]
    OtherManager {
        address: String,
        #[source]
        source: Box<client::Error>,
    },
    /// Nobody began to send in time.
    #[error("failed to wait for processing begin in {seconds} seconds{hint}")]
    NothingCame {
        /// How long was waited.
        seconds: u64,
        /// `: ` and what is known of the reason, or nothing.
        hint: String,
    },
    /// Another process cannot be reached; it may work all the same.
    #[error("{address}: {what}")]
    PeerSilent { address: String, what: String },
    /// Every port for receivers is in use.
    #[error("all ports of {0} are in use; give the daemon a larger --port-range")]
    PortsInUse(String),
    /// Receivers that wait for somebody to send are bounded.
    #[error("{0} copies are already pending or being received; try again when one has ended")]
    TooManyReceivers(usize),
    /// A piece of an upload does not begin where the last one ended.
    #[error("{0}")]
    UploadOffset(String),
    /// Encrypting or decrypting is not possible here.
    #[error("cannot encrypt or decrypt: {0}")]
    CannotEncrypt(String),
    /// The catalog, or something below it.
    #[error(transparent)]
    Catalog(catalog::Error),
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        match error {
            catalog::Error::Cancelled(why) => Self::Cancelled(why),
            catalog::Error::InvalidField { field, why } => Self::InvalidField { field, why },
            error => Self::Catalog(error),
        }
    }
}

/// What the catalog takes from below it, its faces take by way of it.
macro_rules! by_way_of_the_catalog {
    ($($from:ty),*) => {
        $(impl From<$from> for Error {
            fn from(error: $from) -> Self {
                catalog::Error::from(error).into()
            }
        })*
    };
}

by_way_of_the_catalog!(
    store::Error,
    volume::Error,
    fetch::Error,
    image::Error,
    types::InvalidName,
    tokio::task::JoinError
);

impl From<backup_jobs::Error> for Error {
    fn from(error: backup_jobs::Error) -> Self {
        catalog::Error::from(error).into()
    }
}

impl From<Error> for catalog::Error {
    /// As the error of an origin: the catalog knows nothing of Longhorn.
    fn from(error: Error) -> Self {
        match error {
            Error::Catalog(error) => error,
            Error::Cancelled(why) => Self::Cancelled(why),
            Error::InvalidField { field, why } => Self::InvalidField { field, why },
            error => catalog::OriginError::new(error).into(),
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::FileExists(_) => ErrorKind::AlreadyExists,
            Self::InvalidField { .. } | Self::UnalignedSize(_) => ErrorKind::InvalidArgument,
            Self::FileNotFound(_) => ErrorKind::NotFound,
            Self::Peer { .. } | Self::PeerSilent { .. } => ErrorKind::Unavailable,
            Self::NothingCame { .. } => ErrorKind::DeadlineExceeded,
            Self::PortsInUse(_) | Self::TooManyReceivers(_) => ErrorKind::ResourceExhausted,
            Self::UploadOffset(_) | Self::CannotEncrypt(_) => ErrorKind::FailedPrecondition,
            Self::OtherManager { source, .. } => source.kind(),
            Self::Cancelled(_) => ErrorKind::Aborted,
            Self::Catalog(error) => error.kind(),
        }
    }
}
