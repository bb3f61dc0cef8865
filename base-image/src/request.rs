//! What is to be built or inspected, checked as far as that can be without doing it.

use std::path::PathBuf;

use clap::ValueEnum;
use image::Format;
use image::oci::Platform;
use types::ByteSize;

use super::foreign::Foreign;
use super::location::Location;

/// A build that can work as far as its options tell.
#[derive(Debug)]
pub(super) struct BuildRequest {
    pub(super) source: Source,
    pub(super) format: Format,
    pub(super) compress: bool,
    /// The name of the file under `/base_image/`.
    pub(super) name: String,
    pub(super) outputs: Vec<Location>,
    pub(super) tag: Option<String>,
    pub(super) platform: Platform,
    pub(super) layer_compression: LayerCompression,
    /// A registry is given at most so many bytes at once.
    pub(super) chunk_size: Option<ByteSize>,
    pub(super) access: Access,
}

/// What the disk is made from.
#[derive(Debug)]
pub(super) enum Source {
    /// A directory, as a file system.
    Directory {
        path: PathBuf,
        file_system: FileSystem,
        /// In bytes; not given, what the contents need.
        size: Option<u64>,
        label: String,
        uuid: Option<[u8; 16]>,
    },
    /// A disk image that is there, in its format.
    Disk { path: PathBuf, format: Format },
    /// A disk that `qemu-img` reads.
    Foreign { path: PathBuf, kind: Foreign },
    /// Nothing: a disk of zeros.
    Empty { size: u64 },
}

/// A look into a base image.
#[derive(Debug)]
pub(super) struct InspectRequest {
    /// As it was typed.
    pub(super) reference: String,
    pub(super) place: Location,
    /// The image to take of a layout or archive that holds several.
    pub(super) tag: Option<String>,
    pub(super) platform: Platform,
    pub(super) access: Access,
    /// For programs, not for people.
    pub(super) json: bool,
}

/// Access to a registry.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) login: Login,
    pub(super) trust: Trust,
}

/// Who asks.
#[derive(Debug)]
pub(super) enum Login {
    /// Whom Docker's own configuration names for the registry, or nobody.
    Docker,
    /// Whom this file names.
    File(PathBuf),
    /// This user, whose password is the first line of standard input.
    User(String),
}

/// Which registry is believed to be the one that is meant.
#[derive(Debug)]
pub(super) enum Trust {
    /// One with a certificate of the system's authorities or of these; or any.
    Registry {
        ca_file: Option<PathBuf>,
        insecure: bool,
    },
    /// What the daemon's file of registries says.
    Config(PathBuf),
}

/// File systems that can be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FileSystem {
    /// ext4
    Ext4,
    /// XFS with reflink
    Xfs,
    /// btrfs
    Btrfs,
    /// No file system: an empty disk
    None,
}

impl FileSystem {
    /// Its name, as in `mkfs` and `blkid`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::None => "none",
        }
    }
}

/// The compressions of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LayerCompression {
    /// Fast to unpack
    Zstd,
    /// For registries and clients without zstd
    Gzip,
    /// Plain tar
    None,
}
