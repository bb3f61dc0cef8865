//! The command line: the arguments, and the checked configuration.

mod backups;
mod certificates;
mod checks;
mod command;
mod replication;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use client::Address;
use host::confine::{self, Confined, Work};
use host::staging::Check;
use host::target::Settings as TargetSettings;
use node::StorageAddress;
use types::NodeId;

use self::backups::BackupArgs;
pub(crate) use self::backups::{BackupsConfig, ShareTarget};
use self::certificates::CertificateArgs;
pub(crate) use self::certificates::{AuthorityConfig, Certificates, Place};
use self::checks::{absolute, disks, managers, node_id, topology_key};
pub use self::command::Command;
pub(crate) use self::command::{Account, TargetCommand, VolumeCommand};
use self::replication::ReplicationArgs;
pub(crate) use self::replication::ReplicationConfig;
use crate::error::{Error, Result};

/// CSI plugin of Longhorn base images.
///
/// Serves the Container Storage Interface on a unix socket. The controller service creates volumes
/// through a backing image manager; the node service attaches and mounts the files of the manager
/// on this node's disks. The plugin has no state of its own: you can restart it at any time.
#[derive(Debug, clap::Parser)]
#[command(name = "longhorn-csi-plugin", version, after_help = AFTER_HELP)]
pub struct Args {
    /// A command, in place of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The socket to serve. A missing directory is created for its owner only (0700); a stale
    /// socket of an earlier plugin is replaced.
    #[arg(
        long,
        env = "CSI_ENDPOINT",
        default_value = "unix:///csi/csi.sock",
        value_name = "URL"
    )]
    endpoint: String,

    /// The services to serve: the controller once per cluster, the node service on every node.
    #[arg(long, value_enum, default_value_t = Mode::All)]
    mode: Mode,

    /// The backing image managers: HOST:PORT or unix:/path, separated by commas. A name means all
    /// addresses to which it resolves. Used by the controller, and by the node service for volumes that are exposed
    /// without a pod: their manager is that of a disk of this node.
    #[arg(
        long,
        env = "MANAGER",
        default_value = "unix:/run/longhorn-base-image/manager.sock",
        value_name = "ADDRESS"
    )]
    manager: String,

    /// Time limit, in seconds, for a manager to say which volumes it has. A manager that exceeds it
    /// counts as not answering; calls about volumes of other managers do not wait for it.
    #[arg(long, default_value_t = client::LOOK.as_secs(), value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    manager_timeout: u64,

    /// The name of this node, as in --node-id of the manager. Required for the node service; in a
    /// pod, use spec.nodeName.
    #[arg(long, env = "NODE_ID", value_name = "NAME")]
    node_id: Option<String>,

    /// The name of the driver, as in the CSIDriver object and in the provisioner of the
    /// StorageClass.
    #[arg(
        long,
        env = "DRIVER_NAME",
        default_value = "driver.longhorn.io",
        value_name = "NAME"
    )]
    driver_name: String,

    /// A disk of a manager on this node: a directory with a longhorn-disk.cfg. May be given several
    /// times; required for the node service.
    #[arg(long = "disk", value_name = "DIR")]
    disks: Vec<PathBuf>,

    /// The key of the topology segment that names a node [default: DRIVER_NAME/node].
    #[arg(long, value_name = "KEY")]
    topology_key: Option<String>,

    /// How long CreateVolume waits for a base image that is being pulled, in seconds, before it
    /// answers ABORTED with the progress. Keep it below --timeout of the external provisioner; the
    /// pull continues, and the next call waits for the same pull.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    image_wait: u64,

    /// The directory of the kubelet. Mounts below it must propagate to the kubelet; Probe and
    /// /readyz fail if they do not.
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    kubelet_dir: PathBuf,

    /// The directory in which the kubelet looks for plugins [default:
    /// KUBELET_DIR/plugins_registry]. The node service registers itself there, and again whenever
    /// its socket is removed.
    #[arg(long, value_name = "DIR")]
    registration_dir: Option<PathBuf>,

    /// The path of the plugin's socket as the kubelet sees it, for the registration [default: the
    /// path of --endpoint]. In a pod the two differ.
    #[arg(long, value_name = "PATH")]
    kubelet_registration_path: Option<PathBuf>,

    /// Do not register; a node-driver-registrar sidecar does.
    #[arg(long, conflicts_with_all = ["registration_dir", "kubelet_registration_path"])]
    no_registration: bool,

    /// The socket of the node service for root on this node, for FlexVolume among others [default:
    /// node.sock beside the socket of --endpoint].
    #[arg(long, value_name = "PATH")]
    node_socket: Option<String>,

    /// Serve the node service at this address too, with TLS, for the controller and for people with
    /// certificates [default: not served]. Needs a certificate: --certificates or --authority.
    #[arg(long, value_name = "HOST:PORT")]
    node_listen: Option<String>,

    /// The directory of the records of volumes that the node service attaches; it must survive a
    /// reboot. Those of replicated volumes are in the directory replicas beside it [default: KUBELET_DIR/plugins/DRIVER_NAME/attachments].
    #[arg(long, value_name = "DIR")]
    node_state: Option<PathBuf>,

    /// The directory in which volumes that are exposed without a pod have their names, on this node: /dev/longhorn/NAME.
    #[arg(long, default_value = "/dev/longhorn", value_name = "DIR")]
    dev_dir: PathBuf,

    /// The control socket of the tgtd of this node, for volumes that are exposed as iSCSI targets [default: this node
    /// serves no targets].
    #[arg(long, value_name = "PATH", requires = "target_portal")]
    target_socket: Option<PathBuf>,

    /// Where initiators reach the targets of this node: its address, or ADDRESS:PORT; the port is 3260 unless it is given.
    #[arg(long, value_name = "ADDRESS[:PORT]", requires = "target_socket")]
    target_portal: Option<String>,

    /// Where other nodes reach the replicas of replicated volumes on this one: its address in the storage network, or
    /// that network (10.1.0.0/16), so that all nodes can be given the same [default: this node takes part in no
    /// replicated volume].
    #[arg(long, value_name = "ADDRESS|CIDR")]
    replication_address: Option<String>,

    /// The maximum number of volumes per node; 0: as many as the kubelet allows. The node service
    /// reports it to the scheduler; a controller with this option refuses to publish more.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    max_volumes_per_node: u32,

    /// Before each mount, check the entire file system of a volume that was created from an image,
    /// and mount it only if it is intact. Use this for images from untrusted authors; it reads all
    /// metadata of the file system.
    #[arg(long)]
    check_images: bool,

    /// Serve /healthz, /readyz and /metrics at this address [default: not served].
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Option<SocketAddr>,

    /// File that the plugin writes the bound address to (the line http=ADDRESS), for --http-listen with port 0.
    #[arg(long, value_name = "FILE", requires = "http_listen")]
    address_file: Option<PathBuf>,

    #[command(flatten)]
    replication: ReplicationArgs,

    #[command(flatten)]
    backups: BackupArgs,

    #[command(flatten)]
    certificates: CertificateArgs,

    /// Messages to log: error, warn, info, debug, or a filter per module as in tracing.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// Format of the log on standard error.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

const AFTER_HELP: &str = "\
EXAMPLES
  Everything on one machine, by hand:
    backing-image-manager disk init /srv/longhorn
    backing-image-manager daemon --disk /srv/longhorn --node-id node-1 &
    longhorn-csi-plugin --endpoint unix:///run/longhorn/csi.sock --node-id node-1 \\
      --disk /srv/longhorn

  In the node DaemonSet:
    longhorn-csi-plugin --mode node --endpoint unix:///csi/csi.sock --disk /var/lib/longhorn \\
      --kubelet-registration-path /var/lib/kubelet/plugins/driver.longhorn.io/csi.sock
      (with NODE_ID from spec.nodeName)

  Beside the external provisioner and attacher, as the certificate authority of the cluster:
    longhorn-csi-plugin --mode controller --endpoint unix:///csi/csi.sock \\
      --manager backing-image-manager.longhorn-system:8000 \\
      --ca-secret longhorn-base-image-ca --ca-configmap longhorn-base-image-ca

SIGTERM lets calls under way finish, for 25 seconds at most. Mounted volumes need no plugin to run.";

/// Which services are served. Identity always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Controller and node.
    All,
    /// The controller.
    Controller,
    /// The node.
    Node,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The name of the driver: a domain name that Kubernetes and csi-sanity both take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverName(String);

/// What the controller service needs.
#[derive(Debug)]
pub(crate) struct ControllerConfig {
    pub(crate) managers: Vec<Address>,
    /// With each of them.
    pub(crate) patience: Duration,
    pub(crate) image_wait: Duration,
    /// On each node; 0: any number.
    pub(crate) max_volumes: u32,
    /// `None`: every volume has one replica.
    pub(crate) replication: Option<ReplicationConfig>,
}

/// What the node service needs.
#[derive(Debug)]
pub(crate) struct NodeConfig {
    pub(crate) node_id: NodeId,
    pub(crate) disks: Vec<PathBuf>,
    pub(crate) kubelet_dir: PathBuf,
    /// The socket of the node service.
    pub(crate) node_socket: PathBuf,
    /// Where it is served to other machines.
    pub(crate) node_listen: Option<Address>,
    /// The directory of its records.
    pub(crate) node_state: PathBuf,
    /// Where other nodes reach its replicas; `None`: it has none.
    pub(crate) storage: Option<StorageAddress>,
    /// The managers, of which one is that of each disk.
    pub(crate) managers: Vec<Address>,
    /// The directory of the names of devices.
    pub(crate) dev_dir: PathBuf,
    /// The tgtd of this node; `None`: it serves no targets.
    pub(crate) targets: Option<TargetSettings>,
    /// The targets of backups that are mounted here.
    pub(crate) backups: BackupsConfig,
    pub(crate) max_volumes: u32,
    pub(crate) check: Check,
    /// `None`: somebody else registers the plugin.
    pub(crate) registration: Option<RegistrationConfig>,
}

/// How the plugin registers itself with the kubelet.
#[derive(Debug, Clone)]
pub(crate) struct RegistrationConfig {
    /// Where the kubelet looks for plugins.
    pub(crate) directory: PathBuf,
    /// The plugin's own socket, as the kubelet sees it.
    pub(crate) endpoint: PathBuf,
}

/// The command line, checked.
#[derive(Debug)]
pub struct Config {
    pub(crate) socket: PathBuf,
    pub(crate) driver_name: DriverName,
    pub(crate) topology_key: String,
    pub(crate) controller: Option<ControllerConfig>,
    pub(crate) node: Option<NodeConfig>,
    pub(crate) certificates: Certificates,
    pub(crate) http_listen: Option<SocketAddr>,
    pub(crate) address_file: Option<PathBuf>,
}

impl Config {
    /// Gives up, for the whole process and its children, what the asked for services do not need.
    pub fn confine(&self) -> Result<Confined> {
        let work = match &self.node {
            Some(node) => Work::Node {
                drbd: node.storage.is_some(),
                cifs: node.backups.has_cifs(),
            },
            None => Work::Unprivileged,
        };
        Ok(confine::restrict(work)?)
    }
}

impl Args {
    /// Checks what was typed. Opens nothing.
    pub fn check(self) -> Result<Config> {
        let driver_name = DriverName::new(&self.driver_name)?;
        let topology_key = match self.topology_key {
            Some(key) => topology_key(key)?,
            None => format!("{driver_name}/node"),
        };
        let account = self.certificates.account_dir.clone();
        let controller = match self.mode {
            Mode::Node => None,
            Mode::All | Mode::Controller => Some(ControllerConfig {
                managers: managers(&self.manager)?,
                patience: Duration::from_secs(self.manager_timeout),
                image_wait: Duration::from_secs(self.image_wait),
                max_volumes: self.max_volumes_per_node,
                replication: self.replication.check(account)?,
            }),
        };
        let certificates = self.certificates.check(self.mode)?;
        let socket = checks::socket("--endpoint", &self.endpoint)?;
        let node = match self.mode {
            Mode::Controller => None,
            Mode::All | Mode::Node => Some(NodeConfig {
                node_id: node_id(self.node_id.as_deref())?,
                disks: disks(self.disks)?,
                max_volumes: self.max_volumes_per_node,
                check: if self.check_images {
                    Check::All
                } else {
                    Check::Needed
                },
                registration: (!self.no_registration).then(|| RegistrationConfig {
                    directory: (self.registration_dir)
                        .unwrap_or_else(|| self.kubelet_dir.join("plugins_registry")),
                    endpoint: (self.kubelet_registration_path).unwrap_or_else(|| socket.clone()),
                }),
                node_socket: match &self.node_socket {
                    Some(path) => checks::socket("--node-socket", path)?,
                    None => socket.with_file_name("node.sock"),
                },
                node_listen: checks::node_listen(self.node_listen.as_deref(), &certificates)?,
                node_state: absolute(
                    "--node-state",
                    (self.node_state).unwrap_or_else(|| {
                        let plugins = self.kubelet_dir.join("plugins");
                        plugins.join(driver_name.to_string()).join("attachments")
                    }),
                )?,
                backups: self.backups.check()?,
                managers: managers(&self.manager)?,
                dev_dir: absolute("--dev-dir", self.dev_dir)?,
                targets: checks::targets(self.target_socket, self.target_portal.as_deref())?,
                storage: checks::storage(self.replication_address.as_deref())?,
                kubelet_dir: self.kubelet_dir,
            }),
        };
        Ok(Config {
            socket,
            driver_name,
            topology_key,
            controller,
            node,
            certificates,
            http_listen: self.http_listen,
            address_file: self.address_file,
        })
    }
}

impl DriverName {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let why = "must be a domain name of at most 63 characters in lower case that starts and \
                   ends with a letter, for example driver.longhorn.io";
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let label = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
        let valid = name.len() <= 63
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.ends_with(|last: char| last.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| allowed(byte) || b"-.".contains(&byte))
            && name.split('.').all(label);
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::Flag {
                flag: "--driver-name",
                why,
            })
        }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
