//! `HOST:PORT` as text: who may be connected to, before anything is looked up.

/// Whether `text` is a host name or an IP address with a port from 1 to 65535, and nothing else. An IPv6
/// address needs its brackets, because it has colons of its own (RFC 3986, 3.2.2).
pub fn is_authority(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let port_is_valid = port.parse::<u16>().is_ok_and(|port| port > 0);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let host_is_valid = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(allowed),
    };
    port_is_valid && host_is_valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_a_port_and_nothing_else() {
        for text in ["127.0.0.1:8000", "manager.longhorn-system:8000", "[::1]:1"] {
            assert!(is_authority(text), "{text}");
        }
        for text in [
            "",
            "manager",
            "manager:",
            ":1",
            "manager:0",
            "manager:99999",
            "::1:8000",
            "a b:1",
            "user@host:1",
        ] {
            assert!(!is_authority(text), "{text}");
        }
    }
}
