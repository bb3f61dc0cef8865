//! The errors of layers and their contents.

use std::error::Error as StdError;
use std::io;

use types::{Classify, ErrorKind};

use super::Packing;
use crate::digest::Digest;

/// Why no disk image could be taken out of the layers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The packed bytes could not be read.
    #[error("cannot read layer {layer}")]
    Read {
        layer: String,
        /// What its reader says.
        #[source]
        source: io::Error,
    },
    /// The packed bytes cannot be unpacked.
    #[error("layer {layer} is not a complete {packing:?} stream")]
    Unpack {
        layer: String,
        /// How it is packed.
        packing: Packing,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// The media type and the first bytes disagree.
    #[error("layer {layer} is declared as {declared:?} but is {found:?}")]
    Packing {
        layer: String,
        /// By its media type.
        declared: Packing,
        /// By its first bytes.
        found: Packing,
    },
    /// Something follows the end of the tar or of the packed stream.
    #[error("layer {layer} has trailing data")]
    Garbage { layer: String },
    /// The unpacked tar is another one than the config says.
    #[error(
        "layer {layer} unpacks to digest {actual}, and the config of the image says {expected}"
    )]
    DiffId {
        layer: String,
        expected: Digest,
        actual: Digest,
    },
    /// The layers unpack to more than is accepted.
    #[error("the layers unpack to more than the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    /// A layer is a decompression bomb.
    #[error(
        "layer {layer} unpacks to more than {ratio} times its size: it looks like a \
         decompression bomb"
    )]
    Bomb { layer: String, ratio: u64 },
    /// A layer is not a tar that can be read.
    #[error("layer {layer} is not a valid tar: {why}")]
    Tar { layer: String, why: &'static str },
    /// A path with `..`.
    #[error(
        "layer {layer} holds the path {path:?}, which leaves the root directory: the image is \
         refused"
    )]
    Traversal { layer: String, path: String },
    /// A file name that is not one.
    #[error("{path:?} in layer {layer} is not a usable name for a disk image: {why}")]
    Name {
        layer: String,
        path: String,
        why: &'static str,
    },
    /// Something else than a file in a directory.
    #[error(
        "/{path} is a {kind}; a disk image must be a regular file in a directory that is not a \
         link: copy it there"
    )]
    NotRegular { path: String, kind: &'static str },
    /// More than one file.
    #[error(
        "/{directory}/ must contain exactly one file, but contains {names}; build the image \
         with one disk image"
    )]
    Several {
        directory: &'static str,
        /// What was found, as a list for people.
        names: String,
    },
    #[error("the container image has no file in /base_image/ or /disk/: it is not a base image")]
    Nothing,
    /// The disk image is larger than is accepted.
    #[error("{path} has {size} bytes, more than the limit of {limit}")]
    FileTooLarge {
        path: String,
        /// Its size, holes included.
        size: u64,
        limit: u64,
    },
    /// The sink does not take it.
    #[error("cannot store the disk image")]
    Sink {
        kind: ErrorKind,
        /// What the sink says.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => Classify::kind(source),
            Self::Unpack { .. } | Self::Garbage { .. } | Self::DiffId { .. } | Self::Tar { .. } => {
                ErrorKind::DataLoss
            }
            Self::TooLarge { .. } | Self::FileTooLarge { .. } | Self::Bomb { .. } => {
                ErrorKind::OutOfRange
            }
            Self::Packing { .. }
            | Self::Traversal { .. }
            | Self::Name { .. }
            | Self::NotRegular { .. }
            | Self::Several { .. }
            | Self::Nothing => ErrorKind::InvalidArgument,
            Self::Sink { kind, .. } => *kind,
        }
    }
}
