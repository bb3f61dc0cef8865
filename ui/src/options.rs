//! The command line.

use client::Address;

use crate::error::{Error, Result};

/// The web UI of Longhorn base images.
///
/// Shows volumes, images and disks to people, and lets them create and use volumes. It is a client of the backing image
/// managers and of the node services, and keeps nothing: you can restart it at any time.
#[derive(Debug, clap::Parser)]
#[command(name = "longhorn-ui", version, after_help = AFTER_HELP)]
pub struct Args {
    /// The address to serve.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub listen: String,

    /// The backing image managers: HOST:PORT or unix:/path, separated by commas. A name means all addresses to which it
    /// resolves.
    #[arg(
        long,
        env = "MANAGER",
        default_value = "unix:/run/longhorn-base-image/manager.sock",
        value_name = "ADDRESS"
    )]
    pub manager: String,

    /// The node services, for access to volumes without pods: HOST:PORT or unix:/path, separated by commas. A name means
    /// all addresses to which it resolves [default: none].
    #[arg(long, env = "NODE_SERVICE", value_name = "ADDRESS")]
    pub node_service: Option<String>,

    /// The name of the CSI driver, for the manifests that are shown.
    #[arg(
        long,
        env = "DRIVER_NAME",
        default_value = "driver.longhorn.io",
        value_name = "NAME"
    )]
    pub driver_name: String,

    /// File that the program writes the bound address to (the line http=ADDRESS), for --listen with port 0.
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<std::path::PathBuf>,

    /// Reads a password from standard input, writes the line of this name for --users, and ends.
    #[arg(long, value_name = "NAME")]
    pub hash_password: Option<String>,

    #[command(flatten)]
    pub(crate) people: crate::auth::Options,

    #[command(flatten)]
    pub(crate) certificates: trust::Options,

    /// Messages to log: error, warn, info, debug, or a filter per module as in tracing.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// Format of the log on standard error.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

const AFTER_HELP: &str = "\
EXAMPLES
  On a machine with one manager, for whoever is on that machine:
    longhorn-ui --auth none --listen 127.0.0.1:8080

  In a cluster, for people with a token of its API server:
    longhorn-ui --listen 0.0.0.0:8080 --manager backing-image-manager.longhorn-system:8000 \\
      --node-service longhorn-csi-plugin.longhorn-system:8002

SIGTERM lets answers under way finish. Volumes that are being created are created when the same form is sent again.";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Args {
    /// The managers.
    ///
    /// # Errors
    /// One is no address.
    pub fn managers(&self) -> Result<Vec<Address>> {
        addresses(&self.manager)
    }

    /// The node services.
    ///
    /// # Errors
    /// One is no address.
    pub fn nodes(&self) -> Result<Vec<Address>> {
        match self.node_service.as_deref() {
            None | Some("") => Ok(Vec::new()),
            Some(list) => addresses(list),
        }
    }

    /// The name of the driver, as far as manifests need it to be one.
    ///
    /// # Errors
    /// It is no name.
    pub fn driver(&self) -> Result<&str> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        let name = self.driver_name.as_str();
        if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(name);
        }
        Err(Error::Flag {
            flag: "--driver-name",
            why: "must be a domain name of at most 63 characters, for example driver.longhorn.io",
        })
    }
}

fn addresses(list: &str) -> Result<Vec<Address>> {
    let addresses = list.split(',').map(|one| one.trim().parse());
    let addresses = addresses.collect::<std::result::Result<_, _>>();
    Ok(addresses.map_err(client::Error::Address)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_two_options_are_the_same() {
        Args::command().debug_assert();
    }
}
