//! Being written.
use super::{StageRequest, Staged};
use crate::{Error, Result};
pub(super) fn stage(request: &StageRequest) -> Result<Staged> {
    Err(Error::Busy(request.volume.name.clone()))
}
