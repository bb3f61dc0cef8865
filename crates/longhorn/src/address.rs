//! The address under which other managers reach this one.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The interface of Longhorn's storage network.
const STORAGE_INTERFACE: &str = "lhnet1";

/// The address of the pod: what everybody in the cluster reaches. `POD_IP`, else the address that is
/// listened on.
pub fn of_pod(listening: SocketAddr) -> IpAddr {
    let pod_ip = std::env::var("POD_IP").ok();
    pod_ip
        .and_then(|ip| ip.trim().parse().ok())
        .unwrap_or_else(|| reachable(listening.ip()))
}

/// The same with a port, in the words of `POD_IP`: also where that is a name.
pub fn of_pod_at(listening: SocketAddr) -> String {
    let named = std::env::var("POD_IP").unwrap_or_default();
    let name = named.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    if name.is_empty() || name.parse::<IpAddr>().is_ok() || !name.chars().all(plain) {
        return SocketAddr::new(of_pod(listening), listening.port()).to_string();
    }
    format!("{name}:{}", listening.port())
}

/// The address for bulk data between managers: that of the storage network where there is one.
pub fn for_peers(listening: SocketAddr) -> IpAddr {
    interface(STORAGE_INTERFACE).unwrap_or_else(|| of_pod(listening))
}

/// Who listens everywhere is at least reachable from here.
fn reachable(listening: IpAddr) -> IpAddr {
    match listening {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// An address of an interface: IPv4 first, then a global one of IPv6.
fn interface(name: &str) -> Option<IpAddr> {
    let addresses = addresses_of(name);
    let usable = |ip: &&IpAddr| match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let mut all = addresses.iter();
    all.find(|ip| ip.is_ipv4())
        .or_else(|| addresses.iter().find(usable))
        .copied()
}

#[expect(
    unsafe_code,
    reason = "the addresses of an interface are only told by getifaddrs(3)"
)]
fn addresses_of(name: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the pointer to write to is valid; the list is freed below, once.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return addresses;
    }
    let mut next = list;
    while !next.is_null() {
        // SAFETY: getifaddrs(3) makes a list of valid entries that ends with null; names end with NUL.
        let (entry, this) = unsafe {
            let entry = &*next;
            (entry, CStr::from_ptr(entry.ifa_name))
        };
        next = entry.ifa_next;
        if this.to_bytes() != name.as_bytes() || entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: the family says which of the two structures the address is.
        unsafe {
            match i32::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let address = entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    let bits = u32::from_be(address.sin_addr.s_addr);
                    addresses.push(Ipv4Addr::from_bits(bits).into());
                }
                libc::AF_INET6 => {
                    let address = entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                    addresses.push(Ipv6Addr::from(address.sin6_addr.s6_addr).into());
                }
                _ => {}
            }
        }
    }
    // SAFETY: the list is getifaddrs' own, and no reference into it is left.
    unsafe { libc::freeifaddrs(list) };
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_gives_its_ipv4_address_first() {
        assert_eq!(interface("lo"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(interface("no-such-interface"), None);
    }

    #[test]
    fn who_listens_everywhere_is_reached_here() {
        assert_eq!(
            reachable(Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::from(Ipv4Addr::LOCALHOST)
        );
        let own = IpAddr::from([10, 0, 0, 7]);
        assert_eq!(reachable(own), own);
    }
}
