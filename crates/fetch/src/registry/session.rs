//! A conversation with one repository of one registry: the URLs, the credentials, the token.

use std::sync::Arc;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode};
use tokio::sync::{Mutex, OnceCell};
use url::Url;

use super::challenge::{self, Challenge};
use super::token::{self, Wanted};
use crate::config::Endpoint;
use crate::credentials::Login;
use crate::network::{Ask, MakeBody, Network};
use crate::proxy::Proxy;
use crate::tls::Trust;
use crate::{Credentials, Error, Result};

/// What may be done with a repository's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

#[derive(Debug)]
pub(super) struct Session {
    network: Network,
    endpoint: Endpoint,
    login: Option<Login>,
    /// The credentials file leaves some to helper programs, and no login was found.
    helpers: bool,
    scope: String,
    /// `https://host/v2/`, or with http where that was opted in and answered.
    base: OnceCell<Url>,
    authorization: Mutex<Authorization>,
}

/// What convinced the registry last.
#[derive(Debug, Default)]
struct Authorization {
    header: Option<HeaderValue>,
    /// Goes up with each renewal, so that of several refused at once only one renews.
    generation: u64,
}

impl Session {
    pub(super) fn new(
        network: &Network,
        endpoint: Endpoint,
        credentials: &Credentials,
        access: Access,
    ) -> Self {
        let login = credentials
            .login(&endpoint.registry, &endpoint.repository)
            .cloned();
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        Self {
            network: network.clone(),
            helpers: login.is_none() && credentials.names_helpers(),
            login,
            scope: format!("repository:{}:{actions}", endpoint.repository),
            endpoint,
            base: OnceCell::new(),
            authorization: Mutex::default(),
        }
    }

    /// `host/repository`, for messages.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.endpoint.host, self.endpoint.repository)
    }

    /// The URL of something in this repository: `manifests/latest`, `blobs/sha256:…`.
    pub(super) async fn url(&self, what: &str, rest: &str) -> Result<Url> {
        let base = self.base.get_or_try_init(|| self.find_base(what)).await?;
        let path = format!("{}/{rest}", self.endpoint.repository);
        let why = "the name of the registry is not valid in a URL";
        base.join(&path).map_err(|_| Error::Answer {
            what: what.to_owned(),
            why,
        })
    }

    /// Asks `/v2/` over https, and over http only where that was opted in and https does not answer.
    async fn find_base(&self, what: &str) -> Result<Url> {
        let bad = || Error::Answer {
            what: what.to_owned(),
            why: "the name of the registry is not valid in a URL",
        };
        let base = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}/v2/", self.endpoint.host)).map_err(|_| bad())
        };
        let https = base("https")?;
        if !self.endpoint.trust.insecure {
            return Ok(https);
        }
        let probe = Request::new(Method::GET, https.clone());
        match self.network.send(what, probe, &self.endpoint.trust).await {
            Ok(_) => Ok(https),
            Err(Error::Unreachable { .. } | Error::Untrusted { .. } | Error::Stalled { .. }) => {
                base("http")
            }
            Err(error) => Err(error),
        }
    }

    /// A GET. A 401 is answered once with a new token, then it is final.
    pub(super) async fn get(
        &self,
        what: &str,
        rest: &str,
        mut headers: HeaderMap,
    ) -> Result<Response> {
        let url = self.url(what, rest).await?;
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let target = (Method::GET, url);
        self.request(what, target, headers, &|| None).await
    }

    /// A request, with redirects followed. `url` may be another host's, as the place of an upload is:
    /// credentials go only to this registry.
    pub(super) async fn request(
        &self,
        what: &str,
        (method, url): (Method, Url),
        headers: HeaderMap,
        body: &MakeBody<'_>,
    ) -> Result<Response> {
        let base = self.url(what, "").await?;
        if base.scheme() == "https" && url.scheme() != "https" {
            let why = "the registry redirects from https to http";
            return Err(Error::Answer {
                what: what.to_owned(),
                why,
            });
        }
        let exchange = Exchange {
            own: url.origin() == base.origin(),
            trust: self.network.trust_at(&url, &base, &self.endpoint.trust),
            method,
            url,
            headers,
            body,
        };
        self.convinced(what, exchange).await
    }

    /// Sends with what we have, and once more with what a 401 asks for.
    async fn convinced(&self, what: &str, exchange: Exchange<'_>) -> Result<Response> {
        let (header, generation) = {
            let authorization = self.authorization.lock().await;
            (authorization.header.clone(), authorization.generation)
        };
        let response = self.send(what, &exchange, header).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let header = self.renew(what, generation, response.headers()).await?;
        drop(response);
        let response = self.send(what, &exchange, Some(header)).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.refused(
                what,
                "the registry rejects the authentication that it \
                                           requested",
            ));
        }
        Ok(response)
    }

    async fn send(
        &self,
        what: &str,
        exchange: &Exchange<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response> {
        let ask = Ask {
            what,
            method: exchange.method.clone(),
            url: exchange.url.clone(),
            headers: exchange.headers.clone(),
            authorization: authorization.filter(|_| exchange.own),
            private: &HeaderMap::new(),
            trust: &exchange.trust,
            proxy: &Proxy::Environment,
            stall: self.network.tuning().stall_timeout,
            body: exchange.body,
        };
        self.network.ask(ask).await
    }

    /// Gets what the refused answer asks for, unless somebody else just did.
    async fn renew(&self, what: &str, generation: u64, refusal: &HeaderMap) -> Result<HeaderValue> {
        let mut authorization = self.authorization.lock().await;
        if authorization.generation > generation
            && let Some(header) = &authorization.header
        {
            return Ok(header.clone());
        }
        let known = authorization.header.take();
        let header = match (challenge::best(refusal), &self.login) {
            (_, Some(Login::Token(token))) => token::bearer_header(token),
            (Some(Challenge::Bearer(bearer)), login) => {
                let (endpoint, scope, login) =
                    (&self.endpoint, self.scope.as_str(), login.as_ref());
                let base = &self.url(what, "").await?;
                let wanted = Wanted {
                    what,
                    endpoint,
                    base,
                    login,
                    scope,
                };
                Some(token::fetch(&self.network, &wanted, &bearer).await?)
            }
            (Some(Challenge::Basic), Some(Login::Password { user, password })) => {
                token::basic_header(user, password)
            }
            (Some(Challenge::Basic), _) => {
                return Err(self.refused(what, "it requires a user and a password"));
            }
            (None, _) => {
                return Err(self.refused(
                    what,
                    "it does not say which authentication it \
                                                        requires",
                ));
            }
        };
        match header {
            None => Err(self.refused(what, "our credentials cannot be sent in a header")),
            // The same thing again would be refused again.
            Some(header) if known.as_ref() == Some(&header) => {
                Err(self.refused(what, "the registry refuses our credentials"))
            }
            Some(header) => {
                authorization.header = Some(header.clone());
                authorization.generation += 1;
                Ok(header)
            }
        }
    }

    fn refused(&self, what: &str, why: &str) -> Error {
        let registry = &self.endpoint.registry;
        let next = match (&self.login, self.helpers) {
            (Some(_), _) => format!("check the password or token for {registry}"),
            (None, true) => format!(
                "the Docker config leaves {registry} to a credential helper, and helpers are not run: \
                 write an auth entry"
            ),
            (None, false) => format!("give credentials for {registry} in a Docker config.json"),
        };
        Error::Unauthenticated {
            what: what.to_owned(),
            why: format!("{why}; {next}"),
        }
    }
}

/// A request that can be sent again with another token.
struct Exchange<'a> {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: &'a MakeBody<'a>,
    /// Whether it goes to the registry itself, which alone gets the credentials.
    own: bool,
    trust: Trust,
}

/// The places where an image can be had, in order.
pub(super) type Sessions = Arc<[Arc<Session>]>;
