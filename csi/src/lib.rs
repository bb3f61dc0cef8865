//! The CSI plugin: requests in, checked requests on, volumes out.
//!
//! ```text
//!  kubelet, sidecars
//!        │ unix socket (socket, server)
//!        ▼
//!  identity · controller · node          one span, one guard, at most 25 lines each
//!        │ request: the only validation        │ status: the only way back
//!        ▼                                     ▼
//!  managers ─ volumes ─ client ─▶ manager       location ── host::staging ──▶ this node's kernel
//! ```
//!
//! It keeps no state: the disk of the manager knows which volumes exist, and the kernel knows what
//! is mounted. It parses neither images nor layers. `capabilities` is the only table of
//! capabilities.

mod authority;
mod backup_mounts;
mod backups;
mod begun;
mod blocking;
mod blocks;
mod capabilities;
mod certificates;
mod claims;
pub mod command;
mod config;
mod content;
mod controller;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod group;
mod health;
mod identity;
mod in_flight;
mod limit;
mod local_node;
mod location;
mod managers;
mod metrics;
mod node;
mod readiness;
mod registration;
mod replicated;
mod request;
mod seen;
mod server;
mod snapshots;
mod socket;
mod status;
mod target;
mod volumes;

pub use config::{Args, Command, Config, DriverName, LogFormat, Mode};
pub use error::{Error, Result};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blocks::BlocksService;
use certificates::Started;
use claims::Claims;
use client::Cluster;
use controller::ControllerService;
use group::GroupService;
use health::Health;
use host::Disks;
use identity::IdentityService;
use kubernetes::{Api, Leadership};
use managers::Managers;
use node::NodeService;
use readiness::Readiness;
use replicated::{Nodes, Replicated};
use server::Services;
use socket::{Directory, Socket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use trust::Dialer;

/// Runs the plugin until `shutdown` resolves. Needs a tokio runtime.
pub async fn run(mut config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let (listener, socket) = Socket::bind(&config.socket, Directory::Own)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let (http_listen, address_file) = (config.http_listen, config.address_file.clone());
    // What goes on beside the calls. It only asks and answers, and ends with the plugin.
    let mut beside = JoinSet::new();
    let certificates = std::mem::take(&mut config.certificates);
    let mut certificates = certificates::start(certificates, &mut beside).await?;
    let dialer = certificates.dialer();
    let local = (config.node.as_ref()).map(|node| local_node::service(node, &dialer));
    let local = local.transpose()?;
    if let Some(node) = &mut config.node {
        let targets = std::mem::take(&mut node.backups);
        let state = node.node_state.parent().unwrap_or(&node.node_state);
        backup_mounts::keep(targets, state, &mut beside);
    }
    if let (Some(node), Some(local)) = (&config.node, &local) {
        let (held, bound) = (certificates.held.as_ref(), certificates.bound);
        let serve = local_node::serve(node, local.clone(), held, bound, &mut beside);
        certificates.bound = serve.await?;
    }
    let (services, registration) =
        services(config, local, &certificates, stopped, &mut beside).await?;
    if let Some(node) = &services.node {
        node.report().await;
    }
    if let Some(address) = http_listen {
        let (readiness, socket) = (services.identity.readiness.clone(), socket.place());
        let (health, bound) = (Health { readiness, socket }, certificates.bound);
        let bound = health::serve(address, health, bound, &mut beside).await?;
        let file = address_file.as_deref();
        let written = bound.write(file);
        written.map_err(Error::io(
            "write the addresses to",
            file.unwrap_or(Path::new("")),
        ))?;
    }
    tracing::info!(socket = %socket.path().display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let served = server::serve(listener, services, async {
        shutdown.await;
        // The kubelet is to call no more: its own socket goes first.
        drop(stop);
    });
    let served = served.await;
    if let Some(registration) = registration {
        // It ends at once, or has panicked, which is no reason not to end.
        let _ = registration.await;
    }
    beside.shutdown().await;
    served
}

/// Wires the services that the mode asks for. The registration goes on until `stop`.
async fn services(
    config: Config,
    local: Option<::node::Service>,
    certificates: &Started,
    stop: oneshot::Receiver<()>,
    beside: &mut JoinSet<()>,
) -> Result<(Services, Option<tokio::task::JoinHandle<()>>)> {
    let (name, topology_key) = (config.driver_name, config.topology_key);
    let (mut controller, mut group, mut blocks) = (None, None, None);
    let (mut node, mut task) = (None, None);
    let mut readiness = Readiness {
        managers: None,
        node: None,
        certificate: certificates.held.clone(),
        registration: None,
    };
    if let Some(asked) = config.controller {
        let cluster = Cluster::new(asked.managers, &certificates.dialer())?;
        let cluster = cluster.with_patience(asked.patience);
        let managers = Managers::new(cluster, topology_key.clone(), asked.image_wait);
        let (replicated, claims) = match asked.replication {
            Some(replication) => {
                let (dialer, wait) = (certificates.dialer(), asked.image_wait);
                let started = replicated(replication, dialer, &managers, wait, beside);
                let (replicated, claims) = started.await?;
                (Some(replicated), claims)
            }
            None => (None, Claims::default()),
        };
        controller = Some(ControllerService::new(
            managers.clone(),
            replicated.clone(),
            claims,
            asked.max_volumes,
        ));
        group = Some(GroupService::new(managers.clone(), replicated));
        blocks = Some(BlocksService::new(managers.clone()));
        beside.spawn(managers.clone().keep());
        readiness.managers = Some(managers);
    }
    if let (Some(asked), Some(local)) = (config.node, local) {
        let disks = Disks::new(asked.disks);
        let max_volumes = asked.max_volumes.into();
        let service = NodeService::new(
            asked.node_id,
            topology_key,
            disks,
            local,
            max_volumes,
            asked.check,
            asked.kubelet_dir,
        );
        readiness.node = Some(service.clone());
        node = Some(service);
        if let Some(registration) = asked.registration {
            let stopped = async { drop(stop.await) };
            let (outcome, work) = registration::keep(&registration, &name, stopped);
            readiness.registration = Some(outcome);
            task = Some(work);
        }
    }
    let identity = IdentityService { name, readiness };
    let services = Services {
        identity,
        controller,
        group,
        blocks,
        node,
    };
    Ok((services, task))
}

/// Starts what looks after replicated volumes, and what says things of claims; both go on in `beside`.
async fn replicated(
    config: config::ReplicationConfig,
    dialer: Dialer,
    managers: &Managers,
    image_wait: Duration,
    beside: &mut JoinSet<()>,
) -> Result<(Replicated, Claims)> {
    let api = Api::in_cluster(&config.account).await;
    let api = Arc::new(api.map_err(Error::Kubernetes)?);
    let nodes = Nodes::new(config.node_services, dialer);
    let settings = replicated::Settings {
        ports: config.ports,
        rebuilds: config.rebuilds,
        image_wait,
    };
    let replicated = Replicated::new(api.clone(), nodes, managers.clone(), settings);
    // In a pod, the name of the host is that of the pod; elsewhere two processes may be on one host.
    let host = rustix::system::uname();
    let identity = format!(
        "{}_{}",
        host.nodename().to_string_lossy(),
        std::process::id()
    );
    let leadership = Leadership::seek(api, &config.lease, &identity, |why| match why {
        "" => tracing::info!("the Lease of the replicated volumes is well again"),
        why => tracing::warn!("cannot look after replicated volumes: {why}"),
    });
    // Who leads says everything: one controller, so that each Event is one.
    let leadership = Arc::new(leadership);
    let events = replicated.events().clone();
    let claims = Claims::start(events, managers.clone(), leadership.clone(), beside);
    beside.spawn(replicated.clone().keep(leadership));
    Ok((replicated, claims))
}
