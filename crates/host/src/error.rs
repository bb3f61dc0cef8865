//! Everything that can go wrong on this node.

mod kind;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use probe::FsType;
use types::{ByteSize, DiskUuid, VolumeName};

use crate::holder::Holder;

/// The result of an operation on this node.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on this node failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed in a way that has no variant of its own.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried: completes "cannot … PATH".
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A path of the request can never be used.
    #[error("path {path:?} is not valid: {why}")]
    InvalidPath {
        /// The path, cut to a bearable length.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A mount flag is not on the allow-list.
    #[error("mount flag {flag:?} is not allowed: {why}")]
    InvalidFlag {
        /// The flag, cut to a bearable length.
        flag: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An option for mkfs is not on the allow-list.
    #[error("mkfs option {option:?} is not allowed: {why}")]
    InvalidMkfsOption {
        /// The option, cut to a bearable length.
        option: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file system that this node never mounts.
    #[error("file system type {0} is not supported; use ext4, xfs or btrfs")]
    UnsupportedFileSystem(FsType),
    /// A directory that should be a disk is none.
    #[error(
        "{} is not a disk's {{\"diskUUID\": …}}; run `backing-image-manager disk init` first",
        file.display()
    )]
    NotADisk {
        /// The file that tells a disk.
        file: PathBuf,
    },
    /// None of the disks of this program is the volume's.
    #[error(
        "volume {volume} is on disk {disk}, which is not a disk of this node; add the directory \
         of that disk to the disks of this program"
    )]
    NoSuchDisk { volume: VolumeName, disk: DiskUuid },
    /// More than one disk of this node has a volume of the name.
    #[error("volume {volume} is on several disks of this node; name the disk by its UUID")]
    SeveralDisks { volume: VolumeName },
    /// The volume's file is not on this node.
    #[error("volume {volume} has no file {} on this node", file.display())]
    VolumeMissing {
        volume: VolumeName,
        /// Where its file should be.
        file: PathBuf,
    },
    /// The volume's file is not what the volume says.
    #[error("the file {} of volume {volume} is not usable: {why}", file.display())]
    VolumeDamaged {
        volume: VolumeName,
        file: PathBuf,
        why: String,
    },
    /// The volume is too small to be kept for a target.
    #[error("volume {volume} has {size} bytes, and a target needs at least 8192; grow it first")]
    VolumeTooSmall { volume: VolumeName, size: ByteSize },
    /// Another process or thread works on the same volume.
    #[error("another operation on volume {0} is running; try again")]
    Busy(VolumeName),
    /// The volume is not staged where the request says it is.
    #[error("volume {volume} is not staged at {}; stage it first", path.display())]
    NotStaged { volume: VolumeName, path: PathBuf },
    /// Nothing of the volume is at the path.
    #[error("volume {volume} is not at {}", path.display())]
    NotHere {
        volume: VolumeName,
        /// The path asked about.
        path: PathBuf,
    },
    /// The same volume is there already, in a way that the request does not allow.
    #[error("volume {volume} is already at {} {present}, and the request is for {asked}", path.display())]
    Incompatible {
        volume: VolumeName,
        path: PathBuf,
        /// How it is there.
        present: String,
        /// How it should be.
        asked: String,
    },
    /// Something that is not ours is mounted at the path.
    #[error("{} holds a foreign mount of {mounted}; unmount it first", path.display())]
    ForeignMount {
        path: PathBuf,
        /// What is mounted: file system type and source.
        mounted: String,
    },
    /// What lies at the path cannot be mounted on.
    #[error("{} is {what}; remove it first", path.display())]
    Occupied { path: PathBuf, what: &'static str },
    /// A volume with a single writer is published already.
    #[error(
        "volume {volume} can have only one target and is published at {}; unpublish it there \
         first",
        other.display()
    )]
    SecondTarget { volume: VolumeName, other: PathBuf },
    /// The file system is of another type than the one asked for.
    #[error(
        "volume {volume} holds {found}, and fsType asks for {asked}; set fsType to {found} or \
         leave it out"
    )]
    FsTypeMismatch {
        volume: VolumeName,
        asked: FsType,
        found: FsType,
    },
    /// The volume holds something that cannot be mounted, and that is never formatted.
    #[error("volume {volume} holds {found}, which cannot be mounted; use it as a raw block volume")]
    NotAFileSystem { volume: VolumeName, found: String },
    /// The file system asks for more than its own device, or for what no node does for it.
    #[error("volume {volume} holds {fs_type} that this driver does not mount: {why}")]
    RefusedFileSystem {
        volume: VolumeName,
        fs_type: FsType,
        /// Why, with what to do.
        why: String,
    },
    /// The file system cannot be written to, and the volume is asked for writing.
    #[error("volume {volume} holds {fs_type}, which is read-only; request the volume read-only")]
    ReadOnlyFileSystem { volume: VolumeName, fs_type: FsType },
    /// A raw block device is read-only at all of its targets, or at none.
    #[error(
        "volume {volume} is published {present} at {}, and all targets of a block device must \
         have the same access; unpublish it there first",
        other.display()
    )]
    MixedBlock {
        volume: VolumeName,
        /// The target that is there.
        other: PathBuf,
        /// What may be done at it.
        present: &'static str,
    },
    /// The volume is blank where a file system is needed and none may be made.
    #[error("volume {volume} is blank and is not formatted: {why}")]
    Blank {
        volume: VolumeName,
        why: &'static str,
    },
    /// What the volume holds could not be read.
    #[error("cannot read the contents of volume {volume} from {}", file.display())]
    Probe {
        volume: VolumeName,
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The volume is too small for the file system, to be made or to be grown.
    #[error("{size} bytes are too small for {fs_type}, which needs at least {min} bytes")]
    TooSmall {
        fs_type: FsType,
        /// The size of the volume.
        size: ByteSize,
        min: ByteSize,
    },
    /// Somebody else attached the volume's file.
    #[error("{} is already attached as {} by another program{users}; detach it first",
            file.display(), device.display())]
    ForeignLoop {
        file: PathBuf,
        device: PathBuf,
        /// Who uses the device: empty, or text that begins with ", ".
        users: String,
    },
    /// The file of the volume is DRBD's.
    #[error(
        "volume {volume} is one replica of a replicated volume ({} is there), which is used through DRBD alone; \
         replicated volumes need attachments: install the driver with attachRequired: true", metadata.display()
    )]
    IsReplica {
        volume: VolumeName,
        /// What says so.
        metadata: PathBuf,
    },
    /// The volume is attached for somebody else.
    #[error("volume {volume} is {} as {}; {}", by.describe(), device.display(), by.way_out())]
    HeldOtherwise {
        volume: VolumeName,
        device: PathBuf,
        /// For whom it is.
        by: Holder,
    },
    /// A device of ours cannot be given back yet.
    #[error("{} is still in use{users}; end this use and try again", device.display())]
    StillInUse {
        device: PathBuf,
        /// Who uses it: empty, or text that begins with ", ".
        users: String,
    },
    /// The kernel cannot attach loop devices.
    #[error("cannot attach a loop device: {why}")]
    NoLoopDevice {
        /// What to do about it.
        why: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused to mount.
    #[error("cannot mount {} as {fs_type} at {}{said}", device.display(), path.display())]
    Mount {
        device: PathBuf,
        fs_type: FsType,
        path: PathBuf,
        /// The kernel's own words: empty, or text that begins with ": ".
        said: String,
        #[source]
        source: io::Error,
    },
    /// A mount would take devices besides its own.
    #[error(
        "the kernel of this node knows other devices of the btrfs on {}, and a mount would \
         write to them; use it as a raw block volume, or give it its own UUID (btrfstune -u)",
        .0.display()
    )]
    OtherDevices(PathBuf),
    /// The mount cannot be taken away.
    #[error("cannot unmount {}", path.display())]
    Unmount {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The node lacks something that every volume needs.
    #[error("this node cannot serve volumes: {why}")]
    Requirement {
        /// What is missing, and what to do.
        why: String,
    },
    /// The node has no DRBD that is good enough for replicated volumes.
    #[error("this node cannot take part in replicated volumes: {why}")]
    Replication {
        /// What is missing, and how to get it.
        why: String,
    },
    /// DRBD refused.
    #[error("cannot {what} volume {volume}: {said}")]
    Drbd {
        volume: VolumeName,
        /// What was tried: completes "cannot … volume X".
        what: &'static str,
        /// What DRBD said.
        said: String,
    },
    /// A tool is not installed.
    #[error("{tool} is not installed; install the package {package} (Debian, Ubuntu)")]
    ToolMissing {
        tool: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    #[error("{tool} failed with {status}: {said}")]
    Tool {
        tool: &'static str,
        status: String,
        /// The end of its output.
        said: String,
    },
    /// A tool did not end in time.
    #[error("{tool} did not finish within {} seconds and was killed", limit.as_secs())]
    ToolTimeout {
        tool: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// The file system is broken beyond what may be repaired without a person.
    #[error("the file system of {} needs a manual repair (e2fsck): {said}", device.display())]
    NeedsRepair {
        device: PathBuf,
        /// The end of the checker's output.
        said: String,
    },
    /// The checker does not know enough to judge the file system.
    #[error(
        "the file system of {} must be checked, and its tool cannot check it ({said}); install \
         a newer version of the tool, or remove --check-images",
        device.display()
    )]
    NotJudged {
        device: PathBuf,
        /// The end of the checker's output.
        said: String,
    },
    /// The file system has not the size of its volume after all.
    #[error(
        "the {fs_type} of volume {volume} has {present} bytes and the volume {size}: it cannot \
         grow while it is mounted like this; stage it for writing, and it grows"
    )]
    NotGrown {
        volume: VolumeName,
        fs_type: FsType,
        /// The size of that.
        present: ByteSize,
        /// The size of the volume.
        size: ByteSize,
    },
    /// This process may not grow the file system while it is mounted.
    #[error(
        "{fs_type} at {} cannot grow in use without CAP_SYS_RESOURCE; it grows when the volume \
         is staged again",
        path.display()
    )]
    CannotGrowInUse {
        /// Where it is mounted.
        path: PathBuf,
        fs_type: FsType,
    },
    /// A share of a network cannot be mounted, or taken away.
    #[error("cannot mount {share} at {}: {said}", point.display())]
    Share {
        /// What was to be mounted.
        share: String,
        point: PathBuf,
        /// What the last program said.
        said: String,
    },
    /// Something wanted of an iSCSI target can never be.
    #[error("{what} {text:?} is not valid: {why}")]
    InvalidTarget {
        /// Which part of it.
        what: &'static str,
        /// The part, cut to a bearable length; never a secret.
        text: String,
        why: &'static str,
    },
    /// tgtd does not answer.
    #[error(
        "no iSCSI target daemon answers at {}; see the pod longhorn-target of this node, and try again",
        socket.display()
    )]
    TargetSilent {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// tgtd answered no.
    #[error("the iSCSI target daemon cannot {what}: {why}")]
    TargetRefused {
        /// What was asked: completes "cannot …".
        what: &'static str,
        why: &'static str,
    },
    /// The portal cannot be opened.
    #[error(
        "the iSCSI target daemon cannot listen at {portal}; is it an address of this node, and is the port free?"
    )]
    TargetPortal { portal: SocketAddr },
    /// Initiators are connected.
    #[error("the target of volume {volume} is in use by {by}; log out there, or disconnect them")]
    TargetInUse {
        volume: VolumeName,
        /// Who is connected, and from where.
        by: String,
    },
    /// Another target has the CHAP user.
    #[error("CHAP user {user:?} is that of volume {other} on this node; choose another name")]
    TargetUser { user: String, other: String },
    /// The daemon of the targets ended when it should not have.
    #[error("tgtd ended: {status}; see what it wrote before")]
    TargetEnded { status: ExitStatus },
    /// A file system call did not return in time.
    #[error("{} does not answer within {} seconds", path.display(), limit.as_secs())]
    Hung {
        path: PathBuf,
        /// The time it had.
        limit: Duration,
    },
}

impl Error {
    /// Wraps an I/O error: `map_err(Error::io("open", &path))`.
    pub fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            what,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}
