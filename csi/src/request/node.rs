//! Requests to the node service. `host::paths` checks paths where it opens them; only missing
//! fields are reported here.

use std::collections::HashMap;
use std::path::PathBuf;

use proto::csi::v1 as csi;
use types::VolumeName;

use super::{Capability, MAP_BYTES, bounded, required, volume_id};
use crate::error::{Error, Result};
use crate::location::Location;

/// `NodeStageVolume`.
pub(crate) struct NodeStage {
    pub(crate) volume: VolumeName,
    pub(crate) location: Location,
    pub(crate) staging_path: PathBuf,
    pub(crate) capability: Capability,
}

impl NodeStage {
    pub(crate) fn parse(wire: csi::NodeStageVolumeRequest) -> Result<Self> {
        required("volume_id", &wire.volume_id)?;
        required("staging_target_path", &wire.staging_target_path)?;
        let capability = Capability::parse("volume_capability", wire.volume_capability)?;
        let volume = volume_id(&wire.volume_id)?;
        let location = location(&volume, &wire.volume_context, &wire.publish_context)?;
        Ok(Self {
            volume,
            location,
            staging_path: wire.staging_target_path.into(),
            capability,
        })
    }
}

/// `NodePublishVolume`.
pub(crate) struct NodePublish {
    pub(crate) volume: VolumeName,
    pub(crate) staging_path: PathBuf,
    pub(crate) target_path: PathBuf,
    pub(crate) capability: Capability,
    /// Asked for by the call, by the access mode, or by the controller.
    pub(crate) read_only: bool,
}

impl NodePublish {
    pub(crate) fn parse(wire: csi::NodePublishVolumeRequest) -> Result<Self> {
        required("volume_id", &wire.volume_id)?;
        required("target_path", &wire.target_path)?;
        let capability = Capability::parse("volume_capability", wire.volume_capability)?;
        if wire.staging_target_path.is_empty() {
            return Err(Error::NotStaged);
        }
        let volume = volume_id(&wire.volume_id)?;
        bounded("publish_context", &wire.publish_context, MAP_BYTES)?;
        let published_readonly = Location::is_readonly(&wire.publish_context);
        Ok(Self {
            volume,
            staging_path: wire.staging_target_path.into(),
            target_path: wire.target_path.into(),
            read_only: wire.readonly || capability.mode.read_only() || published_readonly,
            capability,
        })
    }
}

/// A volume and the one path that the call is about: unstage, unpublish, stats, expand.
#[derive(Debug)]
pub(crate) struct AtPath {
    pub(crate) volume: VolumeName,
    pub(crate) path: PathBuf,
}

impl AtPath {
    /// `field` is the path's name in the request.
    pub(crate) fn parse(id: &str, field: &'static str, path: &str) -> Result<Self> {
        required("volume_id", id)?;
        let path = required(field, path)?.into();
        Ok(Self {
            volume: volume_id(id)?,
            path,
        })
    }
}

fn location(
    volume: &VolumeName,
    volume_context: &HashMap<String, String>,
    publish_context: &HashMap<String, String>,
) -> Result<Location> {
    bounded("volume_context", volume_context, MAP_BYTES)?;
    bounded("publish_context", publish_context, MAP_BYTES)?;
    Location::parse(volume, volume_context, publish_context)
}
