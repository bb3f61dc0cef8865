//! `volume.cfg`: all that is known of a volume besides its bytes.
//!
//! Replicas are a list from the start, though one manager creates one: the record says what a
//! volume consists of; nothing is assumed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use types::{ByteSize, DiskUuid, ImageId, NodeId, Sha512, VolumeName};

use super::owner::Owner;
use super::partition::Partition;
use super::users::Use;
use store::Content;
use store::IoContext;

use store::durable;
use store::{Error, Result};

/// The version of the record that this program writes and understands.
pub const VERSION: u32 = 1;
/// The largest record that is read: parameters are at most 4 KiB in CSI.
const RECORD_MAX: u64 = 1 << 20;

/// The record of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub version: u32,
    /// The volume's name, which is its directory's.
    pub name: VolumeName,
    /// Bytes that the volume offers.
    pub size: ByteSize,
    /// The image it was cloned from; `None`: it was blank.
    pub image: Option<ImageRef>,
    /// The volume that it came from, at once or by way of a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<FromVolume>,
    /// The partition of it that shall be mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// On how many disks its data shall be.
    pub number_of_replicas: u32,
    /// Minutes after which a lost replica is given up.
    pub stale_replica_timeout: u32,
    /// What these two were when the volume was made; `None`: what they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with: Option<Mutable>,
    /// The file system that was asked for, or empty.
    #[serde(default)]
    pub fs_type: String,
    /// Whose it is; `None`: an older version made it, see [`Record::owner`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// What else the creator wants compared.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Where its data is.
    pub replicas: Vec<Replica>,
    /// Publications that an earlier version recorded here. They count, and are taken back; new ones are
    /// in a file of their own.
    #[serde(default, rename = "published", skip_serializing_if = "Vec::is_empty")]
    pub published_before: Vec<Publication>,
    /// How its file was made.
    pub made_by: MadeBy,
    /// When, RFC 3339.
    pub created_at: String,
}

/// What may change of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mutable {
    pub number_of_replicas: u32,
    pub stale_replica_timeout: u32,
}

/// The image of a volume, as it was when the volume was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRef {
    #[serde(flatten)]
    pub id: ImageId,
    /// Its SHA-512; `None`: it was not computed yet when the volume was made.
    #[serde(with = "zeros")]
    pub checksum: Option<Sha512>,
    /// Bytes that a guest sees.
    pub virtual_size: ByteSize,
    pub content: Content,
}

/// A checksum that is not known, as zeros: earlier versions read records with one alone.
mod zeros {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use types::Sha512;

    const NONE: Sha512 = Sha512::from_bytes([0; 64]);

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(
        checksum: &Option<Sha512>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        checksum.unwrap_or(NONE).serialize(serializer)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<Option<Sha512>, D::Error> {
        let checksum = Sha512::deserialize(deserializer)?;
        Ok(Some(checksum).filter(|checksum| *checksum != NONE))
    }
}

/// How a volume came from another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromVolume {
    /// It is a clone of that volume.
    Clone {
        volume: VolumeName,
        content: Content,
    },
    /// Its image is a snapshot of that volume.
    Snapshot { volume: VolumeName },
}

/// One copy of a volume's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// The node of the disk.
    pub node_id: NodeId,
    pub disk_uuid: DiskUuid,
    /// Of the data, relative to the disk.
    pub path: String,
}

/// A node that may use a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publication {
    pub node_id: NodeId,
    /// Whether it may only read.
    pub readonly: bool,
    /// Whether other nodes may use the volume at the same time.
    pub multi_node: bool,
    /// Who uses it there. Earlier versions know pods alone, and write and read nothing of it.
    #[serde(default, rename = "use", skip_serializing_if = "Use::is_pods")]
    pub by: Use,
}

/// How a volume's file came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MadeBy {
    /// Its extents are shared with the image's: O(1) in time and space.
    Reflink,
    /// The image's allocated extents were copied.
    SparseCopy,
    /// It is one hole.
    Blank,
}

impl MadeBy {
    /// As the API and the record spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::SparseCopy => "sparse-copy",
            Self::Blank => "blank",
        }
    }
}

impl Record {
    /// The record as it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is plain JSON")
    }

    /// Replaces the record durably.
    pub fn write(&self, path: &Path) -> Result<()> {
        durable::replace(path, &self.to_bytes())
    }

    /// Reads the record of `name` at `path`. NotFound is the caller's to interpret.
    pub fn read(path: &Path, name: &VolumeName) -> Result<Self> {
        let record: Self = read_json(path, VERSION)?;
        if record.name != *name {
            let text = format!("it is the record of volume {}", record.name);
            return Err(Error::DamagedRecord {
                path: path.to_owned(),
                source: serde::de::Error::custom(text),
            });
        }
        Ok(record)
    }

    /// What the volume was made with of what may change.
    pub fn made_with(&self) -> Mutable {
        self.made_with.unwrap_or(Mutable {
            number_of_replicas: self.number_of_replicas,
            stale_replica_timeout: self.stale_replica_timeout,
        })
    }

    /// Whose the volume is, as far as it is known.
    pub fn owner(&self) -> Option<Owner> {
        let owner = self.owner.clone();
        owner.or_else(|| Owner::of_parameters(&self.parameters))
    }

    /// Why the volume has fewer replicas than it shall have; `None`: it has enough.
    pub fn degraded(&self) -> Option<String> {
        let (has, wants) = (self.replicas.len(), self.number_of_replicas);
        (u32::try_from(has).unwrap_or(u32::MAX) < wants).then(|| {
            format!(
                "{has} of {wants} replicas: this manager has one disk and no peers; the data is on \
                 that disk alone"
            )
        })
    }
}

/// Reads one of the files that describe a volume. NotFound is the caller's to interpret.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, known: u32) -> Result<T> {
    let meta = fs::symlink_metadata(path).context("inspect", path)?;
    if !meta.is_file() || meta.len() > RECORD_MAX {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidData)).context("read", path);
    }
    let content = fs::read(path).context("read", path)?;
    let damaged = |source| Error::DamagedRecord {
        path: path.to_owned(),
        source,
    };
    let version: Version = serde_json::from_slice(&content).map_err(damaged)?;
    if version.version > known {
        return Err(Error::NewerFormat {
            path: PathBuf::from(path),
            version: version.version,
        });
    }
    serde_json::from_slice(&content).map_err(damaged)
}

/// The version alone, so that a newer shape of the rest does not read as damage.
#[derive(Deserialize)]
struct Version {
    version: u32,
}
