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

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use client::Address;
use fetch::{AddressPolicy, Credentials, Network, Proxies, Tuning};
use ipnet::IpNet;
use listen::{BoundAddresses, Listener, Protocol, calls};
use proto::bimrpc::backing_image_manager_service_server::BackingImageManagerServiceServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};
use types::NodeId;

use crate::observe::{self, Observed};
use crate::service::{RESPONSE_BYTES_MAX, Service};
use crate::upkeep::{self, UpkeepArgs};
use catalog::Catalog;
use catalog::source::{Sources, VerifyAccess};
use catalog::{Error, Result};
use longhorn::Files;
use longhorn::grpc::Manager;
use longhorn::reach::Transfers;
use longhorn::ssync::ports::PortRange;
use store::IoContext;
use store::node_state::NodeState;
use store::{Disk, ImageStore, Place};
use volume::Volumes;
use volume::promise::OVERCOMMIT;

/// Time that connections, and then running work, have to end after the drain: together with it less
/// than the 30 s that a kubelet grants a pod by default.
const GRACE: Duration = Duration::from_secs(12);

/// How long another manager of the disk has to end: as long as a kubelet grants a pod by default.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// What the user of the daemon says.
#[derive(Debug, Clone, Args)]
pub struct DaemonArgs {
    /// Directory of the disk, created by `disk init` or by Longhorn
    #[arg(long, default_value = "/data", value_name = "DIR")]
    pub disk: PathBuf,
    /// UUID that longhorn-disk.cfg of the disk must have [default: any]
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "UUID"
    )]
    pub disk_uuid: String,
    /// Directory of the node, not of the disk, in which `disk init --node-state` recorded the disk;
    /// any other disk is rejected
    #[arg(long, value_name = "DIR")]
    pub node_state: Option<PathBuf>,
    /// Address of the gRPC API: HOST:PORT, unix:/path, or :PORT for all addresses of the machine
    #[arg(long, default_value = "localhost:8000", value_name = "ADDR", value_parser = listen::address)]
    pub listen: Address,
    /// Address of the sync server (HTTP), from which images are downloaded and copied
    #[arg(long, default_value = "localhost:8001", value_name = "HOST:PORT",
        value_parser = listen::address)]
    pub sync_listen: Address,
    /// Limit for data sent to other managers, in bytes per second over all images [default: no
    /// limit]
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "BYTES"
    )]
    pub sync_rate_limit: u64,
    /// Maximum number of concurrent requests for image data from other managers; further requests
    /// are rejected with 503
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub sync_sends_max: usize,
    /// Sync server of another manager, or a name that resolves to several; damaged images are
    /// repaired from it; may be given several times
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: Vec<sync::PeerAddress>,
    /// Ports for receiving copies from Longhorn's own managers
    #[arg(long, default_value = "30001-31000", value_name = "FIRST-LAST")]
    pub port_range: PortRange,
    /// Address of /healthz, /readyz and /metrics [default: not served]
    #[arg(long, value_name = "HOST:PORT", value_parser = listen::socket_address)]
    pub metrics_listen: Option<SocketAddr>,
    /// File that the daemon writes the bound addresses to when it listens, for callers that ask for
    /// port 0: one line NAME=ADDRESS for each of grpc, sync and metrics
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
    /// Limit for the total size of volumes and images, in percent of the disk; volumes are thin,
    /// and clones share their image; 0: no limit
    #[arg(long, default_value_t = OVERCOMMIT, value_name = "PERCENT",
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub overcommit: u32,
    /// Name of the Kubernetes node of the disk [default: the host name]
    #[arg(long, env = "NODE_ID", value_name = "NAME")]
    pub node_id: Option<NodeId>,
    /// Directory from which file, archive and layout sources may be read; may be given several
    /// times
    #[arg(long, value_name = "DIR")]
    pub import_dir: Vec<PathBuf>,
    /// Registries with their mirrors and certificate authorities, in the format of
    /// containers-registries.conf(5)
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
    /// Registry credentials, in the format of `docker login`
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Seconds that incoming images have to complete after SIGTERM; new work is rejected meanwhile
    #[arg(long, default_value = "5", value_name = "SECONDS",
        value_parser = clap::value_parser!(u16).range(0..=3600))]
    pub drain: u16,
    /// Seconds without data after which a download is resumed, unless the download sets its own
    /// limit
    #[arg(long, default_value = "30", value_name = "SECONDS",
        value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub idle_timeout: u16,
    /// Allow downloads from this network although it is loopback, link-local or otherwise special;
    /// may be given several times
    #[arg(long, value_name = "CIDR")]
    pub allow_address: Vec<IpNet>,
    /// When a caller must prove to the registry that it has access to an image that is already on
    /// the disk
    #[arg(long, default_value = "if-private", value_name = "WHEN", value_parser = verify_access())]
    pub verify_image_access: VerifyAccess,
    /// Background maintenance
    #[command(flatten)]
    pub upkeep: UpkeepArgs,
}

/// `always`, `if-private` or `never`.
fn verify_access() -> impl TypedValueParser<Value = VerifyAccess> {
    let values = [
        PossibleValue::new("always").help("For every image from a registry"),
        PossibleValue::new("if-private")
            .help("For images that were pulled with the credentials of a caller"),
        PossibleValue::new("never").help("Never: every caller of this manager gets every image"),
    ];
    PossibleValuesParser::new(values).map(|text| match text.as_str() {
        "always" => VerifyAccess::Always,
        "never" => VerifyAccess::Never,
        _ => VerifyAccess::IfPrivate,
    })
}

/// Serves until a signal says stop.
pub async fn run(args: DaemonArgs) -> Result<()> {
    let stop = CancellationToken::new();
    raise_descriptor_limit();
    let node_id = match args.node_id.clone() {
        Some(node_id) => node_id,
        None => host_name()?,
    };
    let swarm = swarm(&args);
    let sources = sources(&args)?.with_swarm(swarm.clone());
    let (disk, volumes) = open_disk(&args, node_id).await?;
    let store = ImageStore::new(disk.clone(), Place::Images);
    let sources = sources.with_volumes(volumes.clone());
    let catalog = Catalog::load(store, sources, stop.child_token())?;
    let upkeep = upkeep::spawn(
        args.upkeep,
        (catalog.clone(), volumes.clone()),
        disk.clone(),
        stop.child_token(),
    );
    let metrics_server = probes(args.metrics_listen).await?;
    let sync_server = bound(&args.sync_listen, Protocol::Http1).await?;
    let sync_address = sync_server
        .local_address()
        .ok_or_else(|| Error::InvalidField {
            field: "sync-listen",
            why: "it must be HOST:PORT: others copy images from there".to_owned(),
        })?;
    let grpc_server = bound(&args.listen, Protocol::Grpc).await?;
    let mut addresses = BoundAddresses::default()
        .with("grpc", &grpc_server)
        .with("sync", &sync_server);
    let metrics = metrics_server.map(|server| {
        addresses = std::mem::take(&mut addresses).with("metrics", &server);
        let observed = observed(&catalog, &disk, (&volumes, &swarm));
        observe::serve(server, observed, stop.child_token())
    });
    tell(&addresses, args.address_file.as_deref())?;
    info!(disk = %disk.layout().root().display(), uuid = %disk.uuid(), node = %volumes.node_id(),
        listen = %addresses, "serving");
    let images = catalog::Images::new(swarm.clone(), vec![catalog.clone()]);
    let transfers = Transfers {
        ports: args.port_range.clone(),
        host: longhorn::address::for_peers(sync_address),
        rate: swarm.rate().clone(),
        policy: AddressPolicy::new(args.allow_address.iter().copied()),
        ..Transfers::default()
    };
    let files = Files::new(disk.clone(), vec![catalog.clone()], Some(volumes.clone()))
        .with_transfers(transfers);
    let manager = Manager::new(files.clone(), sync_address);
    let service = Service::new(catalog.clone(), volumes, disk);
    watch_signals(
        &stop,
        catalog.clone(),
        Duration::from_secs(args.drain.into()),
    )?;
    let answering = async {
        tokio::join!(
            grpc_server.serve(grpc_router(service, manager)?, stop.clone()),
            sync_server.serve(
                longhorn::rest::router(files).merge(sync::serve::router(swarm, images)),
                stop.clone()
            ),
        );
        Ok(())
    };
    let served = tokio::select! {
        served = answering => served,
        () = grace_after(&stop) => Ok(()),
    };
    stop.cancel();
    let ending = async { tokio::join!(catalog.stop(), upkeep) };
    if tokio::time::timeout(GRACE, ending).await.is_err() {
        warn!("some work did not end in time; the next start cleans up");
    }
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    served
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

/// What all syncs share; others find what we have got at the port of our sync server.
fn swarm(args: &DaemonArgs) -> sync::Swarm {
    let port = match &args.sync_listen {
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

/// What health and metrics are about.
fn observed(
    catalog: &Catalog,
    disk: &Arc<Disk>,
    (volumes, swarm): (&Volumes, &sync::Swarm),
) -> Observed {
    Observed {
        catalog: catalog.clone(),
        volumes: volumes.clone(),
        disk: disk.clone(),
        node: volumes.node_id().clone(),
        swarm: swarm.clone(),
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
fn grpc_router(service: Service, manager: Manager) -> Result<axum::Router> {
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
    let router = service.route(routes).prepare().into_axum_router();
    Ok(router.layer(axum::middleware::from_fn(calls::bounded)))
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
