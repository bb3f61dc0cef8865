//! The command line options of the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use backup_jobs::TargetArgs;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use client::Address;
use ipnet::IpNet;
use types::NodeId;

use crate::faces::FaceArgs;
use crate::upkeep::UpkeepArgs;
use catalog::source::VerifyAccess;
use longhorn::ssync::ports::PortRange;
use volume::promise::OVERCOMMIT;

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
    /// Where backups may go
    #[command(flatten)]
    pub backups: TargetArgs,
    /// Background maintenance
    #[command(flatten)]
    pub upkeep: UpkeepArgs,
    /// Who is let in
    #[command(flatten)]
    pub faces: FaceArgs,
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
