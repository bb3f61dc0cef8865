//! Converts incoming requests to checked requests: the only place of validation.
//!
//! A handler gets one of these types, or an error that names the field. No code behind it sees a
//! proto message. Secrets are extracted here and are in no printable type.

mod backing_image;
mod backup;
mod blocks;
mod capability;
mod controller;
mod name;
mod node;
mod page;
mod parameters;
mod snapshot;

pub(crate) use backing_image::BackingImage;
pub(crate) use backup::{BackupClass, BackupId, Restore};
pub(crate) use blocks::ListBlocks;
pub(crate) use capability::Capability;
#[cfg(test)]
pub(crate) use capability::Mode;
pub(crate) use controller::{
    Capacity, CreateVolume, ExpandVolume, GetCapacity, ModifyVolume, PublishVolume,
    UnpublishVolume, ValidateVolume, list_volumes,
};
pub(crate) use node::{AtPath, NodePublish, NodeStage};
pub(crate) use page::Page;
pub(crate) use parameters::{Mutable, ORIGINAL_NAME, Parameters, SNAPSHOT_ID};
pub(crate) use snapshot::{
    ContentSource, CreateGroup, CreateSnapshot, ListSnapshots, SnapshotRequest, group_id,
};

use std::collections::HashMap;

use types::{NodeId, VolumeName};

use crate::error::{Error, Result, shown};

/// What a map may hold in all, keys and values together (CSI specification, "Size Limits").
const MAP_BYTES: usize = 4096;

fn required<'a>(field: &'static str, text: &'a str) -> Result<&'a str> {
    if text.is_empty() {
        Err(Error::Missing { field })
    } else {
        Ok(text)
    }
}

/// The id of a volume that exists or not. A text that cannot be a name is the id of none.
pub(crate) fn volume_id(text: &str) -> Result<VolumeName> {
    let text = required("volume_id", text)?;
    VolumeName::new(text).map_err(|_| Error::NoSuchVolume {
        volume_id: shown(text),
    })
}

/// The id of a node that exists or not.
fn node_id(text: &str) -> Result<NodeId> {
    let text = required("node_id", text)?;
    NodeId::new(text).map_err(|_| Error::NoSuchNode {
        node_id: shown(text),
    })
}

/// A map of bounded size.
fn bounded(field: &'static str, map: &HashMap<String, String>, most: usize) -> Result<()> {
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > most {
        return Err(Error::Invalid {
            field,
            why: "it holds more than the CSI specification allows",
        });
    }
    Ok(())
}
