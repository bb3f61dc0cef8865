//! The request for a volume: the size it gets, and whether an existing volume matches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use types::{BLOCK, ByteSize, ImageName, ImageUuid, VolumeName};

use super::owner::{Driver, Owner};
use super::record::{FromVolume, Record};
use crate::error::{Error, Result};

/// The size of a blank volume when none is asked for: 1 GiB, as the first CSI driver had it.
const DEFAULT_SIZE: ByteSize = ByteSize(1 << 30);

/// What a new volume begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Blank,
    /// The image of that name; `None`: whatever uuid it has.
    Image(ImageName, Option<ImageUuid>),
    /// The image that the parameters name, and no snapshot: enough to recognise a volume by, not to make it.
    ImageOfParameters,
    /// What another volume holds now.
    Volume(VolumeName),
}

impl Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blank => f.write_str("nothing"),
            Self::Image(name, None) => write!(f, "image {name}"),
            Self::Image(name, Some(uuid)) => write!(f, "image {name} ({uuid})"),
            Self::ImageOfParameters => f.write_str("the image of its parameters"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

/// A request for a volume, checked.
#[derive(Debug, Clone)]
pub struct NewVolume {
    pub name: VolumeName,
    /// What it begins with.
    pub origin: Origin,
    /// Bytes it must have at least.
    pub required: Option<ByteSize>,
    /// Bytes it must not exceed.
    pub limit: Option<ByteSize>,
    /// On how many disks its data shall be.
    pub number_of_replicas: u32,
    /// Minutes after which a lost replica is given up.
    pub stale_replica_timeout: u32,
    /// The file system asked for, or empty.
    pub fs_type: String,
    /// The partition that shall be mounted; `None`: the whole volume.
    pub partition: Option<u32>,
    /// Whose it will be.
    pub owner: Owner,
    /// What else is compared when it is asked for again.
    pub parameters: BTreeMap<String, String>,
}

/// No volume is as large: ext4 ends here, and what counts in signed 64 bits is not far.
pub(super) const SIZE_MAX: u64 = 1 << 60;

pub(super) fn rounded(size: ByteSize) -> Result<ByteSize> {
    size.round_up(BLOCK)
        .filter(|size| size.bytes() < SIZE_MAX)
        .ok_or_else(|| Error::Size {
            asked: size,
            why: "volumes are smaller than 1 EiB".to_owned(),
        })
}

/// The size a new volume gets; `content` is that of what it is made from.
pub(super) fn size_of(new: &NewVolume, content: Option<ByteSize>) -> Result<ByteSize> {
    let asked = new.required.or(content).unwrap_or_else(|| match new.limit {
        Some(limit) => limit.min(DEFAULT_SIZE),
        None => DEFAULT_SIZE,
    });
    if let Some(content) = content.filter(|content| asked < *content) {
        return Err(Error::Size {
            asked,
            why: format!("its source has {content}; request at least that"),
        });
    }
    let size = rounded(asked)?;
    if let Some(limit) = new.limit.filter(|limit| size > *limit) {
        return Err(Error::Size {
            asked,
            why: format!(
                "it would be {size} with whole 4 KiB blocks, more than the limit of {limit}"
            ),
        });
    }
    Ok(size)
}

/// The first part of a request that an existing volume does not satisfy: the one place that says whether a
/// volume is the one that is asked for.
pub(super) fn difference(record: &Record, new: &NewVolume) -> Option<String> {
    let has = |what: &str, has: &dyn Display, asked: &dyn Display| {
        Some(format!("{what}: it has {has}, not {asked}"))
    };
    let number = |number: Option<u32>| number.map_or_else(|| "none".to_owned(), |n| n.to_string());
    // One that is older than owners are may be anybody's.
    if let Some(own) = record.owner().filter(|own| !is_owner(own, &new.owner)) {
        return has("owner", &own, &new.owner);
    }
    if let Some(required) = new.required.filter(|required| record.size < *required) {
        return has("size", &record.size, &required);
    }
    if let Some(limit) = new.limit.filter(|limit| record.size > *limit) {
        return has("size", &record.size, &format!("at most {limit}"));
    }
    let keys = record.parameters.keys().chain(new.parameters.keys());
    for key in keys.collect::<BTreeSet<_>>() {
        let (own, asked) = (record.parameters.get(key), new.parameters.get(key));
        if own != asked {
            let text = |value: Option<&String>| format!("{:?}", value.cloned().unwrap_or_default());
            return has(key, &text(own), &text(asked));
        }
    }
    // What ModifyVolume changed is no part of the request that made the volume.
    let own = record.made_with();
    for (what, own, asked) in [
        (
            "numberOfReplicas",
            own.number_of_replicas,
            new.number_of_replicas,
        ),
        (
            "staleReplicaTimeout",
            own.stale_replica_timeout,
            new.stale_replica_timeout,
        ),
    ] {
        if own != asked {
            return has(what, &own, &asked);
        }
    }
    // Who asks for no type takes the one that was settled for.
    if !new.fs_type.is_empty() && record.fs_type != new.fs_type {
        return has(
            "fsType",
            &format!("{:?}", record.fs_type),
            &format!("{:?}", new.fs_type),
        );
    }
    let partition = record.partition.as_ref().map(|partition| partition.number);
    if partition != new.partition {
        return has("partition", &number(partition), &number(new.partition));
    }
    let own = origin_of(record);
    if !own.satisfies(record, &new.origin) {
        return has("content source", &own, &new.origin);
    }
    None
}

/// Whether a volume of `own` is the one that `asked` would get. Kubernetes sees to the namespaces of claims,
/// and the driver learns them only where its provisioner tells them.
fn is_owner(own: &Owner, asked: &Owner) -> bool {
    own.driver == asked.driver && (asked.driver == Driver::Csi || own.namespace == asked.namespace)
}

/// What an existing volume began with.
fn origin_of(record: &Record) -> Origin {
    match (&record.source, &record.image) {
        (Some(FromVolume::Clone { volume, .. }), _) => Origin::Volume(volume.clone()),
        (_, Some(image)) => Origin::Image(image.id.name.clone(), Some(image.id.uuid.clone())),
        (_, None) => Origin::Blank,
    }
}

impl Origin {
    /// Whether a volume that began with this is one of `asked`.
    fn satisfies(&self, record: &Record, asked: &Self) -> bool {
        match (self, asked) {
            (Self::Image(own, _), Self::Image(name, None)) => own == name,
            (Self::Image(..), Self::ImageOfParameters) => record.source.is_none(),
            (own, asked) => own == asked,
        }
    }
}
