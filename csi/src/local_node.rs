//! The node service of other programs (`longhorn.node.v1`) beside CSI: its socket, and its place in the metrics.

use std::path::Path;

use host::Disks;
use node::{Service, Settings};
use tokio::task::JoinSet;

use crate::config::NodeConfig;
use crate::error::Result;
use crate::metrics;
use crate::socket::{Directory, Socket};

/// The service of this node.
pub(crate) fn service(config: &NodeConfig) -> Service {
    let settings = Settings {
        node_id: config.node_id.clone(),
        version: env!("CARGO_PKG_VERSION"),
        disks: Disks::new(config.disks.clone()),
        kubelet_dir: config.kubelet_dir.clone(),
        records: config.node_state.clone(),
    };
    Service::new(settings, metrics::count)
}

/// Binds the socket and answers there in a task of `beside`.
pub(crate) fn serve(path: &Path, service: Service, beside: &mut JoinSet<()>) -> Result<()> {
    let (listener, socket) = Socket::bind(path, Directory::Own)?;
    tracing::info!(socket = %path.display(), "node service");
    beside.spawn(async move {
        // Removed when the task ends.
        let _socket = socket;
        let served = node::local::serve(listener, service, std::future::pending()).await;
        if let Err(error) = served {
            tracing::error!("the node service ended: {error}");
        }
    });
    Ok(())
}
