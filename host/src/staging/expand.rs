//! Growing a staged volume while it is in use.

use std::path::Path;

use types::{ByteSize, VolumeName, crash_point};

use super::{inspect, locate};
use crate::{Error, Result, filesystem};

pub(super) fn expand(volume: &VolumeName, path: &Path) -> Result<ByteSize> {
    let here = locate::find(volume, path)?;
    here.device.refresh_size()?;
    crash_point!("host.expand.resized");
    if let Some(mount) = &here.mount
        && !inspect::is_device_node(mount)
        && !mount.is_read_only()
        && let Ok(fs_type) = mount.fs_type.parse()
    {
        if filesystem::grows_only_unmounted(fs_type, &here.device)? {
            return Err(Error::CannotGrowInUse {
                path: mount.point.clone(),
                fs_type,
            });
        }
        filesystem::grow(fs_type, &here.device, &mount.point)?;
    }
    crash_point!("host.expand.grown");
    here.device.size().map(ByteSize)
}
