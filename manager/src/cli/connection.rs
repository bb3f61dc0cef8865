//! How a command reaches the daemon, or all daemons of a cluster.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use client::{Address, Client, Cluster};
use trust::{Dialer, Options};

use super::Failure;
use crate::faces::SOCKET;

/// Where to look for a daemon that has no socket there.
const LOCALHOST: &str = "localhost:8000";

/// The option of every command that asks a daemon.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Url {
    /// Address of the daemon: HOST:PORT or unix:/path; of several daemons, a name that resolves to all of
    /// them [default: /run/longhorn-base-image/manager.sock where a daemon listens there, otherwise
    /// localhost:8000]
    #[arg(long, value_name = "ADDR", global = true)]
    url: Option<Address>,
}

/// The way to an address: over the network with the certificate that `trust` says.
pub(super) async fn dialer(address: &Address, trust: &Options) -> Result<Dialer, Failure> {
    Ok(match (address, trust.source()?) {
        (Address::Tcp(_), Some(source)) => Dialer::Proven(client::hold_once(source).await?),
        _ => Dialer::Plain,
    })
}

/// A daemon, and the way to it.
#[derive(Debug)]
pub(super) struct Connection {
    address: Address,
    dialer: Dialer,
}

impl Connection {
    /// The daemon that is asked.
    pub(super) async fn new(url: Url, trust: &Options) -> Result<Self, Failure> {
        let address = match url.url {
            Some(address) => address,
            None if UnixStream::connect(SOCKET).is_ok() => Address::Unix(PathBuf::from(SOCKET)),
            None => LOCALHOST.parse()?,
        };
        let dialer = dialer(&address, trust).await?;
        Ok(Self { address, dialer })
    }

    /// The one daemon.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.address.clone(), &self.dialer)?)
    }

    /// All daemons that the address stands for.
    pub(super) fn cluster(&self) -> Result<Cluster, Failure> {
        Ok(Cluster::new([self.address.clone()], &self.dialer)?)
    }
}
