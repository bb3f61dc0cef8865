//! The daemon: opens the disk, connects the parts, and serves until it is stopped.
//!
//! Start: lock the disk, read its contents, listen; only then is it ready. Stop (SIGTERM, SIGINT):
//! reject new work (UNAVAILABLE, and not ready), but let incoming images complete for some seconds;
//! then end running work at its next chunk, wait for it within a grace period, exit. Resumable work
//! is kept; the next start removes everything else that was not sealed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_jobs::{Jobs, Targets};
use client::Address;
use fetch::{AddressPolicy, Credentials, Network, Proxies, Tuning};
use listen::{BoundAddresses, Listener, Protocol, access, calls};
use proto::bimrpc::backing_image_manager_service_server::BackingImageManagerServiceServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};
use types::NodeId;

use crate::arguments::DaemonArgs;
use crate::faces::{self, Faces};
use crate::observe::{self, Observed};
use crate::service::{RESPONSE_BYTES_MAX, Service};
use crate::upkeep;
use catalog::Catalog;
use catalog::source::Sources;
use catalog::{Error, Result};
use longhorn::Files;
use longhorn::grpc::Manager;
use longhorn::reach::Transfers;
use store::IoContext;
use store::node_state::NodeState;
use store::{Disk, ImageStore, Place};
use volume::Volumes;

/// Time that connections, and then running work, have to end after the drain: together with it less
/// than the 30 s that a kubelet grants a pod by default.
const GRACE: Duration = Duration::from_secs(12);

/// How long another manager of the disk has to end: as long as a kubelet grants a pod by default.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// Serves until a signal says stop.
pub async fn run(args: DaemonArgs) -> Result<()> {
    let stop = CancellationToken::new();
    raise_descriptor_limit();
    let node_id = match args.node_id.clone() {
        Some(node_id) => node_id,
        None => host_name()?,
    };
    let (faces, certified) = Faces::new(&args.faces)?;
    let swarm = swarm(&args, &faces);
    let sources = sources(&args)?.with_swarm(swarm.clone(), faces.dialer());
    let (disk, volumes) = open_disk(&args, node_id).await?;
    let store = ImageStore::new(disk.clone(), Place::Images);
    let sources = sources.with_volumes(volumes.clone());
    let catalog = Catalog::load(store, sources, stop.child_token())?;
    let backups = backups(&args, &catalog, &volumes, &stop)?;
    let upkeep = upkeep::spawn(
        args.upkeep,
        (catalog.clone(), volumes.clone()),
        disk.clone(),
        stop.child_token(),
    );
    let metrics_server = probes(args.metrics_listen).await?;
    let ports = Ports::open(&args, &faces).await?;
    let mut addresses = ports.addresses();
    let metrics = metrics_server.map(|server| {
        addresses = std::mem::take(&mut addresses).with("metrics", &server);
        let observed = observed(&catalog, &backups, &disk, (&volumes, &swarm), &faces);
        observe::serve(server, observed, stop.child_token())
    });
    tell(&addresses, args.address_file.as_deref())?;
    info!(disk = %disk.layout().root().display(), uuid = %disk.uuid(), node = %volumes.node_id(),
        listen = %addresses, "serving");
    let node = volumes.node_id().clone();
    let images = catalog::Images::new(swarm.clone(), vec![catalog.clone()], node);
    let transfers = Transfers {
        host: longhorn::address::for_peers(ports.sync_address),
        rate: swarm.rate().clone(),
        ..transfers(&args, &faces)
    };
    let files = Files::new(disk.clone(), vec![catalog.clone()], Some(volumes.clone()))
        .with_transfers(transfers)
        .with_backups(backups.clone());
    let mut manager = Manager::new(files.clone(), ports.sync_address);
    if !faces.gives_images() {
        manager = manager.without_own_protocol();
    }
    let policy = faces.policy(volumes.node_id());
    let peers = longhorn::address::for_peers(ports.sync_address);
    let peers = SocketAddr::new(peers, ports.sync_address.port());
    let service = Service::new(catalog.clone(), volumes, disk, backups.clone(), peers)
        .certified(faces.held().cloned());
    tokio::spawn(tidy(backups.clone()));
    watch_signals(
        &stop,
        catalog.clone(),
        Duration::from_secs(args.drain.into()),
    )?;
    let answering = async {
        let grpc = grpc_router(service, manager, policy.clone())?;
        let http = longhorn::rest::router(files).merge(sync::serve::router(swarm, images));
        ports.serve(grpc, access::http(http, policy), &stop).await;
        Ok(())
    };
    let served = tokio::select! {
        served = answering => served,
        () = grace_after(&stop) => Ok(()),
        // It never ends.
        () = certified => Ok(()),
    };
    stop.cancel();
    let ending = async { tokio::join!(backups.stop(), catalog.stop(), upkeep) };
    if tokio::time::timeout(GRACE, ending).await.is_err() {
        warn!("some work did not end in time; the next start cleans up");
    }
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    served
}

/// Where the daemon is called.
struct Ports {
    grpc: Listener,
    sync: Listener,
    sync_address: SocketAddr,
    local: Option<Listener>,
}

impl Ports {
    async fn open(args: &DaemonArgs, faces: &Faces) -> Result<Self> {
        let sync = bound(&args.sync_listen, Protocol::Http1).await?;
        let sync_address = sync.local_address().ok_or_else(|| Error::InvalidField {
            field: "sync-listen",
            why: "it must be HOST:PORT: others copy images from there".to_owned(),
        })?;
        let grpc = bound(&args.listen, Protocol::Grpc).await?;
        Ok(Self {
            grpc: grpc.secured(faces.security()),
            sync: sync.secured(faces.security()),
            sync_address,
            local: faces::local(&args.faces).await?,
        })
    }

    fn addresses(&self) -> BoundAddresses {
        let addresses = BoundAddresses::default()
            .with("grpc", &self.grpc)
            .with("sync", &self.sync);
        match &self.local {
            Some(local) => addresses.with("socket", local),
            None => addresses,
        }
    }

    /// Answers until `stop`, and what was asked by then.
    async fn serve(self, grpc: axum::Router, http: axum::Router, stop: &CancellationToken) {
        let local = async {
            if let Some(local) = self.local {
                local.serve(grpc.clone(), stop.clone()).await;
            }
        };
        tokio::join!(
            self.grpc.serve(grpc.clone(), stop.clone()),
            self.sync.serve(http, stop.clone()),
            local,
        );
    }
}

/// A listener of the daemon.
async fn bound(address: &Address, protocol: Protocol) -> Result<Listener> {
    let listener = Listener::bind(address, protocol).await;
    Ok(listener.context("listen on", address.to_string().as_ref())?)
}

/// The listener of health and metrics, if an address is given.
async fn probes(address: Option<SocketAddr>) -> Result<Option<Listener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = Listener::for_probes(address).await;
    Ok(Some(
        listener.context("listen on", address.to_string().as_ref())?,
    ))
}

/// Writes the file of `--address-file`, where that is asked for.
fn tell(addresses: &BoundAddresses, file: Option<&Path>) -> Result<()> {
    let written = addresses.write(file);
    Ok(written.context("write the addresses to", file.unwrap_or(Path::new("")))?)
}

/// Locks the disk and reads what volumes it holds.
async fn open_disk(args: &DaemonArgs, node_id: NodeId) -> Result<(Arc<Disk>, Volumes)> {
    let (path, uuid, overcommit) = (args.disk.clone(), args.disk_uuid.clone(), args.overcommit);
    let state = args.node_state.as_deref().map(NodeState::new);
    let opened = move || {
        if let Some(state) = state {
            state.check(&path)?;
        }
        let disk = Arc::new(Disk::open_within(&path, TAKE_OVER)?);
        check_uuid(&disk, &uuid)?;
        let volumes = Volumes::load(disk.clone(), node_id)?.with_overcommit(overcommit);
        Ok::<_, Error>((disk, volumes))
    };
    let (disk, volumes) = catalog::blocking(opened).await?;
    if !disk.reflink() {
        warn!(
            file_system = disk.file_system(),
            "this disk cannot share extents: every volume is a copy of its image; use XFS with \
             reflink=1 or btrfs for volumes in constant time and space"
        );
    }
    Ok((disk, volumes))
}

/// Backups. Their maps of blocks lie on the disk, in files without names.
fn backups(
    args: &DaemonArgs,
    catalog: &Catalog,
    volumes: &Volumes,
    stop: &CancellationToken,
) -> Result<Jobs> {
    let options = backup::Options {
        spool: args.disk.clone(),
        ..backup::Options::default()
    };
    let targets = Targets::new(&args.backups, options)?;
    let (catalog, volumes) = (catalog.clone(), Some(volumes.clone()));
    Ok(Jobs::new(targets, catalog, volumes, stop.child_token()))
}

/// What all syncs share; others find what we have got at the port of our sync server.
fn swarm(args: &DaemonArgs, faces: &Faces) -> sync::Swarm {
    let port = match &args.sync_listen {
        _ if !faces.gives_images() => None,
        Address::Tcp(address) => address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok()),
        Address::Unix(_) => None,
    };
    sync::Swarm::new(sync::Settings {
        port,
        rate: args.sync_rate_limit,
        serves_max: args.sync_sends_max,
        ..sync::Settings::default()
    })
}

/// How Longhorn's other managers are reached.
fn transfers(args: &DaemonArgs, faces: &Faces) -> Transfers {
    Transfers {
        ports: args.port_range.clone(),
        policy: AddressPolicy::new(args.allow_address.iter().copied()),
        dialer: faces.longhorn_dialer(),
        ..Transfers::default()
    }
}

/// Removes what a daemon that was killed kept for backups of volumes that are no more.
async fn tidy(backups: Jobs) {
    backups.tidy().await;
}

/// What health and metrics are about.
fn observed(
    catalog: &Catalog,
    backups: &Jobs,
    disk: &Arc<Disk>,
    (volumes, swarm): (&Volumes, &sync::Swarm),
    faces: &Faces,
) -> Observed {
    Observed {
        catalog: catalog.clone(),
        volumes: volumes.clone(),
        disk: disk.clone(),
        node: volumes.node_id().clone(),
        backups: backups.clone(),
        swarm: swarm.clone(),
        held: faces.held().cloned(),
    }
}

/// Takes as many descriptors as the process may have: the soft limit is for programs that use select(2).
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the limit of open files");
    }
}

/// Refuses a disk that is not the one that is meant.
fn check_uuid(disk: &Disk, asked: &str) -> Result<()> {
    if asked.is_empty() || asked == disk.uuid().as_str() {
        return Ok(());
    }
    Err(Error::InvalidField {
        field: "disk-uuid",
        why: format!(
            "{} is disk {}, not {asked}; mount the right disk there",
            disk.layout().root().display(),
            disk.uuid()
        ),
    })
}

/// Every gRPC service, with what holds for all calls around them.
fn grpc_router(
    service: Service,
    manager: Manager,
    policy: Arc<trust::Policy>,
) -> Result<axum::Router> {
    let reflection = |builder: tonic_reflection::server::Builder<'static>| {
        builder.register_encoded_file_descriptor_set(proto::MANAGER_DESCRIPTORS)
    };
    let broken = |error| store::Error::Io {
        operation: "describe",
        path: "the gRPC services".into(),
        source: std::io::Error::other(error),
    };
    let builder = tonic_reflection::server::Builder::configure;
    let manager = BackingImageManagerServiceServer::new(manager)
        .max_decoding_message_size(calls::MESSAGE_MAX)
        .max_encoding_message_size(RESPONSE_BYTES_MAX);
    let routes = Routes::new(manager)
        .add_service(reflection(builder()).build_v1().map_err(broken)?)
        .add_service(reflection(builder()).build_v1alpha().map_err(broken)?);
    Ok(access::grpc(service.route(routes), policy))
}

/// Drains at the first signal that says so, then cancels `stop`; at the second one at once.
fn watch_signals(stop: &CancellationToken, catalog: Catalog, patience: Duration) -> Result<()> {
    let stop = stop.clone();
    let mut terminate =
        signal(SignalKind::terminate()).context("watch signals for", &PathBuf::new())?;
    let mut interrupt =
        signal(SignalKind::interrupt()).context("watch signals for", &PathBuf::new())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: draining"),
            _ = interrupt.recv() => info!("SIGINT: draining"),
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = catalog.drain() => info!("stopping"),
            () = tokio::time::sleep(patience) => {
                info!("stopping; incomplete images are fetched again at the next request");
            }
            _ = terminate.recv() => info!("SIGTERM again: stopping"),
            _ = interrupt.recv() => info!("SIGINT again: stopping"),
        }
        stop.cancel();
    });
    Ok(())
}

/// Connections in use get some time after the stop signal.
async fn grace_after(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

fn host_name() -> Result<NodeId> {
    let name = rustix::system::uname();
    Ok(NodeId::new(&name.nodename().to_string_lossy())?)
}

fn sources(args: &DaemonArgs) -> Result<Sources> {
    let read = |path: &PathBuf| std::fs::read(path).context("read", path);
    let config = match &args.registry_config {
        Some(path) => fetch::Config::from_toml(&String::from_utf8_lossy(&read(path)?))?,
        None => fetch::Config::default(),
    };
    let credentials = match &args.auth_file {
        Some(path) => Credentials::from_docker_config(&read(path)?)?,
        None => Credentials::anonymous(),
    };
    let import_dirs = args
        .import_dir
        .iter()
        .map(|dir| std::fs::canonicalize(dir).context("open the import directory", dir))
        .collect::<store::Result<Vec<_>>>()?;
    let policy = AddressPolicy::new(args.allow_address.iter().copied());
    let tuning = Tuning {
        stall_timeout: Duration::from_secs(args.idle_timeout.into()),
        ..Tuning::default()
    };
    let proxies = Proxies::of_environment();
    if !proxies.is_empty() {
        info!(
            ?proxies,
            "downloads and registries are reached through a proxy"
        );
    }
    let network = Network::with_proxies(config, policy, tuning, proxies);
    Ok(Sources::new(network, credentials, import_dirs)
        .with_peers(args.peer.clone())
        .with_verify_access(args.verify_image_access))
}
