//! The options of a download besides its URL. They are never shown, because most of them can be
//! secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::url::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::source::basic;
use crate::address::authority;
use crate::network::{Network, Tuning};
use crate::proxy::Proxy;
use crate::tls::{Trust, pem_certificates};
use crate::{Error, Result};

/// The most headers, and the most bytes of them.
const HEADERS_MAX: usize = 32;
const HEADERS_SIZE_MAX: usize = 16 << 10;
/// The most bytes of certificate authorities.
const AUTHORITIES_MAX: usize = 1 << 20;
/// How long a server may be silent.
const IDLE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// Headers that are ours to set, or that concern the connection alone (RFC 9110 section 7.6.1).
const OURS: [&str; 17] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "proxy-authorization",
    "range",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// How a download goes out. By default like any other.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Sent to the first host alone, an `Authorization` among them.
    headers: HeaderMap,
    authorities: Option<Arc<[u8]>>,
    proxy: Proxy,
    idle: Option<Duration>,
    gzip: bool,
}

fn refuse<T>(option: &'static str, why: &'static str) -> Result<T> {
    Err(Error::Option { option, why })
}

impl Options {
    /// Adds a header, which is sent to the URL's own host and nobody else.
    pub fn header(&mut self, name: &str, value: &str) -> Result<()> {
        let Ok(name) = name.parse::<HeaderName>() else {
            return refuse("headers", "the name of a header is not valid");
        };
        if OURS.contains(&name.as_str()) {
            return refuse("headers", "one of them is set by the download itself");
        }
        // A line break in a value would be another header.
        let Ok(mut value) = HeaderValue::from_str(value.trim()) else {
            return refuse("headers", "the value of a header has invalid characters");
        };
        if name == AUTHORIZATION && self.headers.contains_key(AUTHORIZATION) {
            return refuse("headers", "there are credentials already; give them once");
        }
        let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        let sum: usize = self.headers.iter().map(size).sum();
        if self.headers.len() >= HEADERS_MAX || sum + value.len() > HEADERS_SIZE_MAX {
            return refuse("headers", "there are more than 32 of them, or than 16 KiB");
        }
        value.set_sensitive(true);
        self.headers.append(name, value);
        Ok(())
    }

    /// Signs in with a user's password (RFC 7617).
    pub fn password(&mut self, user: &str, password: &str) -> Result<()> {
        if user.contains(':') || user.contains(char::is_control) {
            return refuse("username", "it has a colon or a control character");
        }
        self.authorize(basic(&format!("{user}:{password}")))
    }

    /// Signs in with a token (RFC 6750).
    pub fn bearer(&mut self, token: &str) -> Result<()> {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        self.authorize(value.ok())
    }

    fn authorize(&mut self, value: Option<HeaderValue>) -> Result<()> {
        let Some(mut value) = value else {
            return refuse(
                "bearer_token",
                "it has characters that are not valid in a header",
            );
        };
        if self.headers.contains_key(AUTHORIZATION) {
            return refuse(
                "bearer_token",
                "there are credentials already; give them once",
            );
        }
        value.set_sensitive(true);
        self.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// Trusts these certificate authorities besides the system's; PEM.
    pub fn authorities(&mut self, pem: &[u8]) -> Result<()> {
        if pem.len() > AUTHORITIES_MAX || pem_certificates(pem).is_none() {
            return refuse(
                "ca_certificates",
                "they are not PEM certificates of 1 MiB at most",
            );
        }
        self.authorities = Some(pem.into());
        Ok(())
    }

    /// Goes through this proxy, `http://[user:password@]host:port`, or with `direct` through none,
    /// whatever the environment says.
    pub fn through(&mut self, proxy: &str) -> Result<()> {
        self.proxy = proxy.parse()?;
        Ok(())
    }

    /// Takes a server for gone that is silent for so long; 1 s to 1 h.
    pub fn idle_timeout(&mut self, idle: Duration) -> Result<()> {
        if !IDLE.contains(&idle) {
            return refuse("idle_timeout", "it is not between 1 s and 1 h");
        }
        self.idle = Some(idle);
        Ok(())
    }

    /// Takes bodies that the server calls gzip, as they are: somebody unpacks them.
    pub const fn take_gzip(&mut self) {
        self.gzip = true;
    }

    pub(super) const fn takes_gzip(&self) -> bool {
        self.gzip
    }

    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        self.headers.get(AUTHORIZATION).cloned()
    }

    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) const fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    pub(super) fn stall(&self, tuning: Tuning) -> Duration {
        self.idle.unwrap_or(tuning.stall_timeout)
    }

    /// How far the host of `url` is trusted.
    pub(super) fn trust(&self, network: &Network, url: &Url) -> Trust {
        let configured = network.config().trust_of(&authority(url));
        let mut trust = configured.cloned().unwrap_or_default();
        if let Some(pem) = &self.authorities {
            trust.authorities = Some(Arc::clone(pem));
            // Who names an authority wants it to be asked.
            trust.insecure = false;
        }
        trust
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("headers", &self.headers.len())
            .field("proxy", &self.proxy)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_would_break_the_download_are_refused() {
        let mut options = Options::default();
        for (name, value) in [
            ("Range", "bytes=0-1"),
            ("host", "other"),
            ("Content-Length", "1"),
            ("Proxy-Authorization", "x"),
            ("X A", "x"),
            ("", "x"),
            ("X-A", "a\r\nRange: bytes=0-1"),
            ("X-A", "a\nb"),
        ] {
            assert!(options.header(name, value).is_err(), "{name}: {value}");
        }
        options.header("X-Api-Key", "hunter2").unwrap();
        options.header("Authorization", "Bearer hunter2").unwrap();
        assert!(options.password("me", "hunter2").is_err());
        assert!(options.bearer("hunter2").is_err());
        assert!(options.header("X-Long", &"x".repeat(17 << 10)).is_err());
        assert!(!format!("{options:?}").contains("hunter2"));
        for _ in 0..40 {
            let _ = options.header("X-More", "x");
        }
        assert_eq!(options.headers.len(), HEADERS_MAX);
    }

    #[test]
    fn credentials_are_what_servers_expect() {
        let mut options = Options::default();
        options.password("me", "p:w").unwrap();
        // base64 of me:p:w.
        assert_eq!(options.authorization().unwrap(), "Basic bWU6cDp3");
        let mut options = Options::default();
        options.bearer(" abc\n").unwrap();
        assert_eq!(options.authorization().unwrap(), "Bearer abc");
        assert!(Options::default().password("a:b", "").is_err());
        assert!(Options::default().bearer("a\nb").is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let mut options = Options::default();
        assert!(options.authorities(b"not PEM").is_err());
        assert!(options.idle_timeout(Duration::ZERO).is_err());
        assert!(options.through("socks5://x:1").is_err());
        options.through("direct").unwrap();
        options.idle_timeout(Duration::from_secs(5)).unwrap();
    }
}
