//! Publishing: a bind mount of the staged file system, or of the device's node, at a target.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use types::{VolumeName, crash_point};

use super::PublishRequest;
use super::inspect::{self, AtPlace, Attached};
use super::record::{Kind, RecordLock};
use crate::device::BlockDevice;
use crate::mountinfo::{self, Mount};
use crate::mounts::{self, Unmount};
use crate::paths::{Occupant, Place};
use crate::{DeviceNumber, Error, Holder, Result};

/// What is bound to a target.
struct Source {
    fd: OwnedFd,
    device: Attached,
    kind: Kind,
    /// Whether nothing can be written through it anyway.
    read_only: bool,
}

pub(super) fn publish(request: &PublishRequest) -> Result<()> {
    let staging = Place::open(&request.staging_path).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => not_staged(request),
        error => error,
    })?;
    let target = Place::open(&request.target_path)?;
    let lock = RecordLock::acquire(&staging, &request.volume)?;
    let published = publish_locked(request, &staging, &target, &lock);
    if published.is_err() && lock.record().is_none() {
        // An empty record was only the lock.
        lock.remove()?;
    }
    published
}

fn publish_locked(
    request: &PublishRequest,
    staging: &Place,
    target: &Place,
    lock: &RecordLock,
) -> Result<()> {
    let mounts = mountinfo::read()?;
    let source = source(request, &mounts, staging, lock)?;
    let read_only = request.read_only || source.read_only;
    if let Some(present) = present(request, &mounts, target)? {
        return compare(request, target, &source, &present, read_only);
    }
    let places = [staging.path(), target.path()];
    let others = inspect::mounted_elsewhere(&mounts, &source.device, &places);
    if let Some(other) = others.first().filter(|_| request.single_writer) {
        let (volume, other) = (request.volume.clone(), other.point.clone());
        return Err(Error::SecondTarget { volume, other });
    }
    if source.kind == Kind::Block && !source.read_only {
        protect(request, &source.device, others.first().copied())?;
    }
    let was_there = make_target(target, source.kind)?;
    crash_point!("host.publish.created");
    let on = occupant_for(source.kind);
    if let Err(error) = mounts::bind(&source.fd, target, on, read_only) {
        if !was_there && let Err(failure) = target.remove() {
            tracing::warn!(error = %types::report(&failure), "a failed publish leaves its target");
        }
        return Err(error);
    }
    crash_point!("host.publish.mounted");
    Ok(())
}

/// The mount of ours at the target, if it is alive. A dead one is taken away.
fn present(request: &PublishRequest, mounts: &[Mount], target: &Place) -> Result<Option<Mount>> {
    match inspect::at_among(mounts, target, &request.volume)? {
        AtPlace::Nothing => Ok(None),
        AtPlace::Foreign(mount) => Err(inspect::foreign(&mount)),
        AtPlace::Ours(found) if inspect::is_dead(&found)? => {
            mounts::unmount(target, Unmount::Lazy)?;
            present(request, &mountinfo::read()?, target)
        }
        AtPlace::Ours(found) => Ok(Some(found.mount)),
    }
}

/// Whether what is at the target already is what is asked for.
fn compare(
    request: &PublishRequest,
    target: &Place,
    source: &Source,
    present: &Mount,
    read_only: bool,
) -> Result<()> {
    let incompatible = |present: &str, asked: &str| {
        Err(Error::Incompatible {
            volume: request.volume.clone(),
            path: target.path().to_owned(),
            present: present.to_owned(),
            asked: asked.to_owned(),
        })
    };
    let kind = if inspect::is_device_node(present) {
        Kind::Block
    } else {
        Kind::Mount
    };
    if kind != source.kind {
        return incompatible(kind.describe(), source.kind.describe());
    }
    match (present.has_option("ro"), read_only) {
        (true, false) => incompatible("read-only", "for writing"),
        (false, true) => incompatible("for writing", "read-only"),
        _ => Ok(()),
    }
}

/// Makes a block device what the target may do with it: a read-only mount of its node protects nothing.
/// Its other targets have the same device.
fn protect(request: &PublishRequest, device: &BlockDevice, other: Option<&Mount>) -> Result<()> {
    let protected = device.is_protected()?;
    if protected == request.read_only {
        return Ok(());
    }
    if let Some(other) = other {
        return Err(Error::MixedBlock {
            volume: request.volume.clone(),
            other: other.point.clone(),
            present: if protected {
                "read-only"
            } else {
                "for writing"
            },
        });
    }
    device.protect(request.read_only)
}

fn occupant_for(kind: Kind) -> Occupant {
    match kind {
        Kind::Mount => Occupant::Directory,
        Kind::Block => Occupant::File,
    }
}

/// Creates the target, or takes an empty one of the right kind. Returns whether it was there.
fn make_target(target: &Place, kind: Kind) -> Result<bool> {
    match (target.occupant()?, kind) {
        (Occupant::Nothing, Kind::Mount) => target.make_directory().map(|()| false),
        (Occupant::Nothing, Kind::Block) => target.make_file().map(|()| false),
        (Occupant::Directory, Kind::Mount) if target.has_entries()? => {
            // They would be hidden, and would keep unpublish from removing the target.
            Err(target.in_the_way("a directory with files in it"))
        }
        (Occupant::Directory, Kind::Mount) | (Occupant::File, Kind::Block) => Ok(true),
        (found, _) => Err(target.occupied(found)),
    }
}

/// What is staged, opened.
fn source(
    request: &PublishRequest,
    mounts: &[Mount],
    staging: &Place,
    lock: &RecordLock,
) -> Result<Source> {
    let asked = Kind::of(&request.access);
    let source = match inspect::at_among(mounts, staging, &request.volume)? {
        AtPlace::Foreign(mount) => return Err(inspect::foreign(&mount)),
        AtPlace::Ours(found) if inspect::is_dead(&found)? => return Err(not_staged(request)),
        AtPlace::Ours(found) => {
            let fd = staging.open_occupant(Occupant::Directory)?;
            if mount_id(&fd, staging)? != found.mount.id {
                return Err(Error::Busy(request.volume.clone()));
            }
            let read_only = found.mount.has_option("ro");
            Source {
                fd,
                device: found.device,
                kind: Kind::Mount,
                read_only,
            }
        }
        AtPlace::Nothing => block_source(request, lock)?,
    };
    if source.kind == asked {
        return Ok(source);
    }
    Err(Error::Incompatible {
        volume: request.volume.clone(),
        path: request.staging_path.clone(),
        present: format!("staged {}", source.kind.describe()),
        asked: asked.describe().to_owned(),
    })
}

fn mount_id(fd: &OwnedFd, place: &Place) -> Result<u64> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .map(|stat| stat.stx_mnt_id)
        .map_err(Error::io("inspect", place.path()))
}

/// The node of the volume's block device, proven by its number: a path in /dev proves nothing.
fn block_source(request: &PublishRequest, lock: &RecordLock) -> Result<Source> {
    if lock
        .record()
        .is_some_and(|record| record.kind != Kind::Block)
    {
        return Err(not_staged(request));
    }
    let file = lock.record().map(|record| record.file.as_path());
    let mut devices = inspect::devices_of(&request.volume, Holder::Pods, file)?;
    devices.retain(|(_, status)| !status.autoclear);
    let Some((device, status)) = devices.pop().filter(|_| devices.is_empty()) else {
        return Err(not_staged(request));
    };
    let path = device.path();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io("open the node", &path))?;
    let stat = rustix::fs::fstat(&fd).map_err(Error::io("inspect the node", &path))?;
    if DeviceNumber::from_raw(stat.st_rdev) != device.number() {
        return Err(Error::Busy(request.volume.clone()));
    }
    Ok(Source {
        fd,
        device,
        kind: Kind::Block,
        read_only: status.read_only,
    })
}

fn not_staged(request: &PublishRequest) -> Error {
    Error::NotStaged {
        volume: request.volume.clone(),
        path: request.staging_path.clone(),
    }
}

/// See [`super::unpublish`]. Needs no lock: each step does nothing when it is done already.
pub(super) fn unpublish(volume: &VolumeName, target_path: &Path) -> Result<()> {
    let target = match Place::open(target_path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        target => target?,
    };
    loop {
        match inspect::at(&target, volume)? {
            AtPlace::Nothing => break,
            AtPlace::Foreign(mount) if inspect::is_of_gone_device(&mount) => {
                mounts::unmount(&target, Unmount::Lazy)?;
            }
            AtPlace::Foreign(mount) => return Err(inspect::foreign(&mount)),
            AtPlace::Ours(found) => {
                let is_dead = inspect::is_dead(&found).unwrap_or(true);
                mounts::unmount(
                    &target,
                    if is_dead {
                        Unmount::Lazy
                    } else {
                        Unmount::Plain
                    },
                )?;
            }
        }
    }
    crash_point!("host.unpublish.unmounted");
    target.remove()
}
