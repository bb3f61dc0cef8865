//! Growing a staged volume while it is in use.

use std::path::Path;

use types::{ByteSize, VolumeName, crash_point};

use super::{inspect, locate};
use crate::mountinfo::{self, Mount};
use crate::{Error, Result, filesystem};

pub(super) fn expand(volume: &VolumeName, path: &Path) -> Result<ByteSize> {
    let here = locate::find(volume, path)?;
    here.device.refresh_size()?;
    crash_point!("host.expand.resized");
    if let Some(mount) = &here.mount
        && !inspect::is_device_node(mount)
        && let Ok(fs_type) = mount.fs_type.parse()
    {
        // A file system grows as a whole, by any mount of it that may be written to.
        let mounts = mountinfo::read()?;
        let writable = |other: &&Mount| !other.is_read_only() && !inspect::is_device_node(other);
        let all = inspect::mounted_elsewhere(&mounts, &here.device, &[]);
        if let Some(mount) = all.into_iter().find(writable) {
            if filesystem::grows_only_unmounted(fs_type, &here.device)? {
                return Err(Error::CannotGrowInUse {
                    path: mount.point.clone(),
                    fs_type,
                });
            }
            filesystem::grow(fs_type, &here.device, &mount.point)?;
        }
        if let Some(present) = filesystem::shortfall(fs_type, &here.device, &mount.point)? {
            return Err(Error::NotGrown {
                volume: volume.clone(),
                fs_type,
                present,
                size: ByteSize(here.device.size()?),
            });
        }
    }
    crash_point!("host.expand.grown");
    here.device.size().map(ByteSize)
}
