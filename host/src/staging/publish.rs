//! Being written.
use super::PublishRequest;
use crate::{Error, Result};
pub(super) fn publish(request: &PublishRequest) -> Result<()> {
    Err(Error::Busy(request.volume.clone()))
}
pub(super) fn unpublish(volume: &types::VolumeName, _path: &std::path::Path) -> Result<()> {
    Err(Error::Busy(volume.clone()))
}
