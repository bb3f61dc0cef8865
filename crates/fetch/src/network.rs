//! One HTTP exchange under our rules: addresses, TLS, redirects and time.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::url::{Host, Url};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Client, Method, Request, Response, StatusCode};
use rustls::pki_types::CertificateDer;

use crate::address::{CheckedResolver, Refused, authority};
use crate::proxy::{Proxies, Proxy};
use crate::tls::{Trust, client_config};
use crate::{AddressPolicy, Config, Error, Result};

/// The most redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// Clients that are kept.
const CLIENTS_MAX: usize = 32;
/// What we call ourselves, as RFC 9110 section 10.1.5 asks of clients.
const USER_AGENT: &str = concat!("backing-image-manager/", env!("CARGO_PKG_VERSION"));

/// How patient we are.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// For TCP and TLS to be set up.
    pub connect_timeout: Duration,
    /// Without a byte, before a transfer counts as broken.
    pub stall_timeout: Duration,
    /// Failures in a row, without progress between them, before a server is given up.
    pub attempts: u32,
    /// The same once bytes have come: what is there already is worth more patience.
    pub attempts_under_way: u32,
    /// The pause after the first failure; it doubles from there.
    pub backoff: Duration,
    /// The longest pause of our own.
    pub backoff_max: Duration,
    /// The longest pause that a server can ask for with `Retry-After`.
    pub retry_after_max: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            attempts: 6,
            // With the pauses below, about two minutes.
            attempts_under_way: 14,
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(15),
            retry_after_max: Duration::from_mins(1),
        }
    }
}

/// The way out of this process: registries and URLs share it.
#[derive(Debug, Clone)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    policy: AddressPolicy,
    tuning: Tuning,
    /// One client, with its pool of connections, for each way to trust and each proxy.
    clients: Mutex<HashMap<(Trust, Proxy), Client>>,
    /// Those of the environment, where they are heeded.
    proxies: Proxies,
    /// The system's certificate authorities, loaded when TLS is first needed.
    system: OnceLock<Vec<CertificateDer<'static>>>,
}

/// Makes the body of a request, once for each time that it is sent.
pub(crate) type MakeBody<'a> = dyn Fn() -> Option<Body> + Send + Sync + 'a;

/// A request that may be redirected.
pub(crate) struct Ask<'a> {
    /// What is asked for, in messages.
    pub(crate) what: &'a str,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Sent to the first host alone.
    pub(crate) authorization: Option<HeaderValue>,
    /// Sent to the first host alone, as well.
    pub(crate) private: &'a HeaderMap,
    pub(crate) trust: &'a Trust,
    pub(crate) proxy: &'a Proxy,
    /// How long the server may think.
    pub(crate) stall: Duration,
    pub(crate) body: &'a MakeBody<'a>,
}

impl Network {
    /// Connects only as `config` and `policy` let it. Nothing of the environment is heeded.
    pub fn new(config: Config, policy: AddressPolicy, tuning: Tuning) -> Self {
        Self::with_proxies(config, policy, tuning, Proxies::default())
    }

    /// The same through `proxies`, which the operator of this program chose: names are theirs to
    /// resolve, and what they connect to is theirs to limit. Hosts that are written as an address are
    /// checked here all the same.
    pub fn with_proxies(
        config: Config,
        policy: AddressPolicy,
        tuning: Tuning,
        proxies: Proxies,
    ) -> Self {
        let (clients, system) = (Mutex::default(), OnceLock::new());
        Self(Arc::new(Inner {
            config,
            policy,
            tuning,
            clients,
            proxies,
            system,
        }))
    }

    /// The same way out for who does not wait: a server that fails is tried once more, and that soon.
    #[must_use]
    pub fn impatient(&self) -> Self {
        let tuning = Tuning {
            attempts: 2,
            attempts_under_way: 2,
            backoff_max: Duration::from_secs(1),
            retry_after_max: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(5),
            ..self.0.tuning
        };
        let Inner {
            config,
            policy,
            proxies,
            ..
        } = &*self.0;
        Self::with_proxies(config.clone(), policy.clone(), tuning, proxies.clone())
    }

    /// Which addresses may be connected to.
    pub fn policy(&self) -> &AddressPolicy {
        &self.0.policy
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn tuning(&self) -> Tuning {
        self.0.tuning
    }

    fn client(&self, trust: &Trust, proxy: &Proxy) -> Result<Client> {
        let mut clients = self
            .0
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = (trust.clone(), proxy.clone());
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        // Authorities and proxies of single downloads must not pile up.
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        let bad_proxy = |_| Error::Option {
            option: "proxy",
            why: "it cannot be used",
        };
        let (rules, trusted) = match proxy {
            Proxy::Direct => (Vec::new(), Vec::new()),
            Proxy::Environment => (
                self.0.proxies.rules().map_err(bad_proxy)?,
                self.0.proxies.hosts(),
            ),
            Proxy::Through(url) => {
                // Whoever names it must not reach by it what is refused otherwise.
                self.check(url)?;
                let rule = reqwest::Proxy::all(url.clone()).map_err(bad_proxy)?;
                (vec![rule], Vec::new())
            }
        };
        let system = self
            .0
            .system
            .get_or_init(|| rustls_native_certs::load_native_certs().certs);
        let builder = Client::builder()
            .tls_backend_preconfigured(client_config(trust, system)?)
            .http1_only()
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.0.tuning.connect_timeout)
            .dns_resolver(Arc::new(CheckedResolver {
                policy: self.0.policy.clone(),
                trusted,
            }))
            .user_agent(USER_AGENT);
        let client = rules
            .into_iter()
            .fold(builder, reqwest::ClientBuilder::proxy)
            .build()
            .map_err(|error| Error::Tls {
                why: error.to_string(),
            })?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// Refuses what never goes out: other schemes, and hosts written as a refused address.
    fn check(&self, url: &Url) -> Result<()> {
        let refuse = |why| Error::Url {
            url: shown(url),
            why,
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("only http and https are fetched"));
        }
        let address = match url.host() {
            None => return Err(refuse("it names no host")),
            Some(Host::Domain(_)) => return Ok(()),
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        self.0
            .policy
            .check(address)
            .map_err(|why| Error::Forbidden { host, address, why })
    }

    /// One request, one answer, whatever its status; redirects are not followed.
    pub(crate) async fn send(
        &self,
        what: &str,
        request: Request,
        trust: &Trust,
    ) -> Result<Response> {
        let stall = self.0.tuning.stall_timeout;
        self.send_by(what, request, trust, (&Proxy::Environment, stall))
            .await
    }

    async fn send_by(
        &self,
        what: &str,
        request: Request,
        trust: &Trust,
        (proxy, stall): (&Proxy, Duration),
    ) -> Result<Response> {
        self.check(request.url())?;
        let host = authority(request.url());
        let has_body = request.body().is_some();
        let sent = self.client(trust, proxy)?.execute(request);
        // An upload may take any time; its connection is watched by TCP alone.
        let answer = if has_body {
            sent.await
        } else {
            let after = self.0.tuning.connect_timeout + stall;
            match tokio::time::timeout(after, sent).await {
                Ok(answer) => answer,
                Err(_) => {
                    return Err(Error::Stalled {
                        what: what.to_owned(),
                        after,
                    });
                }
            }
        };
        answer.map_err(|error| unreachable(what, host, error))
    }

    /// A request whose redirects are followed: at most 5, each checked as the first URL was, without
    /// credentials once another host is asked, and never from https to http. What has a body is sent
    /// again only where the answer says that method and body stay (307 and 308); other redirects of it
    /// are answers like any other.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Response> {
        let Ask {
            what,
            method,
            mut url,
            headers,
            mut authorization,
            private,
            trust,
            proxy,
            stall,
            body,
        } = ask;
        let mut private = Some(private);
        let first = url.clone();
        let refuse = |why| Error::Answer {
            what: what.to_owned(),
            why,
        };
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::new(method.clone(), url.clone());
            *request.headers_mut() = headers.clone();
            *request.body_mut() = body();
            let besides = private.into_iter().flatten();
            for (name, value) in besides.filter(|(name, _)| *name != AUTHORIZATION) {
                request.headers_mut().append(name, value.clone());
            }
            if let Some(value) = &authorization {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            let trust = self.trust_at(&url, &first, trust);
            let way = (proxy, stall);
            let response = self.send_by(what, request, &trust, way).await?;
            // What another host asks for is not the first one's challenge to answer.
            if response.status() == StatusCode::UNAUTHORIZED && url.origin() != first.origin() {
                return Err(refuse("the redirect target requires credentials"));
            }
            if !is_redirect(&method, response.status()) {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let next = target.and_then(|target| url.join(target).ok());
            let next = next.ok_or_else(|| refuse("it redirects to no usable URL"))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(refuse("it redirects from https to http"));
            }
            if !next.username().is_empty() || next.password().is_some() {
                return Err(refuse("it redirects to a URL with credentials"));
            }
            if next.origin() != url.origin() {
                authorization = None;
                private = None;
            }
            url = next;
        }
        Err(refuse("it redirects more than 5 times"))
    }

    /// How far the host of `url` is trusted: as configured for it; as `first` when it is the same;
    /// else as anyone, though an authority that vouches for the first may vouch for the next.
    pub(crate) fn trust_at(&self, url: &Url, first: &Url, trust: &Trust) -> Trust {
        if url.origin() == first.origin() {
            return trust.clone();
        }
        match self.0.config.trust_of(&authority(url)) {
            Some(trust) => trust.clone(),
            None => Trust {
                insecure: false,
                ca_file: trust.ca_file.clone(),
                authorities: trust.authorities.clone(),
            },
        }
    }
}

/// Whether `status` sends a request of this kind elsewhere as it is (RFC 9110 section 15.4).
fn is_redirect(method: &Method, status: StatusCode) -> bool {
    let changes_nothing = matches!(*method, Method::GET | Method::HEAD);
    match status.as_u16() {
        307 | 308 => true,
        301..=303 => changes_nothing,
        _ => false,
    }
}

/// A URL as it may be shown: user, password, query and fragment can be secrets.
pub(crate) fn shown(url: &Url) -> String {
    let query = if url.query().is_some() { "?…" } else { "" };
    let path: String = url.path().chars().take(256).collect();
    format!("{}://{}{path}{query}", url.scheme(), authority(url))
}

/// Looks inside the HTTP client's error for what will be the same the next time: a refusal of ours,
/// and a TLS handshake that cannot succeed.
fn unreachable(what: &str, host: String, error: reqwest::Error) -> Error {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(Refused { host, address, why }) = cause.downcast_ref::<Refused>() {
            return Error::Forbidden {
                host: host.clone(),
                address: *address,
                why,
            };
        }
        if let Some(source) = cause.downcast_ref::<rustls::Error>()
            && let Some(why) = why_untrusted(source)
        {
            let (what, source) = (what.to_owned(), Box::new(source.clone()));
            return Error::Untrusted {
                what,
                host,
                why,
                source,
            };
        }
        // An I/O error shows what it wraps by `get_ref` alone.
        let wrapped = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    Error::Unreachable {
        what: what.to_owned(),
        host,
        source: error.without_url(),
    }
}

fn why_untrusted(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidCertificate(_) => Some(
            "name the authority that signed its certificate: as ca-file in the registry configuration, \
             or with the download",
        ),
        rustls::Error::InvalidMessage(_) => Some(
            "it does not speak TLS; if this is meant, set insecure = true for it in the registry \
             configuration",
        ),
        _ => None,
    }
}
