//! Being written.
use super::Stats;
use crate::{Error, Result};
pub(super) fn stats(volume: &types::VolumeName, _path: &std::path::Path) -> Result<Stats> {
    Err(Error::Busy(volume.clone()))
}
