//! The state of a volume according to the kernel: which mounts and loop devices are ours.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use types::VolumeName;

use crate::device::BlockDevice;
use crate::loopdev::{self, FileId, LoopDevice, Mark, Status};
use crate::mountinfo::{self, Mount};
use crate::paths::{self, Place};
use crate::{DeviceNumber, Error, Holder, Result, bounded, drbd};

/// How long a file system may take to answer before it counts as hung.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The mark of a volume's loop device.
pub(super) fn mark(volume: &VolumeName, holder: Holder) -> Mark {
    Mark::of(holder.prefix(), volume)
}

/// The volume that a mark for pods names, unless its name was cut.
pub(super) fn volume_of(mark: &Mark) -> Option<VolumeName> {
    VolumeName::new(mark.text().strip_prefix(Holder::Pods.prefix())?).ok()
}

/// The name in a mark of ours, cut where it was too long, and for whom the device is attached.
pub(super) fn name_in(mark: &Mark) -> Option<(String, Holder)> {
    let text = mark.text();
    let all = [Holder::Pods, Holder::Node, Holder::Exposed];
    all.into_iter().find_map(|holder| {
        let name = text.strip_prefix(holder.prefix())?;
        Some((name.to_owned(), holder))
    })
}

/// The device of a volume that is used here.
#[derive(Debug)]
pub(super) enum Attached {
    /// A loop device on its file, or on a part of the device of DRBD.
    Loop(LoopDevice),
    /// The device of DRBD.
    Drbd(BlockDevice),
}

impl Deref for Attached {
    type Target = BlockDevice;

    fn deref(&self) -> &BlockDevice {
        match self {
            Self::Loop(device) => device,
            Self::Drbd(device) => device,
        }
    }
}

impl Attached {
    /// Takes over the present size of the file; that of DRBD grows by itself.
    pub(super) fn refresh_size(&self) -> Result<()> {
        match self {
            Self::Loop(device) => device.refresh_size(),
            Self::Drbd(_) => Ok(()),
        }
    }

    /// Closes the device, and waits until it is no longer attached to `file`.
    pub(super) fn wait_gone(self, file: FileId) -> Result<()> {
        match self {
            Self::Loop(device) => device.wait_gone(file),
            Self::Drbd(_) => Ok(()),
        }
    }
}

/// The device of DRBD of a volume, for [`Found`] and [`devices_of`].
pub(super) fn replicated(volume: &VolumeName, device: BlockDevice) -> (Attached, Status) {
    let status = Status {
        file: FileId {
            device: device.number(),
            inode: 0,
        },
        mark: mark(volume, Holder::Pods),
        part: None,
        read_only: false,
        direct_io: true,
        autoclear: false,
    };
    (Attached::Drbd(device), status)
}

/// The attached devices of the volume: those with its mark, and of those the ones of its file, when
/// the file is known and still there.
pub(super) fn devices_of(
    volume: &VolumeName,
    holder: Holder,
    file: Option<&Path>,
) -> Result<Vec<(Attached, Status)>> {
    let mut all: Vec<_> = loops_of(volume, holder, file)?
        .into_iter()
        .map(|(device, status)| (Attached::Loop(device), status))
        .collect();
    if all.is_empty()
        && let Some(minor) = file.and_then(drbd::minor_of)
        && drbd::volume_of(minor)?.as_ref() == Some(volume)
    {
        all.push(replicated(volume, drbd::device(minor)?));
    }
    Ok(all)
}

/// Those of them that are loop devices.
pub(super) fn loops_of(
    volume: &VolumeName,
    holder: Holder,
    file: Option<&Path>,
) -> Result<Vec<(LoopDevice, Status)>> {
    let mark = mark(volume, holder);
    let id = file.and_then(file_id);
    loopdev::find(|status| status.mark == mark && id.is_none_or(|id| status.file == id))
}

/// Whether a device shows this file, or one that is gone.
pub(super) fn may_be_of(status: &Status, file: &Path) -> bool {
    file_id(file).is_none_or(|id| status.file == id)
}

fn file_id(path: &Path) -> Option<FileId> {
    FileId::of(&paths::open_regular(path, false).ok()?).ok()
}

/// A mount of the volume, and its device.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) mount: Mount,
    pub(super) device: Attached,
    pub(super) status: Status,
}

/// What is mounted at a place.
#[derive(Debug)]
pub(super) enum AtPlace {
    Nothing,
    Ours(Box<Found>),
    Foreign(Mount),
}

/// What is mounted at `place`, seen from `volume`.
pub(super) fn at(place: &Place, volume: &VolumeName) -> Result<AtPlace> {
    if !place.may_be_mounted() {
        return Ok(AtPlace::Nothing);
    }
    at_among(&mountinfo::read()?, place, volume)
}

/// The same by a list of mounts that was just read.
pub(super) fn at_among(mounts: &[Mount], place: &Place, volume: &VolumeName) -> Result<AtPlace> {
    let Some(mount) = mountinfo::at(mounts, place.path()) else {
        return Ok(AtPlace::Nothing);
    };
    let found = match device_of(mount)? {
        Some((device, status)) if status.mark == mark(volume, Holder::Pods) => {
            AtPlace::Ours(Box::new(Found {
                mount: mount.clone(),
                device,
                status,
            }))
        }
        _ => AtPlace::Foreign(mount.clone()),
    };
    Ok(found)
}

/// Whether a mount shows the node of a device of DRBD that the kernel has no more: a replicated volume was taken from
/// this node while a pod had it as a block device. Nothing can be reached through it.
pub(super) fn is_of_gone_device(mount: &Mount) -> bool {
    // The kernel writes this behind the name of a file that is gone: proc(5).
    let root = mount.root.to_string_lossy();
    let name = root.trim_end_matches("//deleted").trim_start_matches('/');
    mount.fs_type == "devtmpfs"
        && drbd::is_name(name)
        && matches!(BlockDevice::named(name), Ok(None))
}

/// The attached device of a volume that a mount shows, as a file system or as its node.
pub(super) fn device_of(mount: &Mount) -> Result<Option<(Attached, Status)>> {
    let Some(name) = device_name(mount) else {
        return Ok(None);
    };
    if let Some(minor) = drbd::minor_of(&Path::new("/dev").join(&name)) {
        return match drbd::volume_of(minor)? {
            Some(volume) => Ok(Some(replicated(&volume, drbd::device(minor)?))),
            None => Ok(None),
        };
    }
    let Some(device) = LoopDevice::open(&name)? else {
        return Ok(None);
    };
    let status = device.status()?;
    Ok(status.map(|status| (Attached::Loop(device), status)))
}

/// The name of a device that may be ours.
fn name_of(number: DeviceNumber) -> Option<String> {
    let name = crate::device::name_of(number)?;
    may_be_ours(&name).then_some(name)
}

fn may_be_ours(name: &str) -> bool {
    name.starts_with("loop") || drbd::is_name(name)
}

/// The name in `/dev` of the device that a mount shows.
fn device_name(mount: &Mount) -> Option<String> {
    if let Some(name) = name_of(mount.device) {
        return Some(name);
    }
    match mount.fs_type.as_str() {
        // The number of a btrfs is anonymous.
        "btrfs" => mount
            .source
            .strip_prefix("/dev")
            .ok()?
            .to_str()
            .map(ToOwned::to_owned),
        // A bind mount of a node. Its name in /dev is a hint, its number is the truth.
        "devtmpfs" | "tmpfs" if is_node(&mount.root) => {
            let stat = rustix::fs::lstat(&mount.point).ok()?;
            let is_block = rustix::fs::FileType::from_raw_mode(stat.st_mode)
                == rustix::fs::FileType::BlockDevice;
            is_block.then(|| name_of(DeviceNumber::from_raw(stat.st_rdev)))?
        }
        _ => None,
    }
}

fn is_node(root: &Path) -> bool {
    root.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(may_be_ours)
}

/// Where the device is mounted, but for `except`. A mount that is only repeated, because the kubelet's directory
/// is mounted twice, is the one that it repeats.
pub(super) fn mounted_elsewhere<'a>(
    mounts: &'a [Mount],
    device: &BlockDevice,
    except: &[&Path],
) -> Vec<&'a Mount> {
    let of_device = mounts.iter().filter(|mount| shows(mount, device));
    let (known, others): (Vec<_>, Vec<_>) =
        of_device.partition(|mount| except.contains(&mount.point.as_path()));
    others
        .into_iter()
        .filter(|other| {
            !known
                .iter()
                .any(|one| mountinfo::is_one(mounts, one, other))
        })
        .collect()
}

/// Whether a mount shows the device, as a file system or as its node.
fn shows(mount: &Mount, device: &BlockDevice) -> bool {
    // All others have the number of their device, and need no look.
    let is_other = matches!(mount.fs_type.as_str(), "btrfs" | "devtmpfs" | "tmpfs");
    mount.device == device.number()
        || is_other && device_name(mount).is_some_and(|name| name == device.name())
}

/// The error for a foreign mount.
pub(super) fn foreign(mount: &Mount) -> Error {
    Error::ForeignMount {
        path: mount.point.clone(),
        mounted: format!("{} ({})", mount.source.display(), mount.fs_type),
    }
}

/// Whether a mounted file system of ours no longer works, so that only a new mount helps.
///
/// # Errors
/// [`Error::Hung`] when it does not say.
pub(super) fn is_dead(found: &Found) -> Result<bool> {
    if found.mount.has_super_option("shutdown") {
        return Ok(true);
    }
    if is_device_node(&found.mount) {
        return Ok(false);
    }
    let answer = look_into(&found.mount.point)?;
    Ok(answer.is_err_and(|error| {
        matches!(
            error.raw_os_error(),
            Some(libc::EIO | libc::ENOTCONN | libc::ESHUTDOWN | libc::ENXIO | libc::ENODEV)
        )
    }))
}

/// Whether the mount shows a device's node rather than a file system.
pub(super) fn is_device_node(mount: &Mount) -> bool {
    matches!(mount.fs_type.as_str(), "devtmpfs" | "tmpfs")
}

/// Reads a little of a file system without changing it.
fn look_into(point: &Path) -> Result<std::io::Result<()>> {
    let path: PathBuf = point.to_owned();
    bounded::run(point, ANSWER_WITHIN, move || {
        rustix::fs::statfs(&path)?;
        match std::fs::read_dir(&path)?.next() {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_its_volume() {
        let short = VolumeName::new("pvc-4a1c9a4e-2f0d-4b57-9e7e-0a3b6f0d8c11").unwrap();
        for holder in [Holder::Pods, Holder::Node] {
            let name = name_in(&mark(&short, holder));
            assert_eq!(name, Some((short.to_string(), holder)));
        }
        assert_eq!(volume_of(&mark(&short, Holder::Node)), None);
        assert_eq!(volume_of(&mark(&short, Holder::Pods)), Some(short));
        let (a, b) = ("a".repeat(128), format!("{}b", "a".repeat(127)));
        let (a, b) = (VolumeName::new(&a).unwrap(), VolumeName::new(&b).unwrap());
        for holder in [Holder::Pods, Holder::Node] {
            assert_ne!(mark(&a, holder), mark(&b, holder));
        }
        assert_eq!(volume_of(&mark(&a, Holder::Pods)), None);
        assert_eq!(volume_of(&Mark::new("/some/file.img").unwrap()), None);
    }
}
