//! The errors of building and inspecting a base image, and what the user can do about each.

use std::path::PathBuf;

use tree::shown;
use types::{ByteSize, Classify, ErrorKind};

/// Why a base image could not be built or inspected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("cannot {operation} {}", shown(path))]
    Io {
        /// What was tried, as a verb: `open`, `read`.
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// An option has a value that cannot work, alone or with the others.
    #[error("{option} {problem}")]
    Option {
        /// The option, as typed.
        option: &'static str,
        /// What is wrong with it and what to write instead.
        problem: String,
    },
    /// The contents are larger than the file system.
    #[error(
        "the contents do not fit into an {file_system} file system of {size} bytes: about \
         {needed} bytes are needed; set a larger --size, or leave it out"
    )]
    TooSmall {
        file_system: &'static str,
        /// How large it was to be.
        size: u64,
        /// An estimate of what is needed, rounded up.
        needed: ByteSize,
    },
    /// The disk with the temporary files has no files as large as the image shall be.
    #[error(
        "cannot create a file of {size} bytes at {}: the file system there has a smaller limit \
         (ext4: 16 TiB); set a smaller --size, or an --output or TMPDIR on XFS or btrfs",
        path.display()
    )]
    ScratchLimit {
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// A program that makes a file system is not installed.
    #[error("{tool} is not installed: install the package {package} and try again")]
    ToolMissing {
        tool: &'static str,
        /// The package of Debian and Ubuntu that has it.
        package: &'static str,
    },
    /// A program that makes a file system failed.
    #[error("{tool} failed ({status}): {output}")]
    ToolFailed {
        tool: &'static str,
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// A file system that was made is not whole.
    #[error(
        "{tool} found faults in the new file system ({status}), so no output was written; \
         please report this: {output}"
    )]
    NotWhole {
        /// The program that looked.
        tool: &'static str,
        status: String,
        output: String,
    },
    /// A program made something that this one does not know how to fill.
    #[error(
        "{tool} created {what}, which this program cannot fill; please report the version of \
         {tool}"
    )]
    ToolUnknown { tool: &'static str, what: String },
    /// A file cannot be put into the file system.
    #[error("cannot use {}: {why}", shown(path))]
    Unsupported { path: PathBuf, why: String },
    /// The registry, or its configuration.
    #[error("cannot {what}")]
    Fetch {
        what: &'static str,
        #[source]
        source: fetch::Error,
    },
    /// A container image cannot be read or written as files.
    #[error("cannot use the container image")]
    Container {
        #[source]
        source: image::oci::Error,
    },
    /// No disk image could be taken out of the layers.
    #[error("cannot extract the disk image from the container image")]
    Layers {
        #[source]
        source: image::layer::Error,
    },
    /// A disk image cannot be read or made.
    #[error("cannot use the disk image {}", path.display())]
    Image {
        path: PathBuf,
        #[source]
        source: image::Error,
    },
    /// The directory cannot be read, or its files cannot.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// XFS cannot be filled.
    #[error(transparent)]
    Xfs(mkfs_xfs::Error),
}

/// The result of this module's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Wraps an I/O error with what was tried and on what.
pub(super) fn io(
    operation: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io {
        operation,
        path,
        source,
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => Classify::kind(source),
            Self::Option { .. } | Self::Unsupported { .. } => ErrorKind::InvalidArgument,
            Self::TooSmall { .. } | Self::ScratchLimit { .. } => ErrorKind::OutOfRange,
            Self::ToolMissing { .. } => ErrorKind::FailedPrecondition,
            Self::ToolFailed { .. } | Self::NotWhole { .. } | Self::ToolUnknown { .. } => {
                ErrorKind::Internal
            }
            Self::Fetch { source, .. } => source.kind(),
            Self::Container { source } => source.kind(),
            Self::Layers { source } => source.kind(),
            Self::Image { source, .. } => source.kind(),
            Self::Tree(source) => source.kind(),
            Self::Xfs(source) => source.kind(),
        }
    }
}
