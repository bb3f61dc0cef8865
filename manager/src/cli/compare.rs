//! `backing-image-manager volume compare`: volumes that no PersistentVolume names, and PersistentVolumes
//! without a volume.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use client::wire;
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::disk::census;
use super::volumes::list_all;
use super::{Failure, output};

/// The largest listing that is read: some 10,000 objects.
const LISTING_MAX: u64 = 256 << 20;

/// What `kubectl get pv -o json` prints, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Listing {
    items: Vec<Object>,
}

#[derive(Debug, Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    csi: Option<Csi>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Csi {
    driver: String,
    volume_handle: String,
}

/// What does not match.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Differences {
    /// Volumes that no PersistentVolume names.
    without_pv: Vec<Unclaimed>,
    /// PersistentVolumes whose volume is on no disk.
    without_volume: Vec<Unfounded>,
    /// Volumes of one name on several disks.
    on_several_disks: Vec<Unclaimed>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unclaimed {
    name: String,
    node_id: String,
    #[serde(rename = "diskUUID")]
    disk_uuid: String,
    size: u64,
    created_at: String,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unfounded {
    persistent_volume: String,
    volume_handle: String,
}

/// Compares all volumes of a cluster with a listing, which comes from standard input where `file` is `-`.
pub(super) async fn run(connection: &Connection, file: &Path, driver: &str) -> Result<(), Failure> {
    let listing = read(file)?;
    let census = census(connection).await?;
    let clients: Vec<_> = census.members.iter().map(|m| m.client.clone()).collect();
    // Of a disk that is silent nobody knows what it has.
    census.complete(&[], None)?;
    let mut volumes = Vec::new();
    for client in &clients {
        volumes.extend(list_all(client).await?);
    }
    Ok(output::json(&compare(&listing, &volumes, driver))?)
}

fn read(file: &Path) -> Result<Listing, Failure> {
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).map_err(|error| format!("open {}: {error}", file.display()))?)
    };
    let listing = serde_json::from_reader(io::BufReader::new(source.take(LISTING_MAX)));
    listing.map_err(|error| {
        let what = "this is not the output of `kubectl get persistentvolumes -o json`";
        format!("{what}: {error}").into()
    })
}

fn compare(listing: &Listing, volumes: &[wire::Volume], driver: &str) -> Differences {
    let mut claimed = BTreeMap::new();
    for object in &listing.items {
        if let Some(csi) = object.spec.csi.as_ref().filter(|csi| csi.driver == driver) {
            claimed.insert(csi.volume_handle.as_str(), object.metadata.name.as_str());
        }
    }
    let (mut there, mut twice) = (HashSet::new(), HashSet::new());
    for volume in volumes {
        if !there.insert(volume.name.as_str()) {
            twice.insert(volume.name.as_str());
        }
    }
    let shown = |matches: &dyn Fn(&str) -> bool| {
        let matching = volumes.iter().filter(|volume| matches(&volume.name));
        let mut shown: Vec<_> = matching.map(unclaimed).collect();
        shown.sort_by(|a, b| (&a.name, &a.disk_uuid).cmp(&(&b.name, &b.disk_uuid)));
        shown
    };
    let missing = claimed
        .iter()
        .filter(|(handle, _)| !there.contains(**handle));
    Differences {
        without_pv: shown(&|name| !claimed.contains_key(name)),
        without_volume: missing
            .map(|(handle, name)| Unfounded {
                persistent_volume: (*name).to_owned(),
                volume_handle: (*handle).to_owned(),
            })
            .collect(),
        on_several_disks: shown(&|name| twice.contains(name)),
    }
}

fn unclaimed(volume: &wire::Volume) -> Unclaimed {
    let replica = volume.replicas.first().cloned().unwrap_or_default();
    Unclaimed {
        name: volume.name.clone(),
        node_id: replica.node_id,
        disk_uuid: replica.disk_uuid,
        size: volume.size,
        created_at: volume.created_at.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, disk: &str) -> wire::Volume {
        let replica = wire::Replica {
            disk_uuid: disk.to_owned(),
            ..Default::default()
        };
        wire::Volume {
            name: name.to_owned(),
            replicas: vec![replica],
            ..Default::default()
        }
    }

    #[test]
    fn row_160_volumes_and_persistent_volumes_are_compared_by_handle_and_driver() {
        let pv = |name: &str, driver: &str, handle: &str| serde_json::json!({"metadata": {"name": name}, "spec": {"csi": {"driver": driver, "volumeHandle": handle}}});
        let listing = serde_json::json!({"kind": "List", "items": [
            pv("pv-a", "ours", "a"),
            pv("pv-lost", "ours", "lost"),
            pv("pv-b", "theirs", "b"),
            {"metadata": {"name": "nfs"}, "spec": {"nfs": {"server": "x"}}},
        ]});
        let listing: Listing = serde_json::from_value(listing).unwrap();
        let volumes = [volume("b", "1"), volume("a", "2"), volume("a", "1")];
        let found = compare(&listing, &volumes, "ours");
        let names = |all: &[Unclaimed]| -> Vec<_> {
            let pairs = all.iter();
            pairs
                .map(|one| format!("{}@{}", one.name, one.disk_uuid))
                .collect()
        };
        assert_eq!(names(&found.without_pv), ["b@1"]);
        assert_eq!(names(&found.on_several_disks), ["a@1", "a@2"]);
        let lost = Unfounded {
            persistent_volume: "pv-lost".to_owned(),
            volume_handle: "lost".to_owned(),
        };
        assert_eq!(found.without_volume, [lost]);
        assert!(serde_json::from_str::<Listing>(r#"{"kind": "Status"}"#).is_err());
    }
}
