//! The errors of disk images, and their meaning for the caller.

use std::fmt;
use std::io;

use types::{ByteSize, Classify, ErrorKind};

use crate::packing::Packing;

/// The result of this crate's work on disk images.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while a disk image is told, opened, read, converted or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {operation}")]
    Io {
        /// What was tried, and on what.
        operation: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The bytes are those of another format.
    #[error(
        "the image is {format}, and only qcow2 and raw images are supported; {next}; if these bytes are \
         the disk nevertheless, declare it raw (--format raw)"
    )]
    ForeignFormat {
        /// The format, with its article: "a VMDK image".
        format: &'static str,
        /// What to do with it.
        next: &'static str,
    },
    /// The bytes are surely no disk.
    #[error(
        "it is {what}, not a disk image: {next}; if these bytes are the disk nevertheless, \
         declare it raw (--format raw)"
    )]
    NoDisk {
        /// What it is, with its article.
        what: &'static str,
        /// What to do with it.
        next: &'static str,
    },
    /// A qcow2 image that must not, or cannot, be read.
    #[error("the qcow2 image {0}")]
    Refused(Refusal),
    /// The image's virtual size is more than the configured limit.
    #[error("the image's virtual size {size} is more than the limit of {max}")]
    TooLarge {
        /// The virtual size that the image claims.
        size: ByteSize,
        max: ByteSize,
    },
    /// A field of a qcow2 image cannot be. `value` is the field or the place it stands for.
    #[error("the qcow2 image is damaged: {what} ({value:#x}); fetch it again from its source")]
    Damaged { what: &'static str, value: u64 },
    /// A packed file is damaged, cut, or packed beyond what is unpacked.
    #[error(
        "cannot unpack the {packing} file: it is damaged or truncated, or needs more memory \
         than allowed; fetch it again, or compress it with the default settings"
    )]
    Unpack {
        /// How it is packed.
        packing: Packing,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// More comes out of a packed file than any disk image has.
    #[error(
        "the {packing} file unpacks to more than {ratio} times its size in non-zero bytes: it \
         looks like a decompression bomb"
    )]
    Bomb {
        /// How it is packed.
        packing: Packing,
        /// The most that is taken.
        ratio: u64,
    },
    /// There is something behind the end of a packed file.
    #[error(
        "other data follows the {packing} data at byte {at}; fetch it again, or give the \
         checksum that its vendor publishes: trailing data is ignored if a checksum covers the \
         file"
    )]
    Trailing {
        /// How it is packed.
        packing: Packing,
        at: u64,
    },
    /// A size that no qcow2 image of ours can have.
    #[error("cannot create a qcow2 image: {what}")]
    Unmakeable {
        /// What is wrong, and what would be right.
        what: &'static str,
    },
    /// The caller asked to stop.
    #[error("the work on the image was cancelled")]
    Cancelled,
}

/// Why a well-formed qcow2 image is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It names a backing file (which is never opened, nor even read as a name).
    BackingFile,
    /// Its data lies in another file.
    DataFile,
    /// Its data is encrypted.
    Encrypted,
    /// It is marked corrupt by the program that wrote it.
    Corrupt,
    /// It needs features that are unknown here: the set bits and the names it gives them.
    UnknownFeatures {
        /// The unknown bits of `incompatible_features`.
        bits: u64,
        /// Their names in the image's own feature table; empty when it has none.
        names: String,
    },
    /// A version other than 2 and 3.
    Version(u32),
    /// A compression other than zlib and zstd.
    Compression(u8),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackingFile => f.write_str(
                "names a backing file, and an image must hold all its data itself; flatten it \
                 with 'qemu-img convert -O qcow2'",
            ),
            Self::DataFile => f.write_str(
                "keeps its data in an external file; flatten it with 'qemu-img convert -O qcow2'",
            ),
            Self::Encrypted => f.write_str(
                "is encrypted; decrypt it with 'qemu-img convert', or encrypt inside the disk \
                 with LUKS instead",
            ),
            Self::Corrupt => {
                f.write_str("is marked as corrupt; repair it with 'qemu-img check -r all'")
            }
            Self::UnknownFeatures { bits, names } if names.is_empty() => {
                write!(
                    f,
                    "needs unknown features (bits {bits:#x}); convert it with 'qemu-img'"
                )
            }
            Self::UnknownFeatures { bits, names } => {
                write!(
                    f,
                    "needs unknown features (bits {bits:#x}: {names}); convert it first"
                )
            }
            Self::Version(version) => {
                write!(f, "has version {version}, and only 2 and 3 are known")
            }
            Self::Compression(kind) => {
                write!(
                    f,
                    "has compression type {kind}, and only zlib (0) and zstd (1) are known"
                )
            }
        }
    }
}

impl Error {
    /// For `map_err` on a call of the operating system.
    pub(crate) fn io<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            operation,
            source: source.into(),
        }
    }

    /// For `map_err` on a read of a [`probe::Disk`]: what it found damaged is said as it is.
    pub(crate) fn disk(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::Io { operation, source },
        }
    }
}

impl From<Error> for io::Error {
    /// The form in which a [`probe::Disk`] says what it found: the kind is that of damaged data.
    fn from(error: Error) -> Self {
        match error {
            Error::Io { source, .. } => source,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => Classify::kind(source),
            Self::ForeignFormat { .. }
            | Self::NoDisk { .. }
            | Self::Refused(_)
            | Self::Unmakeable { .. } => ErrorKind::InvalidArgument,
            Self::TooLarge { .. } => ErrorKind::OutOfRange,
            Self::Damaged { .. }
            | Self::Unpack { .. }
            | Self::Bomb { .. }
            | Self::Trailing { .. } => ErrorKind::DataLoss,
            Self::Cancelled => ErrorKind::Aborted,
        }
    }
}
