//! Where a peer's sync server is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// `host:port` of a peer's sync server; checked, so that it is safe in a header and in a log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress(String);

impl PeerAddress {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when it is not a name.
    pub fn socket(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }
}

/// A text that is no address of a peer.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the address of a peer; write host:port")]
pub struct InvalidAddress(String);

impl FromStr for PeerAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.trim_end_matches('/');
        if types::is_authority(authority) {
            Ok(Self(authority.to_owned()))
        } else {
            Err(InvalidAddress(text.chars().take(128).collect()))
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an address that a peer tells is one that this manager may connect to. Peers are trusted
/// with little: only plain unicast addresses, and this machine's own only from a peer on this machine.
pub(super) fn may_be_told(told: SocketAddr, by: IpAddr) -> bool {
    let ip = told.ip().to_canonical();
    let by = by.to_canonical();
    if told.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
        return false;
    }
    match ip {
        IpAddr::V4(v4) if v4.is_link_local() || v4.is_broadcast() => false,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => false,
        ip if ip.is_loopback() => by.is_loopback(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_are_an_address() {
        for good in ["10.0.0.1:8001", "manager-1.ns:8001", "[fd00::1]:8001"] {
            assert_eq!(good.parse::<PeerAddress>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "x",
            "x:0",
            "x:99999",
            "a b:1",
            "a\r\nHost: c:1",
            "unix:/x",
            "u@h:1",
        ] {
            assert!(bad.parse::<PeerAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_peer_cannot_send_us_to_places_that_are_no_peers() {
        let far: IpAddr = "10.0.0.9".parse().unwrap();
        let near: IpAddr = "127.0.0.1".parse().unwrap();
        let told = |address: &str, by| may_be_told(address.parse().unwrap(), by);
        assert!(told("10.0.0.1:8001", far) && told("127.0.0.1:8001", near));
        for bad in [
            "127.0.0.1:8001",
            "[::1]:8001",
            "[::ffff:127.0.0.1]:8001",
            "169.254.169.254:80",
            "0.0.0.0:8001",
            "224.0.0.1:8001",
            "255.255.255.255:1",
            "[fe80::1]:8001",
            "10.0.0.1:0",
        ] {
            assert!(!told(bad, far), "{bad}");
        }
    }
}
