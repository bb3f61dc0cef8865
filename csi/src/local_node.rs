//! The node service of other programs (`longhorn.node.v1`) beside CSI: its socket, its port, and its place in the
//! metrics.

use std::path::Path;

use client::Cluster;
use host::Disks;
use listen::{BoundAddresses, Listener, Protocol, Security};
use node::{ExposeSettings, Service, Settings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trust::{Dialer, Held};

use crate::config::NodeConfig;
use crate::error::{Error, Result};
use crate::metrics;
use crate::socket::{Directory, Socket};

/// The service of this node.
pub(crate) fn service(config: &NodeConfig, dialer: &Dialer) -> Result<Service> {
    let expose = ExposeSettings {
        records: config.node_state.with_file_name("exposed"),
        names: config.dev_dir.clone(),
        managers: Cluster::new(config.managers.clone(), dialer)?,
        targets: config.targets.clone(),
    };
    let settings = Settings {
        node_id: config.node_id.clone(),
        version: env!("CARGO_PKG_VERSION"),
        disks: Disks::new(config.disks.clone()),
        kubelet_dir: config.kubelet_dir.clone(),
        records: config.node_state.clone(),
        replicas: config.node_state.with_file_name("replicas"),
        storage: config.storage,
        expose,
    };
    Ok(Service::new(settings, metrics::count))
}

/// Answers at the socket, and at the port if one is asked for, in tasks of `beside`. Adds the port to what is bound.
pub(crate) async fn serve(
    config: &NodeConfig,
    service: Service,
    held: Option<&Held>,
    bound: BoundAddresses,
    beside: &mut JoinSet<()>,
) -> Result<BoundAddresses> {
    at_socket(&config.node_socket, service.clone(), beside)?;
    beside.spawn(service.clone().keep_replicas());
    beside.spawn(service.clone().keep_exposed());
    let (Some(address), Some(held)) = (&config.node_listen, held) else {
        return Ok(bound);
    };
    let listener = Listener::bind(address, Protocol::Grpc)
        .await
        .map_err(Error::io("listen on", address.to_string()))?
        .secured(Security {
            held: Some(held.clone()),
            ..Security::default()
        });
    tracing::info!(address = listener.bound_address(), "node service with TLS");
    let bound = bound.with("node", &listener);
    beside.spawn(listener.serve(node::router(service), CancellationToken::new()));
    Ok(bound)
}

fn at_socket(path: &Path, service: Service, beside: &mut JoinSet<()>) -> Result<()> {
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
