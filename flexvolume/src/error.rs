//! The errors of a call, and their meaning.
//!
//! Errors of the manager and the node pass through unchanged. This file has only those of the
//! driver: the command line, the options, the pods.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use types::shown;
use types::{ByteSize, Classify, ErrorKind, InvalidName, VolumeName};

/// The end of every error about the command line.
pub(crate) const USAGE: &str = "the kubelet runs this program; see `longhorn help`";

/// What is said when a bug of ours ended the call.
pub(crate) const PANICKED: &str = "the call ended by a panic, a bug of this program: see its log";

/// The result of whatever the driver does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubelet does by default what this call is for.
    #[error("this driver leaves the call to the kubelet")]
    NotSupported,
    /// The command line is not one of the kubelet's.
    #[error("{why}; {USAGE}")]
    Usage { why: String },
    /// The options are not what the kubelet writes.
    #[error("the options are not valid: {why}")]
    Options { why: String },
    /// An option that nobody knows.
    #[error("option {key:?} is not known; did you mean {nearest:?}?")]
    UnknownOption {
        /// As given, cut to 64 characters.
        key: String,
        /// The known key that looks most like it.
        nearest: &'static str,
    },
    /// A known option with a value that can never work.
    #[error("option {key} = {value:?} is not valid: {why}")]
    Option {
        key: &'static str,
        /// As given, cut to 64 characters.
        value: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The value of fromBackup is no address.
    #[error("option fromBackup is not the address of a backup")]
    FromBackup(#[source] backup::Error),
    /// The operator of the node does not let pods restore backups.
    #[error(
        "pods of this node may not restore backups, which hold the volumes of all namespaces: an operator can allow \
         it with restore-backups = true in longhorn.toml"
    )]
    BackupsNotAllowed,
    /// The secret of the volume cannot be used. Nothing of it is told.
    #[error("the secret is not valid: {why}")]
    Secret {
        /// What is wrong, and what would be right.
        why: &'static str,
    },
    /// The name cannot be that of a volume.
    #[error("the volume cannot have this name")]
    Name(#[source] InvalidName),
    /// The options say something else than the path that the kubelet made.
    #[error(
        "option {key} is {value:?}, and the directory belongs to {expected:?}: options of a pod \
         cannot replace those of the kubelet"
    )]
    Overwritten {
        key: &'static str,
        value: String,
        /// As the path says.
        expected: String,
    },
    /// A new blank volume has no size.
    #[error("volume {volume} does not exist and cannot be created: option size is missing")]
    SizeMissing { volume: VolumeName },
    /// There is a volume of that name, and it is another one.
    #[error(
        "volume {volume} exists with {what} {existing:?}, and the request has {asked:?}; use \
         another name"
    )]
    Differs {
        volume: VolumeName,
        /// In what they differ.
        what: &'static str,
        existing: String,
        /// What the request wants.
        asked: String,
    },
    /// The volume belongs to another driver, or to pods of another namespace.
    #[error("volume {volume} is not for this pod: {why}")]
    NotOurs {
        volume: String,
        /// Whose it is, and what to do.
        why: String,
    },
    /// A call for a pod does not say of which namespace the pod is.
    #[error(
        "option {option} is missing: volumes belong to namespaces, and the kubelet passes the \
         namespace of every pod"
    )]
    NoNamespace { option: &'static str },
    /// Another pod uses the volume.
    #[error(
        "volume {volume} is in use by pod {pod} at {}: names of inline volumes apply to the \
         whole cluster; use another name, or share the volume with option share = \"read-only\" \
         and readOnly: true in both pods",
        target.display()
    )]
    InUse {
        volume: VolumeName,
        pod: String,
        target: PathBuf,
    },
    /// Something else of ours is at the target.
    #[error("{} holds volume {present}, and the request is for {asked}; unmount it first", target.display())]
    Taken {
        target: PathBuf,
        present: String,
        asked: String,
    },
    /// Pods still use what is to be taken away.
    #[error("volume {volume} is still mounted at {}; unmount it there first", target.display())]
    StillMounted { volume: VolumeName, target: PathBuf },
    /// The image is still on its way.
    #[error("image {image} is {state}, {progress}: waited {} seconds, the next call continues",
            waited.as_secs())]
    ImageInProgress {
        image: String,
        /// As everywhere: pending, starting, in-progress …
        state: &'static str,
        /// How far, in words.
        progress: String,
        /// How long this call waited for it.
        waited: Duration,
    },
    /// The image could not be had.
    #[error("cannot get base image {image}: {message}")]
    ImageFailed {
        /// As in the options.
        image: String,
        /// What the cause means.
        kind: ErrorKind,
        message: String,
    },
    /// The volume is not where this node could reach it.
    #[error("volume {volume} has no replica on this node; its nodes: {nodes}")]
    NoReplica { volume: VolumeName, nodes: String },
    /// The volume is not attached to this node.
    #[error("volume {volume} is not attached to this node; it is attached to: {nodes}")]
    NotAttached { volume: VolumeName, nodes: String },
    /// The device is not the one of the volume.
    #[error("device {device:?} does not belong to volume {volume}")]
    OtherDevice { volume: VolumeName, device: String },
    /// The volume is smaller than the caller of an expansion wants.
    #[error("volume {volume} has {size} bytes, and the request requires {required}")]
    NotGrown {
        volume: VolumeName,
        size: ByteSize,
        required: ByteSize,
    },
    /// Another call works on the same thing.
    #[error("another call on {what} has been running for {} seconds; try again", waited.as_secs())]
    Busy {
        /// The volume or the target.
        what: String,
        /// How long this call waited for it.
        waited: Duration,
    },
    /// The process was told to end.
    #[error("the call was ended by a signal; the next call continues")]
    Terminated,
    /// A part of the call panicked.
    #[error("{PANICKED}")]
    Panicked,
    /// The configuration file cannot be used.
    #[error("the configuration {} is not valid: {why}", path.display())]
    Config { path: PathBuf, why: String },
    /// The driver cannot be installed or removed there.
    #[error("cannot install at {}: {why}", path.display())]
    Install {
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The manager says so.
    #[error(transparent)]
    Manager(#[from] client::Error),
    /// This node says so.
    #[error(transparent)]
    Host(#[from] host::Error),
}

impl Error {
    /// An operating system error on this node, in the words of [`host::Error::io`].
    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Host(host::Error::io(what, path)(source))
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotSupported => ErrorKind::Unimplemented,
            Self::Usage { .. }
            | Self::Options { .. }
            | Self::UnknownOption { .. }
            | Self::Option { .. }
            | Self::Secret { .. }
            | Self::FromBackup(_)
            | Self::Name(_)
            | Self::Overwritten { .. }
            | Self::SizeMissing { .. }
            | Self::OtherDevice { .. }
            | Self::NoNamespace { .. }
            | Self::Config { .. } => ErrorKind::InvalidArgument,
            Self::Differs { .. } | Self::Taken { .. } => ErrorKind::AlreadyExists,
            Self::InUse { .. }
            | Self::NotOurs { .. }
            | Self::BackupsNotAllowed
            | Self::StillMounted { .. }
            | Self::NoReplica { .. }
            | Self::NotAttached { .. }
            | Self::Install { .. } => ErrorKind::FailedPrecondition,
            Self::ImageInProgress { .. } | Self::Busy { .. } | Self::Terminated => {
                ErrorKind::Aborted
            }
            Self::ImageFailed { kind, .. } => *kind,
            Self::NotGrown { .. } => ErrorKind::OutOfRange,
            Self::Panicked => ErrorKind::Internal,
            Self::Manager(error) => error.kind(),
            Self::Host(error) => error.kind(),
        }
    }
}
