//! Where a manager listens: `HOST:PORT` or `unix:/path`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a manager, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or IP address with a port.
    Tcp(String),
    /// The absolute path of a unix socket.
    Unix(PathBuf),
}

/// A text that is no address.
#[derive(Debug, thiserror::Error)]
#[error(
    "manager address {0:?} is not valid: write HOST:PORT, for example 127.0.0.1:8000, or \
     unix:/run/longhorn/manager.sock"
)]
pub struct InvalidAddress(String);

impl InvalidAddress {
    /// For a text, of which 128 characters are shown.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.chars().take(128).collect())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        parse(text).ok_or_else(|| InvalidAddress::of(text))
    }
}

fn parse(text: &str) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        // unix:/path and unix:///path both occur in the field.
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        return path.is_absolute().then(|| Address::Unix(path.to_owned()));
    }
    let authority = text
        .strip_prefix("http://")
        .unwrap_or(text)
        .trim_end_matches('/');
    types::is_authority(authority).then(|| Address::Tcp(authority.to_owned()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds() {
        for (text, shown) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            (
                "http://manager.longhorn-system:8000/",
                "manager.longhorn-system:8000",
            ),
            ("[::1]:8000", "[::1]:8000"),
            ("unix:/run/manager.sock", "unix:/run/manager.sock"),
            ("unix:///run/manager.sock", "unix:/run/manager.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "manager",
            "manager:",
            ":8000",
            "manager:0",
            "manager:99999",
            "::1:8000",
            "a b:1",
            "user@host:1",
            "unix:run/manager.sock",
            "unix:",
            "https://manager:8000",
            "/run/m.sock",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?} was taken");
        }
    }
}
