//! The node side life of a volume: stage, publish, unpublish, unstage; expand and stats besides.
//!
//! Every call is idempotent: after a crash at any point the same call converges, and nothing is
//! kept in memory between calls. The kernel (mountinfo and loop devices) is the truth; the record
//! beside the staging path ([`record`]) contains only the request, so losing it loses nothing that
//! cannot be found again. Our loop devices carry the mark of the volume, which identifies our
//! mounts.
//!
//! ```text
//!            stage                         publish
//!  nothing ────────▶ staged (record, loop, ────────▶ published (bind mount of the staging path,
//!          ◀────────         mount)        ◀────────            or of the device's node)
//!           unstage                       unpublish
//! ```
//!
//! Steps of stage, in order, each with a crash point after it: 1 record · 2 format (blank volumes
//! without a source only, atomic) · 3 attach · 4 check · 5 mount · 6 grow.
//! A loop device that is attached to be mounted is *autoclear*: the kernel gives it back when the
//! last user is gone, so that a process killed between 3 and 5 leaves none.

mod adopt;
mod attachment;
mod condition;
mod expand;
mod exposed;
mod inspect;
mod locate;
mod mounting;
mod plan;
mod publish;
mod record;
mod replicated;
mod stage;
mod stats;
mod survey;
mod unstage;

use std::ops::Range;
use std::path::{Path, PathBuf};

use probe::FsType;
use replication::Layout;
use types::{ByteSize, VolumeName};

pub use self::attachment::{Attachment, Device};
pub use self::exposed::Shown;
use crate::drbd::Drbd;
pub use crate::filesystem::Check;
use crate::{Holder, Result};

/// A volume as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVolume {
    pub name: VolumeName,
    /// The absolute path of its file on this node.
    pub file: PathBuf,
    /// Its size; the file has at least that many bytes.
    pub size: ByteSize,
    /// Whether it was made from something (image, snapshot, backup, clone). Such a volume is never
    /// formatted, blank or not.
    pub has_source: bool,
    /// The partition of it that is used, in bytes of the file; `None`: all of it. Whoever has no
    /// privileges has found it: no partition table is read here.
    pub part: Option<Range<u64>>,
}

/// How a volume is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As a mounted file system.
    Mount {
        /// The type that must be there, or is made on a blank volume. `None`: whatever is there;
        /// ext4 is made on a blank volume.
        fs_type: Option<FsType>,
        /// Mount flags, checked against an allow-list.
        flags: Vec<String>,
    },
    /// As a raw block device.
    Block,
}

/// Asks for a volume to be made ready on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageRequest {
    pub volume: NodeVolume,
    /// Where: an absolute path whose parent exists. The record lies in that parent. A missing
    /// directory is created. For [`Access::Block`] nothing is put there.
    pub staging_path: PathBuf,
    pub access: Access,
    /// Whether nothing may be written. The journal of a mounted file system is still replayed, into
    /// the volume and never into its image, unless a flag says `norecovery` or `noload`.
    pub read_only: bool,
    /// Options for mkfs, as a user writes them, for a volume that is formatted.
    pub mkfs_options: String,
    /// How much of a file system that came with the volume is looked at before it is mounted.
    pub check: Check,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    pub device: PathBuf,
    /// The mounted file system; `None` for a block device.
    pub fs_type: Option<FsType>,
    /// Whether its I/O bypasses the page cache of the disk it lies on. Where the disk cannot do
    /// that the volume works and is slower.
    pub direct_io: bool,
}

/// Asks for a staged volume to appear at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRequest {
    pub volume: VolumeName,
    /// Where it is staged.
    pub staging_path: PathBuf,
    /// Where it shall appear: an absolute path whose parent exists. It is created, a directory for
    /// a mount and a file for a block device.
    pub target_path: PathBuf,
    /// As what; the kind must be the staged one.
    pub access: Access,
    /// Whether nothing may be written through this target.
    pub read_only: bool,
    /// Whether a second target is refused.
    pub single_writer: bool,
}

/// Amounts of one resource of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    pub total: u64,
    pub used: u64,
    /// Free for an ordinary process.
    pub available: u64,
}

/// How full a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A mounted file system.
    FileSystem {
        bytes: Amounts,
        /// Inodes; all zero where the file system has no fixed number of them.
        inodes: Amounts,
    },
    /// A raw block device.
    Block { size: ByteSize },
}

/// Whether a volume is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether somebody should look.
    pub abnormal: bool,
    /// What is the matter, or that all is well.
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// `None` when the file system does not answer or is dead: the condition says so.
    pub usage: Option<Usage>,
    pub condition: Condition,
}

/// Makes a volume ready at its staging path: attached, and for [`Access::Mount`] formatted if it is
/// blank and has no source, checked, mounted and grown to the size of the volume.
///
/// # Errors
/// By [`types::ErrorKind`]: `NotFound` without the volume's file; `FailedPrecondition` when the
/// content, a foreign mount or a foreign loop device forbids it; `AlreadyExists` when it is staged
/// there in another way; `Aborted` while another operation on it is under way; `InvalidArgument` for
/// paths and flags that can never work; `DataLoss` for a broken file system.
pub fn stage(request: &StageRequest) -> Result<Staged> {
    stage::stage(request, Holder::Pods)
}

/// The same for a volume that is attached by DRBD on this node: its `file` is the device
/// ([`crate::drbd::device_path`]). The node takes the right to write before anything is looked at, or only that to read
/// where the layout gives it no more.
///
/// # Errors
/// As [`stage`]; `FailedPrecondition` while another node has it, or no majority of its replicas is reached.
pub fn stage_replicated(request: &StageRequest, drbd: &Drbd, layout: &Layout) -> Result<Staged> {
    replicated::stage(request, drbd, layout)
}

/// Undoes [`stage`]. Works without the record too; nothing there is success. When it returns, the
/// loop device is gone.
///
/// # Errors
/// `FailedPrecondition` while the volume is published or used by somebody; `Aborted` while another
/// operation on it is under way.
pub fn unstage(volume: &VolumeName, staging_path: &Path) -> Result<()> {
    unstage::unstage(volume, staging_path, Holder::Pods)
}

/// Attaches a whole volume as a block device that nothing is done with: for the node service, whose records are in
/// `records`. The record is there before the device, and survives a reboot, which the device does not: the same
/// call makes it again. A volume that has grown meanwhile has its new size afterwards.
///
/// # Errors
/// As [`stage`] for [`Access::Block`]; `FailedPrecondition` while the volume is staged.
pub fn attach(records: &Path, volume: &NodeVolume, read_only: bool) -> Result<Staged> {
    attachment::attach(records, volume, read_only, Holder::Node)
}

/// The same for a volume that is attached by DRBD on this node.
///
/// # Errors
/// As [`stage_replicated`].
pub fn attach_replicated(
    records: &Path,
    volume: &NodeVolume,
    read_only: bool,
    drbd: &Drbd,
    layout: &Layout,
) -> Result<Staged> {
    let request = attachment::request(records, volume, read_only)?;
    replicated::stage(&request, drbd, layout)
}

/// Undoes [`attach`], with the volume's file or without. Nothing there is success.
///
/// # Errors
/// `FailedPrecondition` while somebody uses the device; `Aborted` while another operation on the volume is under
/// way.
pub fn detach(records: &Path, volume: &VolumeName) -> Result<()> {
    unstage::unstage(volume, &records.join(volume.as_str()), Holder::Node)
}

/// All that is attached on this node or should be: the devices of ours with what is wrong with each, and the
/// records in `records` that have none. Takes 10 seconds at most for those that do not answer.
pub fn attachments(records: &Path) -> Result<Vec<Attachment>> {
    attachment::list(records, Holder::Node, &[Holder::Pods, Holder::Node])
}

/// As [`attach`], for somebody without a pod: neither pods nor the callers of [`attach`] get the volume meanwhile.
///
/// # Errors
/// As [`attach`].
pub fn expose(records: &Path, volume: &NodeVolume, read_only: bool) -> Result<Staged> {
    attachment::attach(records, volume, read_only, Holder::Exposed)
}

/// The same for a volume that is attached by DRBD on this node.
///
/// # Errors
/// As [`attach_replicated`]; `FailedPrecondition` while its device is mounted here.
pub fn expose_replicated(
    records: &Path,
    volume: &NodeVolume,
    read_only: bool,
    drbd: &Drbd,
    layout: &Layout,
) -> Result<Staged> {
    exposed::refuse_if_mounted(records, volume, layout)?;
    attach_replicated(records, volume, read_only, drbd, layout)
}

/// Keeps a volume for a program that opens its file by itself, as [`expose`] does: by a read-only device on one block
/// of it, which holds the lock of the file for as long as it exists, whatever becomes of this process.
///
/// # Errors
/// As [`expose`]; `FailedPrecondition` for a volume of less than two blocks of 4 KiB.
pub fn reserve(records: &Path, volume: &NodeVolume) -> Result<()> {
    exposed::reserve(records, volume)
}

/// Undoes [`expose`] and [`reserve`], with the volume's file or without. Nothing there is success.
///
/// # Errors
/// `FailedPrecondition` while somebody uses the device, which then stays; `Aborted` while another operation on the
/// volume is under way.
pub fn unexpose(records: &Path, volume: &VolumeName) -> Result<()> {
    unstage::unstage(volume, &records.join(volume.as_str()), Holder::Exposed)
}

/// All that [`expose`] and [`reserve`] have attached on this node or should have, as [`attachments`].
pub fn exposed(records: &Path) -> Result<Vec<Attachment>> {
    attachment::list(records, Holder::Exposed, &[Holder::Exposed])
}

/// The device at `path` in `/dev`, provided that [`expose`] made it of this volume: a number of a loop device that was
/// given back is given to the next file. `None`: it is another's, or none.
pub fn exposed_at(path: &Path, volume: &VolumeName, file: &Path) -> Result<Option<Shown>> {
    exposed::at(path, volume, file)
}

/// Whether [`reserve`] keeps the volume.
pub fn is_reserved(volume: &VolumeName, file: &Path) -> Result<bool> {
    let devices = inspect::loops_of(volume, Holder::Exposed, Some(file))?;
    Ok(!devices.is_empty())
}

/// Lets a staged volume appear at a target.
///
/// # Errors
/// `FailedPrecondition` when it is not staged, for a second target of a single writer, and when
/// something lies at the target; `AlreadyExists` when it is there in another way.
pub fn publish(request: &PublishRequest) -> Result<()> {
    publish::publish(request)
}

/// Undoes [`publish`] and removes the target, never with anything in it. Nothing there is success.
pub fn unpublish(volume: &VolumeName, target_path: &Path) -> Result<()> {
    publish::unpublish(volume, target_path)
}

/// Grows the loop device and the file system at `path` (staging path or target) to the size of the
/// volume's file, and returns that size. Nothing to grow is success. A file system grows also by a read-only
/// target, when it is mounted for writing elsewhere.
///
/// # Errors
/// `NotFound` when the volume is not at `path`; `FailedPrecondition` when the file system has not the size of the
/// volume after all.
pub fn expand(volume: &VolumeName, path: &Path) -> Result<ByteSize> {
    expand::expand(volume, path)
}

/// Tells how full the volume at `path` (staging path or target) is and how it is. Returns within
/// seconds, whatever the file system does.
///
/// # Errors
/// `NotFound` when the volume is not at `path`.
pub fn stats(volume: &VolumeName, path: &Path) -> Result<Stats> {
    stats::stats(volume, path)
}

/// A volume that an earlier process staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    pub volume: VolumeName,
    /// Where it was staged.
    pub staging_path: PathBuf,
    /// What has become of it.
    pub state: SurvivorState,
}

/// What has become of a volume since it was staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SurvivorState {
    /// It is staged and works.
    Staged,
    /// Its mount is there and does not work; the next stage replaces it.
    Dead,
    /// A crash or a reboot came in between; the next stage or unstage finishes it.
    Interrupted,
}

/// Tells what earlier processes staged below `directory` (for CSI, kubelet's
/// `plugins/kubernetes.io/csi`), for the log of a program that starts. A missing directory holds
/// nothing.
pub fn survey(directory: &Path) -> Result<Vec<Survivor>> {
    survey::survey(directory)
}

/// Whether a volume that holds `content` could be staged for mounting, before there is a device: the
/// same decision that [`stage`] makes when it has looked.
///
/// # Errors
/// As [`stage`] would fail.
pub fn check_content(
    volume: &NodeVolume,
    content: &probe::Content,
    fs_type: Option<FsType>,
    read_only: bool,
) -> Result<()> {
    plan::decide(volume, content, fs_type, read_only).map(drop)
}

/// Whether the volume is mounted at `path` (staging path or target). A path that is not there holds
/// nothing.
pub fn is_at(volume: &VolumeName, path: &Path) -> Result<bool> {
    locate::is_at(volume, path)
}

/// The volume that is mounted at `path`: for FlexVolume's `unmount`, which is told a path only.
/// `None` when nothing of ours is mounted there, or when the volume's name is longer than 54 bytes.
pub fn volume_at(path: &Path) -> Result<Option<VolumeName>> {
    locate::volume_at(path)
}
