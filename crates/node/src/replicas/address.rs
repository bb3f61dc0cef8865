//! The address of a node in the storage network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

/// Where the other replicas reach this node: an address, or the network in which it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageAddress {
    /// This one.
    Address(IpAddr),
    /// The one that the node has in this network (CIDR), so that all nodes can be told the same.
    Network {
        /// Its first address.
        first: IpAddr,
        /// How many bits all of them share.
        prefix: u8,
    },
}

impl StorageAddress {
    /// The address; `None`: this node has none in the network now.
    pub fn find(&self) -> Option<IpAddr> {
        match *self {
            Self::Address(address) => Some(address),
            Self::Network { first, prefix } => {
                // A socket that is connected sends nothing; the kernel takes the address that it would send from.
                let own = |bits: u128| {
                    let to = address(first, bits | 1);
                    let any: IpAddr = match to {
                        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                    };
                    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
                    socket.connect(SocketAddr::new(to, 9)).ok()?;
                    Some(socket.local_addr().ok()?.ip())
                };
                let own = own(bits(first))?;
                let is_within = own.is_ipv4() == first.is_ipv4()
                    && bits(own) & mask(first, prefix) == bits(first);
                is_within.then_some(own)
            }
        }
    }
}

const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// An address of the same kind as `like`.
fn address(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or_default()).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(like: IpAddr, prefix: u8) -> u128 {
    let all = u128::MAX >> (128 - width(like));
    let host = u128::MAX.checked_shr(u32::from(128 - width(like) + prefix));
    all & !host.unwrap_or_default()
}

impl FromStr for StorageAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHAT: &str =
            "must be an address (10.1.0.7) or a network (10.1.0.0/16) of the storage network";
        let usable = |address: IpAddr| {
            let bad = address.is_unspecified() || address.is_multicast() || address.is_loopback();
            if bad { Err(WHAT) } else { Ok(address) }
        };
        let Some((first, prefix)) = text.split_once('/') else {
            return Ok(Self::Address(usable(text.parse().map_err(|_| WHAT)?)?));
        };
        let first: IpAddr = first.parse().map_err(|_| WHAT)?;
        let prefix: u8 = prefix.parse().map_err(|_| WHAT)?;
        if !(1..width(first)).contains(&prefix) {
            return Err(WHAT);
        }
        let first = address(first, bits(first) & mask(first, prefix));
        let first = usable(first)?;
        Ok(Self::Network { first, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StorageAddress, &'static str> {
        text.parse()
    }

    #[test]
    fn an_address_or_the_network_that_it_is_in() {
        let ten = "10.1.2.3".parse().unwrap();
        assert_eq!(parse("10.1.2.3"), Ok(StorageAddress::Address(ten)));
        for (text, first, prefix) in [
            ("10.1.2.3/16", "10.1.0.0", 16),
            ("10.1.2.0/31", "10.1.2.0", 31),
            ("fd00:1::7/64", "fd00:1::", 64),
            ("128.0.0.0/1", "128.0.0.0", 1),
        ] {
            let first = first.parse().unwrap();
            assert_eq!(parse(text), Ok(StorageAddress::Network { first, prefix }));
        }
        for bad in [
            "",
            "node-1",
            "10.1.2.3/33",
            "10.1.2.3/32",
            "10.1.2.3/0",
            "0.0.0.0",
            "224.0.0.1",
            "127.0.0.1",
            "fd00::/129",
            "10.1.2.3/x",
            "10.1.2.3:80",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_that_the_node_is_not_in_gives_no_address() {
        // TEST-NET-3 (RFC 5737) is nobody's.
        assert_eq!(parse("203.0.113.0/24").unwrap().find(), None);
        let loopback = StorageAddress::Network {
            first: "127.0.0.0".parse().unwrap(),
            prefix: 8,
        };
        assert_eq!(loopback.find(), Some("127.0.0.1".parse().unwrap()));
    }
}
