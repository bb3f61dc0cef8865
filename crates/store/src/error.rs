//! What can go wrong with a disk and what it stores.

use std::path::{Path, PathBuf};

use types::{Classify, ErrorKind, ImageId, InvalidName, Sha512};

/// An error of the store. A variant's text is its own layer only; causes are sources.
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
    /// The file has another length than was said.
    #[error("the file has {actual} bytes, expected {expected}")]
    WrongSize {
        /// Bytes that were asked for.
        expected: u64,
        actual: u64,
    },
    /// A write found the disk full.
    #[error(
        "cannot {operation} {}: the disk is full, or its quota is used up; delete volumes, \
         snapshots or images, or run fstrim in mounted volumes", path.display()
    )]
    Full {
        /// What was tried, as a verb.
        operation: &'static str,
        path: PathBuf,
    },
    /// There is not enough room on the disk.
    #[error("the disk has {available} bytes free, and {needed} are needed; free some space")]
    NoSpace {
        /// Bytes that are free.
        available: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// A directory that is no Longhorn disk: possibly a mount point whose disk is not mounted.
    #[error(
        "{} is not a disk: it has no valid longhorn-disk.cfg; mount the disk, or initialize the \
         directory with `backing-image-manager disk init`", path.display()
    )]
    NotADisk {
        path: PathBuf,
        /// Why its configuration cannot be used.
        #[source]
        source: std::io::Error,
    },
    /// Another manager has the disk.
    #[error("another backing-image-manager ({holder}) serves {}; one disk has one manager", path.display())]
    DiskLocked {
        path: PathBuf,
        /// The process that serves it, in its own words.
        holder: String,
    },
    /// What is mounted at the disk's path is no longer the disk this manager opened.
    #[error("the disk at {} was replaced while it was served; restart the manager", .0.display())]
    DiskReplaced(PathBuf),
    /// A path has not the disk that it had before.
    #[error(
        "{} was disk {before} and is {found} now: mount disk {before} there; if it is gone for \
         good, run: backing-image-manager disk init {} --node-state DIR --replace {before}", path.display(), path.display()
    )]
    OtherDisk {
        path: PathBuf,
        before: types::DiskUuid,
        /// What is there, in words.
        found: String,
    },
    /// Nothing is mounted where a disk must be mounted.
    #[error("no file system is mounted at {} (--require-mount); mount the disk there", .0.display())]
    NotMounted(PathBuf),
    /// Another process changes the record of a node's disks.
    #[error("another `disk init` is changing {}; try again", .0.display())]
    NodeStateBusy(PathBuf),
    /// A state file that this version must not touch.
    #[error("{} is of format version {version}, newer than this program; upgrade it", path.display())]
    NewerFormat { path: PathBuf, version: u32 },
    /// A state file that cannot be read as what it is.
    #[error("{} is damaged", path.display())]
    DamagedRecord {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The bytes are not the expected ones.
    #[error("checksum mismatch: expected {expected}, got {actual}")]
    Checksum {
        /// The SHA-512 that was expected.
        expected: Box<Sha512>,
        /// The SHA-512 of what came.
        actual: Box<Sha512>,
    },
    /// The SHA-512 of an image is asked for that was ready before it was known.
    #[error(
        "the SHA-512 of backing image {0} is not computed yet; try again when the image shows it"
    )]
    Unsummed(ImageId),
    /// A chunk that came is not the one that the manifest says.
    #[error("chunk {index} does not match the manifest; fetch it from another peer")]
    ChunkMismatch {
        /// Which chunk, counted from 0 in units of 1 MiB.
        index: u32,
    },
    /// The end was said before all bytes had come.
    #[error("{missing} of {size} bytes are missing")]
    Incomplete {
        /// Bytes that are missing.
        missing: u64,
        /// Bytes of the whole.
        size: u64,
    },
    /// What came does not fit what came before, or not the image at all.
    #[error("the received data cannot be part of the image: {0}")]
    NotOfImage(String),
    /// Another process, or another task of this one, makes the file.
    #[error("{} is already being created; wait for it, or delete it", .0.display())]
    WorkFileBusy(PathBuf),
    /// Stored bytes are not what was sealed.
    #[error("backing image {id} is damaged: {what}")]
    Damaged {
        id: ImageId,
        /// What does not agree.
        what: String,
    },
    /// The disk fails again and again.
    #[error("the disk at {} caused {errors} I/O errors; check the kernel log and replace it", path.display())]
    DiskSuspect { path: PathBuf, errors: u64 },
    /// Bytes that are not what they should be were put where nothing deletes them.
    #[error("the damaged file is quarantined in {}", path.display())]
    SetAside {
        /// What is wrong with them.
        #[source]
        why: Box<Error>,
        path: PathBuf,
    },
    /// Bytes that are no disk image at all.
    #[error("the received data is not a disk image: {0}")]
    NotAnImage(String),
    /// The work was called off.
    #[error("cancelled: {0}")]
    Cancelled(&'static str),
    /// A disk-image format, or a container image around it, is broken or refused.
    #[error("the disk image cannot be used")]
    Image(#[from] image::Error),
    /// The operating system said no.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: std::io::Error,
    },
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_)
            | Self::InvalidField { .. }
            | Self::NotOfImage(_)
            | Self::NotAnImage(_) => ErrorKind::InvalidArgument,
            Self::WrongSize { .. }
            | Self::DamagedRecord { .. }
            | Self::Checksum { .. }
            | Self::ChunkMismatch { .. }
            | Self::Incomplete { .. }
            | Self::Damaged { .. } => ErrorKind::DataLoss,
            Self::Full { .. } | Self::NoSpace { .. } => ErrorKind::ResourceExhausted,
            Self::NotADisk { .. }
            | Self::DiskLocked { .. }
            | Self::DiskReplaced(_)
            | Self::OtherDisk { .. }
            | Self::NotMounted(_)
            | Self::NewerFormat { .. } => ErrorKind::FailedPrecondition,
            Self::NodeStateBusy(_)
            | Self::WorkFileBusy(_)
            | Self::Unsummed(_)
            | Self::Cancelled(_) => ErrorKind::Aborted,
            Self::DiskSuspect { .. } => ErrorKind::Unavailable,
            Self::Image(error) => error.kind(),
            Self::SetAside { why, .. } => why.kind(),
            Self::Io { source, .. } => Classify::kind(source),
        }
    }
}

/// Gives an I/O result the operation and the path that it lacks.
pub trait IoContext<T> {
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
