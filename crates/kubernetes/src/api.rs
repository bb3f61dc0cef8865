//! The connection to the API server as the account of this pod: the files that Kubernetes puts into every pod
//! say whom to believe and who we are, and both change while the pod runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::error::Cause;
use crate::{Error, Result};

/// Where Kubernetes puts the files of a pod's service account: `token`, `ca.crt` and `namespace`.
pub const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The time that a call may take. The API server answers in milliseconds when it is well.
const DEADLINE: Duration = Duration::from_secs(10);
/// The time to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The largest answer. An object has at most 1.5 MiB in etcd, and a Secret is base 64 within JSON.
const ANSWER_MAX: usize = 4 << 20;
/// Characters of the API server's own words that are shown.
const MESSAGE_MAX: usize = 300;
/// The largest file of a service account: a bundle of certificates, at most.
const FILE_MAX: u64 = 256 << 10;

/// The API server, asked as the account of this pod.
pub struct Api {
    /// `https://HOST:PORT`.
    server: String,
    account: PathBuf,
    namespace: String,
    /// The client, and the certificates that it believes. They change when the cluster gets another
    /// authority.
    client: Mutex<Option<(Arc<[u8]>, Client)>>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// What is asked, with what is said of it when it fails.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Below the server, with a slash in front.
    pub(crate) path: String,
    /// The body with its content type.
    pub(crate) body: Option<(&'static str, &'a Value)>,
    /// A verb and an object, for people.
    pub(crate) operation: String,
    /// The rule of RBAC that it needs.
    pub(crate) rule: String,
    /// Whether the API server's own words may be shown when it refuses: nothing in the request is secret.
    pub(crate) shown: bool,
}

/// What came of a call that reached the API server and that it understood.
pub(crate) enum Outcome {
    Done(Value),
    NotFound,
    Conflict,
}

impl Api {
    /// The API server of the cluster in which this process runs, by its environment (`KUBERNETES_SERVICE_HOST`,
    /// `KUBERNETES_SERVICE_PORT`), asked as the account in the directory `account` ([`ACCOUNT_DIR`]).
    ///
    /// # Errors
    /// The environment is not that of a pod, or the files are not there.
    pub async fn in_cluster(account: &Path) -> Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = variable("KUBERNETES_SERVICE_HOST").ok_or(Error::NoServer)?;
        let port = variable("KUBERNETES_SERVICE_PORT").ok_or(Error::NoServer)?;
        // The environment has an IPv6 address without brackets.
        let host = match host.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host,
        };
        Self::at(format!("https://{host}:{port}"), account).await
    }

    /// The same with the address of the server, for where the environment does not say it.
    pub async fn at(server: String, account: &Path) -> Result<Self> {
        let path = account.join("namespace");
        let namespace = text(&path).await?;
        let namespace = namespace.trim();
        if !is_name(namespace) {
            let why = "it should be the name of a namespace";
            return Err(Error::Account { path, why });
        }
        Ok(Self {
            server,
            account: account.to_owned(),
            namespace: namespace.to_owned(),
            client: Mutex::default(),
        })
    }

    /// The namespace of this pod. All objects are looked for here.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client that believes what `ca.crt` says now.
    async fn client(&self) -> Result<Client> {
        let path = self.account.join("ca.crt");
        let believed = bytes(&path).await?;
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = &*client
            && **known == *believed
        {
            return Ok(client.clone());
        }
        let new = connect(&believed, &path)?;
        *client = Some((believed.into(), new.clone()));
        Ok(new)
    }

    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Outcome> {
        let operation = call.operation.clone();
        match tokio::time::timeout(DEADLINE, self.answer(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Deadline {
                operation,
                after: DEADLINE,
            }),
        }
    }

    async fn answer(&self, call: Call<'_>) -> Result<Outcome> {
        let Call {
            method,
            path,
            body,
            operation,
            rule,
            shown,
        } = call;
        // It is replaced every hour.
        let token = text(&self.account.join("token")).await?;
        let url = format!("{}{path}", self.server);
        let client = self.client().await?;
        let mut request = client.request(method, url).bearer_auth(token.trim());
        if let Some((kind, body)) = body {
            request = request
                .header(reqwest::header::CONTENT_TYPE, kind)
                .body(body.to_string());
        }
        let unreachable = |error: reqwest::Error| Error::Unreachable {
            operation: operation.clone(),
            source: Cause::new(error.without_url()),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > ANSWER_MAX {
                let why = "has more than 4 MiB";
                return Err(Error::Answer { operation, why });
            }
            body.extend_from_slice(&part);
        }
        match status {
            StatusCode::NOT_FOUND => Ok(Outcome::NotFound),
            StatusCode::CONFLICT => Ok(Outcome::Conflict),
            StatusCode::UNAUTHORIZED => Err(Error::Unauthenticated { operation }),
            StatusCode::FORBIDDEN => Err(Error::Forbidden { operation, rule }),
            status if status.is_success() => match serde_json::from_slice(&body) {
                Ok(object) => Ok(Outcome::Done(object)),
                Err(_) => Err(Error::Answer {
                    operation,
                    why: "is not JSON",
                }),
            },
            status => Err(Error::Refused {
                operation,
                status: status.as_u16(),
                reason: reason(&body, shown),
            }),
        }
    }
}

/// Why the API server refuses, in its own word (`Invalid`, `Timeout`): its message may show what was in the
/// request, and is added only where that may be `shown`.
fn reason(body: &[u8], shown: bool) -> String {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let word = word(&status);
    match status["message"].as_str() {
        Some(message) if shown => {
            let printable = message.chars().filter(|c| !c.is_control());
            format!(
                "{word}: {}",
                printable.take(MESSAGE_MAX).collect::<String>()
            )
        }
        _ => word,
    }
}

fn word(status: &Value) -> String {
    match status["reason"].as_str() {
        Some(word)
            if (1..=64).contains(&word.len())
                && word.bytes().all(|byte| byte.is_ascii_alphabetic()) =>
        {
            format!(" ({word})")
        }
        _ => String::new(),
    }
}

/// A client that believes the certificates of `pem` alone, whatever proxies the environment names.
fn connect(pem: &[u8], path: &Path) -> Result<Client> {
    let invalid = |why| Error::Account {
        path: path.to_owned(),
        why,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|_| invalid("it should be certificates in PEM format"))?;
        roots
            .add(certificate)
            .map_err(|_| invalid("it holds a certificate that cannot be read"))?;
    }
    if roots.is_empty() {
        return Err(invalid("it holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Client(Cause::new(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // One connection for many calls at once.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        // A connection that broke without a word is found out by this, not by calls that time out.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(DEADLINE)
        .user_agent(concat!("longhorn-base-image/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::Client(Cause::new(error)))
}

/// Whether a text may be the name of an object, and so part of a path (RFC 1123 subdomains).
pub fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        && !text.starts_with(['-', '.'])
}

async fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path).await?).map_err(|_| Error::Account {
        path: path.to_owned(),
        why: "it should be text",
    })
}

async fn bytes(path: &Path) -> Result<Vec<u8>> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(Error::file(path))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX)
        .read_to_end(&mut bytes)
        .await
        .map_err(Error::file(path))?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
