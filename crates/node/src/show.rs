//! What the node found, on the wire.

use std::path::Path;

use host::Holder;
use host::disks::DiskState;
use host::staging::Attachment;
use proto::node::v1 as wire;
use types::report;

/// A path for people and for `open(2)`; one that is no text is shown as well as it goes.
fn path(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn attachment(found: Attachment) -> wire::Attachment {
    let holder = match found.holder {
        Holder::Node => wire::attachment::Holder::Node,
        Holder::Pods => wire::attachment::Holder::Pods,
        Holder::Replica => wire::attachment::Holder::Unspecified,
    };
    let shown = wire::Attachment {
        volume: found.volume,
        holder: holder.into(),
        read_only: found.read_only,
        file: path(&found.file),
        troubles: found.troubles,
        ..Default::default()
    };
    let Some(device) = found.device else {
        return shown;
    };
    wire::Attachment {
        device: path(&device.path),
        size: device.size.bytes(),
        direct_io: device.direct_io,
        mounts: device.mounts.iter().map(|point| path(point)).collect(),
        ..shown
    }
}

pub(crate) fn disk(state: DiskState) -> wire::NodeDisk {
    let shown = wire::NodeDisk {
        path: path(&state.path),
        ..Default::default()
    };
    match state.found {
        Ok((uuid, size, available)) => wire::NodeDisk {
            uuid: uuid.to_string(),
            size: size.bytes(),
            available: available.bytes(),
            ..shown
        },
        Err(error) => wire::NodeDisk {
            trouble: report(&error).to_string(),
            ..shown
        },
    }
}
