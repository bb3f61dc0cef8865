//! The registry configuration: mirrors, private certificate authorities, explicit distrust of TLS.
//!
//! A TOML file in the format of `containers-registries.conf(5)`, version 2, with two additional
//! keys:
//!
//! ```toml
//! [[registry]]
//! location = "registry.example.com:5000"   # or with a path: only what is below it
//! insecure = false                          # true: plain HTTP or an unverified certificate
//! ca-file = "/etc/certs/ca.crt"             # trusted besides the system's authorities
//! auth-hosts = ["auth.example.com"]         # token servers that may see the credentials
//!
//! [[registry.mirror]]                       # asked first, in this order
//! location = "mirror.example.com/proxy"
//! ```
//!
//! `insecure` means that the identity of the registry is not verified: an attacker in the network
//! can read the password and change everything that no digest names, such as a tag.
//!
//! A key that is not known is refused: a misspelled `insecure` must not go unnoticed.

use std::path::PathBuf;

use toml::{Table, Value};

use crate::reference::{DOCKER_HUB, Reference, check_host, check_repository};
use crate::tls::Trust;
use crate::{Error, Result};

/// Where Docker Hub really answers.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Token servers of public registries that are not on the registry's own host.
const KNOWN_AUTH_HOSTS: [(&str, &str); 2] = [
    (DOCKER_HUB_API, "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
];

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Config {
    registries: Vec<Registry>,
}

#[derive(Debug, Clone)]
struct Registry {
    /// What references are compared with; `location` unless `prefix` is given.
    prefix: String,
    location: Location,
    mirrors: Vec<Location>,
}

/// A place that answers the registry protocol.
#[derive(Debug, Clone)]
struct Location {
    host: String,
    path: String,
    trust: Trust,
    auth_hosts: Vec<String>,
}

/// One place to ask for an image, with the rules that hold there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As configured or referenced; credentials are looked up by it.
    pub(crate) registry: String,
    /// Host and port that are connected to.
    pub(crate) host: String,
    /// Path of the repository there.
    pub(crate) repository: String,
    pub(crate) trust: Trust,
    /// Hosts of token servers that may see the credentials, besides the registry's own.
    pub(crate) auth_hosts: Vec<String>,
}

impl Config {
    /// Reads a configuration file's text.
    pub fn from_toml(text: &str) -> Result<Self> {
        let fail = |why: String| Error::Config { why };
        // The parser's message repeats a line of the file, which holds no secrets.
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| fail(error.message().to_owned()))?;
        known_keys(&table, "the file", &["registry"])?;
        let registries = tables(&table, "registry")?
            .into_iter()
            .map(registry)
            .collect::<Result<Vec<_>>>()?;
        for (at, registry) in registries.iter().enumerate() {
            if registries[..at]
                .iter()
                .any(|other| other.prefix == registry.prefix)
            {
                return Err(fail(format!(
                    "[[registry]] {} occurs twice",
                    registry.prefix
                )));
            }
        }
        Ok(Self { registries })
    }

    /// Where to ask for `reference`: the mirrors in order, then the registry itself.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        let name = reference.name();
        let matching = self
            .registries
            .iter()
            .filter_map(|registry| Some((below(&name, &registry.prefix)?, registry)))
            .max_by_key(|(_, registry)| registry.prefix.len());
        match matching {
            None => {
                let own = Location::plain(reference.registry());
                vec![own.endpoint(reference.repository())]
            }
            Some((rest, registry)) => registry
                .mirrors
                .iter()
                .chain([&registry.location])
                .map(|location| location.endpoint(rest))
                .collect(),
        }
    }

    /// Whom to trust on a host that is not an endpoint, such as a redirect's target.
    pub(crate) fn trust_of(&self, host: &str) -> Option<&Trust> {
        let locations = self
            .registries
            .iter()
            .flat_map(|r| r.mirrors.iter().chain([&r.location]));
        locations
            .filter(|l| l.host == host && l.path.is_empty())
            .map(|l| &l.trust)
            .next()
    }
}

/// What remains of `name` under `prefix`, if it is under it.
fn below<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    match name.strip_prefix(prefix)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

impl Location {
    fn plain(host: &str) -> Self {
        let (host, path) = (host.to_owned(), String::new());
        Self {
            host,
            path,
            trust: Trust::default(),
            auth_hosts: Vec::new(),
        }
    }

    fn endpoint(&self, rest: &str) -> Endpoint {
        let host = if self.host == DOCKER_HUB {
            DOCKER_HUB_API
        } else {
            &self.host
        };
        let known = KNOWN_AUTH_HOSTS
            .iter()
            .filter(|(of, _)| *of == host)
            .map(|(_, auth)| *auth);
        let joined = [self.path.as_str(), rest]
            .iter()
            .filter(|p| !p.is_empty())
            .copied()
            .collect::<Vec<_>>();
        Endpoint {
            registry: self.host.clone(),
            host: host.to_owned(),
            repository: joined.join("/"),
            trust: self.trust.clone(),
            auth_hosts: known
                .map(ToOwned::to_owned)
                .chain(self.auth_hosts.iter().cloned())
                .collect(),
        }
    }
}

const LOCATION_KEYS: [&str; 4] = ["location", "insecure", "ca-file", "auth-hosts"];

fn registry(table: &Table) -> Result<Registry> {
    let mut keys = LOCATION_KEYS.to_vec();
    keys.extend(["prefix", "mirror"]);
    known_keys(table, "[[registry]]", &keys)?;
    let location = location(table, "[[registry]]")?;
    let prefix = match text(table, "prefix", "[[registry]]")? {
        Some(prefix) => {
            let (host, path) = split_location(prefix, "[[registry]]")?;
            joined(&host, &path)
        }
        None => joined(&location.host, &location.path),
    };
    let mirrors = tables(table, "mirror")?
        .into_iter()
        .map(|mirror| {
            known_keys(mirror, "[[registry.mirror]]", &LOCATION_KEYS)?;
            self::location(mirror, "[[registry.mirror]]")
        })
        .collect::<Result<_>>()?;
    Ok(Registry {
        prefix,
        location,
        mirrors,
    })
}

fn joined(host: &str, path: &str) -> String {
    if path.is_empty() {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

fn location(table: &Table, place: &str) -> Result<Location> {
    let fail = |why: String| Error::Config { why };
    let Some(location) = text(table, "location", place)? else {
        return Err(fail(format!("a {place} has no location")));
    };
    let (host, path) = split_location(location, place)?;
    let insecure = match table.get("insecure") {
        None => false,
        Some(Value::Boolean(insecure)) => *insecure,
        Some(_) => {
            return Err(fail(format!(
                "insecure of {place} {location} must be true or false"
            )));
        }
    };
    let ca_file = text(table, "ca-file", place)?.map(PathBuf::from);
    if insecure && ca_file.is_some() {
        let why =
            format!("{place} {location} is insecure and has a ca-file: leave one of them out");
        return Err(fail(why));
    }
    let auth_hosts = match table.get("auth-hosts") {
        None => Vec::new(),
        Some(Value::Array(hosts)) => hosts
            .iter()
            .map(|host| match host.as_str() {
                Some(host) if check_host(host).is_ok() => Ok(host.to_ascii_lowercase()),
                _ => Err(fail(format!(
                    "auth-hosts of {place} {location} contains an entry that is not a host"
                ))),
            })
            .collect::<Result<_>>()?,
        Some(_) => {
            return Err(fail(format!(
                "auth-hosts of {place} {location} must be a list of hosts"
            )));
        }
    };
    Ok(Location {
        host,
        path,
        trust: Trust {
            insecure,
            ca_file,
            authorities: None,
        },
        auth_hosts,
    })
}

fn split_location(text: &str, place: &str) -> Result<(String, String)> {
    let fail = |why: &str| Error::Config {
        why: format!("location {text:?} of {place}: {why}"),
    };
    if text.contains("://") || text.contains('@') {
        return Err(fail(
            "write host[:port][/path], without a scheme or credentials",
        ));
    }
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    check_host(host).map_err(fail)?;
    if !path.is_empty() {
        check_repository(path).map_err(fail)?;
    }
    let host = if host == "index.docker.io" {
        DOCKER_HUB
    } else {
        host
    };
    Ok((host.to_ascii_lowercase(), path.to_owned()))
}

fn text<'a>(table: &'a Table, key: &str, place: &str) -> Result<Option<&'a str>> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::Config {
            why: format!("{key} of a {place} must be a text"),
        }),
    }
}

fn tables<'a>(table: &'a Table, key: &str) -> Result<Vec<&'a Table>> {
    let fail = || Error::Config {
        why: format!("{key} must be written as [[{key}]]"),
    };
    match table.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) => all.iter().map(|v| v.as_table().ok_or_else(fail)).collect(),
        Some(_) => Err(fail()),
    }
}

fn known_keys(table: &Table, place: &str, known: &[&str]) -> Result<()> {
    for key in table.keys() {
        if !known.contains(&key.as_str()) {
            let nearest = known
                .iter()
                .min_by_key(|k| distance(key, k))
                .copied()
                .unwrap_or_default();
            let why = format!("{key:?} in {place} is not known; did you mean {nearest:?}?");
            return Err(Error::Config { why });
        }
    }
    Ok(())
}

/// How many letters must be changed, added or removed (Levenshtein), on short texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example:5000/hub"
        insecure = true
        [[registry]]
        location = "registry.example"
        ca-file = "/etc/ca.crt"
        auth-hosts = ["Auth.example:8443"]
        [[registry]]
        prefix = "registry.example/team"
        location = "other.example/t"
    "#;

    fn places(config: &Config, reference: &str) -> Vec<String> {
        let endpoints = config.endpoints(&reference.parse().unwrap());
        endpoints
            .iter()
            .map(|e| format!("{}/{}", e.host, e.repository))
            .collect()
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_wins() {
        let config = Config::from_toml(EXAMPLE).unwrap();
        let hub = [
            "mirror.example:5000/hub/library/busybox",
            "registry-1.docker.io/library/busybox",
        ];
        assert_eq!(places(&config, "busybox"), hub);
        assert_eq!(
            places(&config, "registry.example/teams/x"),
            ["registry.example/teams/x"]
        );
        assert_eq!(
            places(&config, "registry.example/team/x"),
            ["other.example/t/x"]
        );
        assert_eq!(places(&config, "else.example/x"), ["else.example/x"]);
        let endpoint = &config.endpoints(&"registry.example/x".parse().unwrap())[0];
        assert_eq!(endpoint.auth_hosts, ["auth.example:8443"]);
        assert_eq!(
            endpoint.trust.ca_file.as_deref(),
            Some("/etc/ca.crt".as_ref())
        );
        let hub = &config.endpoints(&"busybox".parse().unwrap());
        assert!(hub[0].trust.insecure && !hub[1].trust.insecure);
        assert_eq!(hub[1].auth_hosts, ["auth.docker.io"]);
    }

    #[test]
    fn a_misspelled_key_is_refused_and_the_right_one_named() {
        for (text, nearest) in [
            ("[[registry]]\nlocation='x.y'\ninsecur=true", "insecure"),
            ("[[registry]]\nlocation='x.y'\nca_file='x'", "ca-file"),
            ("[[registries]]\nlocation='x.y'", "registry"),
            (
                "[[registry]]\nlocation='x.y'\n[[registry.mirrors]]\nlocation='z.y'",
                "mirror",
            ),
        ] {
            let error = Config::from_toml(text).unwrap_err().to_string();
            assert!(
                error.contains(&format!("did you mean {nearest:?}")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "[[registry]]",
            "[[registry]]\nlocation=5",
            "registry=5",
            "[registry]\nlocation='x'",
            "[[registry]]\nlocation='https://x.y'",
            "[[registry]]\nlocation='u:p@x.y'",
            "[[registry]]\nlocation='x.y'\ninsecure='yes'",
            "[[registry]]\nlocation='x.y'\nauth-hosts='z'",
            "[[registry]]\nlocation='x.y'\nauth-hosts=['https://z']",
            "[[registry]]\nlocation='x.y/../z'",
            "[[registry]]\nlocation='x.y'\n[[registry]]\nlocation='x.y'",
            "not toml",
            "[[registry]]\nlocation='x.y'\ninsecure=true\nca-file='x'",
        ] {
            assert!(Config::from_toml(text).is_err(), "{text:?} was taken");
        }
        assert!(Config::from_toml("").is_ok());
    }
}
