//! The request for a volume: the size it gets, and whether an existing volume matches.

use std::collections::{BTreeMap, BTreeSet};

use types::{BLOCK, ByteSize, ImageId, VolumeName};

use super::owner::Owner;
use super::record::{FromVolume, Record};
use crate::error::{Error, Result};

/// The size of a blank volume when none is asked for: 1 GiB, as the first CSI driver had it.
const DEFAULT_SIZE: ByteSize = ByteSize(1 << 30);

/// A request for a volume, checked.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// Its name.
    pub name: VolumeName,
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

/// The first part of a request that an existing volume does not satisfy.
pub(super) fn difference(
    record: &Record,
    new: &NewVolume,
    image: Option<&ImageId>,
    cloned: Option<&VolumeName>,
) -> Option<String> {
    let has = |what: &str, has: &dyn std::fmt::Display, asked: &dyn std::fmt::Display| {
        Some(format!("{what}: it has {has}, not {asked}"))
    };
    let none = "none".to_owned();
    let text = |id: Option<&ImageId>| id.map_or_else(|| none.clone(), ImageId::to_string);
    let own_image = record.image.as_ref().map(|image| &image.id);
    if own_image != image {
        return has("image", &text(own_image), &text(image));
    }
    let own_source = match &record.source {
        Some(FromVolume::Clone { volume, .. }) => Some(volume),
        Some(FromVolume::Snapshot { .. }) | None => None,
    };
    if own_source != cloned {
        let text = |name: Option<&VolumeName>| name.map_or("none", VolumeName::as_str).to_owned();
        return has("source volume", &text(own_source), &text(cloned));
    }
    if let Some(required) = new.required.filter(|required| record.size < *required) {
        return has("size", &record.size, &required);
    }
    if let Some(limit) = new.limit.filter(|limit| record.size > *limit) {
        return has("size", &record.size, &format!("at most {limit}"));
    }
    let own_partition = record.partition.as_ref().map(|partition| partition.number);
    if own_partition != new.partition {
        let text = |number: Option<u32>| number.map_or_else(|| none.clone(), |n| n.to_string());
        return has("partition", &text(own_partition), &text(new.partition));
    }
    if record.number_of_replicas != new.number_of_replicas {
        return has(
            "numberOfReplicas",
            &record.number_of_replicas,
            &new.number_of_replicas,
        );
    }
    if record.stale_replica_timeout != new.stale_replica_timeout {
        return has(
            "staleReplicaTimeout",
            &record.stale_replica_timeout,
            &new.stale_replica_timeout,
        );
    }
    if record.fs_type != new.fs_type {
        return has(
            "fsType",
            &format!("{:?}", record.fs_type),
            &format!("{:?}", new.fs_type),
        );
    }
    // One that is older than owners are may be anybody's.
    if let Some(own) = record.owner()
        && (own.driver, &own.namespace) != (new.owner.driver, &new.owner.namespace)
    {
        return has("owner", &own, &new.owner);
    }
    let keys: BTreeSet<_> = record
        .parameters
        .keys()
        .chain(new.parameters.keys())
        .collect();
    keys.into_iter().find_map(|key| {
        let (own, asked) = (record.parameters.get(key), new.parameters.get(key));
        (own != asked).then(|| {
            let text = |value: Option<&String>| value.cloned().unwrap_or_default();
            format!("{key}: it has {:?}, not {:?}", text(own), text(asked))
        })
    })
}
