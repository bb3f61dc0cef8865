//! What can be wrong with a container image, its documents and the files that hold it.

use std::io;
use std::path::PathBuf;

use types::{Classify, ErrorKind};

use super::{Digest, InvalidDigest, Platform};

/// Why a container image cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A digest in a document has no valid form.
    #[error("the image contains an invalid digest")]
    Digest(#[from] InvalidDigest),
    /// A document is not the JSON it must be.
    #[error("the {what} is not valid")]
    Json {
        what: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A document is larger than we read.
    #[error("the {what} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The most we take.
        limit: u64,
    },
    /// Media type and content disagree, or two media types do.
    #[error(
        "the media type of the {what} is declared as {declared:?} but is {found:?}, so clients \
         could interpret it differently; push the image again with another tool"
    )]
    MediaType {
        what: &'static str,
        /// What was said outside of it.
        declared: String,
        /// What it says of itself, or what its fields show.
        found: String,
    },
    /// Both the fields of an index and of a manifest.
    #[error(
        "the document is both an index and a manifest, so clients could interpret it \
         differently: it is refused"
    )]
    TwoFaced,
    /// A kind of document or layer that is not an image's.
    #[error("{media_type:?} is not supported: an OCI or Docker (schema 2) image is expected")]
    Unsupported { media_type: String },
    /// More parts than any image has.
    #[error("the image has {count} {what}, more than the limit of {limit}")]
    TooMany {
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The most we take.
        limit: usize,
    },
    /// The index holds no image for the platform.
    #[error(
        "no matching platform: the image does not exist for {wanted}, only for {available}; \
         select one of these with the platform option"
    )]
    NoPlatform {
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is, as a list for people.
        available: String,
    },
    /// An index in an index in an index.
    #[error("the index is nested more than {limit} deep")]
    TooDeep {
        /// The deepest that is accepted.
        limit: usize,
    },
    /// The config and the manifest disagree on how many layers there are.
    #[error("the manifest has {layers} layers but its config has {diff_ids} diff_ids")]
    LayerCount { layers: usize, diff_ids: usize },
    /// The bytes are not those that the digest names.
    #[error("the content of {expected} is damaged: its digest is {actual}")]
    DigestMismatch { expected: Digest, actual: Digest },
    /// The bytes are more or fewer than the descriptor says.
    #[error("the content of {digest} has {actual} bytes, and its descriptor says {expected}")]
    SizeMismatch {
        digest: Digest,
        expected: u64,
        actual: u64,
    },
    /// The layout or archive holds other images.
    #[error(
        "there is no image {wanted:?} in {path}, only {available}; use one of these as the \
         reference"
    )]
    NoSuchImage {
        /// What was asked for.
        wanted: String,
        /// The layout or archive.
        path: PathBuf,
        /// What there is, as a list for people.
        available: String,
    },
    /// The layout or archive lacks a part.
    #[error(
        "{path} has no {part}: it is not a complete OCI layout, OCI archive or docker-save \
         archive"
    )]
    Missing {
        /// The layout or archive.
        path: PathBuf,
        /// The file that is not there.
        part: String,
    },
    /// The archive is not a plain tar file that can be read.
    #[error("{path} is not a readable tar archive: {why}")]
    Archive {
        path: PathBuf,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// An operation on a file failed.
    #[error("cannot {operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Digest(_)
            | Self::Json { .. }
            | Self::TooLarge { .. }
            | Self::MediaType { .. }
            | Self::TwoFaced
            | Self::Unsupported { .. }
            | Self::TooMany { .. }
            | Self::TooDeep { .. }
            | Self::LayerCount { .. }
            | Self::Archive { .. } => ErrorKind::InvalidArgument,
            Self::NoPlatform { .. } | Self::NoSuchImage { .. } | Self::Missing { .. } => {
                ErrorKind::NotFound
            }
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => ErrorKind::DataLoss,
            Self::Io { source, .. } => Classify::kind(source),
        }
    }
}
