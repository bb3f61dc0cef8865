//! The error of the manager: the request, the problem, the next step.

mod context;
mod kind;

use std::path::PathBuf;

use types::{ByteSize, Checksum, ImageId, ImageName, InvalidName, NodeId, Sha512, VolumeName};

/// What can go wrong in the manager. A variant's text is its own layer only; causes are sources.
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
    /// No image of that name (and uuid).
    #[error("there is no backing image {0}; see `backing-image-manager backing-image list`")]
    ImageNotFound(String),
    /// The image is there, and its registry does not say that the caller may have it.
    #[error(
        "image {image} was pulled with credentials, and its registry denies access to this \
         caller; provide the pull secret of the image"
    )]
    AccessUnproven {
        /// The reference.
        image: String,
        /// What the registry said.
        #[source]
        source: Box<Error>,
    },
    /// The name is taken by an image from elsewhere.
    #[error(
        "backing image {id} exists with another {difference}; delete it or choose another name"
    )]
    ImageExists {
        /// The image that has the name.
        id: ImageId,
        /// Which part of the request differs, and how.
        difference: String,
    },
    /// The image cannot be used yet, or any more.
    #[error("backing image {id} is {state}, not ready{message}")]
    ImageNotReady {
        /// Which image.
        id: ImageId,
        /// The state as the design spells it.
        state: &'static str,
        /// `: ` and the reason, or nothing.
        message: String,
    },
    /// Volumes were made from the image.
    #[error("backing image {id} is used by volume {volume}; delete its volumes first")]
    ImageInUse {
        /// Which image.
        id: ImageId,
        /// One of the volumes.
        volume: VolumeName,
    },
    /// The path or the uuid of an image is taken. Longhorn's own text, which its callers know.
    #[error("file {} already exists", .0.display())]
    FileExists(PathBuf),
    /// A size that Longhorn's engine could not read with direct I/O. Longhorn's own text.
    #[error(
        "the uploaded file size {0} should be a multiple of 512 bytes since Longhorn uses directIO by \
         default"
    )]
    UnalignedSize(u64),
    /// Nobody knows a file of that path. Longhorn's own text.
    #[error("can not find sync file {}", .0.display())]
    FileNotFound(PathBuf),
    /// An image is to be adopted, but its file is not there.
    #[error("there is no file {} to adopt; fetch it from a data source or a manager", .0.display())]
    NothingToAdopt(PathBuf),
    /// The file has another length than was said.
    #[error("the file has {actual} bytes, expected {expected}")]
    WrongSize {
        /// Bytes that were asked for.
        expected: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// As many copies of an image as may be sent at once are being sent.
    #[error(
        "the image reaches to the simultaneous sending limit {0}; try again when one has ended"
    )]
    SendingLimit(u32),
    /// What Longhorn's manager can do and this one cannot.
    #[error("{0} is not implemented")]
    Unimplemented(&'static str),
    /// A data source, or another manager, did not answer, or not with what was asked.
    #[error("{address}: {what}")]
    Peer {
        /// Who was asked.
        address: String,
        /// What it said.
        what: String,
    },
    /// Another manager was asked for an image and did not give it.
    #[error("manager {address} does not send the image")]
    OtherManager {
        /// Who was asked.
        address: String,
        /// What it said.
        #[source]
        source: Box<client::Error>,
    },
    /// No volume of that name.
    #[error("there is no volume {0}")]
    VolumeNotFound(String),
    /// The name is taken by a volume of another shape.
    #[error("volume {name} exists with another {difference}; use another name")]
    VolumeExists {
        /// The volume that has the name.
        name: VolumeName,
        /// Which part of the request differs, and how.
        difference: String,
    },
    /// Another request works on the volume.
    #[error("another operation on volume {0} is running; try again")]
    VolumeBusy(VolumeName),
    /// Another request takes the snapshots of the group.
    #[error("another operation on the group {0} is running; try again")]
    GroupBusy(ImageName),
    /// The volume may be in use on a node.
    #[error("volume {name} is published on node {node}; unpublish it there first")]
    VolumePublished {
        /// Which volume.
        name: VolumeName,
        /// Where it is published.
        node: NodeId,
    },
    /// The volume is in use on a node, though it is not published there.
    #[error(
        "volume {name} is attached to a loop device of node {node}: a pod uses it, or used it \
         until now; delete the pods that use it first"
    )]
    VolumeAttached {
        /// Which volume.
        name: VolumeName,
        /// Whose device that is.
        node: NodeId,
    },
    /// The volume is being written to, and cannot be had as it is at one moment.
    #[error(
        "volume {name} is being written to on node {node}: {why}; delete the pods that use it \
         first"
    )]
    CannotCut {
        /// Which volume.
        name: VolumeName,
        /// Who writes.
        node: NodeId,
        /// Why that matters.
        why: String,
    },
    /// The volume is published on that node in another way.
    #[error("volume {name} is already published on node {node} with readonly={readonly}")]
    PublishedDifferently {
        /// Which volume.
        name: VolumeName,
        /// Where.
        node: NodeId,
        /// How it is published.
        readonly: bool,
    },
    /// A node that this manager has never heard of.
    #[error("node {0} is not known to this manager")]
    NodeUnknown(NodeId),
    /// A size that cannot be had.
    #[error("volume size {asked}: {why}")]
    Size {
        /// What was asked, in bytes.
        asked: ByteSize,
        /// What would be possible.
        why: String,
    },
    /// The disk has promised its volumes as much as it may.
    #[error(
        "volume size {asked}: the disk can promise {creatable} bytes more; {promised} of {most} \
         bytes are promised to its volumes and images; delete some of them, add a disk, or set \
         a larger --overcommit"
    )]
    Overcommitted {
        /// What was asked, in bytes.
        asked: ByteSize,
        /// What the others have.
        promised: u64,
        /// What all may have.
        most: u64,
        /// What is left; nothing on a disk that is full.
        creatable: u64,
    },
    /// A write found the disk full.
    #[error(
        "cannot {operation} {}: the disk is full, or its quota is used up; delete volumes, \
         snapshots or images, or run fstrim in mounted volumes", path.display()
    )]
    Full {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
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
        /// The directory.
        path: PathBuf,
        /// Why its configuration cannot be used.
        #[source]
        source: std::io::Error,
    },
    /// Another manager has the disk.
    #[error("another backing-image-manager ({holder}) serves {}; one disk has one manager", path.display())]
    DiskLocked {
        /// The disk.
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
        /// The disk's directory.
        path: PathBuf,
        /// What was there.
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
    NewerFormat {
        /// The state file.
        path: PathBuf,
        /// The version found.
        version: u32,
    },
    /// A state file that cannot be read as what it is.
    #[error("{} is damaged", path.display())]
    DamagedRecord {
        /// The state file.
        path: PathBuf,
        /// Where and how.
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
    /// Not all bytes of a file came from who sent it.
    #[error("received {received} of {size} bytes, {why}")]
    CutShort {
        /// Bytes that came, holes included.
        received: u64,
        /// Bytes of the whole; 0 when nobody said how many.
        size: u64,
        /// Why no more did: it goes on from "came,".
        why: String,
    },
    /// Nobody began to send in time.
    #[error("failed to wait for processing begin in {seconds} seconds{hint}")]
    NothingCame {
        /// How long was waited.
        seconds: u64,
        /// `: ` and what is known of the reason, or nothing.
        hint: String,
    },
    /// Another process cannot be reached; it may work all the same.
    #[error("{address}: {what}")]
    PeerSilent {
        /// Who was asked.
        address: String,
        /// What happened instead.
        what: String,
    },
    /// Every port for receivers is in use.
    #[error("all ports of {0} are in use; give the daemon a larger --port-range")]
    PortsInUse(String),
    /// Receivers that wait for somebody to send are bounded.
    #[error("{0} copies are already pending or being received; try again when one has ended")]
    TooManyReceivers(usize),
    /// A source that keeps its turn from others.
    #[error("received only {bytes} bytes in {minutes} minutes")]
    TooSlow {
        /// What came.
        bytes: u64,
        /// In how much time.
        minutes: u64,
    },
    /// The image that an upload was for cannot be made of it.
    #[error("the upload ended: {0}")]
    UploadEnded(String),
    /// A piece of an upload does not begin where the last one ended.
    #[error("{0}")]
    UploadOffset(String),
    /// Encrypting or decrypting is not possible here.
    #[error("cannot encrypt or decrypt: {0}")]
    CannotEncrypt(String),
    /// What came does not fit what came before, or not the image at all.
    #[error("the received data cannot be part of the image: {0}")]
    NotOfImage(String),
    /// Another process, or another task of this one, makes the file.
    #[error("{} is already being created; wait for it, or delete it", .0.display())]
    WorkFileBusy(PathBuf),
    /// Neither what came nor what was in it has the expected sum.
    #[error("checksum mismatch: expected {expected}, got {}", listed(actual))]
    SourceChecksum {
        /// What was expected.
        expected: Checksum,
        /// Of the disk image, and of the file that it was unpacked from.
        actual: Vec<Checksum>,
    },
    /// Stored bytes are not what was sealed.
    #[error("backing image {id} is damaged: {what}")]
    Damaged {
        /// Which image.
        id: ImageId,
        /// What does not agree.
        what: String,
    },
    /// The disk fails again and again.
    #[error("the disk at {} caused {errors} I/O errors; check the kernel log and replace it", path.display())]
    DiskSuspect {
        /// Its directory.
        path: PathBuf,
        /// How many.
        errors: u64,
    },
    /// A damaged image cannot be made good again from here.
    #[error("no peer or source is known to have the image; sync, upload or create it again")]
    NobodyHas,
    /// Bytes that are not what they should be were put where nothing deletes them.
    #[error("the damaged file is quarantined in {}", path.display())]
    SetAside {
        /// What is wrong with them.
        #[source]
        why: Box<Error>,
        /// Where they are.
        path: PathBuf,
    },
    /// Bytes that are no disk image at all.
    #[error("the received data is not a disk image: {0}")]
    NotAnImage(String),
    /// The manager is about to stop.
    #[error("the manager is stopping and accepts no new work; try again after its restart")]
    Draining,
    /// The work was called off.
    #[error("cancelled: {0}")]
    Cancelled(&'static str),
    /// A disk-image format, or a container image around it, is broken or refused.
    #[error("the disk image cannot be used")]
    Image(#[from] image::Error),
    /// No disk image could be taken out of the layers of a container image.
    #[error("cannot extract the disk image from the container image")]
    Layer(#[source] Box<image::layer::Error>),
    /// An OCI image layout or an archive is broken, or does not hold the image.
    #[error("cannot read the container image")]
    Container(#[source] Box<image::oci::Error>),
    /// The network side failed.
    #[error("cannot fetch the image")]
    Fetch(#[source] Box<fetch::Error>),
    /// The image cannot be had from its peers.
    #[error("cannot sync the image")]
    Sync(#[source] Box<crate::sync::Error>),
    /// The operating system said no.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: std::io::Error,
    },
    /// A task of ours ended in a panic.
    #[error("an internal task failed; see the log for details")]
    Task(#[source] tokio::task::JoinError),
}

/// The sums one after the other.
fn listed(sums: &[Checksum]) -> String {
    let sums: Vec<_> = sums.iter().map(Checksum::to_string).collect();
    sums.join(" and ")
}

pub(crate) use self::context::IoContext;

/// `Result` with the manager's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// How often the source is worth reading from its first byte when a reading ends so.
    pub(crate) fn passes(&self) -> u32 {
        fetch::Error::in_chain(self).map_or(1, fetch::Error::passes)
    }
}
