//! Requests about snapshots, and the sources of new volumes.

use std::collections::HashMap;

use client::BackupTarget;
use client::parameters::nearest;
use proto::csi::v1 as csi;
use types::{ImageName, VolumeName};

use super::backup::{CLASS_KEYS, Secrets};
use super::{BackupClass, BackupId, MAP_BYTES, Page, bounded, name, required, volume_id};
use crate::error::{Error, Result, shown};

/// What a new volume shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContentSource {
    /// What a snapshot holds.
    Snapshot(ImageName),
    /// What another volume holds now.
    Volume(VolumeName),
    /// What a backup restores to.
    Backup(BackupId),
}

impl ContentSource {
    pub(super) fn parse(wire: csi::VolumeContentSource) -> Result<Self> {
        use csi::volume_content_source::Type;
        match wire.r#type {
            Some(Type::Snapshot(snapshot)) => Ok(match SnapshotId::parse(&snapshot.snapshot_id)? {
                SnapshotId::Image(id) => Self::Snapshot(id),
                SnapshotId::Backup(id) => Self::Backup(id),
            }),
            Some(Type::Volume(volume)) => Ok(Self::Volume(volume_id(&volume.volume_id)?)),
            None => Err(Error::Missing {
                field: "volume_content_source.type",
            }),
        }
    }
}

/// The id of a snapshot that exists or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SnapshotId {
    /// The name of the image that it is.
    Image(ImageName),
    /// It is a backup.
    Backup(BackupId),
}

impl SnapshotId {
    /// A text that can be no id is the id of none.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let text = required("snapshot_id", text)?;
        let id = if BackupId::is_meant(text) {
            BackupId::parse(text).map(Self::Backup)
        } else {
            ImageName::new(text).ok().map(Self::Image)
        };
        id.ok_or_else(|| Error::NoSuchSnapshot {
            snapshot_id: shown(text),
        })
    }
}

/// A call about one snapshot: `DeleteSnapshot`, `GetSnapshot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SnapshotRequest {
    /// It is an image.
    Image(ImageName),
    /// It is a backup, and there.
    Backup(BackupId, BackupTarget),
}

impl SnapshotRequest {
    pub(crate) fn parse(id: &str, secrets: HashMap<String, String>) -> Result<Self> {
        Ok(match SnapshotId::parse(id)? {
            SnapshotId::Image(id) => Self::Image(id),
            SnapshotId::Backup(id) => {
                let target = Secrets::parse(secrets)?.target(&id.target)?;
                Self::Backup(id, target)
            }
        })
    }

    /// What no other call may work on meanwhile.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Image(id) => id.as_str(),
            Self::Backup(id, _) => id.backup.as_str(),
        }
    }
}

/// What a VolumeSnapshotClass may say. Two of Longhorn's three types are one here: a snapshot is a backing
/// image. The third, `bak`, is a copy of it outside the cluster; `bs` is its old name.
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
    /// It is to be a backup, made so.
    pub(crate) backup: Option<BackupClass>,
}

impl CreateSnapshot {
    pub(crate) fn parse(wire: csi::CreateSnapshotRequest) -> Result<Self> {
        required("name", &wire.name)?;
        required("source_volume_id", &wire.source_volume_id)?;
        let volume = volume_id(&wire.source_volume_id)?;
        if !is_backup(&wire.parameters)? {
            let (name, backup) = (name::snapshot(&wire.name)?, None);
            return Ok(Self {
                name,
                volume,
                backup,
            });
        }
        let mut class = BackupClass::parse(&wire.parameters, Secrets::parse(wire.secrets)?)?;
        let parameters = wire.parameters.into_iter();
        class.labels = parameters
            .filter(|(key, _)| METADATA.contains(&key.as_str()))
            .collect();
        Ok(Self {
            name: name::backup(&wire.name)?,
            volume,
            backup: Some(class),
        })
    }

    /// The id of the backup that it is to be; `None`: it is to be none, or its volume has a name that no backup
    /// can have.
    pub(crate) fn backup_id(&self) -> Option<BackupId> {
        let class = self.backup.as_ref()?;
        Some(BackupId {
            volume: self.volume.as_str().parse().ok()?,
            backup: self.name.as_str().parse().ok()?,
            target: class.target.name.clone(),
        })
    }
}

/// Checks the parameters of a class but for the values of those about backups: whether it makes backups.
fn is_backup(map: &HashMap<String, String>) -> Result<bool> {
    bounded("parameters", map, MAP_BYTES)?;
    let is_backup = match map.get(TYPE).map(String::as_str) {
        None | Some("" | "snap" | "bi") => false,
        Some("bak" | "bs") => true,
        Some(value) => {
            return Err(Error::Parameter {
                key: TYPE,
                value: shown(value),
                why: "use snap for snapshots on the disk of their volume, or bak for backups",
            });
        }
    };
    let known = |key: &str| key == TYPE || key == DELETION_POLICY || METADATA.contains(&key);
    // In the order of their keys, so that the same request always gets the same error.
    let mut keys: Vec<&String> = map.keys().filter(|key| !known(key)).collect();
    keys.sort_unstable();
    for key in keys {
        let Some(key) = CLASS_KEYS.into_iter().find(|known| known == key) else {
            let known = [TYPE].into_iter().chain(CLASS_KEYS);
            let known: Vec<_> = known.collect();
            return Err(Error::UnknownParameter {
                key: shown(key),
                nearest: nearest(key, &known),
            });
        };
        if !is_backup && map.get(key).is_some_and(|value| !value.is_empty()) {
            return Err(Error::Parameter {
                key,
                value: shown(map.get(key).map_or("", String::as_str)),
                why: "it is for backups, and the class is for snapshots on the disk: set type to bak",
            });
        }
    }
    Ok(is_backup)
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
        if is_backup(&wire.parameters)? {
            return Err(Error::Parameter {
                key: TYPE,
                value: "bak".to_owned(),
                why: "the snapshots of a group stay on the disk: use snap, and back up each of them by a class of \
                      its own",
            });
        }
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
    /// It is a backup, and there.
    pub(crate) backup: Option<(BackupId, BackupTarget)>,
}

impl ListSnapshots {
    pub(crate) fn parse(wire: csi::ListSnapshotsRequest) -> Result<Self> {
        let id = BackupId::parse(&wire.snapshot_id);
        let backup = match id {
            Some(id) => {
                let target = Secrets::parse(wire.secrets)?.target(&id.target)?;
                Some((id, target))
            }
            None => None,
        };
        Ok(Self {
            page: Page::parse(wire.max_entries, &wire.starting_token)?,
            volume: wire.source_volume_id,
            snapshot: wire.snapshot_id,
            backup,
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
        CreateSnapshot::parse(csi::CreateSnapshotRequest {
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
            ("s", "v", &[("type", "backup")], ErrorKind::InvalidArgument),
            ("s", "v", &[("Type", "snap")], ErrorKind::InvalidArgument),
            (
                "s",
                "v",
                &[("backupMode", "full")],
                ErrorKind::InvalidArgument,
            ),
            (
                "s",
                "v",
                &[("type", "snap"), ("backupTargetName", "x")],
                ErrorKind::InvalidArgument,
            ),
            (
                "s",
                "v",
                &[("type", "bak"), ("backupmode", "full")],
                ErrorKind::InvalidArgument,
            ),
        ] {
            let error = create(name, volume, parameters).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn a_class_of_type_bak_makes_backups() {
        let whom = ("csi.storage.k8s.io/volumesnapshot/name", "db");
        for kind in ["bak", "bs"] {
            let asked = create("snapshot-1", "pvc-1", &[("type", kind), whom]).unwrap();
            let id = asked.backup_id().unwrap();
            assert_eq!(id.to_string(), "bak://pvc-1/snapshot-1");
            assert_eq!(asked.backup.unwrap().labels[whom.0], "db");
        }
        for kind in ["", "snap", "bi"] {
            let asked = create("snapshot-1", "pvc-1", &[("type", kind)]).unwrap();
            assert_eq!((asked.backup_id(), asked.backup), (None, None));
        }
        let class = [("type", "bak"), ("backupTargetName", "nightly")];
        let asked = create("s", "pvc-1", &class).unwrap();
        let id = asked.backup_id().unwrap();
        assert!(id.backup.as_str().starts_with("s-name-"), "{id}");
        assert_eq!(id.target, "nightly");
        let short = create("snapshot-1", "v", &[("type", "bak")]).unwrap();
        assert_eq!(
            short.backup_id(),
            None,
            "no store takes a name of one letter"
        );
    }

    #[test]
    fn a_group_is_never_backed_up() {
        let group = |kind: &str| {
            CreateGroup::parse(&csi::CreateVolumeGroupSnapshotRequest {
                name: "group".to_owned(),
                source_volume_ids: vec!["pvc-1".to_owned()],
                parameters: [("type".to_owned(), kind.to_owned())].into(),
                ..Default::default()
            })
        };
        group("snap").unwrap();
        let error = group("bak").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("group"), "{error}");
    }

    #[test]
    fn a_call_about_one_snapshot_is_about_an_image_or_a_backup() {
        let parse = |id: &str, pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let secrets = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            SnapshotRequest::parse(id, secrets.collect())
        };
        let image = parse("snapshot-1", &[("AWS_ACCESS_KEY_ID", "x")]).unwrap();
        assert!(matches!(image, SnapshotRequest::Image(_)), "{image:?}");
        let own = [("BACKUP_TARGET", "s3://b@r/p/"), ("AWS_ACCESS_KEY_ID", "x")];
        match parse("bak://pvc-1/snapshot-1", &own).unwrap() {
            SnapshotRequest::Backup(id, target) => {
                assert_eq!(id.backup.as_str(), "snapshot-1");
                assert_eq!(target.address, "s3://b@r/p/");
            }
            other @ SnapshotRequest::Image(_) => panic!("{other:?}"),
        }
        for bad in ["bak://pvc-1", "bak://", "a/b"] {
            let error = parse(bad, &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{bad}");
        }
    }
}
