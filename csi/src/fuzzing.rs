//! The checks of requests as fuzz targets see them: nothing of this is in a build that is not one.

use proto::csi::v1 as csi;
use types::{Classify as _, ErrorKind};

use crate::request;

/// Checks a request for a volume, and says how it was refused.
pub fn create_volume(wire: csi::CreateVolumeRequest) -> Option<ErrorKind> {
    request::CreateVolume::parse(wire)
        .err()
        .map(|error| error.kind())
}

/// The same for a request to stage one.
pub fn stage_volume(wire: csi::NodeStageVolumeRequest) -> Option<ErrorKind> {
    request::NodeStage::parse(wire)
        .err()
        .map(|error| error.kind())
}

/// The same for a request for a snapshot.
pub fn create_snapshot(wire: &csi::CreateSnapshotRequest) -> Option<ErrorKind> {
    request::CreateSnapshot::parse(wire.clone())
        .err()
        .map(|error| error.kind())
}
