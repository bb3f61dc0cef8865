//! The configuration. The kubelet passes no flags, so it is in a file: `longhorn.toml` next to the
//! executable, or else `/etc/longhorn/flexvolume.toml`; without either, the defaults apply.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Address;
use serde::{Deserialize, Deserializer};
use types::NodeId;

use crate::error::{Error, Result};

/// The name of the file beside the executable.
pub const FILE_NAME: &str = "longhorn.toml";
/// Where it lies else.
const ETC: &str = "/etc/longhorn/flexvolume.toml";
/// Where a manager of this node listens, unless it was told otherwise.
const MANAGER_SOCKET: &str = "/run/longhorn-base-image/manager.sock";
/// A configuration is a few lines; a larger file is something else.
const BYTES_MAX: u64 = 64 << 10;

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    File(PathBuf),
    Journal,
    Off,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed for good.
    Error,
    /// What was odd as well.
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Where the backing image manager listens.
    #[serde(deserialize_with = "address")]
    pub manager: Address,
    /// The disk directories of this node, as the manager's `--disk`.
    pub disks: Vec<PathBuf>,
    /// The name of this node; without it, the node is that of the disks.
    #[serde(deserialize_with = "node_id")]
    pub node_id: Option<NodeId>,
    /// Whether a controller attaches volumes (`attach: true` in `init`).
    pub attach: bool,
    /// Whether pods may restore backups (`fromBackup`). Whoever may name a backup gets what is in it, whichever
    /// namespace it is from.
    pub restore_backups: bool,
    /// What outlives a call, and a reboot.
    pub state_dir: PathBuf,
    /// How long `mount` and `attach` wait for an image.
    #[serde(deserialize_with = "duration")]
    pub image_wait: Duration,
    /// How long a call waits for another one on the same volume.
    #[serde(deserialize_with = "duration")]
    pub lock_wait: Duration,
    /// How long the manager may take for one answer.
    #[serde(deserialize_with = "duration")]
    pub call_timeout: Duration,
    /// Where the log goes: a path, `journal` or `off`.
    #[serde(deserialize_with = "log")]
    pub log: Log,
    /// How much is logged.
    pub log_level: LogLevel,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            manager: Address::Unix(PathBuf::from(MANAGER_SOCKET)),
            disks: vec![PathBuf::from("/var/lib/longhorn")],
            node_id: None,
            attach: false,
            restore_backups: false,
            // Persistent, and seen by a kubelet that runs in a container too.
            state_dir: PathBuf::from("/var/lib/kubelet/plugins/rancher.io~longhorn"),
            image_wait: Duration::from_secs(100),
            lock_wait: Duration::from_secs(30),
            call_timeout: client::DEADLINE,
            log: Log::File(PathBuf::from("/var/log/longhorn-flexvolume.log")),
            log_level: LogLevel::Info,
        }
    }
}

impl Config {
    /// Reads the configuration of this executable.
    pub fn load() -> Result<Self> {
        // Right also when the file was replaced meanwhile: its directory is the same.
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.join(FILE_NAME)));
        for path in beside.into_iter().chain([PathBuf::from(ETC)]) {
            if let Some(text) = read(&path)? {
                return Self::parse(&path, &text);
            }
        }
        Ok(Self::default())
    }

    /// Reads and checks the text of a configuration; `path` is for the error.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let invalid = |why: String| Error::Config {
            path: path.to_owned(),
            why,
        };
        let config: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let logged = match &config.log {
            Log::File(path) => Some(path),
            Log::Journal | Log::Off => None,
        };
        let paths = config.disks.iter().chain([&config.state_dir]).chain(logged);
        if let Some(relative) = paths.into_iter().find(|path| !path.is_absolute()) {
            return Err(invalid(format!(
                "{} is not an absolute path",
                relative.display()
            )));
        }
        if config.disks.is_empty() {
            return Err(invalid(
                "disks is empty: name the directory of at least one".to_owned(),
            ));
        }
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::io("read the configuration", path)(error)),
    }
}

/// An address by number: a static program resolves no names, for the C library's resolver loads
/// parts of itself from the host.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    let address: Address = text.parse().map_err(D::Error::custom)?;
    let Address::Tcp(authority) = &address else {
        return Ok(address);
    };
    let authority = match authority.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => authority.clone(),
    };
    if authority.parse::<std::net::SocketAddr>().is_err() {
        return Err(D::Error::custom(
            "manager must be an IP address with a port, or unix:/path: names are not resolved here",
        ));
    }
    Ok(Address::Tcp(authority))
}

fn node_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NodeId>, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    NodeId::new(&text).map(Some).map_err(D::Error::custom)
}

/// A whole number of seconds or minutes: `90s`, `10m`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    use serde::de::Error as _;
    let text = String::deserialize(deserializer)?;
    let seconds = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(seconds), _) => seconds.parse::<u16>().ok().map(u64::from),
        (_, Some(minutes)) => minutes.parse::<u16>().ok().map(|m| u64::from(m) * 60),
        _ => None,
    };
    seconds
        .filter(|seconds| (1..=86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| D::Error::custom("a time is 1s to 24 hours, written as 90s or 10m"))
}

fn log<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Log, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(match text.as_str() {
        "journal" => Log::Journal,
        "off" => Log::Off,
        path => Log::File(PathBuf::from(path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(Path::new("/etc/x.toml"), text)
    }

    #[test]
    fn nothing_said_is_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn everything_can_be_said() {
        let config = parse(
            r#"
            manager = "localhost:9000"
            disks = ["/data", "/mnt/b"]
            node-id = "node-1"
            attach = true
            restore-backups = true
            state-dir = "/var/lib/longhorn-flexvolume"
            image-wait = "5s"
            lock-wait = "1s"
            call-timeout = "2m"
            log = "journal"
            log-level = "debug"
            "#,
        );
        let expected = Config {
            manager: "127.0.0.1:9000".parse().unwrap(),
            disks: vec!["/data".into(), "/mnt/b".into()],
            node_id: Some(NodeId::new("node-1").unwrap()),
            attach: true,
            restore_backups: true,
            state_dir: "/var/lib/longhorn-flexvolume".into(),
            image_wait: Duration::from_secs(5),
            lock_wait: Duration::from_secs(1),
            call_timeout: Duration::from_mins(2),
            log: Log::Journal,
            log_level: LogLevel::Debug,
        };
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn what_cannot_work_is_told_at_once() {
        for text in [
            "manager = \"longhorn-manager:8000\"",
            "manager = \"8000\"",
            "disks = []",
            "disks = [\"data\"]",
            "state-dir = \"state\"",
            "log = \"stderr\"",
            "log-level = \"loud\"",
            "image-wait = \"100\"",
            "image-wait = \"0s\"",
            "image-wait = 100",
            "imagewait = \"5s\"",
            "node-id = \"a/b\"",
            "{",
        ] {
            assert!(matches!(parse(text), Err(Error::Config { .. })), "{text}");
        }
    }
}
