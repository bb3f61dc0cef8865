//! The command line: what the user typed, and what the program needs, checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use client::Address;
use types::NodeId;

use crate::error::{Error, Result};

/// CSI plugin of Longhorn base images.
///
/// Serves the Container Storage Interface on a unix socket. The controller makes volumes by asking a
/// backing image manager; the node attaches and mounts the files that the manager keeps on this
/// node's disks. It keeps no state of its own: kill it and start it again at any time.
#[derive(Debug, clap::Parser)]
#[command(name = "longhorn-csi-plugin", version, after_help = AFTER_HELP)]
pub struct Args {
    /// The socket to serve on. Its directory is made if it is missing and kept to its owner (0700);
    /// a socket left behind by a plugin that is gone is replaced.
    #[arg(
        long,
        env = "CSI_ENDPOINT",
        default_value = "unix:///csi/csi.sock",
        value_name = "URL"
    )]
    endpoint: String,

    /// Which services to serve: the controller once for a cluster, the node on every node.
    #[arg(long, value_enum, default_value_t = Mode::All)]
    mode: Mode,

    /// The backing image manager: HOST:PORT or unix:/path. Used by the controller.
    #[arg(
        long,
        env = "MANAGER",
        default_value = "127.0.0.1:8000",
        value_name = "ADDRESS"
    )]
    manager: String,

    /// The name of this node, as the manager's own --node-id spells it. Needed by the node service;
    /// in a pod take it from spec.nodeName.
    #[arg(long, env = "NODE_ID", value_name = "NAME")]
    node_id: Option<String>,

    /// The name of the driver: that of the CSIDriver object and the StorageClass's provisioner.
    #[arg(
        long,
        env = "DRIVER_NAME",
        default_value = "driver.longhorn.io",
        value_name = "NAME"
    )]
    driver_name: String,

    /// A disk of a manager on this node, that is a directory with a longhorn-disk.cfg. May be given
    /// several times; needed by the node service.
    #[arg(long = "disk", value_name = "DIR")]
    disks: Vec<PathBuf>,

    /// The key of the topology segment that names a node; DRIVER_NAME/node unless it is given.
    #[arg(long, value_name = "KEY")]
    topology_key: Option<String>,

    /// How long CreateVolume waits for a base image that is being pulled before it answers ABORTED
    /// with the progress, in seconds. Keep it below the --timeout of the external provisioner; the
    /// pull goes on meanwhile and the next call joins it.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    image_wait: u64,

    /// The kubelet's directory. Mounts below it must reach the kubelet, so the plugin warns at its
    /// start when it is mounted without propagation.
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    kubelet_dir: PathBuf,

    /// What to log, as tracing's filters: error, warn, info, debug, or per module.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// How to write the log, to standard error.
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
    longhorn-csi-plugin --mode node --endpoint unix:///csi/csi.sock --disk /var/lib/longhorn
      (with NODE_ID from spec.nodeName)

  Beside the external provisioner and attacher:
    longhorn-csi-plugin --mode controller --endpoint unix:///csi/csi.sock \\
      --manager backing-image-manager.longhorn-system:8000

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
    pub(crate) manager: Address,
    pub(crate) image_wait: Duration,
}

/// What the node service needs.
#[derive(Debug)]
pub(crate) struct NodeConfig {
    pub(crate) node_id: NodeId,
    pub(crate) disks: Vec<PathBuf>,
    pub(crate) kubelet_dir: PathBuf,
}

/// The command line, checked.
#[derive(Debug)]
pub struct Config {
    pub(crate) socket: PathBuf,
    pub(crate) driver_name: DriverName,
    pub(crate) topology_key: String,
    pub(crate) controller: Option<ControllerConfig>,
    pub(crate) node: Option<NodeConfig>,
}

impl Args {
    /// Checks what was typed. Opens nothing.
    pub fn check(self) -> Result<Config> {
        let driver_name = DriverName::new(&self.driver_name)?;
        let topology_key = match self.topology_key {
            Some(key) => topology_key(key)?,
            None => format!("{driver_name}/node"),
        };
        let controller = match self.mode {
            Mode::Node => None,
            Mode::All | Mode::Controller => Some(ControllerConfig {
                manager: self.manager.parse()?,
                image_wait: Duration::from_secs(self.image_wait),
            }),
        };
        let node = match self.mode {
            Mode::Controller => None,
            Mode::All | Mode::Node => Some(NodeConfig {
                node_id: node_id(self.node_id.as_deref())?,
                disks: disks(self.disks)?,
                kubelet_dir: self.kubelet_dir,
            }),
        };
        Ok(Config {
            socket: socket(&self.endpoint)?,
            driver_name,
            topology_key,
            controller,
            node,
        })
    }
}

impl DriverName {
    fn new(name: &str) -> Result<Self> {
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

/// The path in `unix:///path`, `unix:/path` or a bare absolute path.
fn socket(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"));
    let path = PathBuf::from(path.unwrap_or(endpoint));
    let refuse = |why| {
        Err(Error::Flag {
            flag: "--endpoint",
            why,
        })
    };
    if !path.is_absolute() || path.file_name().is_none() {
        return refuse("must be a unix socket, for example unix:///csi/csi.sock");
    }
    // sockaddr_un has 108 bytes for the path and its final NUL: unix(7).
    if path.as_os_str().len() > 107 {
        return refuse("is too long: the path of a socket has at most 107 bytes");
    }
    Ok(path)
}

/// A topology key is a Kubernetes label key with a prefix.
fn topology_key(key: String) -> Result<String> {
    let why = "must look like a Kubernetes label key with a prefix: driver.longhorn.io/node";
    let part = |text: &str| {
        let edge = |c: char| c.is_ascii_alphanumeric();
        (1..=63).contains(&text.len())
            && text.starts_with(edge)
            && text.ends_with(edge)
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match key.split_once('/') {
        Some((prefix, name)) if part(prefix) && part(name) => Ok(key),
        _ => Err(Error::Flag {
            flag: "--topology-key",
            why,
        }),
    }
}

/// A node's name is also the value of its topology segment, which is a label's.
fn node_id(name: Option<&str>) -> Result<NodeId> {
    let refuse = |why| Error::Flag {
        flag: "--node-id",
        why,
    };
    // An environment variable that is set to nothing is not set.
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
        refuse("is needed to serve the node: give the name of this node, as the manager has it")
    })?;
    if name.len() > 63 {
        return Err(refuse(
            "has more than 63 characters, which a topology segment cannot hold",
        ));
    }
    NodeId::new(name)
        .map_err(|_| refuse("must be a node's name: letters, digits, '.', '-' and '_'"))
}

fn disks(disks: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let refuse = |why| {
        Err(Error::Flag {
            flag: "--disk",
            why,
        })
    };
    if disks.is_empty() {
        return refuse("is needed to serve the node: give the directory of each disk of this node");
    }
    if !disks.iter().all(|disk| disk.is_absolute()) {
        return refuse("must be an absolute path");
    }
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn check(arguments: &[&str]) -> Result<Config> {
        let program = ["longhorn-csi-plugin"];
        Args::parse_from(program.iter().chain(arguments)).check()
    }

    #[test]
    fn each_mode_asks_for_what_it_needs() {
        let all = check(&["--node-id", "node-1", "--disk", "/disk"]).unwrap();
        assert_eq!(all.topology_key, "driver.longhorn.io/node");
        assert!(all.controller.is_some() && all.node.is_some());
        let controller = check(&["--mode", "controller"]).unwrap();
        assert!(controller.controller.is_some() && controller.node.is_none());
        for (arguments, flag) in [
            (&["--mode", "node", "--node-id", "n"][..], "--disk"),
            (&["--mode", "node", "--disk", "/d"], "--node-id"),
            (
                &["--mode", "node", "--disk", "/d", "--node-id", ""],
                "--node-id",
            ),
            (
                &["--mode", "node", "--disk", "d", "--node-id", "n"],
                "--disk",
            ),
            (
                &["--mode", "node", "--disk", "/d", "--node-id", "a b"],
                "--node-id",
            ),
            (
                &[
                    "--mode",
                    "controller",
                    "--driver-name",
                    "rancher.io/longhorn",
                ],
                "--driver-name",
            ),
            (
                &["--mode", "controller", "--topology-key", "node"],
                "--topology-key",
            ),
            (
                &["--mode", "controller", "--endpoint", "tcp://127.0.0.1:1"],
                "--endpoint",
            ),
            (
                &["--mode", "controller", "--manager", "nowhere"],
                "manager address",
            ),
        ] {
            let error = check(arguments).unwrap_err().to_string();
            assert!(error.starts_with(flag), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn driver_names_are_what_kubernetes_takes() {
        for good in ["driver.longhorn.io", "a", "my-driver.example"] {
            DriverName::new(good).unwrap();
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "Driver.io",
            "driver.longhorn.io.",
            "a..b",
            "a.-b.c",
            "1a",
            "a_b",
            &long,
        ] {
            assert!(DriverName::new(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn endpoints_are_absolute_paths() {
        for good in [
            "unix:///csi/csi.sock",
            "unix:/csi/csi.sock",
            "/csi/csi.sock",
        ] {
            assert_eq!(socket(good).unwrap(), PathBuf::from("/csi/csi.sock"));
        }
        let long = format!("unix:///{}", "a".repeat(107));
        for bad in [
            "",
            "csi.sock",
            "unix://csi.sock",
            "tcp://127.0.0.1:1",
            "unix:///",
            &long,
        ] {
            assert!(socket(bad).is_err(), "{bad:?} was taken");
        }
    }
}
