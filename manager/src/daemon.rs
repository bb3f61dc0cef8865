//! The daemon: opens the disk, wires the parts, serves until it is told to stop.
//!
//! Start: lock the disk, read what it holds, listen; only then is it ready. Stop (SIGTERM, SIGINT):
//! accept nothing new, end running work at its next chunk, wait for it within a grace period, exit.
//! Whatever was not sealed by then is removed by the next start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use client::Address;
use fetch::{AddressPolicy, Credentials, Network, Tuning};
use ipnet::IpNet;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::{info, warn};
use types::NodeId;

use crate::catalog::Catalog;
use crate::error::{Error, IoContext, Result};
use crate::observe;
use crate::service::Service;
use crate::source::Sources;
use crate::store::{Disk, ImageStore, Place};
use crate::volume::Volumes;

/// Time that connections, and then running work, have to end after the stop signal: together less than
/// the 30 s that a kubelet grants a pod by default.
const GRACE: Duration = Duration::from_secs(12);

/// What the user of the daemon says.
#[derive(Debug, Clone, Args)]
pub struct DaemonArgs {
    /// Directory of the disk; made one by `disk init`, or by Longhorn
    #[arg(long, value_name = "DIR")]
    pub disk: PathBuf,
    /// Address of the gRPC API: HOST:PORT or unix:/path
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDR")]
    pub listen: Address,
    /// Address of /healthz, /readyz and /metrics; none when it is not given
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Name of the Kubernetes node that the disk is in [default: the host name]
    #[arg(long, env = "NODE_ID", value_name = "NAME")]
    pub node_id: Option<NodeId>,
    /// Directory that file, archive and layout sources may be in; may be given several times
    #[arg(long, value_name = "DIR")]
    pub import_dir: Vec<PathBuf>,
    /// Registries, their mirrors and certificate authorities, as containers-registries.conf(5) spells
    /// them
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
    /// Registry credentials, as `docker login` writes them
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Network of loopback, link-local or other special addresses that images may come from all the
    /// same; may be given several times
    #[arg(long, value_name = "CIDR")]
    pub allow_address: Vec<IpNet>,
}

/// Serves until a signal says stop.
pub async fn run(args: DaemonArgs) -> Result<()> {
    let stop = CancellationToken::new();
    let node_id = match args.node_id.clone() {
        Some(node_id) => node_id,
        None => host_name()?,
    };
    let sources = sources(&args)?;
    let path = args.disk.clone();
    let opened = move || {
        let disk = Arc::new(Disk::open(&path)?);
        let volumes = Volumes::load(disk.clone(), node_id)?;
        Ok::<_, Error>((disk, volumes))
    };
    let (disk, volumes) = tokio::task::spawn_blocking(opened)
        .await
        .map_err(Error::Task)??;
    if !disk.reflink() {
        warn!(
            file_system = disk.file_system(),
            "this disk cannot share extents: every volume is a copy of its image; use XFS with \
             reflink=1 or btrfs for volumes in constant time and space"
        );
    }
    let store = ImageStore::new(disk.clone(), Place::Images);
    let catalog = Catalog::load(store, sources, stop.child_token())?;
    info!(disk = %disk.layout().root().display(), uuid = %disk.uuid(), node = %volumes.node_id(),
        listen = %args.listen, "serving");
    let metrics = match args.metrics_listen {
        Some(address) => {
            Some(observe::serve(address, catalog.clone(), disk.clone(), stop.child_token()).await?)
        }
        None => None,
    };
    let service = Service::new(catalog.clone(), volumes, disk);
    let served = serve(&args.listen, service, stop.clone()).await;
    stop.cancel();
    if tokio::time::timeout(GRACE, catalog.stop()).await.is_err() {
        warn!("some work did not end in time; the next start clears up after it");
    }
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    served
}

/// Listens and answers until the stop signal; connections in use get the grace period too.
async fn serve(listen: &Address, service: Service, stop: CancellationToken) -> Result<()> {
    let server = Server::builder()
        .concurrency_limit_per_connection(256)
        .max_concurrent_streams(Some(256))
        .http2_keepalive_interval(Some(Duration::from_secs(30)));
    let router = service.route(server);
    let signalled = stop.clone();
    let mut terminate =
        signal(SignalKind::terminate()).context("watch signals for", &PathBuf::new())?;
    let mut interrupt =
        signal(SignalKind::interrupt()).context("watch signals for", &PathBuf::new())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
            () = signalled.cancelled() => {}
        }
        signalled.cancel();
    });
    let stopped = stop.clone().cancelled_owned();
    let serving = async {
        match listen {
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .context("listen on", address.as_ref())?;
                // Small answers must not wait for the acknowledgement of the ones before.
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                router.serve_with_incoming_shutdown(incoming, stopped).await
            }
            Address::Unix(path) => {
                let listener = bind_unix(path)?;
                let incoming = UnixListenerStream::new(listener);
                router.serve_with_incoming_shutdown(incoming, stopped).await
            }
        }
        .map_err(std::io::Error::other)
        .context("serve", listen.to_string().as_ref())
    };
    let grace_is_over = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served,
        () = grace_is_over => Ok(()),
    }
}

/// Binds a unix socket that only our user can connect to. A dead socket of an earlier run is removed;
/// anything else at its path is not.
fn bind_unix(path: &std::path::Path) -> Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    if let Ok(meta) = std::fs::symlink_metadata(path)
        && meta.file_type().is_socket()
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path).context("remove the dead socket", path)?;
    }
    let listener = UnixListener::bind(path).context("listen on", path)?;
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, owner_only).context("protect", path)?;
    Ok(listener)
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
        .collect::<Result<Vec<_>>>()?;
    let policy = AddressPolicy::new(args.allow_address.iter().copied());
    let network = Network::new(config, policy, Tuning::default());
    Ok(Sources::new(network, credentials, import_dirs))
}
