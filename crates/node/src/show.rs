//! What the node found, on the wire.

use std::path::Path;

use host::Holder;
use host::disks::DiskState;
use host::drbd::Drbd;
use host::staging::Attachment;
use proto::node::v1 as wire;
use replication::Engine as _;
use types::report;

use crate::StorageAddress;

/// A path for people and for `open(2)`; one that is no text is shown as well as it goes.
fn path(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn attachment(found: Attachment) -> wire::Attachment {
    let holder = match found.holder {
        // The devices below replicas are not listed: they are nobody's to detach.
        Holder::Node | Holder::Replica | Holder::Exposed => wire::attachment::Holder::Node,
        Holder::Pods => wire::attachment::Holder::Pods,
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

const NO_ADDRESS: &str =
    "this node has no address in the storage network; give --replication-address";
const NOT_IN_NETWORK: &str = "this node has no address in the network of --replication-address now";

/// What a node can do with replicated volumes.
pub(crate) fn replication(engine: &Drbd, storage: Option<StorageAddress>) -> wire::NodeReplication {
    let address = storage.and_then(|storage| storage.find());
    let (version, trouble) = match (engine.version(), storage) {
        (Err(error), _) => (String::new(), report(&error).to_string()),
        (Ok(version), _) if address.is_some() => (version, String::new()),
        (Ok(version), None) => (version, NO_ADDRESS.to_owned()),
        (Ok(version), Some(_)) => (version, NOT_IN_NETWORK.to_owned()),
    };
    wire::NodeReplication {
        tls: !version.is_empty() && engine.has_tls(),
        version,
        trouble,
        address: address.map_or_else(String::new, |address| address.to_string()),
    }
}
