//! What can go wrong with the images of a disk and with bringing their bytes.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use types::{Checksum, Classify, ErrorKind, ImageId, InvalidName, VolumeName};

/// An error of the catalog. A variant's text is its own layer only; causes are sources.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A field of a request that can never work.
    #[error("{field}: {why}")]
    InvalidField {
        /// The field, as the API spells it.
        field: &'static str,
        /// What is wrong with it and what would be right.
        why: String,
    },
    /// A place in an image that is behind its end.
    #[error("the offset {offset} is beyond the end of the snapshot, which has {size} bytes")]
    BeyondEnd { offset: u64, size: u64 },
    /// No image of that name (and uuid).
    #[error("there is no backing image {0}; see `backing-image-manager backing-image list`")]
    ImageNotFound(String),
    /// The image is there, and its registry does not say that the caller may have it.
    #[error(
        "image {image} was pulled with credentials, and its registry denies access to this \
         caller; provide the pull secret of the image"
    )]
    AccessUnproven {
        image: String,
        /// What the registry said.
        #[source]
        source: Box<Error>,
    },
    /// The name is taken by an image from elsewhere.
    #[error(
        "backing image {id} exists with another {difference}; delete it or choose another name"
    )]
    ImageExists {
        /// The image that has the name.
        id: ImageId,
        /// Which part of the request differs, and how.
        difference: String,
    },
    /// The image cannot be used yet, or any more.
    #[error("backing image {id} is {state}, not ready{message}")]
    ImageNotReady {
        id: ImageId,
        /// The state as the design spells it.
        state: &'static str,
        /// `: ` and the reason, or nothing.
        message: String,
    },
    /// Volumes were made from the image.
    #[error("backing image {id} is used by volume {volume}; delete its volumes first")]
    ImageInUse {
        id: ImageId,
        /// One of the volumes.
        volume: VolumeName,
    },
    /// An image is to be adopted, but its file is not there.
    #[error("there is no file {} to adopt; fetch it from a data source or a manager", .0.display())]
    NothingToAdopt(PathBuf),
    /// As many copies of an image as may be sent at once are being sent.
    #[error(
        "the image reaches to the simultaneous sending limit {0}; try again when one has ended"
    )]
    SendingLimit(u32),
    /// A source that keeps its turn from others.
    #[error("received only {bytes} bytes in {minutes} minutes")]
    TooSlow {
        bytes: u64,
        /// In how much time.
        minutes: u64,
    },
    /// The image that an upload was for cannot be made of it.
    #[error("the upload ended: {0}")]
    UploadEnded(String),
    /// A piece of an upload for another place than the next.
    #[error("the next piece of the upload belongs at offset {expected}, not {offset}; go on there")]
    UploadOffset { expected: u64, offset: u64 },
    /// A piece of an upload to which something else happens now.
    #[error("nothing can be added to the upload now: {0}; ask how far it is, and go on there")]
    UploadBusy(&'static str),
    /// A piece of an upload of which all bytes have come.
    #[error("all bytes of the upload have come; ask for the state of the image")]
    UploadDone,
    /// A piece of an image that is no upload.
    #[error("backing image {0} is not being uploaded; create it with an upload as its source")]
    NoUpload(ImageId),
    /// As many uploads as there may be are under way.
    #[error("{0} uploads are under way, and more are not taken; try again when one has ended")]
    TooManyUploads(usize),
    /// Neither what came nor what was in it has the expected sum.
    #[error("checksum mismatch: expected {expected}, got {}", listed(actual))]
    SourceChecksum {
        expected: Checksum,
        /// Of the disk image, and of the file that it was unpacked from.
        actual: Vec<Checksum>,
    },
    /// Bytes that are not what they should be were put where nothing deletes them.
    #[error("the damaged file is quarantined in {}", path.display())]
    SetAside {
        /// What is wrong with them.
        #[source]
        why: Box<Error>,
        path: PathBuf,
    },
    /// A damaged image cannot be made good again from here.
    #[error("no peer or source is known to have the image; sync, upload or create it again")]
    NobodyHas,
    /// The manager is about to stop.
    #[error("the manager is stopping and accepts no new work; try again after its restart")]
    Draining,
    /// The work was called off.
    #[error("cancelled: {0}")]
    Cancelled(&'static str),
    /// No disk image could be taken out of the layers of a container image.
    #[error("cannot extract the disk image from the container image")]
    Layer(#[source] Box<image::layer::Error>),
    /// An OCI image layout or an archive is broken, or does not hold the image.
    #[error("cannot read the container image")]
    Container(#[source] Box<image::oci::Error>),
    /// The network side failed.
    #[error("cannot fetch the image")]
    Fetch(#[source] Box<fetch::Error>),
    /// The image cannot be had from its peers.
    #[error("cannot sync the image")]
    Sync(#[source] Box<sync::Error>),
    /// A task of ours ended in a panic.
    #[error("an internal task failed; see the log for details")]
    Task(#[from] tokio::task::JoinError),
    /// Not all bytes of a file came from who sent it.
    #[error("received {received} of {size} bytes, {why}")]
    CutShort {
        /// Bytes that came, holes included.
        received: u64,
        /// Bytes of the whole; 0 when nobody said how many.
        size: u64,
        /// Why no more did: it goes on from "came,".
        why: String,
    },
    /// The store, or the disk below it, said no.
    #[error(transparent)]
    Store(store::Error),
    /// A volume that an image is to be made of.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The bytes that another crate brings did not come.
    #[error(transparent)]
    Origin(#[from] OriginError),
}

/// The sums one after the other.
fn listed(sums: &[Checksum]) -> String {
    let sums: Vec<_> = sums.iter().map(Checksum::to_string).collect();
    sums.join(" and ")
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a crate that brings bytes ([`crate::source::Origin`]): shown as it is.
#[derive(Debug)]
pub struct OriginError {
    kind: ErrorKind,
    error: Box<dyn StdError + Send + Sync>,
}

impl OriginError {
    /// Wraps the error of another crate.
    pub fn new(error: impl Classify + Send + Sync + 'static) -> Self {
        Self {
            kind: error.kind(),
            error: Box::new(error),
        }
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for OriginError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl Error {
    /// How often the source is worth reading from its first byte when a reading ends so.
    pub(crate) fn passes(&self) -> u32 {
        fetch::Error::in_chain(self).map_or(1, fetch::Error::passes)
    }
}

impl From<fetch::Error> for Error {
    fn from(error: fetch::Error) -> Self {
        Self::Fetch(Box::new(error))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Cancelled(why) => Self::Cancelled(why),
            error => Self::Store(error),
        }
    }
}

impl From<sync::Error> for Error {
    fn from(error: sync::Error) -> Self {
        match error {
            sync::Error::Cancelled => Self::Cancelled("the image is not wanted"),
            error => Self::Sync(Box::new(error)),
        }
    }
}

impl From<image::Error> for Error {
    fn from(error: image::Error) -> Self {
        Self::Store(error.into())
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

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) | Self::InvalidField { .. } => ErrorKind::InvalidArgument,
            Self::ImageNotFound(_) | Self::NothingToAdopt(_) => ErrorKind::NotFound,
            Self::BeyondEnd { .. } | Self::UploadOffset { .. } | Self::UploadDone => {
                ErrorKind::OutOfRange
            }
            Self::ImageExists { .. } => ErrorKind::AlreadyExists,
            Self::ImageNotReady { .. } | Self::ImageInUse { .. } | Self::NoUpload(_) => {
                ErrorKind::FailedPrecondition
            }
            Self::SendingLimit(_) | Self::TooManyUploads(_) => ErrorKind::ResourceExhausted,
            Self::TooSlow { .. } => ErrorKind::DeadlineExceeded,
            Self::UploadEnded(_) | Self::UploadBusy(_) | Self::Cancelled(_) => ErrorKind::Aborted,
            Self::SourceChecksum { .. } | Self::NobodyHas => ErrorKind::DataLoss,
            Self::Draining | Self::CutShort { .. } => ErrorKind::Unavailable,
            // A registry may hide what it does not give. No answer is no refusal.
            Self::AccessUnproven { source, .. } => match source.kind() {
                kind @ (ErrorKind::Unauthenticated | ErrorKind::PermissionDenied) => kind,
                ErrorKind::NotFound => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            },
            Self::SetAside { why, .. } => why.kind(),
            Self::Layer(error) => error.kind(),
            Self::Container(error) => error.kind(),
            Self::Fetch(error) => error.kind(),
            Self::Sync(error) => error.kind(),
            Self::Task(_) => ErrorKind::Internal,
            Self::Store(error) => error.kind(),
            Self::Volume(error) => error.kind(),
            Self::Origin(error) => error.kind,
        }
    }
}
