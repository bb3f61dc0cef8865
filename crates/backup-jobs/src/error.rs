//! What can go wrong with a backup between a disk and a store.

use types::{Classify, ErrorKind, InvalidName};

/// An error of a backup or a restore. A variant's text is its own layer only; causes are sources.
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
    /// A name that no configured target has.
    #[error(
        "there is no backup target {name:?}; give the daemon --backup-target {name}=ADDRESS{known}"
    )]
    NoTarget {
        name: String,
        /// `, or use one of …`, or nothing.
        known: String,
    },
    /// An address that is not that of a configured target, without credentials of its own.
    #[error(
        "{address} is not a configured backup target, and the request has no credentials for it; give the daemon \
         --backup-target NAME={address}, or the request the keys of the store"
    )]
    NotConfigured { address: String },
    /// An address that only a configured target may have.
    #[error(
        "{address} can be used as a configured target only; give the daemon --backup-target NAME={address}"
    )]
    OnlyConfigured { address: String },
    /// A running backup of that name is of something else.
    #[error("a backup {name} of volume {volume} runs, and is of snapshot {has}, not {asked}")]
    OtherSnapshot {
        volume: String,
        name: String,
        has: String,
        asked: String,
    },
    /// A backup that was begun and never completed.
    #[error(
        "backup {name} of volume {volume} is not complete; create it again to go on with it, or delete it"
    )]
    Incomplete { volume: String, name: String },
    /// A backup on a base image was asked of a volume that has none.
    #[error("volume {0} was not created from a base image; leave out on-base to back up all of it")]
    NoBase(String),
    /// The base image of a backup is not on this disk.
    #[error(
        "the backup holds only what differs from base image {name} (sha512:{checksum}), which is not on this disk; \
         create that image here first"
    )]
    BaseMissing { name: String, checksum: String },
    /// A restored image has not the checksum that its backup states.
    #[error("checksum mismatch: the backup states {expected}, restored was {actual}")]
    Checksum { expected: String, actual: String },
    /// Bytes of the backup are lost.
    #[error("{lost} of the backup cannot be restored: {why}")]
    Lost { lost: String, why: String },
    /// More backups than are remembered.
    #[error("{0} backups run or wait already; try again when some are complete")]
    TooMany(usize),
    /// Somebody called the backup off, or the daemon stops.
    #[error("cancelled: {0}")]
    Cancelled(&'static str),
    /// The store, or the network before it.
    #[error(transparent)]
    Backup(#[from] backup::Error),
    /// The images of the disk.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the catalog takes from below it comes by way of it.
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
    image::Error,
    InvalidName,
    tokio::task::JoinError
);

impl From<Error> for catalog::Error {
    /// As the error of an origin: the catalog knows nothing of backups.
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
            Self::InvalidField { .. } => ErrorKind::InvalidArgument,
            Self::NoTarget { .. }
            | Self::NotConfigured { .. }
            | Self::OnlyConfigured { .. }
            | Self::NoBase(_)
            | Self::BaseMissing { .. }
            | Self::Incomplete { .. } => ErrorKind::FailedPrecondition,
            Self::OtherSnapshot { .. } => ErrorKind::AlreadyExists,
            Self::Checksum { .. } | Self::Lost { .. } => ErrorKind::DataLoss,
            Self::TooMany(_) => ErrorKind::ResourceExhausted,
            Self::Cancelled(_) => ErrorKind::Aborted,
            Self::Backup(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
        }
    }
}
