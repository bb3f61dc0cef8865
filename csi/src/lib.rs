//! The CSI plugin: requests in, checked requests on, volumes out.
//!
//! ```text
//!  kubelet, sidecars
//!        │ unix socket (socket, server)
//!        ▼
//!  identity · controller · node          one span, one guard, at most 25 lines each
//!        │ request: the only validation        │ status: the only way back
//!        ▼                                     ▼
//!  volumes ── client ──▶ manager         location ── host::staging ──▶ this node's kernel
//! ```
//!
//! It keeps no state: what exists the manager's disk knows, what is mounted the kernel knows. It
//! parses neither images nor layers. `capabilities` is the one table of what is offered.

mod blocking;
mod capabilities;
mod config;
mod content;
mod controller;
mod error;
mod identity;
mod in_flight;
mod location;
mod node;
mod request;
mod server;
mod socket;
mod status;
mod volumes;

pub use config::{Args, Config, DriverName, LogFormat, Mode};
pub use error::{Error, Result};

use client::Client;
use config::{ControllerConfig, NodeConfig};
use controller::ControllerService;
use identity::IdentityService;
use location::Disks;
use node::NodeService;
use server::Services;
use volumes::Volumes;

/// Runs the plugin until `shutdown` resolves. Needs a tokio runtime.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let Config {
        socket: path,
        driver_name,
        topology_key,
        controller,
        node,
    } = config;
    let (mut client, mut volumes) = (None, None);
    if let Some(ControllerConfig {
        manager,
        image_wait,
    }) = controller
    {
        let manager = Client::new(manager)?;
        volumes = Some(Volumes::new(
            manager.clone(),
            topology_key.clone(),
            image_wait,
        ));
        client = Some(manager);
    }
    let node = node.map(
        |NodeConfig {
             node_id,
             disks,
             kubelet_dir,
         }| {
            node::warn_without_propagation(&kubelet_dir);
            NodeService::new(node_id, topology_key, Disks::new(disks))
        },
    );
    let identity = IdentityService {
        name: driver_name,
        client,
        node: node.clone(),
    };
    let services = Services {
        identity,
        controller: volumes.map(ControllerService::new),
        node,
    };
    let (listener, _socket) = socket::Socket::bind(&path)?;
    tracing::info!(socket = %path.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    server::serve(listener, services, shutdown).await
}
