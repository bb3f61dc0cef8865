//! Whether an existing volume is the requested one.

use std::collections::HashMap;

use client::owner::{self, Asker};
use client::parameters::BASE_IMAGE;
use client::wire;
use types::ByteSize;

use crate::error::{Error, Result};
use crate::request::{COMPARED, ContentSource, CreateVolume};

/// The file system asked for, or an empty text.
pub(super) fn asked_fs_type(request: &CreateVolume) -> String {
    request
        .fs_type()
        .map(|fs_type| fs_type.to_string())
        .unwrap_or_default()
}

/// Compares a volume with the request for it, and names the first difference.
pub(super) fn same(existing: &wire::Volume, request: &CreateVolume) -> Result<()> {
    let differs = |what, existing: String, asked: String| {
        Err(Error::Differs {
            volume: request.name.clone(),
            what,
            existing,
            asked,
        })
    };
    // Nobody gets what another driver made under the name of his claim.
    if let Some(why) = owner::refusal(existing, Asker::Csi) {
        return differs("owner", why, "CSI".to_owned());
    }
    let size = ByteSize(existing.size);
    if !request.capacity.allows(size) {
        return differs("size", size.to_string(), request.capacity.to_string());
    }
    let asked = request.parameters.recorded();
    for what in COMPARED {
        let value = |map: &HashMap<String, String>| map.get(what).cloned().unwrap_or_default();
        if value(&existing.parameters) != value(&asked) {
            return differs(what, value(&existing.parameters), value(&asked));
        }
    }
    let asked = asked_fs_type(request);
    // Recorded may be the type that the manager settled for where none was asked.
    if !asked.is_empty() && existing.fs_type != asked {
        return differs("fsType", existing.fs_type.clone(), asked);
    }
    let (own, asked) = (source_of(existing), asked_source(request.source.as_ref()));
    if own != asked {
        return differs("content source", own, asked);
    }
    let parameters = &request.parameters;
    let names_image = parameters.base_image.is_some() || parameters.backing_image.is_some();
    if request.source.is_none() && names_image == existing.image_name.is_empty() {
        return differs(BASE_IMAGE, existing.image_name.clone(), String::new());
    }
    Ok(())
}

/// What a volume was made from, in words; empty: an image, or nothing.
fn source_of(volume: &wire::Volume) -> String {
    match (
        volume.source_volume.as_str(),
        volume.source_snapshot.as_str(),
    ) {
        ("", "") => String::new(),
        ("", snapshot) => format!("snapshot {snapshot}"),
        (source, _) => format!("volume {source}"),
    }
}

fn asked_source(source: Option<&ContentSource>) -> String {
    match source {
        None => String::new(),
        Some(ContentSource::Snapshot(id)) => format!("snapshot {id}"),
        Some(ContentSource::Volume(id)) => format!("volume {id}"),
    }
}
