//! Which addresses may be connected to: the guard against server-side request forgery.
//!
//! The check is made on the address that is connected to, inside the name resolution of the
//! connection itself, so that a name that answers differently the second time (DNS rebinding) gains
//! nothing. Hosts written as an address are checked before the request, at each redirect too.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ::url::Url;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{Error, Result};

/// The addresses that may be connected to. By default every unicast address outside this machine
/// and its link; networks on the allow-list are open besides.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allowed: Arc<[IpNet]>,
    unrestricted: bool,
}

/// Addresses of cloud metadata services that no other class covers: they hand out credentials.
const METADATA: [IpAddr; 3] = [
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Azure's wire server.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Amazon EC2 over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl AddressPolicy {
    /// The default, with `allowed` opened besides.
    pub fn new(allowed: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            allowed: allowed.into_iter().collect(),
            unrestricted: false,
        }
    }

    /// No limit: for a command that a person runs with that person's own rights.
    pub fn unrestricted() -> Self {
        Self {
            allowed: Arc::default(),
            unrestricted: true,
        }
    }

    /// Whether `address` may be connected to; if not, what kind of address it is.
    pub fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        if self.unrestricted {
            return Ok(());
        }
        // What stands for several is as open as the least open of them.
        embedded(address)
            .into_iter()
            .try_for_each(|address| self.check_one(address))
    }

    fn check_one(&self, address: IpAddr) -> Result<(), &'static str> {
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        let why = match address {
            _ if METADATA.contains(&address) => Some("a cloud's metadata service"),
            IpAddr::V4(v4) => refused_v4(v4),
            IpAddr::V6(v6) => refused_v6(v6),
        };
        why.map_or(Ok(()), Err)
    }
}

impl AddressPolicy {
    /// The addresses of `host:port` that may be connected to; a name is looked up once. Whoever connects to
    /// them connects to what was checked, whatever the name says a moment later.
    pub async fn resolve(&self, authority: &str) -> Result<Vec<SocketAddr>> {
        let host = || authority.chars().take(128).collect::<String>();
        let looked_up = tokio::net::lookup_host(authority).await;
        let looked_up = looked_up.map_err(|source| {
            let host = host();
            Error::Lookup { host, source }
        })?;
        let (mut open, mut refused) = (Vec::new(), None);
        for address in looked_up {
            match self.check(address.ip()) {
                Ok(()) => open.push(address),
                Err(why) => refused = Some((address.ip(), why)),
            }
        }
        match refused {
            Some((address, why)) if open.is_empty() => {
                let host = host();
                Err(Error::Forbidden { host, address, why })
            }
            _ => Ok(open),
        }
    }

    /// The first of them: where to connect to for `host:port`.
    pub async fn resolve_one(&self, authority: &str) -> Result<SocketAddr> {
        let found = self.resolve(authority).await?;
        found.first().copied().ok_or_else(|| Error::Lookup {
            host: authority.chars().take(128).collect(),
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

/// The IPv4 address that an IPv6 address stands for, where it does, or each that it may stand for:
/// mapped and compatible (RFC 4291), translated (RFC 2765), NAT64 with the well-known prefix (RFC 6052)
/// and with the local one (RFC 8215), 6to4 (RFC 3056) and ISATAP (RFC 5214). Else the address itself.
/// Teredo (RFC 4380) is refused as a whole.
fn embedded(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else {
        return vec![address];
    };
    let v4 =
        |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        // Loopback and unspecified look like compatible addresses but are IPv6's own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => vec![address],
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => vec![v4(high, low)],
        [0x64, 0xff9b, 1, ..] => translated_locally(v6),
        // Any network may have it, so that the address itself counts as well.
        [.., 0 | 0x200, 0x5efe, high, low] => vec![address, v4(high, low)],
        _ => vec![address],
    }
}

/// What an address of 64:ff9b:1::/48 may stand for: who runs the network chose the length of the
/// prefix, and with it the place of the address (RFC 6052 section 2.2; octet 8 is passed over).
fn translated_locally(address: Ipv6Addr) -> Vec<IpAddr> {
    let octets = address.octets();
    let places: [[usize; 4]; 4] = [
        [6, 7, 9, 10],
        [7, 9, 10, 11],
        [9, 10, 11, 12],
        [12, 13, 14, 15],
    ];
    let all = places.map(|place| Ipv4Addr::from(place.map(|at| octets[at])));
    // What is 0.x there has its address in another place.
    let meant: Vec<IpAddr> = all
        .into_iter()
        .filter(|v4| v4.octets()[0] != 0)
        .map(IpAddr::V4)
        .collect();
    if meant.is_empty() {
        vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
    } else {
        meant
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [127, ..] => Some("this machine's own (loopback)"),
        [169, 254, ..] => Some("link-local, where cloud metadata services live"),
        [0, ..] => Some("unspecified"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("reserved or broadcast"),
        _ => None,
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("this machine's own (loopback)"),
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("site-local, which no longer exists"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        [0x2001, 0, ..] => Some("a Teredo tunnel"),
        _ => None,
    }
}

/// A refusal, as it travels through the HTTP client's own errors.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{host} has the address {address}, which is {why}")]
pub(crate) struct Refused {
    pub(crate) host: String,
    pub(crate) address: IpAddr,
    pub(crate) why: &'static str,
}

/// Name resolution that gives only the addresses that may be connected to, and refuses the name when
/// none is left.
#[derive(Debug)]
pub(crate) struct CheckedResolver {
    pub(crate) policy: AddressPolicy,
    /// Hosts that may have any address: proxies that the operator chose.
    pub(crate) trusted: Vec<String>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let is_trusted = self
            .trusted
            .iter()
            .any(|host| host.eq_ignore_ascii_case(name.as_str()));
        let policy = if is_trusted {
            AddressPolicy::unrestricted()
        } else {
            self.policy.clone()
        };
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let mut refused = None;
            let mut open = Vec::new();
            for address in tokio::net::lookup_host((host.as_str(), 0)).await? {
                match policy.check(address.ip()) {
                    Ok(()) => open.push(address),
                    Err(why) => {
                        refused = Some(Refused {
                            host: host.clone(),
                            address: address.ip(),
                            why,
                        });
                    }
                }
            }
            match refused {
                Some(refused) if open.is_empty() => Err(refused.into()),
                _ => Ok(Box::new(open.into_iter()) as Addrs),
            }
        })
    }
}

/// Host and port, the port only where the scheme does not imply it.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_23_addresses_of_this_machine_and_link_are_refused() {
        let policy = AddressPolicy::default();
        for text in [
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "250.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "64:ff9b:1::7f00:1",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:7f:0:1::",
            "64:ff9b:1:0:a9:fea9:fe00:0",
            "64:ff9b:1::",
            "::ffff:0:127.0.0.1",
            "::ffff:0:169.254.169.254",
            "2001:db8::5efe:127.0.0.1",
            "2001:db8::200:5efe:169.254.169.254",
            "fe80::5efe:8.8.8.8",
            "::5efe:168.63.129.16",
            "2001:0:1::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "::ffff:100.100.100.200",
        ] {
            assert!(
                policy.check(text.parse().unwrap()).is_err(),
                "{text} was taken"
            );
        }
        for text in [
            "10.43.0.7",
            "192.168.1.1",
            "172.16.0.1",
            "8.8.8.8",
            "2606:4700::1",
            "fd12::1",
            "64:ff9b::808:808",
            "64:ff9b:1::808:808",
            "64:ff9b:1:808:8:800::",
            "64:ff9b:1::a2b:7",
            "::ffff:0:10.43.0.7",
            "2001:db8::5efe:10.43.0.7",
            "2002:a2b:7::",
        ] {
            assert_eq!(policy.check(text.parse().unwrap()), Ok(()), "{text}");
        }
    }

    #[test]
    fn row_23_the_allow_list_opens_what_it_names_and_nothing_else() {
        let policy = AddressPolicy::new(["127.0.0.0/30".parse().unwrap()]);
        assert!(policy.check("127.0.0.1".parse().unwrap()).is_ok());
        assert!(policy.check("::ffff:127.0.0.1".parse().unwrap()).is_ok());
        assert!(policy.check("127.0.0.9".parse().unwrap()).is_err());
        assert!(policy.check("::1".parse().unwrap()).is_err());
        assert!(
            AddressPolicy::unrestricted()
                .check("::1".parse().unwrap())
                .is_ok()
        );
    }
}
