//! What a claim asks for, as the external provisioner puts it.

use proto::csi::v1 as pb;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

pub(super) fn at_least(size: u64) -> pb::CapacityRange {
    pb::CapacityRange {
        required_bytes: i64::try_from(size).expect("a size below 8 EiB"),
        limit_bytes: 0,
    }
}

/// What the provisioner asks for on behalf of a claim of a StorageClass with these parameters.
pub fn claim(name: &str, size: u64, parameters: &[(&str, &str)]) -> pb::CreateVolumeRequest {
    pb::CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(at_least(size)),
        volume_capabilities: vec![mounted("")],
        parameters: parameters
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
        ..Default::default()
    }
}

/// The same with the content of a snapshot.
pub fn of_snapshot(name: &str, size: u64, snapshot_id: &str) -> pb::CreateVolumeRequest {
    use pb::volume_content_source::{SnapshotSource, Type};
    let snapshot_id = snapshot_id.into();
    of_source(name, size, Type::Snapshot(SnapshotSource { snapshot_id }))
}

/// The same with the content of a volume.
pub fn of_volume(name: &str, size: u64, volume_id: &str) -> pb::CreateVolumeRequest {
    use pb::volume_content_source::{Type, VolumeSource};
    let volume_id = volume_id.into();
    of_source(name, size, Type::Volume(VolumeSource { volume_id }))
}

fn of_source(
    name: &str,
    size: u64,
    source: pb::volume_content_source::Type,
) -> pb::CreateVolumeRequest {
    pb::CreateVolumeRequest {
        volume_content_source: Some(pb::VolumeContentSource {
            r#type: Some(source),
        }),
        ..claim(name, size, &[])
    }
}

/// A mounted volume for one node; `fs_type` empty: not asked.
pub fn mounted(fs_type: &str) -> pb::VolumeCapability {
    let mount = MountVolume {
        fs_type: fs_type.into(),
        ..Default::default()
    };
    capability(AccessType::Mount(mount))
}

/// A raw block volume for one node.
pub fn block() -> pb::VolumeCapability {
    capability(AccessType::Block(BlockVolume {}))
}

fn capability(access_type: AccessType) -> pb::VolumeCapability {
    pb::VolumeCapability {
        access_type: Some(access_type),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}
