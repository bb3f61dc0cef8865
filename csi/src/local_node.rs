//! The node service of other programs (`longhorn.node.v1`) beside CSI: its socket, and its place in the metrics.

use std::path::Path;

use host::Disks;
use listen::{Listener, Protocol};
use node::{Service, Settings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::error::{Error, Result};
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
    let listener =
        Listener::of_unix(listener, Protocol::Grpc).map_err(Error::io("serve on", path))?;
    tracing::info!(socket = %path.display(), "node service");
    beside.spawn(async move {
        // Removed when the task ends.
        let _socket = socket;
        let never = CancellationToken::new();
        listener.serve(node::router(service), never).await;
    });
    Ok(())
}
