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
use controller::ControllerService;
use host::Disks;
use identity::IdentityService;
use node::NodeService;
use server::Services;
use volumes::Volumes;

/// Runs the plugin until `shutdown` resolves. Needs a tokio runtime.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let kubelet_dir = config.node.as_ref().map(|node| node.kubelet_dir.clone());
    let (listener, socket) = socket::Socket::bind(&config.socket)?;
    let services = services(config)?;
    if let (Some(node), Some(kubelet_dir)) = (&services.node, kubelet_dir) {
        node.report(kubelet_dir).await;
    }
    tracing::info!(socket = %socket.path().display(), version = env!("CARGO_PKG_VERSION"), "serving");
    server::serve(listener, services, shutdown).await
}

/// Wires the services that the mode asks for.
fn services(config: Config) -> Result<Services> {
    let topology_key = config.topology_key;
    let (mut client, mut controller, mut node) = (None, None, None);
    if let Some(asked) = config.controller {
        let manager = Client::new(asked.manager)?;
        let volumes = Volumes::new(manager.clone(), topology_key.clone(), asked.image_wait);
        controller = Some(ControllerService::new(volumes));
        client = Some(manager);
    }
    if let Some(asked) = config.node {
        let disks = Disks::new(asked.disks);
        node = Some(NodeService::new(asked.node_id, topology_key, disks));
    }
    let name = config.driver_name;
    let identity = IdentityService {
        name,
        client,
        node: node.clone(),
    };
    Ok(Services {
        identity,
        controller,
        node,
    })
}
