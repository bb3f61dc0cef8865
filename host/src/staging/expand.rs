//! Growing a staged volume while it is in use.

use std::path::Path;

use types::{ByteSize, VolumeName};

use super::inspect;
use super::place_of_volume;
use crate::Result;
use crate::filesystem;

pub(super) fn expand(volume: &VolumeName, path: &Path) -> Result<ByteSize> {
    let here = place_of_volume(volume, path)?;
    here.device.refresh_size()?;
    if let Some(mount) = &here.mount
        && !inspect::is_device_node(mount)
        && !mount.is_read_only()
        && let Ok(fs_type) = mount.fs_type.parse()
    {
        filesystem::grow(fs_type, &here.device, &mount.point)?;
    }
    here.device.size().map(ByteSize)
}
