//! Registry credentials, from the bytes of a Docker `config.json`.
//!
//! A `kubernetes.io/dockerconfigjson` secret contains the same bytes. Credential helpers are
//! programs: they are never run, and the error says so if one would be needed.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::reference::DOCKER_HUB;
use crate::{Error, Result};

/// The most bytes of a config.json: a Kubernetes secret holds at most 1 MiB.
const SIZE_MAX: usize = 1 << 20;

/// What registries want to know of who asks. Nothing of it is ever shown.
#[derive(Clone, Default)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
    helpers: bool,
}

/// What is sent to one registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// User and password, for the registry or its token server.
    Password { user: String, password: String },
    /// An OAuth 2 refresh token for the token server.
    Identity(String),
    /// A bearer token for the registry itself.
    Token(String),
}

impl Credentials {
    /// None at all: pulls are anonymous.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Reads a Docker `config.json`.
    pub fn from_docker_config(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct File {
            auths: Option<BTreeMap<String, Option<Entry>>>,
            creds_store: Option<String>,
            cred_helpers: Option<BTreeMap<String, Option<String>>>,
        }
        if bytes.len() > SIZE_MAX {
            return Err(Error::Credentials {
                why: "it has more than 1 MiB",
            });
        }
        // The parser's own message could repeat a secret: it is dropped.
        let file: File = serde_json::from_slice(bytes).map_err(|_| Error::Credentials {
            why: "it is not valid JSON of the known form",
        })?;
        let mut logins = BTreeMap::new();
        for (key, entry) in file.auths.unwrap_or_default() {
            if let Some(login) = entry.map(Entry::login).transpose()?.flatten() {
                logins.insert(place(&key), login);
            }
        }
        let named = file.cred_helpers.is_some_and(|named| !named.is_empty());
        let helpers = file.creds_store.is_some() || named;
        Ok(Self { logins, helpers })
    }

    /// Adds a user's password for one registry, as command-line flags give it.
    #[must_use]
    pub fn with_password(mut self, registry: &str, user: &str, password: &str) -> Self {
        let login = Login::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        self.logins.insert(place(registry), login);
        self
    }

    /// The entry for the longest part of `registry/repository`, at least its host.
    pub(crate) fn login(&self, registry: &str, repository: &str) -> Option<&Login> {
        let name = format!("{registry}/{repository}");
        let mut part = name.as_str();
        loop {
            if let Some(login) = self.logins.get(part) {
                return Some(login);
            }
            part = part.rsplit_once('/')?.0;
        }
    }

    /// Whether the file left credentials to helper programs.
    pub(crate) const fn names_helpers(&self) -> bool {
        self.helpers
    }
}

/// The form that keys are compared in: Docker writes `https://index.docker.io/v1/`, people write
/// `docker.io`, other tools `host/path`.
fn place(key: &str) -> String {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let was_url = rest.is_some();
    let (host, path) = rest
        .unwrap_or(key)
        .split_once('/')
        .unwrap_or((rest.unwrap_or(key), ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_ascii_lowercase(),
    };
    let path = path.trim_end_matches('/');
    if was_url || matches!(path, "" | "v1" | "v2") {
        host
    } else {
        format!("{host}/{path}")
    }
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Entry {
    fn login(self) -> Result<Option<Login>> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Login::Token(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        if let Some(auth) = given(self.auth) {
            let bytes = STANDARD
                .decode(auth.trim())
                .map_err(|_| Error::Credentials {
                    why: "an auth field is not base64",
                })?;
            let text = String::from_utf8(bytes).map_err(|_| Error::Credentials {
                why: "an auth field is not UTF-8",
            })?;
            let (user, password) = text.split_once(':').ok_or(Error::Credentials {
                why: "an auth field is not user:password",
            })?;
            // Docker itself trims what an old version padded.
            let password = password.trim_end_matches('\0');
            return Ok(Some(Login::Password {
                user: user.to_owned(),
                password: password.to_owned(),
            }));
        }
        match (given(self.username), self.password) {
            (Some(user), Some(password)) => Ok(Some(Login::Password { user, password })),
            _ => Ok(None),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("registries", &self.logins.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::Identity(_) => "Identity(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Login {
        Login::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn row_176_null_in_a_config_is_not_there() {
        for text in [
            r#"{"auths":null,"credHelpers":null,"credsStore":null,"HttpHeaders":null}"#,
            r#"{"auths":{"a.example":null}}"#,
            r#"{"auths":{"a.example":{"auth":null,"email":null,"username":null}}}"#,
        ] {
            let read = Credentials::from_docker_config(text.as_bytes()).unwrap();
            assert!(read.login("a.example", "x").is_none() && !read.names_helpers());
        }
    }

    #[test]
    fn entries_are_found_as_docker_finds_them() {
        let config = format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{}"}},
                "Registry.example:5000": {{"username": "u", "password": "p"}},
                "registry.example:5000/team": {{"username": "t", "password": "q"}},
                "id.example": {{"identitytoken": "r"}},
                "token.example": {{"registrytoken": "b"}},
                "empty.example": {{}}
            }}, "credsStore": "desktop", "HttpHeaders": {{"x": "y"}}}}"#,
            STANDARD.encode("hub:pass:word")
        );
        let credentials = Credentials::from_docker_config(config.as_bytes()).unwrap();
        let login = |registry, repository| credentials.login(registry, repository).cloned();
        assert_eq!(
            login("docker.io", "library/busybox"),
            Some(password("hub", "pass:word"))
        );
        assert_eq!(
            login("registry.example:5000", "x/y"),
            Some(password("u", "p"))
        );
        assert_eq!(
            login("registry.example:5000", "team/y"),
            Some(password("t", "q"))
        );
        assert_eq!(
            login("registry.example:5000", "teams/y"),
            Some(password("u", "p"))
        );
        assert_eq!(login("registry.example", "x"), None);
        assert_eq!(
            login("id.example", "x"),
            Some(Login::Identity("r".to_owned()))
        );
        assert_eq!(
            login("token.example", "x"),
            Some(Login::Token("b".to_owned()))
        );
        assert_eq!(login("empty.example", "x"), None);
        assert!(credentials.names_helpers());
    }

    #[test]
    fn row_09_nothing_of_the_secrets_is_shown() {
        let credentials = Credentials::anonymous().with_password("x.y", "somebody", "hunter2");
        let login = credentials.login("x.y", "z").unwrap();
        let shown = format!("{credentials:?} {login:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("somebody"),
            "{shown}"
        );
        let broken =
            Credentials::from_docker_config(br#"{"auths": {"x": {"auth": "aHVudGVyMg=="}}}"#);
        assert!(!format!("{:?}", broken.unwrap_err()).contains("hunter2"));
        let broken = Credentials::from_docker_config(br#"{"auths": {"x": "hunter2"}}"#);
        assert!(!format!("{:?}", broken.unwrap_err()).contains("hunter2"));
    }
}
