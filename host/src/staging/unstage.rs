//! Being written.
use crate::{Error, Result};
pub(super) fn unstage(volume: &types::VolumeName, _path: &std::path::Path) -> Result<()> {
    Err(Error::Busy(volume.clone()))
}
