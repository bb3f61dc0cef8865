//! The parameters of a StorageClass, strictly: whoever misspells one learns it now, not in a year.
//!
//! The keys are Longhorn's of old (csi-and-flexvolume.md §6.1). An empty value is an unset one; the
//! text `null`, which some templates write, is neither.

use std::collections::{BTreeMap, HashMap};

use client::parameters::{
    self, BASE_IMAGE, FROM_BACKUP, NUMBER_OF_REPLICAS, STALE_REPLICA_TIMEOUT,
};
use host::FsType;

use super::capability::fs_type;
use super::{MAP_BYTES, bounded};
use crate::error::{Error, Result, shown};

/// The old place of the file system type, left in the parameters by the provisioner.
const FS_TYPE: &str = "fsType";
/// Its present place; the provisioner takes it out, other callers may not.
const CSI_FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// Every key that means something. The last four tell whom the volume is for; they differ from
/// claim to claim and are not compared.
const KEYS: [&str; 10] = [
    BASE_IMAGE,
    NUMBER_OF_REPLICAS,
    STALE_REPLICA_TIMEOUT,
    FROM_BACKUP,
    FS_TYPE,
    CSI_FS_TYPE,
    "csi.storage.k8s.io/pvc/name",
    "csi.storage.k8s.io/pvc/namespace",
    "csi.storage.k8s.io/pv/name",
    // There is no pv/namespace in the field; a caller that sends one means no harm.
    "csi.storage.k8s.io/pv/namespace",
];

/// The keys that two requests for one volume must agree on.
pub(crate) const COMPARED: [&str; 3] = [BASE_IMAGE, NUMBER_OF_REPLICAS, STALE_REPLICA_TIMEOUT];

/// Checked parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// As given; what a reference may look like is the manager's to say.
    pub(crate) base_image: Option<String>,
    /// 1 to 20, Longhorn's own limits.
    pub(crate) number_of_replicas: Option<u32>,
    /// Minutes.
    pub(crate) stale_replica_timeout: Option<u32>,
    /// The file system asked for here.
    pub(crate) fs_type: Option<FsType>,
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
        let mut parameters = Self::default();
        for (key, value) in map {
            parameters.take(key, value)?;
        }
        Ok(parameters)
    }

    /// What is recorded with the volume, to be compared when the same name is asked for again.
    pub(crate) fn recorded(&self) -> HashMap<String, String> {
        let texts = [
            self.base_image.clone(),
            self.number_of_replicas.map(|number| number.to_string()),
            self.stale_replica_timeout
                .map(|minutes| minutes.to_string()),
        ];
        let pairs = COMPARED.into_iter().zip(texts);
        pairs
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }

    fn take(&mut self, key: &str, value: &str) -> Result<()> {
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
        match key {
            BASE_IMAGE => self.base_image = Some(parameters::base_image(value).map_err(refuse)?),
            NUMBER_OF_REPLICAS => {
                let number = parameters::number_of_replicas(value).map_err(refuse)?;
                self.number_of_replicas = Some(number);
            }
            STALE_REPLICA_TIMEOUT => {
                let minutes = parameters::stale_replica_timeout(value).map_err(refuse)?;
                self.stale_replica_timeout = Some(minutes);
            }
            FROM_BACKUP => return Err(refuse("restoring a backup is not offered; leave it empty")),
            FS_TYPE | CSI_FS_TYPE => self.take_fs_type(key, value)?,
            _ => {}
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
        let expected = Parameters {
            base_image: Some("rancher/longhorn-test:baseimage-ext4".to_owned()),
            number_of_replicas: Some(3),
            stale_replica_timeout: Some(30),
            fs_type: Some(FsType::Ext4),
        };
        assert_eq!(parameters.unwrap(), expected);
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
            ("backingImage", "baseImage"),
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
            ("fromBackup", "s3://bucket@region/?backup=b&volume=v"),
            ("baseImage", "docker://rancher/longhorn-test"),
            ("baseImage", "rancher/longhorn test"),
            ("baseImage", "rancher/longhorn\u{0}test"),
            ("baseImage", "ränchér/longhorn-test"),
            ("fsType", "overlay"),
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
