//! The replica of a volume on a disk of this node: two files, attached as loop devices for as long as DRBD has them.
//!
//! `volume` holds the volume byte for byte, `drbd` beside it DRBD's metadata. The manager makes both. Loop devices go
//! with their last user (autoclear), so that a process killed before DRBD has them leaves none, and a detached replica
//! none either. Their marks tell them from those of staging and of the node service.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replication::{Begins, DiskState, Layout, Member, MemberId};
use rustix::io::Errno;
use types::{ByteSize, DiskUuid, VolumeName, crash_point};

use super::metadata::{self, Superblock};
use super::settings::{DISK, PEER_SLOTS};
use super::{resource_name, status, tools};
use crate::disks::{self, DirectoryLock, Disks};
use crate::loopdev::{self, AttachOptions, FileId, LoopDevice, Mark, SECTOR};
use crate::{Error, Holder, Result, bounded, paths};

/// The metadata's place beside the file of a volume.
pub(crate) const METADATA: &str = "drbd";
/// How long the disk may take to show its metadata.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// What the mark of the metadata's loop device begins with.
const METADATA_PREFIX: &str = "longhorn-drbd-md:";

/// The files of a replica, opened so that what was looked at is what is used.
struct Files {
    directory: OwnedFd,
    volume: VolumeName,
    data: PathBuf,
    metadata: PathBuf,
}

impl Files {
    fn find(disks: &Disks, volume: &VolumeName, disk: &DiskUuid) -> Result<Self> {
        let data = disks.find(volume, disk)?.path;
        let directory =
            disks::open_directory(&data).map_err(Error::io("open the directory of", &data))?;
        Ok(Self {
            directory,
            volume: volume.clone(),
            metadata: data.with_file_name(METADATA),
            data,
        })
    }

    fn open_metadata(&self, writable: bool) -> Result<File> {
        match paths::open_regular_in(&self.directory, &self.metadata, writable) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(Error::VolumeMissing {
                    volume: self.volume.clone(),
                    file: self.metadata.clone(),
                })
            }
            file => file,
        }
    }

    /// Opens the file of the volume, which has at least `size` bytes. Whoever has it open, or attached, holds it
    /// (flock(2), shared): meanwhile its manager does not delete it.
    fn open_data(&self, size: ByteSize) -> Result<File> {
        let file = paths::open_regular_in(&self.directory, &self.data, true)?;
        match disks::hold(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy(self.volume.clone())),
            Err(errno) => return Err(Error::io("lock", &self.data)(errno)),
        }
        let metadata = file.metadata().map_err(Error::io("inspect", &self.data))?;
        if metadata.len() < size.bytes() {
            return Err(Error::VolumeDamaged {
                volume: self.volume.clone(),
                file: self.data.clone(),
                why: format!("it has {} bytes and the volume {size}", metadata.len()),
            });
        }
        Ok(file)
    }

    /// Refuses metadata of another member, which is that of an old replica or of a copied directory, and missing
    /// metadata that was there once.
    fn refuse_other(
        &self,
        id: MemberId,
        superblock: Option<&Superblock>,
        create: bool,
    ) -> Result<()> {
        let why = match superblock {
            None if create => return Ok(()),
            None => "it holds no metadata, and did once: this replica has lost its contents; it is replaced after the \
                     staleReplicaTimeout of the volume, or by evacuating the node"
                .to_owned(),
            Some(Superblock {
                node_id: Some(other),
                ..
            }) if *other != id.0 => format!(
                "it is the metadata of member {other}, and this node is member {id}: it is an old replica, which is to \
                 be deleted on that disk first"
            ),
            Some(_) => return Ok(()),
        };
        Err(Error::VolumeDamaged {
            volume: self.volume.clone(),
            file: self.metadata.clone(),
            why,
        })
    }

    /// Refuses a file that is attached already, by whomever.
    fn refuse_if_attached(&self, file: &File) -> Result<()> {
        let id = FileId::of(file).map_err(Error::io("inspect", &self.data))?;
        let Some((device, status)) = loopdev::find(|status| status.file == id)?.pop() else {
            return Ok(());
        };
        let is_of = |holder: &Holder| Mark::of(holder.prefix(), &self.volume) == status.mark;
        Err(match Holder::ALL.into_iter().find(is_of) {
            // It goes away with its last user.
            Some(Holder::Replica) => Error::Busy(self.volume.clone()),
            Some(by) => Error::HeldOtherwise {
                volume: self.volume.clone(),
                device: device.path(),
                by,
            },
            None => Error::ForeignLoop {
                file: self.data.clone(),
                users: loopdev::users(device.name())?,
                device: device.path(),
            },
        })
    }

    fn attach(&self, file: &File, prefix: &str) -> Result<LoopDevice> {
        let options = AttachOptions {
            read_only: false,
            autoclear: true,
            mark: Mark::of(prefix, &self.volume),
            part: None,
            // All replicas show sectors of one size, whatever their disks like best.
            sector_max: SECTOR,
        };
        LoopDevice::attach(file, &options)
    }
}

/// Attaches the replica of a member to the volume's device. Metadata is made only where there is none, and only with
/// `create`: once it was there, a disk without it has lost what it should remember. Peers in it that are no members are
/// forgotten: each would count as a replica that is missing.
pub(super) fn attach(
    disks: &Disks,
    layout: &Layout,
    member: &Member,
    disk: &DiskUuid,
    create: bool,
) -> Result<()> {
    let volume = &layout.volume;
    let files = Files::find(disks, volume, disk)?;
    let _alone = DirectoryLock::acquire(&files.directory, volume, &files.data)?;
    let (data, described) = (files.open_data(layout.size)?, files.open_metadata(true)?);
    files.refuse_if_attached(&data)?;
    let superblock = metadata::read(&described, &files.metadata)?;
    files.refuse_other(member.id, superblock.as_ref(), create)?;
    let (data, described) = (
        files.attach(&data, Holder::Replica.prefix())?,
        files.attach(&described, METADATA_PREFIX)?,
    );
    crash_point!("host.drbd.looped");
    let (minor, data, described) = (layout.minor.to_string(), text(&data), text(&described));
    let place = [minor.as_str(), "v09", &described, "flex-external"];
    let metadata =
        |what, arguments: &[&str]| tools::metadata(volume, what, &[&place, arguments].concat());
    // These two ask a question else; they are only done where there is no metadata, or it is as new.
    let unasked = |what, arguments: &[&str]| {
        let arguments = [&["--force"], place.as_slice(), arguments].concat();
        tools::metadata(volume, what, &arguments)
    };
    if superblock.is_none() {
        unasked("make the metadata of", &["create-md", PEER_SLOTS])?;
        crash_point!("host.drbd.described");
    }
    // Also where a crash came between: it is as new then.
    let is_new = superblock.as_ref().is_none_or(Superblock::is_fresh);
    let generation = match layout.begins(member) {
        Begins::Current(generation) => Some(format!("{generation}:0:0:0:1:1")),
        // Consistent, and not current: it is never promoted, or copied from, before it has met the others.
        Begins::Behind(generation) => Some(format!("{generation}:0:0:0:1:0")),
        Begins::Unknown => None,
    };
    if let Some(generation) = generation.filter(|_| create && is_new) {
        let id = format!("--node-id={}", member.id);
        unasked("set the generation of", &["set-gi", &id, &generation])?;
        crash_point!("host.drbd.generation");
    }
    // After a power cut what was being written is marked; nothing to do else.
    let said = metadata("apply the activity log of", &["apply-al"])?;
    tracing::debug!(%volume, said, "activity log");
    crash_point!("host.drbd.applied");
    let known = superblock.map_or_else(Vec::new, |superblock| superblock.peers);
    let is_member = |id: &u8| layout.members.iter().any(|member| member.id.0 == *id);
    for peer in known.iter().filter(|id| !is_member(id)) {
        metadata(
            "forget a peer of",
            &["forget-peer", &format!("--node-id={peer}")],
        )?;
    }
    refuse_if_served(volume)?;
    let place = ["attach", &minor, &data, &described, "flexible"];
    tools::change(volume, "attach the replica of", &[&place, DISK].concat())
}

/// Looks once more, right before: DRBD 9.3.3 frees the bitmap of a device that has a replica when it is to attach one
/// more, and the kernel stumbles over it later. That its file is in no other loop device was seen before.
fn refuse_if_served(volume: &VolumeName) -> Result<()> {
    let name = resource_name(volume);
    let resource = status::states(Some(&name))?.remove(&name);
    let disk = resource.and_then(|resource| Some(resource.device?.disk));
    if disk == Some(DiskState::Diskless) {
        return Ok(());
    }
    Err(Error::Busy(volume.clone()))
}

fn text(device: &LoopDevice) -> String {
    device.path().display().to_string()
}

/// Lets the loop devices of a replica have the size of their files.
pub(super) fn refresh(disks: &Disks, layout: &Layout, disk: &DiskUuid) -> Result<()> {
    let files = Files::find(disks, &layout.volume, disk)?;
    let id = |file: &File| FileId::of(file).map_err(Error::io("inspect", &files.data));
    let ids = [
        id(&files.open_data(layout.size)?)?,
        id(&files.open_metadata(false)?)?,
    ];
    for (device, _) in loopdev::find(|status| ids.contains(&status.file))? {
        device.refresh_size()?;
    }
    Ok(())
}

/// The file of a replica, for reading.
pub(super) fn open(disks: &Disks, volume: &VolumeName, disk: &DiskUuid) -> Result<File> {
    let files = Files::find(disks, volume, disk)?;
    paths::open_regular_in(&files.directory, &files.data, false)
}

/// What the metadata of a replica says; `None`: it has none yet.
///
/// # Errors
/// [`Error::Hung`] when the disk does not answer.
pub(super) fn superblock(
    disks: &Disks,
    volume: &VolumeName,
    disk: &DiskUuid,
) -> Result<Option<Superblock>> {
    let (disks, volume, disk) = (disks.clone(), volume.clone(), disk.clone());
    let path = PathBuf::from(disk.as_str());
    bounded::run(&path, ANSWERS_WITHIN, move || {
        let files = Files::find(&disks, &volume, &disk)?;
        metadata::read(&files.open_metadata(false)?, &files.metadata)
    })?
}

/// What the metadata of a replica says whose volume's file is at `file`; `None`: it is no replica.
pub(super) fn beside(file: &Path) -> Option<Result<Option<Superblock>>> {
    let path = file.with_file_name(METADATA);
    let directory = disks::open_directory(file).ok()?;
    match paths::open_regular_in(&directory, &path, false) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.and_then(|opened| metadata::read(&opened, &path))),
    }
}
