//! How this process and others reach each other: ports, addresses, rates.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fetch::AddressPolicy;
use sync::rate::RateLimit;
use trust::Dialer;

use super::ssync::ports::{PortRange, Receivers};
use super::ssync::{Batches, Invite, Receiver};
use crate::error::Result;

/// How this process and others reach each other.
#[derive(Debug, Clone)]
pub struct Transfers {
    /// Where receivers may listen.
    pub ports: PortRange,
    /// The address that they listen on, and that senders are told.
    pub host: IpAddr,
    /// What all that is sent keeps to.
    pub rate: Arc<RateLimit>,
    /// The memory of what is pushed.
    pub batches: Batches,
    /// Which addresses may be connected to, whoever names them.
    pub policy: AddressPolicy,
    /// Receivers that may be there at once.
    pub receivers: Receivers,
    /// How Longhorn's interface of other managers is reached.
    pub dialer: Dialer,
}

impl Default for Transfers {
    fn default() -> Self {
        Self {
            ports: PortRange::default(),
            host: Ipv4Addr::LOCALHOST.into(),
            rate: Arc::new(RateLimit::new(0)),
            batches: Batches::default(),
            policy: AddressPolicy::default(),
            receivers: Receivers::default(),
            dialer: Dialer::Plain,
        }
    }
}

impl Transfers {
    /// Where the bytes come from that a manager of Longhorn's protocol at `address` is asked to push.
    pub fn from_manager(&self, address: &str, size: u64) -> Result<Receiver> {
        let invite = Invite::Manager {
            address: address.to_owned(),
            host: self.host.to_string(),
        };
        let place = self.receivers.place()?;
        let listener = self.ports.listen(self.host)?;
        Ok(Receiver::new(listener, size, invite)?.in_place(place))
    }
}
