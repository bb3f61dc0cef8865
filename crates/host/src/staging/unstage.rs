//! Unstaging: the steps of [`super::unstage`].
//!
//! 1 unmount · 2 detach and wait until the device is gone · 3 remove the record. The record goes
//! last, so that a crash before that is finished by the next call.

use std::io;
use std::path::Path;

use types::{VolumeName, crash_point};

use super::inspect::{self, AtPlace};
use super::record::{Record, RecordLock};
use crate::device::BlockDevice;
use crate::loopdev;
use crate::mountinfo::{self, Mount};
use crate::mounts::{self, Unmount};
use crate::paths::Place;
use crate::{Error, Holder, Result, drbd};

/// How many mounts of ours stacked at one path are taken away; a second one is already a sign that
/// somebody else mounted it.
const STACKED_MAX: u32 = 16;

pub(super) fn unstage(volume: &VolumeName, staging_path: &Path, holder: Holder) -> Result<()> {
    let place = match Place::open(staging_path) {
        // Without the parent there is neither a mount nor a record; a device may still be there.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return detach_unused(volume, None, holder);
        }
        place => place?,
    };
    let lock = RecordLock::acquire(&place, volume)?;
    match unmount_and_detach(volume, &place, &lock, holder) {
        Ok(()) => {
            crash_point!("host.unstage.detached");
            lock.remove()
        }
        // An empty record was only the lock.
        Err(error) if lock.record().is_none() => {
            lock.remove()?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

fn unmount_and_detach(
    volume: &VolumeName,
    place: &Place,
    lock: &RecordLock,
    holder: Holder,
) -> Result<()> {
    let mut replicated = lock
        .record()
        .and_then(|record| drbd::minor_of(&record.file));
    for _ in 0..STACKED_MAX {
        if !place.may_be_mounted() {
            break;
        }
        let mounts = mountinfo::read()?;
        let found = match inspect::at_among(&mounts, place, volume)? {
            AtPlace::Nothing => break,
            AtPlace::Foreign(mount) => return Err(inspect::foreign(&mount)),
            AtPlace::Ours(found) => found,
        };
        refuse_if_published(&mounts, &found.device, place)?;
        replicated = replicated.or_else(|| drbd::minor_of(&found.device.path()));
        // A mount that does not answer is not waited for.
        let is_dead = inspect::is_dead(&found).unwrap_or(true);
        mounts::unmount(
            place,
            if is_dead {
                Unmount::Lazy
            } else {
                Unmount::Plain
            },
        )?;
    }
    crash_point!("host.unstage.unmounted");
    detach_unused(volume, lock.record(), holder)?;
    match replicated {
        Some(minor) => give_back(volume, minor),
        None => Ok(()),
    }
}

/// Gives the right to use the device of DRBD back, which is mounted nowhere.
fn give_back(volume: &VolumeName, minor: u32) -> Result<()> {
    if drbd::volume_of(minor)?.as_ref() != Some(volume) {
        return Ok(());
    }
    let device = drbd::device(minor)?;
    let mounts = mountinfo::read()?;
    if !inspect::mounted_elsewhere(&mounts, &device, &[]).is_empty() {
        return Err(Error::StillInUse {
            device: device.path(),
            users: loopdev::users(device.name())?,
        });
    }
    // Whoever was to read only: the kernel keeps that. One that was taken over cannot be opened, and needs it not.
    if device.is_protected().unwrap_or(false) {
        device.protect(false)?;
    }
    drop(device);
    drbd::release(volume)
}

fn refuse_if_published(mounts: &[Mount], device: &BlockDevice, place: &Place) -> Result<()> {
    if inspect::mounted_elsewhere(mounts, device, &[place.path()]).is_empty() {
        return Ok(());
    }
    Err(Error::StillInUse {
        device: device.path(),
        users: loopdev::users(device.name())?,
    })
}

/// Detaches the devices of the volume that are mounted nowhere. With a record that the volume was
/// staged here, a device in use is an error; without one it belongs to another staging path.
///
/// A device that the node service attached is its own with a record or without; one that somebody has taken for
/// himself is not even asked to go, for the kernel would note that for later.
fn detach_unused(volume: &VolumeName, recorded: Option<&Record>, holder: Holder) -> Result<()> {
    let of_node = holder != Holder::Pods;
    let file = recorded.map(|record| record.file.as_path());
    for (device, _) in inspect::loops_of(volume, holder, file)? {
        let is_free = inspect::mounted_elsewhere(&mountinfo::read()?, &device, &[]).is_empty()
            && !(of_node && device.is_claimed()?);
        if is_free && holder == Holder::Exposed {
            device.detach_or_keep()?;
        } else if is_free {
            device.detach()?;
        } else if of_node || recorded.is_some() {
            return Err(Error::StillInUse {
                device: device.path(),
                users: loopdev::users(device.name())?,
            });
        }
    }
    Ok(())
}
