//! Being written.
use crate::{Error, Result};
pub(super) fn expand(
    volume: &types::VolumeName,
    _path: &std::path::Path,
) -> Result<types::ByteSize> {
    Err(Error::Busy(volume.clone()))
}
