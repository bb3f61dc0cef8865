//! Which volume is at a path, and in which role.

use std::path::Path;

use types::VolumeName;

use super::inspect::{self, AtPlace, Attached};
use super::record::{self, Kind};
use crate::mountinfo::{self, Mount};
use crate::paths::Place;
use crate::{Error, Holder, Result};

/// A volume at a path: mounted there, or a block device staged there.
pub(super) struct Here {
    /// `None` for a block device at its staging path, where nothing is mounted.
    pub(super) mount: Option<Mount>,
    pub(super) device: Attached,
}

/// Finds the volume at `path`, a staging path or a target.
pub(super) fn find(volume: &VolumeName, path: &Path) -> Result<Here> {
    find_among(&mountinfo::read()?, volume, path)
}

/// The same by a list of mounts that was just read.
pub(super) fn find_among(mounts: &[Mount], volume: &VolumeName, path: &Path) -> Result<Here> {
    let not_here = || Error::NotHere {
        volume: volume.clone(),
        path: path.to_owned(),
    };
    // What cannot be a place of ours is not the place of this volume.
    let Ok(place) = Place::open(path) else {
        return Err(not_here());
    };
    match inspect::at_among(mounts, &place, volume)? {
        AtPlace::Ours(found) => {
            return Ok(Here {
                mount: Some(found.mount),
                device: found.device,
            });
        }
        AtPlace::Foreign(_) => return Err(not_here()),
        AtPlace::Nothing => {}
    }
    // A staged block device has nothing mounted; its record says where it is.
    let record = record::peek(path, volume)
        .filter(|record| record.kind == Kind::Block)
        .filter(|record| {
            let recorded = Place::open(&record.staging_path);
            recorded.is_ok_and(|recorded| recorded.path() == place.path())
        })
        .ok_or_else(not_here)?;
    let devices = inspect::devices_of(volume, Holder::Pods, Some(&record.file))?;
    let (device, _) = devices.into_iter().next().ok_or_else(not_here)?;
    Ok(Here {
        mount: None,
        device,
    })
}

pub(super) fn is_at(volume: &VolumeName, path: &Path) -> Result<bool> {
    match Place::open(path) {
        Ok(place) => Ok(matches!(inspect::at(&place, volume)?, AtPlace::Ours(_))),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn volume_at(path: &Path) -> Result<Option<VolumeName>> {
    let place = Place::open(path)?;
    let mounts = mountinfo::read()?;
    let Some(mount) = mountinfo::at(&mounts, place.path()) else {
        return Ok(None);
    };
    let device = inspect::device_of(mount)?;
    Ok(device.and_then(|(_, status)| inspect::volume_of(&status.mark)))
}
