//! Requests to the controller service.

use std::collections::HashMap;

use client::PullSecret;
use proto::csi::v1 as csi;
use types::{ByteSize, NodeId, VolumeName};

use super::backup::Secrets;
use super::{
    Capability, ContentSource, MAP_BYTES, Mutable, Page, Parameters, Restore, bounded, name,
    node_id, required, volume_id,
};
use crate::error::{Error, Result};

/// How large a volume must and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// At least; `None`: whatever is natural.
    pub(crate) required: Option<ByteSize>,
    pub(crate) limit: Option<ByteSize>,
}

impl Capacity {
    pub(crate) fn parse(wire: Option<csi::CapacityRange>) -> Result<Self> {
        let Some(csi::CapacityRange {
            required_bytes,
            limit_bytes,
        }) = wire
        else {
            return Ok(Self::default());
        };
        let required = size("required_bytes", required_bytes)?;
        let limit = size("limit_bytes", limit_bytes)?;
        match (required, limit) {
            (Some(required), Some(limit)) if required > limit => {
                let why = "it is less than required_bytes";
                Err(Error::Invalid {
                    field: "limit_bytes",
                    why,
                })
            }
            _ => Ok(Self { required, limit }),
        }
    }
}

/// A size of the wire: 0 is unset, negative is an error.
fn size(field: &'static str, bytes: i64) -> Result<Option<ByteSize>> {
    let bytes = u64::try_from(bytes).map_err(|_| Error::Invalid {
        field,
        why: "it is negative",
    })?;
    Ok((bytes > 0).then_some(ByteSize(bytes)))
}

/// `CreateVolume`.
pub(crate) struct CreateVolume {
    pub(crate) name: VolumeName,
    pub(crate) capacity: Capacity,
    /// At least one; the volume suits them all.
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) parameters: Parameters,
    pub(crate) pull_secret: PullSecret,
    /// `None`: the parameters say what it shall hold. Else that alone does: a claim that is made from
    /// another one has that one's StorageClass, with its image.
    pub(crate) source: Option<ContentSource>,
    /// The backup that either of them names.
    pub(crate) restore: Option<Restore>,
    /// Topologies of which one must hold the volume; empty: anywhere.
    pub(crate) requisite: Vec<HashMap<String, String>>,
    /// Those of them that are better than the others, the best first: where the pod is to run.
    pub(crate) preferred: Vec<HashMap<String, String>>,
}

impl CreateVolume {
    pub(crate) fn parse(wire: csi::CreateVolumeRequest) -> Result<Self> {
        let (name, original) = name::volume(required("name", &wire.name)?)?;
        let mut capabilities = Capability::parse_all(wire.volume_capabilities)?;
        let capacity = Capacity::parse(wire.capacity_range)?;
        let mut parameters = Parameters::parse(&wire.parameters)?;
        parameters.apply(&Mutable::parse(&wire.mutable_parameters)?);
        if let Some(original) = original {
            parameters.record_name(original);
        }
        let source = (wire.volume_content_source).map(ContentSource::parse);
        let source = source.transpose()?;
        let restore = restore(source.as_ref(), &mut parameters, &wire.secrets)?;
        for capability in &mut capabilities {
            one_fs_type(capability, &parameters)?;
            // What is formatted gets the file system asked for, or ext4.
            let fs_type = capability.fs_type().unwrap_or(host::FsType::Ext4);
            host::filesystem::mkfs_options(fs_type, &parameters.mkfs)?;
        }
        let pull_secret = PullSecret::parse(&wire.secrets, parameters.base_image.as_deref())
            .map_err(|why| Error::Invalid {
                field: "secrets",
                why,
            })?;
        let topology = wire.accessibility_requirements.unwrap_or_default();
        let segments = |topologies: Vec<csi::Topology>| {
            let segments = topologies.into_iter().map(|topology| topology.segments);
            segments.collect()
        };
        Ok(Self {
            name,
            capacity,
            capabilities,
            parameters,
            pull_secret,
            source,
            restore,
            requisite: segments(topology.requisite),
            preferred: segments(topology.preferred),
        })
    }

    /// The file system asked for, if any is; all capabilities agree on it.
    pub(crate) fn fs_type(&self) -> Option<host::FsType> {
        self.capabilities.iter().find_map(Capability::fs_type)
    }

    /// Whether it names an image that is made if it is not there.
    pub(crate) fn makes_image(&self) -> bool {
        self.restore.is_some() || self.parameters.makes_image()
    }

    /// Whether the volume will be mounted.
    pub(crate) fn is_mount(&self) -> bool {
        self.capabilities.iter().any(Capability::is_mount)
    }
}

/// The backup that a volume is restored from: the source of its contents, else that of the parameters.
fn restore(
    source: Option<&ContentSource>,
    parameters: &mut Parameters,
    secrets: &HashMap<String, String>,
) -> Result<Option<Restore>> {
    let target = parameters.backup_target.clone();
    match (source, parameters.from_backup.clone()) {
        (Some(ContentSource::Backup(id)), _) => {
            parameters.record_snapshot(id.to_string());
            let secrets = Secrets::parse(secrets.clone())?;
            Restore::of_id(id.clone(), &target, secrets).map(Some)
        }
        (None, Some(address)) => {
            let secrets = Secrets::parse(secrets.clone())?;
            Ok(Restore::of_address(address, secrets))
        }
        _ => Ok(None),
    }
}

/// The capability's fsType and the parameter's are one question asked twice.
fn one_fs_type(capability: &mut Capability, parameters: &Parameters) -> Result<()> {
    let host::staging::Access::Mount { fs_type, .. } = &mut capability.access else {
        return Ok(());
    };
    match (parameters.fs_type, *fs_type) {
        (Some(parameter), Some(capability)) if parameter != capability => Err(Error::TwoFsTypes {
            parameter: parameter.to_string(),
            capability: capability.to_string(),
        }),
        (parameter, asked) => {
            *fs_type = asked.or(parameter);
            Ok(())
        }
    }
}

/// `ControllerPublishVolume`.
pub(crate) struct PublishVolume {
    pub(crate) volume: VolumeName,
    pub(crate) node: NodeId,
    pub(crate) capability: Capability,
    pub(crate) readonly: bool,
}

impl PublishVolume {
    pub(crate) fn parse(wire: csi::ControllerPublishVolumeRequest) -> Result<Self> {
        // What is missing is said before what is wrong: the order that csi-sanity checks.
        required("volume_id", &wire.volume_id)?;
        required("node_id", &wire.node_id)?;
        let capability = Capability::parse("volume_capability", wire.volume_capability)?;
        Ok(Self {
            volume: volume_id(&wire.volume_id)?,
            node: node_id(&wire.node_id)?,
            capability,
            readonly: wire.readonly,
        })
    }
}

/// `ControllerUnpublishVolume`.
pub(crate) struct UnpublishVolume {
    pub(crate) volume: VolumeName,
    /// `None`: from every node.
    pub(crate) node: Option<NodeId>,
}

impl UnpublishVolume {
    pub(crate) fn parse(wire: &csi::ControllerUnpublishVolumeRequest) -> Result<Self> {
        let volume = volume_id(&wire.volume_id)?;
        let node = (!wire.node_id.is_empty())
            .then(|| node_id(&wire.node_id))
            .transpose()?;
        Ok(Self { volume, node })
    }
}

/// `ValidateVolumeCapabilities`. The capabilities stay unparsed: one that is not supported is an
/// answer there, not an error.
pub(crate) struct ValidateVolume {
    pub(crate) volume: VolumeName,
    pub(crate) capabilities: Vec<csi::VolumeCapability>,
    pub(crate) context: HashMap<String, String>,
    pub(crate) parameters: HashMap<String, String>,
    pub(crate) mutable_parameters: HashMap<String, String>,
}

impl ValidateVolume {
    pub(crate) fn parse(wire: csi::ValidateVolumeCapabilitiesRequest) -> Result<Self> {
        required("volume_id", &wire.volume_id)?;
        if wire.volume_capabilities.is_empty() {
            return Err(Error::Missing {
                field: "volume_capabilities",
            });
        }
        bounded("volume_context", &wire.volume_context, MAP_BYTES)?;
        Ok(Self {
            volume: volume_id(&wire.volume_id)?,
            capabilities: wire.volume_capabilities,
            context: wire.volume_context,
            parameters: wire.parameters,
            mutable_parameters: wire.mutable_parameters,
        })
    }
}

/// `ListVolumes`.
pub(crate) fn list_volumes(wire: &csi::ListVolumesRequest) -> Result<Page> {
    Page::parse(wire.max_entries, &wire.starting_token)
}

/// `ControllerModifyVolume`.
#[derive(Debug)]
pub(crate) struct ModifyVolume {
    pub(crate) volume: VolumeName,
    pub(crate) mutable: Mutable,
}

impl ModifyVolume {
    pub(crate) fn parse(wire: &csi::ControllerModifyVolumeRequest) -> Result<Self> {
        let volume = volume_id(&wire.volume_id)?;
        let mutable = Mutable::parse(&wire.mutable_parameters)?;
        Ok(Self { volume, mutable })
    }
}

/// `GetCapacity`.
pub(crate) struct GetCapacity {
    /// `None`: everywhere.
    pub(crate) topology: Option<HashMap<String, String>>,
}

impl GetCapacity {
    /// The parameters are the whole class as it stands, with what is meant for the sidecars. They do not
    /// change how much room there is, and what is wrong with them is for `CreateVolume` to say: where
    /// this call fails the scheduler tells pods that there is no room.
    pub(crate) fn parse(wire: csi::GetCapacityRequest) -> Result<Self> {
        bounded("parameters", &wire.parameters, MAP_BYTES)?;
        for capability in wire.volume_capabilities {
            Capability::parse("volume_capabilities", Some(capability))?;
        }
        Ok(Self {
            topology: wire.accessible_topology.map(|topology| topology.segments),
        })
    }
}

/// `ControllerExpandVolume`.
pub(crate) struct ExpandVolume {
    pub(crate) volume: VolumeName,
    pub(crate) capacity: Capacity,
}

impl ExpandVolume {
    pub(crate) fn parse(wire: csi::ControllerExpandVolumeRequest) -> Result<Self> {
        required("volume_id", &wire.volume_id)?;
        let capacity = Capacity::parse(wire.capacity_range)?;
        if capacity == Capacity::default() {
            return Err(Error::Missing {
                field: "capacity_range",
            });
        }
        // The capability is optional here, and nothing depends on it once it is found valid.
        if wire.volume_capability.is_some() {
            Capability::parse("volume_capability", wire.volume_capability)?;
        }
        Ok(Self {
            volume: volume_id(&wire.volume_id)?,
            capacity,
        })
    }
}

#[cfg(test)]
mod tests;
