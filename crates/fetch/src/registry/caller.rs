//! Who asks a registry, and whether the registry would give him a repository: asked without moving any
//! of it.

use std::fmt;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap};

use super::Client;
use super::resolve::manifest_types;
use super::session::{Access, Session};
use crate::answer::status_error;
use crate::credentials::Login;
use crate::{Credentials, Error, Reference, Result};

/// The time for all places together; who asks waits with a call of his own.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is sent to each place where an image can be had, so that two callers can be told apart. It
/// holds secrets and is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    bytes: Vec<u8>,
    has_login: bool,
}

impl Caller {
    /// Whether credentials go with the question.
    pub const fn has_login(&self) -> bool {
        self.has_login
    }

    /// All that tells this caller from others, secrets included: to be hashed and never stored.
    pub fn secret_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Each part with its length before it, so that no two lists of parts look alike.
    fn add(&mut self, part: &str) {
        self.bytes
            .extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.bytes.extend_from_slice(part.as_bytes());
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("has_login", &self.has_login)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Who would ask for `reference` with these credentials.
    pub fn caller(&self, reference: &Reference, credentials: &Credentials) -> Caller {
        let mut caller = Caller {
            bytes: Vec::new(),
            has_login: false,
        };
        for endpoint in self.network.config().endpoints(reference) {
            caller.add(&endpoint.registry);
            caller.add(&endpoint.repository);
            let login = credentials.login(&endpoint.registry, &endpoint.repository);
            caller.has_login |= login.is_some();
            match login {
                None => caller.add("anonymous"),
                Some(Login::Password { user, password }) => {
                    caller.add("password");
                    caller.add(user);
                    caller.add(password);
                }
                Some(Login::Identity(token)) => {
                    caller.add("identity");
                    caller.add(token);
                }
                Some(Login::Token(token)) => {
                    caller.add("token");
                    caller.add(token);
                }
            }
        }
        caller
    }

    /// Asks whether these credentials may have `reference`: one place that would give it is enough.
    /// What the last place says is what is reported.
    pub async fn may_pull(&self, reference: &Reference, credentials: &Credentials) -> Result<()> {
        let selector = reference.selector();
        let asked = async {
            let mut refused = None;
            for session in self.sessions(reference, credentials, Access::Pull) {
                match may_pull_at(&session, &selector).await {
                    Ok(()) => return Ok(()),
                    Err(error) => refused = Some(error),
                }
            }
            Err(refused.expect("a reference has at least its own registry"))
        };
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        asked.unwrap_or_else(|_| {
            let (what, after) = (reference.to_string(), PATIENCE);
            Err(Error::Stalled { what, after })
        })
    }
}

async fn may_pull_at(session: &Session, selector: &str) -> Result<()> {
    let what = format!("{} manifest {selector}", session.name());
    let url = session.url(&what, &format!("manifests/{selector}")).await?;
    let headers = HeaderMap::from_iter([(ACCEPT, manifest_types())]);
    let asked = session.request(&what, (Method::HEAD, url), headers, &|| None);
    let response = asked.await?;
    // Whom a registry sends elsewhere for the bytes may have them.
    if response.status().is_success() || response.status().is_redirection() {
        return Ok(());
    }
    Err(status_error(&what, &response))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddressPolicy, Config, Network, Proxies, Tuning};

    #[test]
    fn row_198_callers_with_different_logins_have_different_secrets() {
        let network = Network::with_proxies(
            Config::default(),
            AddressPolicy::new([]),
            Tuning::default(),
            Proxies::default(),
        );
        let client = Client::new(network);
        let caller = |repository: &str, user: &str, password: &str| {
            let login = Credentials::anonymous().with_password("registry.example", user, password);
            let reference = format!("registry.example/{repository}:v1");
            client.caller(&reference.parse().unwrap(), &login)
        };
        let alice = caller("site", "alice", "hunter2");
        assert_eq!(
            alice.secret_bytes(),
            caller("site", "alice", "hunter2").secret_bytes()
        );
        let anonymous = client.caller(
            &"registry.example/site:v1".parse().unwrap(),
            &Credentials::anonymous(),
        );
        for other in [
            caller("site", "alice", "hunter3"),
            caller("site", "alicehunter", "2"),
            caller("site", "bob", "hunter2"),
            caller("other", "alice", "hunter2"),
            anonymous,
        ] {
            assert_ne!(alice.secret_bytes(), other.secret_bytes());
        }
    }
}
