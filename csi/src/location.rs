//! The location of a volume's file: what the controller passes to the node in the contexts, and how
//! the node finds the file.
//!
//! A context passes through the hands of others, so a node believes little of it: no path in it is
//! ever opened ([`host::disks`]).

use std::collections::HashMap;
use std::ops::Range;

use client::parameters::BASE_IMAGE;
use client::{has_source, wire};
use host::Disks;
use host::disks::volume_path;
use host::drbd::device_path;
use host::staging::NodeVolume;
use types::{ByteSize, DiskUuid, NodeId, SECTOR, VolumeName};

use crate::error::{Error, Result};
use client::parameters::MKFS_PARAMS;

const DISK_UUID: &str = "diskUUID";
const PATH: &str = "path";
const HAS_SOURCE: &str = "hasSource";
const IMAGE_CHECKSUM: &str = "imageChecksum";
const SIZE: &str = "size";
const READONLY: &str = "readonly";
/// Whether the volume is attached by DRBD; only as `true`.
const REPLICATED: &str = "replicated";
/// The minor number of its device then.
const MINOR: &str = "minor";
const PARTITION_OFFSET: &str = "partitionOffset";
const PARTITION_LENGTH: &str = "partitionLength";

/// Where a node has a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file of this disk.
    Disk(DiskUuid),
    /// At the device of DRBD with this minor number.
    Replicated { minor: u32 },
}

/// What a node must know of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// Where it is.
    pub(crate) place: Place,
    /// Whether the volume came with contents: it is then never formatted.
    pub(crate) has_source: bool,
    /// The size at the time it was published; `None`: not told.
    pub(crate) size: Option<ByteSize>,
    /// Whether the controller published it for reading only.
    pub(crate) readonly: bool,
    /// Options for mkfs; they are checked where they are used.
    pub(crate) mkfs: String,
    /// The bytes of the partition that is used; `None`: the whole volume.
    pub(crate) part: Option<Range<u64>>,
}

/// The `volume_context`: what never changes of a volume. The last four entries are for people.
pub(crate) fn volume_context(volume: &wire::Volume) -> HashMap<String, String> {
    let mut context = HashMap::new();
    // A replica may move.
    if let Some(replica) = volume.replicas.first().filter(|_| !volume.is_replica) {
        context.insert(DISK_UUID.to_owned(), replica.disk_uuid.clone());
        context.insert(PATH.to_owned(), replica.path.clone());
    }
    context.insert(HAS_SOURCE.to_owned(), has_source(volume).to_string());
    if let Some(partition) = &volume.partition {
        context.insert(PARTITION_OFFSET.to_owned(), partition.offset.to_string());
        context.insert(PARTITION_LENGTH.to_owned(), partition.length.to_string());
    }
    for (key, value) in [
        (MKFS_PARAMS, volume.parameters.get(MKFS_PARAMS)),
        (BASE_IMAGE, volume.parameters.get(BASE_IMAGE)),
        ("imageName", Some(&volume.image_name)),
        ("imageUUID", Some(&volume.image_uuid)),
        (IMAGE_CHECKSUM, Some(&volume.image_checksum)),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            context.insert(key.to_owned(), value.clone());
        }
    }
    context
}

/// Whether a context is `expected`, the volume's own, or none. The provisioner adds keys of Kubernetes to what a
/// volume came with, and a PersistentVolume gives them back. One that was made before its image's checksum was known
/// does without it.
pub(crate) fn is_context(
    context: &HashMap<String, String>,
    expected: &HashMap<String, String>,
) -> bool {
    let is_ours = |key: &str| {
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        !["kubernetes.io", "k8s.io"]
            .iter()
            .any(|theirs| prefix == *theirs || prefix.ends_with(&format!(".{theirs}")))
    };
    let ours: HashMap<_, _> = context.iter().filter(|(key, _)| is_ours(key)).collect();
    let expected = expected.iter();
    let expected = expected.filter(|(key, _)| *key != IMAGE_CHECKSUM || context.contains_key(*key));
    ours.is_empty() || ours == expected.collect()
}

/// The `publish_context`: the replica of this node, as the volume is now. `None`: the node has none.
pub(crate) fn publish_context(
    volume: &wire::Volume,
    node: &NodeId,
    readonly: bool,
) -> Option<HashMap<String, String>> {
    let here = |replica: &&wire::Replica| replica.node_id == node.as_str();
    let replica = volume.replicas.iter().find(here)?;
    let entries = [
        (DISK_UUID, replica.disk_uuid.clone()),
        (PATH, replica.path.clone()),
        (HAS_SOURCE, has_source(volume).to_string()),
        (SIZE, volume.size.to_string()),
        (READONLY, readonly.to_string()),
    ];
    Some(
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

/// The `publish_context` of a volume that is attached by DRBD: which device it is, the same on every node.
pub(crate) fn replicated_context(
    size: ByteSize,
    minor: u32,
    readonly: bool,
) -> HashMap<String, String> {
    let entries = [
        (REPLICATED, "true".to_owned()),
        (MINOR, minor.to_string()),
        (SIZE, size.bytes().to_string()),
        (READONLY, readonly.to_string()),
    ];
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

impl Location {
    /// Reads the contexts. What was said when the volume was published counts before what was said
    /// when it was made.
    pub(crate) fn parse(
        volume: &VolumeName,
        volume_context: &HashMap<String, String>,
        publish_context: &HashMap<String, String>,
    ) -> Result<Self> {
        let entry = |key| publish_context.get(key).or_else(|| volume_context.get(key));
        let invalid = |why| Error::Invalid {
            field: "publish_context",
            why,
        };
        let place = if entry(REPLICATED).is_some_and(|text| text == "true") {
            let minor = entry(MINOR).and_then(|text| text.parse().ok());
            let minor = minor.ok_or_else(|| invalid("minor is missing or not a number"))?;
            Place::Replicated { minor }
        } else {
            let disk_uuid = entry(DISK_UUID)
                .and_then(|uuid| DiskUuid::new(uuid).ok())
                .ok_or_else(|| {
                    invalid(
                        "diskUUID is missing or not a UUID; a replicated volume is published before it is \
                         staged: install the driver with attachRequired: true",
                    )
                })?;
            if entry(PATH).map(String::as_str) != volume_path(volume).to_str() {
                return Err(invalid("path is not volumes/<volume_id>/volume"));
            }
            Place::Disk(disk_uuid)
        };
        // Without a word about a source there may be one.
        let has_source = entry(HAS_SOURCE).is_none_or(|text| text != "false");
        let size = match entry(SIZE) {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| invalid("size is not a number"))?),
        };
        let readonly = Self::is_readonly(publish_context);
        let number = |key| entry(key).map(|text| text.parse::<u64>()).transpose();
        let part = match (number(PARTITION_OFFSET), number(PARTITION_LENGTH)) {
            (Ok(Some(offset)), Ok(Some(length))) => offset
                .checked_add(length)
                .filter(|_| {
                    offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR) && length > 0
                })
                .map(|end| offset..end),
            _ => None,
        };
        if part.is_none()
            && entry(PARTITION_OFFSET)
                .or(entry(PARTITION_LENGTH))
                .is_some()
        {
            return Err(invalid("the location of a partition is not valid"));
        }
        Ok(Self {
            place,
            has_source,
            size: size.map(ByteSize),
            readonly,
            mkfs: entry(MKFS_PARAMS).cloned().unwrap_or_default(),
            part,
        })
    }

    /// Whether the controller published the volume for reading only.
    pub(crate) fn is_readonly(publish_context: &HashMap<String, String>) -> bool {
        publish_context
            .get(READONLY)
            .is_some_and(|text| text != "false")
    }
}

/// The key of the topology segment that says whether a node has DRBD, beside the one that names the node.
pub(crate) fn replication_key(topology_key: &str) -> String {
    let domain = topology_key.split('/').next().unwrap_or_default();
    format!("{domain}/replication")
}

/// The volume as this node sees it.
pub(crate) fn find(disks: &Disks, volume: &VolumeName, location: &Location) -> Result<NodeVolume> {
    let (file, length) = match &location.place {
        Place::Disk(disk) => {
            let found = disks.find(volume, disk)?;
            (found.path, found.length)
        }
        Place::Replicated { minor } => (device_path(*minor), ByteSize(0)),
    };
    Ok(NodeVolume {
        name: volume.clone(),
        size: location.size.unwrap_or(length),
        file,
        has_source: location.has_source,
        part: location.part.clone(),
    })
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn volume(name: &str) -> VolumeName {
        VolumeName::new(name).unwrap()
    }

    fn wire() -> wire::Volume {
        wire::Volume {
            name: "v".to_owned(),
            size: 4096,
            image_name: "image".to_owned(),
            replicas: vec![wire::Replica {
                node_id: "node-a".to_owned(),
                disk_uuid: "disk-a".to_owned(),
                path: "volumes/v/volume".to_owned(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn what_the_controller_says_the_node_understands() {
        let static_context = volume_context(&wire());
        let context = publish_context(&wire(), &NodeId::new("node-a").unwrap(), true).unwrap();
        let location = Location::parse(&volume("v"), &static_context, &context).unwrap();
        let expected = Location {
            place: Place::Disk(DiskUuid::new("disk-a").unwrap()),
            has_source: true,
            size: Some(ByteSize(4096)),
            readonly: true,
            mkfs: String::new(),
            part: None,
        };
        assert_eq!(location, expected);
        // Without attaching (CSIDriver attachRequired: false) the volume's own context is enough.
        let location = Location::parse(&volume("v"), &static_context, &HashMap::new()).unwrap();
        assert_eq!(
            location,
            Location {
                size: None,
                readonly: false,
                ..expected
            }
        );
        assert!(publish_context(&wire(), &NodeId::new("node-b").unwrap(), false).is_none());
    }

    #[test]
    fn a_replicated_volume_is_at_its_device_on_every_node() {
        let replica = wire::Volume {
            is_replica: true,
            ..wire()
        };
        let context = replicated_context(ByteSize(4096), 1007, false);
        let parse = |context: &HashMap<_, _>| {
            Location::parse(&volume("v"), &volume_context(&replica), context)
        };
        let location = parse(&context).unwrap();
        assert_eq!(location.place, Place::Replicated { minor: 1007 });
        assert!(location.has_source && !location.readonly);
        let found = find(&Disks::new(Vec::new()), &volume("v"), &location).unwrap();
        assert_eq!(found.file.to_str(), Some("/dev/drbd1007"));
        for (key, bad) in [(MINOR, "x"), (MINOR, "-1"), (REPLICATED, "perhaps")] {
            let mut context = context.clone();
            context.insert(key.to_owned(), bad.to_owned());
            assert!(parse(&context).is_err(), "{key} {bad}");
        }
    }

    #[test]
    fn row_152_keys_of_kubernetes_are_not_compared() {
        let own = volume_context(&wire());
        let with = |key: &str| {
            let mut context = own.clone();
            context.insert(key.to_owned(), "x".to_owned());
            context
        };
        assert!(is_context(&own, &own) && is_context(&HashMap::new(), &own));
        for key in [
            "storage.kubernetes.io/csiProvisionerIdentity",
            "csi.storage.k8s.io/pv/name",
        ] {
            assert!(is_context(&with(key), &own), "{key}");
        }
        for key in ["other", "k8s.io.evil/x", "evilk8s.io/x", PATH] {
            assert!(!is_context(&with(key), &own), "{key}");
        }
        let mut less = own.clone();
        less.remove(PATH);
        assert!(!is_context(&less, &own));
    }

    #[test]
    fn only_a_copy_of_nothing_is_like_a_new_volume() {
        use wire::content::Kind;
        let of = |kind: Kind, source_volume: &str, source_snapshot: &str, image_name: &str| {
            let content = wire::Content {
                kind: kind.into(),
                ..Default::default()
            };
            wire::Volume {
                content: Some(content),
                source_volume: source_volume.to_owned(),
                source_snapshot: source_snapshot.to_owned(),
                image_name: image_name.to_owned(),
                ..wire()
            }
        };
        for (volume, expected) in [
            (of(Kind::Blank, "", "", "image"), true),
            (of(Kind::Blank, "", "snap", "snap"), false),
            (of(Kind::Blank, "v", "", ""), false),
            (of(Kind::FileSystem, "v", "", ""), true),
            (of(Kind::Unknown, "", "snap", "snap"), true),
            (of(Kind::Unspecified, "v", "", ""), true),
            (of(Kind::Unspecified, "", "", ""), false),
        ] {
            assert_eq!(has_source(&volume), expected, "{volume:?}");
        }
    }

    #[test]
    fn no_path_from_outside_is_followed() {
        for path in [
            "/dev/sda",
            "volumes/../../etc/passwd",
            "volumes/other/volume",
            "",
            "volumes/v",
        ] {
            let mut context = volume_context(&wire());
            context.insert(PATH.to_owned(), path.to_owned());
            let error = Location::parse(&volume("v"), &context, &HashMap::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path:?}");
        }
    }
}
