//! The errors of the plugin, and their meaning for the caller.
//!
//! Errors of the manager and the node pass through unchanged. This file has only those of the
//! plugin: the request, the parameters, and the fit between an image and its use.

pub(crate) mod replicated;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use types::shown;
use types::{ByteSize, Classify, ErrorKind, ImageName, InvalidName, VolumeName};

/// The result of whatever the plugin does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call or the plugin itself failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A required field of the request is not set.
    #[error("{field} is missing from the request")]
    Missing {
        /// Its name in csi.proto.
        field: &'static str,
    },
    /// A field of the request can never work.
    #[error("{field} is not valid: {why}")]
    Invalid {
        /// Its name in csi.proto.
        field: &'static str,
        /// What is wrong, and what would be right.
        why: &'static str,
    },
    /// The name cannot be that of a volume.
    #[error("a volume cannot have this name")]
    Name(#[source] InvalidName),
    /// The volume belongs to another driver.
    #[error("volume {volume} does not belong to CSI: {why}")]
    NotOurs {
        volume: String,
        /// Whose it is, and what to do.
        why: String,
    },
    /// A parameter that nobody knows.
    #[error("parameter {key:?} is not known; did you mean {nearest:?}?")]
    UnknownParameter {
        /// As given, cut to 64 characters.
        key: String,
        /// The known key that looks most like it.
        nearest: &'static str,
    },
    /// A known parameter with a value that can never work.
    #[error("parameter {key} = {value:?} is not valid: {why}")]
    Parameter {
        key: &'static str,
        /// As given, cut to 64 characters.
        value: String,
        /// What is wrong, and what would be right.
        why: &'static str,
    },
    /// The value of fromBackup is no address.
    #[error("parameter fromBackup is not the address of a backup")]
    FromBackup(#[source] backup::Error),
    /// It is one of something else.
    #[error(
        "parameter fromBackup = {address:?} names no backup; add ?backup=NAME&volume=NAME to the address of the store"
    )]
    FromBackupItem { address: String },
    /// The snapshot of a backup is not taken yet.
    #[error("backup {backup} is {state}, and its snapshot is not taken yet: try again")]
    BackupPending {
        /// Its id.
        backup: String,
        state: &'static str,
    },
    /// A backup could not be made.
    #[error("backup {backup} failed: {message}")]
    BackupFailed {
        /// Its id.
        backup: String,
        /// What the cause means.
        kind: ErrorKind,
        message: String,
    },
    /// No backup can be of a volume of this name.
    #[error(
        "volume {volume} cannot be backed up: its name must have two characters at least, the first a letter or digit"
    )]
    NoBackupName { volume: VolumeName },
    /// Two places ask for different file systems.
    #[error(
        "fsType {parameter:?} in the parameters and {capability:?} in the volume capability differ"
    )]
    TwoFsTypes {
        parameter: String,
        capability: String,
    },
    /// The size asked for cannot be.
    #[error("the request requires {required} bytes, and allows at most {limit}")]
    Limit { required: ByteSize, limit: ByteSize },
    /// A blank volume is too large for its file system.
    #[error("a volume of {size} bytes is too large for {fs_type}, which has at most {most}")]
    TooLargeToFormat {
        size: ByteSize,
        fs_type: host::FsType,
        /// The most it has.
        most: ByteSize,
    },
    /// A blank volume is too small for its file system.
    #[error("a volume of {size} bytes is too small for {fs_type}, which needs {least}")]
    TooSmallToFormat {
        size: ByteSize,
        fs_type: host::FsType,
        least: ByteSize,
    },
    /// No volume of that id can exist, or none does on this node.
    #[error("volume {volume_id:?} does not exist")]
    NoSuchVolume {
        /// As given, cut to 64 characters.
        volume_id: String,
    },
    /// No snapshot of that id exists.
    #[error("snapshot {snapshot_id:?} does not exist")]
    NoSuchSnapshot {
        /// As given, cut to 64 characters.
        snapshot_id: String,
    },
    /// The blocks of a backup are nowhere to be listed.
    #[error(
        "snapshot {snapshot_id:?} is a backup in a store, which has no blocks to list; take a snapshot of \
         the type snap, or restore the backup"
    )]
    BlocksOfBackup {
        /// As given, cut to 64 characters.
        snapshot_id: String,
    },
    /// Snapshots on different disks have no extents in common.
    #[error(
        "snapshots {base} and {target} are on different disks, so that nothing tells what changed between \
         them; list the allocated blocks of {target} instead"
    )]
    SnapshotsApart { base: ImageName, target: ImageName },
    /// The name of a snapshot is taken.
    #[error("{name} exists and is {existing}, not a snapshot of volume {asked}; use another name")]
    SnapshotDiffers {
        name: ImageName,
        /// What has the name, in words.
        existing: String,
        /// What the request wants a snapshot of.
        asked: VolumeName,
    },
    /// A snapshot was taken with others and goes with them.
    #[error("snapshot {snapshot} belongs to group {group}; delete the whole group")]
    InGroup { snapshot: ImageName, group: String },
    /// The snapshots that the caller takes for those of a group are others.
    #[error("snapshot_ids are not those of group {group}: it has {has}")]
    OtherMembers { group: ImageName, has: String },
    /// The node has as many volumes as it takes.
    #[error(
        "node {node} already has {most} published volumes, its maximum (--max-volumes-per-node)"
    )]
    NodeFull { node: types::NodeId, most: u32 },
    /// No node of that id can exist.
    #[error("node {node_id:?} does not exist")]
    NoSuchNode {
        /// As given, cut to 64 characters.
        node_id: String,
    },
    /// The node was not told of a replicated volume, or was told something else.
    #[error(
        "volume {volume} is not prepared on this node yet; publish it to this node first, or wait until the \
         controller has reached the node service"
    )]
    NotPrepared { volume: VolumeName },
    /// The volume is not at the path of the request.
    #[error("volume {volume} is not at the path of the request")]
    NotAtPath { volume: VolumeName },
    /// The image holds another file system than the one asked for.
    #[error(
        "image {image} holds {found}, and fsType asks for {asked}: a base image is never formatted; \
         leave fsType empty or set it to {found}"
    )]
    FsTypeMismatch {
        image: String,
        found: String,
        asked: host::FsType,
    },
    /// The image holds nothing that could be mounted.
    #[error("image {image} holds {what}: it can be used with volumeMode Block only")]
    NotMountable {
        image: String,
        /// What it holds, in words.
        what: String,
    },
    /// The image is still on its way.
    #[error("image {image} is {state}, {progress}: try again")]
    ImageInProgress {
        image: String,
        /// As in the design: pending, starting, in-progress …
        state: &'static str,
        /// How far, in words.
        progress: String,
    },
    /// The image was there and is not, again and again.
    #[error("the image was deleted while the volume was being created; try again")]
    ImageDeleted,
    /// The image could not be had.
    #[error("cannot get image {image}: {message}")]
    ImageFailed {
        /// As in the parameters.
        image: String,
        /// What the cause means.
        kind: ErrorKind,
        message: String,
    },
    /// Volumes cannot be made where the request wants them.
    #[error("the volume would be on node {here}, which the topology of the request excludes")]
    Topology {
        /// Where they can be made.
        here: String,
    },
    /// A manager that does not answer may have made what is asked for.
    #[error("{answered} of {managers} backing image managers answer; check the others")]
    Incomplete {
        answered: usize,
        /// How many there are.
        managers: usize,
    },
    /// Another call works on the same thing.
    #[error("another call on {name} is running; try again")]
    InFlight { name: String },
    /// The volume is not where the node could reach it.
    #[error("volume {volume} has no replica on node {node}")]
    NoReplica {
        volume: VolumeName,
        node: types::NodeId,
    },
    /// The volume is smaller than the caller of an expansion wants.
    #[error("volume {volume} has {size} bytes on this node, and the request requires {required}")]
    NotGrown {
        volume: VolumeName,
        size: ByteSize,
        required: ByteSize,
    },
    /// A page token that we never gave out.
    #[error("starting_token is not one of ours; list again from the first page")]
    Token,
    /// A volume is published from its staging path only.
    #[error("staging_target_path is missing: stage the volume first")]
    NotStaged,
    /// A whole call that the plugin does not offer.
    #[error("{rpc} is not implemented by this plugin")]
    Unimplemented { rpc: &'static str },
    /// The plugin cannot start as it was told to.
    #[error("cannot use {}: {why}", path.display())]
    Start {
        /// The socket, its directory, or a disk.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: &'static str,
    },
    /// A key of a Secret cannot be what it should be. Nothing of it is told.
    #[error(transparent)]
    BackupSecret(backup::Error),
    /// The address of a target of backups is none.
    #[error("--backup-target has an address that cannot be used")]
    BackupTarget(#[source] backup::Error),
    /// A flag of the command line is not usable.
    #[error("{flag} {why}")]
    Flag {
        flag: &'static str,
        /// What is wrong, and what would be right.
        why: &'static str,
    },
    /// The certificate of this program cannot be got or made.
    #[error(transparent)]
    Certificates(trust::Error),
    /// The Kubernetes API cannot be used.
    #[error(transparent)]
    Kubernetes(kubernetes::Error),
    /// The gRPC server ended.
    #[error("the gRPC server failed")]
    Serve(#[source] tonic::transport::Error),
    /// A thread of ours panicked.
    #[error("a call ended without a result; this is a bug of the plugin")]
    Lost,
    /// The manager says so.
    #[error(transparent)]
    Manager(#[from] client::Error),
    /// This node says so.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The node service of this node says so.
    #[error(transparent)]
    Local(#[from] node::Error),
    /// A replicated volume.
    #[error(transparent)]
    Replicated(#[from] replicated::Error),
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
            Self::Missing { .. }
            | Self::Invalid { .. }
            | Self::Name(_)
            | Self::UnknownParameter { .. }
            | Self::Parameter { .. }
            | Self::FromBackup(_)
            | Self::BackupTarget(_)
            | Self::FromBackupItem { .. }
            | Self::NoBackupName { .. }
            | Self::TwoFsTypes { .. }
            | Self::FsTypeMismatch { .. }
            | Self::NotMountable { .. }
            | Self::InGroup { .. }
            | Self::OtherMembers { .. }
            | Self::Flag { .. } => ErrorKind::InvalidArgument,
            Self::Limit { .. }
            | Self::TooSmallToFormat { .. }
            | Self::TooLargeToFormat { .. }
            | Self::NotGrown { .. } => ErrorKind::OutOfRange,
            Self::NoSuchVolume { .. }
            | Self::NoSuchSnapshot { .. }
            | Self::NoSuchNode { .. }
            | Self::NotAtPath { .. } => ErrorKind::NotFound,
            Self::SnapshotDiffers { .. } => ErrorKind::AlreadyExists,
            Self::ImageInProgress { .. }
            | Self::BackupPending { .. }
            | Self::ImageDeleted
            | Self::InFlight { .. }
            | Self::NotPrepared { .. }
            | Self::Token => ErrorKind::Aborted,
            Self::ImageFailed { kind, .. } | Self::BackupFailed { kind, .. } => *kind,
            Self::Incomplete { .. } => ErrorKind::Unavailable,
            Self::Topology { .. } | Self::NodeFull { .. } => ErrorKind::ResourceExhausted,
            Self::NoReplica { .. }
            | Self::NotOurs { .. }
            | Self::BlocksOfBackup { .. }
            | Self::SnapshotsApart { .. }
            | Self::NotStaged
            | Self::BackupSecret(_)
            | Self::Start { .. } => ErrorKind::FailedPrecondition,
            Self::Unimplemented { .. } => ErrorKind::Unimplemented,
            Self::Serve(_) | Self::Lost => ErrorKind::Internal,
            Self::Certificates(error) => error.kind(),
            Self::Kubernetes(error) => error.kind(),
            Self::Manager(error) => error.kind(),
            Self::Replicated(error) => error.kind(),
            Self::Host(error) => error.kind(),
            Self::Local(error) => error.kind(),
        }
    }
}
