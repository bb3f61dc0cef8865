//! Volumes that somebody uses without a pod: what is theirs of [`super::attach`], and whether a device is still that of
//! its volume.

use std::path::Path;

use replication::Layout;
use types::VolumeName;

use super::inspect;
use super::{NodeVolume, attachment};
use crate::loopdev::{self, LoopDevice};
use crate::mountinfo;
use crate::paths;
use crate::staging::record;
use crate::{Error, Holder, Result, drbd};

/// The second block of a volume, in bytes: no file system has its superblock there, so that a look at the device that
/// keeps a volume finds nothing.
const RESERVED: std::ops::Range<u64> = 4096..8192;

/// A device that shows a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The volume has become larger than its device, which grows when it is told to.
    pub is_behind: bool,
}

pub(super) fn reserve(records: &Path, volume: &NodeVolume) -> Result<()> {
    if volume.size.bytes() < RESERVED.end {
        return Err(Error::VolumeTooSmall {
            volume: volume.name.clone(),
            size: volume.size,
        });
    }
    let part = NodeVolume {
        part: Some(RESERVED),
        ..volume.clone()
    };
    attachment::attach(records, &part, true, Holder::Exposed).map(drop)
}

pub(super) fn at(path: &Path, volume: &VolumeName, file: &Path) -> Result<Option<Shown>> {
    if let Some(minor) = drbd::minor_of(path) {
        let is_its = path == file && drbd::is_attached(minor, volume)?;
        return Ok(is_its.then_some(Shown { is_behind: false }));
    }
    let name = path.strip_prefix("/dev").ok().and_then(Path::to_str);
    let Some(device) = name.map(LoopDevice::open).transpose()?.flatten() else {
        return Ok(None);
    };
    let Some(status) = device.status()? else {
        return Ok(None);
    };
    let is_its = status.mark == inspect::mark(volume, Holder::Exposed)
        && status.part.is_none()
        && inspect::may_be_of(&status, file);
    if !is_its {
        return Ok(None);
    }
    let size = device.size()?;
    let length = paths::open_regular(file, false)
        .ok()
        .and_then(|file| file.metadata().ok())
        .map_or(size, |metadata| metadata.len());
    Ok(Some(Shown {
        is_behind: length > size,
    }))
}

/// Pods that have the device keep it. What was exposed already may be mounted by its users.
pub(super) fn refuse_if_mounted(
    records: &Path,
    volume: &NodeVolume,
    layout: &Layout,
) -> Result<()> {
    if record::peek(&records.join(volume.name.as_str()), &volume.name).is_some() {
        return Ok(());
    }
    let device = drbd::device(layout.minor)?;
    if inspect::mounted_elsewhere(&mountinfo::read()?, &device, &[]).is_empty() {
        return Ok(());
    }
    Err(Error::StillInUse {
        users: loopdev::users(device.name())?,
        device: device.path(),
    })
}
