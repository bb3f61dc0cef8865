//! Whether a browser asks for us: which site its address bar shows, and which site makes it ask. Pure.

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method};

use crate::{Error, Result};

/// Of more no browser needs to be told.
const NAMES_MAX: usize = 64;

/// The names by which browsers may reach this UI. Of another one, a page of somebody else may have been served, whose
/// name has been moved to our address (DNS rebinding).
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Those of the command line; the names of this machine for itself are always right, because nobody can move them.
    pub(super) fn new(names: &[String]) -> Result<Self> {
        let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let is_wrong = |name: &&String| {
            name.is_empty() || name.len() > 260 || name.contains(['/', '@', '*', ' '])
        };
        if let Some(wrong) = names.iter().find(is_wrong) {
            return Err(Error::Options(format!(
                "--host {:?} is not a name: write ui.example.org, or ui.example.org:8443",
                types::shown(wrong)
            )));
        }
        if names.len() > NAMES_MAX {
            let why = format!("--host is given more than {NAMES_MAX} times");
            return Err(Error::Options(why));
        }
        Ok(Self { names })
    }

    fn has(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        is_local(&host) || {
            let name = name(&host);
            self.names
                .iter()
                .any(|known| *known == host || known == name)
        }
    }
}

/// The name without the port.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether this is a name of a machine for itself.
fn is_local(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].contains(&name(host))
}

/// The one value of a header. Two are one too many to know what is meant.
fn one(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).into_iter();
    let one = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(one)
}

/// What is known of where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    /// The browser reaches us by a name of its own machine: a cookie need not be kept from lines in the clear.
    pub(super) is_local: bool,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Its `Host` is none of ours, or missing.
    Host,
    /// Another site has made the browser ask.
    Site,
}

/// Where a request comes from. One that may change something is refused unless the browser says that a page of ours, or
/// the person itself, makes it ask.
pub(super) fn site(
    hosts: &Hosts,
    method: &Method,
    headers: &HeaderMap,
) -> std::result::Result<Site, Foreign> {
    let host = one(headers, HOST).ok_or(Foreign::Host)?;
    if !hosts.has(host) {
        return Err(Foreign::Host);
    }
    let site = Site {
        is_local: is_local(&host.to_ascii_lowercase()),
    };
    if method.is_safe() {
        return Ok(site);
    }
    let ours = if headers.contains_key("sec-fetch-site") {
        let from = one(headers, "sec-fetch-site");
        from.is_some_and(|from| ["same-origin", "none"].contains(&from))
    } else {
        // Older browsers say the origin of each POST.
        let origin = one(headers, ORIGIN).and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
    };
    if ours { Ok(site) } else { Err(Foreign::Site) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        method: &Method,
        lines: &[(&'static str, &str)],
    ) -> std::result::Result<Site, Foreign> {
        let hosts = Hosts::new(&["UI.example.org".to_owned(), "ui:8443".to_owned()]).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        site(&hosts, method, &headers)
    }

    #[test]
    fn names_that_are_not_ours_are_refused() {
        for (host, right) in [
            ("ui.example.org", true),
            ("ui.Example.org:443", true),
            ("ui:8443", true),
            ("ui", false),
            ("ui:80", false),
            ("localhost:8080", true),
            ("127.0.0.1", true),
            ("[::1]:9", true),
            ("[::2]:9", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:80", false),
            ("evil.example:localhost", false),
            ("", false),
        ] {
            let found = asked(&Method::GET, &[("host", host)]);
            assert_eq!(found.is_ok(), right, "{host}: {found:?}");
        }
        assert_eq!(asked(&Method::GET, &[]), Err(Foreign::Host));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(asked(&Method::GET, &two), Err(Foreign::Host));
    }

    #[test]
    fn other_sites_change_nothing() {
        let host = ("host", "ui.example.org");
        for (name, value, right) in [
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
            ("origin", "https://ui.example.org", true),
            ("origin", "https://ui.example.org:8443", false),
            ("origin", "https://evil.example", false),
            ("origin", "null", false),
            ("referer", "https://ui.example.org", false),
        ] {
            let found = asked(&Method::POST, &[host, (name, value)]);
            assert_eq!(found.is_ok(), right, "{name}: {value}: {found:?}");
            assert!(asked(&Method::GET, &[host, (name, value)]).is_ok());
        }
        assert_eq!(asked(&Method::PUT, &[host]), Err(Foreign::Site));
        // What the browser says of the site counts before what a page may have a hand in.
        let both = [
            host,
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://ui.example.org"),
        ];
        assert_eq!(asked(&Method::POST, &both), Err(Foreign::Site));
        let twice = [
            host,
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(asked(&Method::POST, &twice), Err(Foreign::Site));
    }

    #[test]
    fn a_name_with_a_path_is_refused() {
        for wrong in ["", "https://ui", "*", "a b"] {
            assert!(Hosts::new(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
