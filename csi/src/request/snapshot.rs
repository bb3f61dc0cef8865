//! Requests about snapshots, and the sources of new volumes.

use std::collections::HashMap;

use proto::csi::v1 as csi;
use types::{ImageName, VolumeName};

use super::{MAP_BYTES, Page, bounded, name, required, volume_id};
use crate::error::{Error, Result, shown};

/// What a new volume shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContentSource {
    /// What a snapshot holds.
    Snapshot(ImageName),
    /// What another volume holds now.
    Volume(VolumeName),
}

impl ContentSource {
    pub(super) fn parse(wire: csi::VolumeContentSource) -> Result<Self> {
        use csi::volume_content_source::Type;
        match wire.r#type {
            Some(Type::Snapshot(snapshot)) => {
                Ok(Self::Snapshot(snapshot_id(&snapshot.snapshot_id)?))
            }
            Some(Type::Volume(volume)) => Ok(Self::Volume(volume_id(&volume.volume_id)?)),
            None => Err(Error::Missing {
                field: "volume_content_source.type",
            }),
        }
    }
}

/// The id of a snapshot that exists or not, which is the name of its image. A text that cannot be a
/// name is the id of none.
pub(crate) fn snapshot_id(text: &str) -> Result<ImageName> {
    let text = required("snapshot_id", text)?;
    ImageName::new(text).map_err(|_| Error::NoSuchSnapshot {
        snapshot_id: shown(text),
    })
}

/// What a VolumeSnapshotClass may say. Longhorn's three types are one here: a snapshot is a backing
/// image. A backup elsewhere is something else.
const TYPE: &str = "type";
/// A field of the classes of snapshots, which stands among their parameters too now and then, in the
/// official suite's among others; whoever keeps the classes heeds it, and a driver has nothing to do.
const DELETION_POLICY: &str = "deletionPolicy";
/// Whom the snapshot is for, as the snapshotter tells with `--extra-create-metadata`.
const METADATA: [&str; 6] = [
    "csi.storage.k8s.io/volumesnapshot/name",
    "csi.storage.k8s.io/volumesnapshot/namespace",
    "csi.storage.k8s.io/volumesnapshotcontent/name",
    "csi.storage.k8s.io/volumegroupsnapshot/name",
    "csi.storage.k8s.io/volumegroupsnapshot/namespace",
    "csi.storage.k8s.io/volumegroupsnapshotcontent/name",
];

/// `CreateSnapshot`.
#[derive(Debug)]
pub(crate) struct CreateSnapshot {
    pub(crate) name: ImageName,
    pub(crate) volume: VolumeName,
}

impl CreateSnapshot {
    pub(crate) fn parse(wire: &csi::CreateSnapshotRequest) -> Result<Self> {
        required("name", &wire.name)?;
        required("source_volume_id", &wire.source_volume_id)?;
        parameters(&wire.parameters)?;
        Ok(Self {
            name: name::snapshot(&wire.name)?,
            volume: volume_id(&wire.source_volume_id)?,
        })
    }
}

fn parameters(map: &HashMap<String, String>) -> Result<()> {
    bounded("parameters", map, MAP_BYTES)?;
    for (key, value) in map {
        if key == TYPE {
            if !matches!(value.as_str(), "" | "snap" | "bi") {
                return Err(Error::Parameter {
                    key: TYPE,
                    value: shown(value),
                    why: "snapshots stay on the disk of their volume: use snap, or leave it out",
                });
            }
        } else if key != DELETION_POLICY && !METADATA.contains(&key.as_str()) {
            return Err(Error::UnknownParameter {
                key: shown(key),
                nearest: TYPE,
            });
        }
    }
    Ok(())
}

/// `CreateVolumeGroupSnapshot`.
#[derive(Debug)]
pub(crate) struct CreateGroup {
    pub(crate) name: ImageName,
    pub(crate) volumes: Vec<VolumeName>,
}

impl CreateGroup {
    pub(crate) fn parse(wire: &csi::CreateVolumeGroupSnapshotRequest) -> Result<Self> {
        required("name", &wire.name)?;
        if wire.source_volume_ids.is_empty() {
            return Err(Error::Missing {
                field: "source_volume_ids",
            });
        }
        parameters(&wire.parameters)?;
        let volumes = wire.source_volume_ids.iter().map(|id| volume_id(id));
        let mut volumes: Vec<_> = volumes.collect::<Result<_>>()?;
        volumes.sort_unstable();
        volumes.dedup();
        let name = name::snapshot(&wire.name)?;
        Ok(Self { name, volumes })
    }
}

/// The id of a group of snapshots that exists or not. A text that cannot be a name is the id of none.
pub(crate) fn group_id(text: &str) -> Result<ImageName> {
    let text = required("group_snapshot_id", text)?;
    ImageName::new(text).map_err(|_| Error::NoSuchSnapshot {
        snapshot_id: shown(text),
    })
}

/// `ListSnapshots`.
#[derive(Debug, Clone)]
pub(crate) struct ListSnapshots {
    pub(crate) page: Page,
    /// Only those of this volume; empty: of any.
    pub(crate) volume: String,
    /// Only this one; empty: any.
    pub(crate) snapshot: String,
}

impl ListSnapshots {
    pub(crate) fn parse(wire: csi::ListSnapshotsRequest) -> Result<Self> {
        Ok(Self {
            page: Page::parse(wire.max_entries, &wire.starting_token)?,
            volume: wire.source_volume_id,
            snapshot: wire.snapshot_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn create(name: &str, volume: &str, parameters: &[(&str, &str)]) -> Result<CreateSnapshot> {
        let parameters = parameters
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        CreateSnapshot::parse(&csi::CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.to_owned(),
            parameters: parameters.collect(),
            ..Default::default()
        })
    }

    #[test]
    fn a_snapshot_needs_a_name_and_a_volume() {
        create("s", "v", &[]).unwrap();
        create(&"s".repeat(128), "v", &[("type", "snap")]).unwrap();
        create("s", "v", &[("csi.storage.k8s.io/volumesnapshot/name", "x")]).unwrap();
        create("s", "v", &[("deletionPolicy", "Delete")]).unwrap();
        for (name, volume, parameters, kind) in [
            ("", "v", &[][..], ErrorKind::InvalidArgument),
            ("s", "", &[], ErrorKind::InvalidArgument),
            ("s\0", "v", &[], ErrorKind::InvalidArgument),
            ("s", "../v", &[], ErrorKind::NotFound),
            ("s", "v", &[("type", "bak")], ErrorKind::InvalidArgument),
            ("s", "v", &[("Type", "snap")], ErrorKind::InvalidArgument),
        ] {
            let error = create(name, volume, parameters).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
