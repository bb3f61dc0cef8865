//! The parameters of a StorageClass, parsed strictly: a misspelt parameter is an error immediately.
//!
//! The keys are Longhorn's of old (csi-and-flexvolume.md §6.1). An empty value is an unset one; the
//! text `null`, which some templates write, is neither.

use std::collections::{BTreeMap, HashMap};

use client::parameters::{
    self, BASE_IMAGE, FROM_BACKUP, MKFS_PARAMS, NUMBER_OF_REPLICAS, STALE_REPLICA_TIMEOUT,
};
use host::FsType;

use super::backing_image::{
    BACKING_IMAGE, BackingImage, CHECKSUM, Raw, SOURCE_PARAMETERS, SOURCE_TYPE,
};
use super::backup::{self, TARGET_NAME};
use super::capability::fs_type;
use super::{MAP_BYTES, bounded};
use crate::error::{Error, Result, shown};

/// The old place of the file system type, left in the parameters by the provisioner.
const FS_TYPE: &str = "fsType";
/// Its present place; the provisioner takes it out, other callers may not.
const CSI_FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// Whether a volume with fewer replicas than it asks for is refused.
const REQUIRE_REPLICAS: &str = "requireReplicas";

/// The partition of the image that is used.
pub(crate) const PARTITION: &str = "partition";

/// Whom the volume is for: its claim, as the provisioner tells it with `--extra-create-metadata`.
const CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";
const CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";

/// Every key that means something. The last four tell whom the volume is for; they differ from
/// claim to claim and are not compared.
const KEYS: [&str; 18] = [
    BASE_IMAGE,
    MKFS_PARAMS,
    PARTITION,
    BACKING_IMAGE,
    SOURCE_TYPE,
    SOURCE_PARAMETERS,
    CHECKSUM,
    NUMBER_OF_REPLICAS,
    REQUIRE_REPLICAS,
    STALE_REPLICA_TIMEOUT,
    FROM_BACKUP,
    TARGET_NAME,
    FS_TYPE,
    CSI_FS_TYPE,
    CLAIM_NAME,
    CLAIM_NAMESPACE,
    "csi.storage.k8s.io/pv/name",
    // There is no pv/namespace in the field; a caller that sends one means no harm.
    "csi.storage.k8s.io/pv/namespace",
];

/// Where a name is recorded that is not the volume's id. It is no parameter: nobody can give it.
pub(crate) const ORIGINAL_NAME: &str = "csi.name";
/// Where the id of the backup is recorded that is the source of the contents. It is no parameter either.
pub(crate) const SNAPSHOT_ID: &str = "csi.snapshot";

/// The keys that two requests for one volume must agree on.
const COMPARED: [&str; 14] = [
    ORIGINAL_NAME,
    SNAPSHOT_ID,
    BASE_IMAGE,
    MKFS_PARAMS,
    PARTITION,
    BACKING_IMAGE,
    SOURCE_TYPE,
    SOURCE_PARAMETERS,
    CHECKSUM,
    NUMBER_OF_REPLICAS,
    REQUIRE_REPLICAS,
    STALE_REPLICA_TIMEOUT,
    FROM_BACKUP,
    TARGET_NAME,
];

/// What may change of a volume that is there, and be given at once with a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mutable {
    pub(crate) number_of_replicas: Option<u32>,
    pub(crate) stale_replica_timeout: Option<u32>,
}

impl Mutable {
    /// Checks mutable parameters. Any key but these two is refused, and with it all of them.
    pub(crate) fn parse(map: &HashMap<String, String>) -> Result<Self> {
        const MUTABLE: [&str; 2] = [NUMBER_OF_REPLICAS, STALE_REPLICA_TIMEOUT];
        let unknown = map
            .keys()
            .filter(|key| !MUTABLE.contains(&key.as_str()))
            .min();
        if let Some(key) = unknown {
            return Err(Error::UnknownParameter {
                key: shown(key),
                nearest: parameters::nearest(key, &MUTABLE),
            });
        }
        let parsed = Parameters::parse(map)?;
        Ok(Self {
            number_of_replicas: parsed.number_of_replicas,
            stale_replica_timeout: parsed.stale_replica_timeout,
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// As given; what a reference may look like is the manager's to say.
    pub(crate) base_image: Option<String>,
    /// 1 to 20, Longhorn's own limits.
    pub(crate) number_of_replicas: Option<u32>,
    pub(crate) stale_replica_timeout: Option<u32>,
    /// Whether it is refused with fewer.
    pub(crate) require_replicas: bool,
    /// The file system asked for here.
    pub(crate) fs_type: Option<FsType>,
    /// Options for mkfs, checked.
    pub(crate) mkfs: String,
    /// The partition that is used, from 1; `None`: the whole volume.
    pub(crate) partition: Option<u32>,
    /// The image by its name, where it is not named by `base_image`.
    pub(crate) backing_image: Option<BackingImage>,
    /// The backup that it is restored from.
    pub(crate) from_backup: Option<::backup::Address>,
    /// The target of a backup that is the source of the contents; empty: the default one. An address names its own.
    pub(crate) backup_target: String,
    /// The claim, and its namespace; empty where the provisioner does not tell them.
    pub(crate) claim: (String, String),
    /// The values of those of [`COMPARED`] that are set.
    recorded: BTreeMap<&'static str, String>,
}

impl Parameters {
    /// Checks the parameters of a request.
    pub(crate) fn parse(map: &HashMap<String, String>) -> Result<Self> {
        bounded("parameters", map, MAP_BYTES)?;
        // In the order of their keys, so that the same request always gets the same error.
        let map: BTreeMap<&str, &str> = map
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let (mut parameters, mut raw) = (Self::default(), Raw::default());
        for (key, value) in map {
            parameters.take(key, value, &mut raw)?;
        }
        parameters.backing_image = raw.checked()?;
        let first = parameters.base_image.is_some();
        let named = [
            (BACKING_IMAGE, first, parameters.backing_image.is_some()),
            (
                FROM_BACKUP,
                first || parameters.backing_image.is_some(),
                parameters.from_backup.is_some(),
            ),
        ];
        for (key, has_other, is_set) in named {
            if has_other && is_set {
                let why =
                    "a volume has one image: set one of baseImage, backingImage and fromBackup";
                let value = parameters.recorded.remove(key).unwrap_or_default();
                return Err(Error::Parameter {
                    key,
                    value: shown(&value),
                    why,
                });
            }
        }
        Ok(parameters)
    }

    /// What is recorded with the volume, to be compared when the same name is asked for again.
    pub(crate) fn recorded(&self) -> HashMap<String, String> {
        let pairs = self.recorded.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect()
    }

    /// Records the name that the volume's id was made from.
    pub(crate) fn record_name(&mut self, name: String) {
        self.recorded.insert(ORIGINAL_NAME, name);
    }

    /// Records the backup that is the source of the contents.
    pub(crate) fn record_snapshot(&mut self, id: String) {
        self.recorded.insert(SNAPSHOT_ID, id);
    }

    /// Whether they name an image that is made if it is not there.
    pub(crate) fn makes_image(&self) -> bool {
        let backing = self.backing_image.as_ref();
        self.base_image.is_some() || backing.is_some_and(|image| image.request().is_some())
    }

    /// Whether they name an image.
    pub(crate) const fn names_image(&self) -> bool {
        self.base_image.is_some() || self.backing_image.is_some()
    }

    /// Puts what may change over what was said otherwise.
    pub(crate) fn apply(&mut self, mutable: &Mutable) {
        for (key, own, new) in [
            (
                NUMBER_OF_REPLICAS,
                &mut self.number_of_replicas,
                mutable.number_of_replicas,
            ),
            (
                STALE_REPLICA_TIMEOUT,
                &mut self.stale_replica_timeout,
                mutable.stale_replica_timeout,
            ),
        ] {
            if let Some(new) = new {
                *own = Some(new);
                self.recorded.insert(key, new.to_string());
            }
        }
    }

    fn take(&mut self, key: &str, value: &str, raw: &mut Raw) -> Result<()> {
        let Some(key) = KEYS.into_iter().find(|known| *known == key) else {
            return Err(Error::UnknownParameter {
                key: shown(key),
                nearest: parameters::nearest(key, &KEYS),
            });
        };
        if value.is_empty() {
            return Ok(());
        }
        let refuse = |why| Error::Parameter {
            key,
            value: shown(value),
            why,
        };
        if value == "null" {
            return Err(refuse("leave the parameter out, or empty, to unset it"));
        }
        let mut recorded = value.to_owned();
        match key {
            CLAIM_NAME => value.clone_into(&mut self.claim.0),
            CLAIM_NAMESPACE => value.clone_into(&mut self.claim.1),
            MKFS_PARAMS => value.clone_into(&mut self.mkfs),
            PARTITION => {
                let number = value
                    .parse()
                    .ok()
                    .filter(|number| (1..=128).contains(number));
                let number = number.filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
                let why = "the number of a partition is expected, from 1 to 128";
                self.partition = Some(number.ok_or_else(|| refuse(why))?);
            }
            BACKING_IMAGE => value.clone_into(&mut raw.name),
            SOURCE_TYPE => value.clone_into(&mut raw.source_type),
            SOURCE_PARAMETERS => value.clone_into(&mut raw.source_parameters),
            CHECKSUM => value.clone_into(&mut raw.checksum),
            BASE_IMAGE => self.base_image = Some(parameters::base_image(value).map_err(refuse)?),
            NUMBER_OF_REPLICAS => {
                let number = parameters::number_of_replicas(value).map_err(refuse)?;
                recorded = number.to_string();
                self.number_of_replicas = Some(number);
            }
            REQUIRE_REPLICAS => {
                self.require_replicas = match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err(refuse("\"true\" or \"false\" is expected")),
                };
            }
            STALE_REPLICA_TIMEOUT => {
                let minutes = parameters::stale_replica_timeout(value).map_err(refuse)?;
                recorded = minutes.to_string();
                self.stale_replica_timeout = Some(minutes);
            }
            FROM_BACKUP => {
                let address = backup::address(value)?;
                // Without a secret that an author may have written into it.
                recorded = address.to_string();
                self.from_backup = Some(address);
            }
            TARGET_NAME => self.backup_target = backup::target_name(value)?,
            FS_TYPE | CSI_FS_TYPE => self.take_fs_type(key, value)?,
            _ => {}
        }
        if COMPARED.contains(&key) {
            self.recorded.insert(key, recorded);
        }
        Ok(())
    }

    fn take_fs_type(&mut self, key: &'static str, value: &str) -> Result<()> {
        let asked = fs_type(key, value)?;
        if self.fs_type.is_some() && self.fs_type != asked {
            let why = "fsType and csi.storage.k8s.io/fstype differ; keep the latter only";
            return Err(Error::Parameter {
                key,
                value: shown(value),
                why,
            });
        }
        self.fs_type = asked;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Parameters> {
        let map = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Parameters::parse(&map.collect())
    }

    #[test]
    fn the_parameters_of_the_original_documentation_are_taken() {
        let parameters = parse(&[
            ("numberOfReplicas", "3"),
            ("staleReplicaTimeout", "30"),
            ("fromBackup", ""),
            ("baseImage", "rancher/longhorn-test:baseimage-ext4"),
            ("csi.storage.k8s.io/pvc/name", "claim"),
            ("csi.storage.k8s.io/pvc/namespace", "default"),
            ("csi.storage.k8s.io/pv/name", "pvc-1"),
            ("csi.storage.k8s.io/fstype", "ext4"),
        ]);
        let parameters = parameters.unwrap();
        let image = parameters.base_image.as_deref();
        assert_eq!(image, Some("rancher/longhorn-test:baseimage-ext4"));
        assert_eq!(parameters.number_of_replicas, Some(3));
        assert_eq!(parameters.stale_replica_timeout, Some(30));
        assert_eq!(parameters.fs_type, Some(FsType::Ext4));
        assert_eq!(parameters.recorded().len(), 3);
    }

    #[test]
    fn what_may_change_goes_before_what_was_said() {
        let map = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            let owned = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            owned.collect()
        };
        let mut parameters =
            parse(&[("numberOfReplicas", "3"), ("staleReplicaTimeout", "5")]).unwrap();
        parameters.apply(&Mutable::parse(&map(&[("numberOfReplicas", "2")])).unwrap());
        assert_eq!(parameters.number_of_replicas, Some(2));
        assert_eq!(parameters.recorded()["numberOfReplicas"], "2");
        assert_eq!(parameters.recorded()["staleReplicaTimeout"], "5");
        for bad in [
            ("baseImage", "a:1"),
            ("numberOfReplicas", "0"),
            ("invented", "x"),
        ] {
            let error = Mutable::parse(&map(&[bad, ("staleReplicaTimeout", "5")])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
    }

    #[test]
    fn a_volume_begins_with_one_image() {
        parse(&[("backingImage", "parrot")]).unwrap();
        let error = parse(&[("backingImage", "parrot"), ("baseImage", "a:1")]).unwrap_err();
        assert!(error.to_string().contains("parrot"), "{error}");
        let backup = ("fromBackup", "s3://b@r/path/?backup=back&volume=vol");
        let parameters = parse(&[backup, ("backupTargetName", "nightly")]).unwrap();
        assert_eq!(parameters.backup_target, "nightly");
        assert_eq!(parameters.recorded().len(), 2);
        for other in [("backingImage", "parrot"), ("baseImage", "a:1")] {
            let error = parse(&[backup, other]).unwrap_err();
            assert!(error.to_string().contains("fromBackup"), "{error}");
        }
    }

    #[test]
    fn empty_is_unset() {
        let empty: Vec<_> = KEYS.iter().map(|key| (*key, "")).collect();
        assert_eq!(parse(&empty).unwrap(), Parameters::default());
        assert_eq!(parse(&[]).unwrap(), Parameters::default());
    }

    #[test]
    fn row_70_an_unknown_key_is_refused_with_the_nearest_known_one() {
        for (key, nearest) in [
            ("baseimage", "baseImage"),
            ("BaseImage", "baseImage"),
            ("baseImage ", "baseImage"),
            ("backingImageName", "backingImage"),
            ("numberOfReplica", "numberOfReplicas"),
            ("replicas", "numberOfReplicas"),
            ("staleReplicaTimout", "staleReplicaTimeout"),
            ("fstype", "fsType"),
            ("csi.storage.k8s.io/fsType", "csi.storage.k8s.io/fstype"),
            ("csi.storage.k8s.io/pvc/nam", "csi.storage.k8s.io/pvc/name"),
        ] {
            let error = parse(&[(key, "x")]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let expected = format!("parameter {key:?} is not known; did you mean {nearest:?}?");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn values_that_can_never_work_are_refused_by_name() {
        for (key, value) in [
            ("numberOfReplicas", "0"),
            ("numberOfReplicas", "21"),
            ("numberOfReplicas", "-1"),
            ("numberOfReplicas", "+3"),
            ("numberOfReplicas", " 3"),
            ("numberOfReplicas", "3.0"),
            ("numberOfReplicas", "3;"),
            ("numberOfReplicas", "99999999999999999999"),
            ("staleReplicaTimeout", "-20"),
            ("staleReplicaTimeout", "20m"),
            ("staleReplicaTimeout", "525601"),
            ("fromBackup", "s3://bucket@region/path/"),
            ("fromBackup", "the-last-one"),
            ("backupTargetName", "a/b"),
            ("baseImage", "docker://rancher/longhorn-test"),
            ("baseImage", "rancher/longhorn test"),
            ("baseImage", "rancher/longhorn\u{0}test"),
            ("baseImage", "ränchér/longhorn-test"),
            ("fsType", "overlay"),
            ("requireReplicas", "yes"),
        ] {
            let error = parse(&[(key, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{key}={value}");
            assert!(
                error.to_string().contains(key),
                "{error} does not name {key}"
            );
        }
        for key in [
            "baseImage",
            "numberOfReplicas",
            "staleReplicaTimeout",
            "fromBackup",
            "fsType",
        ] {
            let error = parse(&[(key, "null")]).unwrap_err().to_string();
            assert!(error.contains("leave the parameter out"), "{error}");
        }
        assert!(parse(&[("fsType", "xfs"), ("csi.storage.k8s.io/fstype", "ext4")]).is_err());
        assert!(parse(&[("fsType", "xfs"), ("csi.storage.k8s.io/fstype", "xfs")]).is_ok());
    }

    #[test]
    fn a_map_beyond_the_specification_is_refused() {
        assert!(parse(&[("baseImage", &"a".repeat(MAP_BYTES))]).is_err());
        let error = parse(&[(&"k".repeat(4000), "")]).unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
    }
}
