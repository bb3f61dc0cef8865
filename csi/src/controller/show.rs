//! Volumes as CSI shows them.

use std::collections::HashMap;

use client::wire;
use proto::csi::v1 as csi;

use crate::location;
use crate::request::SNAPSHOT_ID;

/// A volume; `topology_key` is the key of the segment that names a node. A replicated volume is reachable from every
/// node that has DRBD, which the segment `replication_key` says.
pub(super) fn volume(
    volume: &wire::Volume,
    topology_key: &str,
    replication_key: &str,
) -> csi::Volume {
    let nodes = volume
        .replicas
        .iter()
        .filter(|replica| !replica.node_id.is_empty());
    let topology = |replica: &wire::Replica| csi::Topology {
        segments: HashMap::from([(topology_key.to_owned(), replica.node_id.clone())]),
    };
    let accessible_topology = if volume.is_replica {
        vec![csi::Topology {
            segments: HashMap::from([(replication_key.to_owned(), "true".to_owned())]),
        }]
    } else {
        nodes.map(topology).collect()
    };
    csi::Volume {
        capacity_bytes: bytes(volume.size),
        volume_id: volume.name.clone(),
        volume_context: location::volume_context(volume),
        content_source: content_source(volume),
        accessible_topology,
    }
}

fn content_source(volume: &wire::Volume) -> Option<csi::VolumeContentSource> {
    use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
    let backup = volume
        .parameters
        .get(SNAPSHOT_ID)
        .map_or("", String::as_str);
    let snapshot = match volume.source_snapshot.as_str() {
        "" => backup,
        snapshot => snapshot,
    };
    let source = match (volume.source_volume.as_str(), snapshot) {
        ("", "") => return None,
        ("", snapshot) => Type::Snapshot(SnapshotSource {
            snapshot_id: snapshot.to_owned(),
        }),
        (source, _) => Type::Volume(VolumeSource {
            volume_id: source.to_owned(),
        }),
    };
    Some(csi::VolumeContentSource {
        r#type: Some(source),
    })
}

/// A size on the wire. The manager refuses sizes past `i64::MAX`.
pub(super) fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(super) fn condition(volume: &wire::Volume) -> csi::VolumeCondition {
    let wrong = [&volume.condition, &volume.degraded].map(String::as_str);
    let wrong: Vec<&str> = wrong.into_iter().filter(|why| !why.is_empty()).collect();
    let abnormal = !wrong.is_empty();
    let message = if abnormal {
        wrong.join("; ")
    } else {
        "healthy".to_owned()
    };
    csi::VolumeCondition { abnormal, message }
}

/// Where pods may use the volume: Kubernetes knows no other users.
pub(super) fn published_nodes(volume: &wire::Volume) -> Vec<String> {
    volume
        .published
        .iter()
        .filter(|publication| publication.r#use() == wire::Use::Pods)
        .map(|publication| publication.node_id.clone())
        .collect()
}
