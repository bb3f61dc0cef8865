//! The credential that a running program holds now. It may have none yet, and gets others while it runs: connections
//! that are made from then on use them, and those that are there go on.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::credential::{self, Credential};
use crate::identity::{Identity, Role};
use crate::verify::{self, Expected};
use crate::{Error, Result, x509};

/// What is spoken inside: HTTP/2 (RFC 9113, section 3.2).
pub const H2: &[u8] = b"h2";
/// What is spoken inside: HTTP/1.1 (RFC 7301, section 6).
pub const HTTP1: &[u8] = b"http/1.1";
/// The names by which a client asks for our certificate; a port of Longhorn's has another one as well. Nothing
/// is proven by them.
pub const SERVER_NAME_SUFFIX: &str = ".base-image.longhorn.io";

/// TLS 1.3 alone, by ring. AES comes first where the processor has it: it is several times as fast as ChaCha20
/// there, and several times slower where it has not.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let (fast, small) = (TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256);
    let cipher_suites = if has_aes() {
        vec![fast, TLS13_AES_256_GCM_SHA384, small]
    } else {
        vec![small, fast, TLS13_AES_256_GCM_SHA384]
    };
    Arc::new(CryptoProvider {
        cipher_suites,
        ..ring::default_provider()
    })
});

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn has_aes() -> bool {
    false
}

/// The credential of a program while it runs. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Held {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    ready: Option<Arc<Ready>>,
    /// What the last attempt to get or renew it came to, where it failed.
    failure: Option<String>,
}

/// A credential, and what is made of it once.
struct Ready {
    credential: Credential,
    /// For clients that have to prove themselves.
    mutual: Arc<ServerConfig>,
    /// For clients that may.
    open: Arc<ServerConfig>,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.credential.fmt(f)
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it has proven to be.
    pub identity: Identity,
    /// Until when the proof is good: a connection is not to live longer.
    pub until: SystemTime,
}

/// Whether a client has to prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// Whoever has no certificate is not served.
    #[default]
    Required,
    /// It may come without: it proves itself by other means, a token.
    Optional,
}

impl Held {
    /// None yet; `why` is what is waited for.
    pub fn awaited(why: &str) -> Self {
        let state = State {
            ready: None,
            failure: Some(why.to_owned()),
        };
        Self {
            state: Arc::new(watch::Sender::new(state)),
        }
    }

    /// Holds a credential from now on.
    ///
    /// # Errors
    /// The library does not take it.
    pub fn set(&self, credential: Credential) -> Result<()> {
        let ready = Arc::new(Ready::new(credential)?);
        self.state.send_replace(State {
            ready: Some(ready),
            failure: None,
        });
        Ok(())
    }

    /// Believes those who are in a bundle from now on; whether that was a change. Without a credential it is none.
    ///
    /// # Errors
    /// They are no certificates: who was believed is believed on.
    pub fn believe(&self, roots_pem: &str) -> Result<bool> {
        match self.credential() {
            Some(credential) if credential.roots_pem() != roots_pem => {
                self.set(credential.with_roots(roots_pem)?)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Says why a credential could not be got or renewed; the one that is there stays.
    pub fn failed(&self, why: String) {
        self.state.send_modify(|state| state.failure = Some(why));
    }

    /// The credential that is there, expired or not.
    pub fn credential(&self) -> Option<Credential> {
        let state = self.state.borrow();
        state.ready.as_ref().map(|ready| ready.credential.clone())
    }

    /// Waits until there is a credential.
    pub async fn ready(&self) {
        let mut states = self.state.subscribe();
        // The sender lives as long as we do.
        let _ = states.wait_for(|state| state.ready.is_some()).await;
    }

    /// Why no other program would believe this one now: for a readiness check. `None`: all is well.
    pub fn trouble(&self, now: SystemTime) -> Option<String> {
        let state = self.state.borrow();
        let why = || {
            let why = state.failure.as_deref();
            why.unwrap_or("nobody has answered yet").to_owned()
        };
        match &state.ready {
            None => Some(format!("waiting for a certificate: {}", why())),
            Some(ready) if ready.credential.not_after() <= now => Some(format!(
                "the certificate of this program has expired: {}",
                why()
            )),
            Some(_) => None,
        }
    }

    /// What was the matter the last time that the credential was to be got or renewed.
    pub fn failure(&self) -> Option<String> {
        self.state.borrow().failure.clone()
    }

    fn current(&self) -> io::Result<Arc<Ready>> {
        let ready = self.state.borrow().ready.clone();
        ready.ok_or_else(|| io::Error::other("this program has no certificate yet"))
    }

    /// Answers a client: the handshake, and who it is. Who drops this ends the connection.
    ///
    /// # Errors
    /// There is no credential yet, the client speaks no TLS 1.3, nobody we believe has certified it, or its
    /// certificate has expired or names no program.
    pub async fn accept<S>(
        &self,
        stream: S,
        proof: Proof,
        protocol: &[u8],
    ) -> io::Result<(server::TlsStream<S>, Option<Peer>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.serving(proof, protocol)?;
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let peer = peer_of(&stream)?;
        Ok((stream, peer))
    }

    /// How to serve a client now, who is told that `protocol` is spoken inside and no other.
    pub(crate) fn serving(&self, proof: Proof, protocol: &[u8]) -> io::Result<Arc<ServerConfig>> {
        let ready = self.current()?;
        let config = match proof {
            Proof::Required => &ready.mutual,
            Proof::Optional => &ready.open,
        };
        Ok(speaking(config, protocol))
    }

    /// Greets a server: the handshake, and who it has proven to be.
    ///
    /// # Errors
    /// There is no credential yet, or the server is not who is meant.
    pub async fn connect<S>(
        &self,
        stream: S,
        expected: &Expected,
        protocol: &[u8],
    ) -> io::Result<(client::TlsStream<S>, Identity)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let ready = self.current()?;
        let certified = (*ready.credential.certified).clone();
        let config = trusting(ready.credential.roots(), expected)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        greet(config, stream, expected.role, protocol).await
    }
}

/// Who a client has proven to be.
pub(crate) fn peer_of<S>(stream: &server::TlsStream<S>) -> io::Result<Option<Peer>> {
    let leaf = stream.get_ref().1.peer_certificates();
    let Some(leaf) = leaf.and_then(<[_]>::first) else {
        return Ok(None);
    };
    Ok(Some(Peer {
        identity: x509::identity(leaf).map_err(io::Error::other)?,
        until: x509::validity(leaf).map_err(io::Error::other)?.not_after,
    }))
}

/// Greets a server without proving who we are: to get a certificate.
///
/// # Errors
/// The roots are no certificates, or the server is not who is meant.
pub async fn connect_unproven<S>(
    roots_pem: &str,
    stream: S,
    expected: &Expected,
    protocol: &[u8],
) -> io::Result<(client::TlsStream<S>, Identity)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let roots = credential::roots(roots_pem).map_err(io::Error::other)?;
    let config = trusting(Arc::new(roots), expected).with_no_client_auth();
    greet(config, stream, expected.role, protocol).await
}

async fn greet<S>(
    mut config: ClientConfig,
    stream: S,
    role: Role,
    protocol: &[u8],
) -> io::Result<(client::TlsStream<S>, Identity)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(format!("{role}{SERVER_NAME_SUFFIX}"));
    let name = name.map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let leaf = stream.get_ref().1.peer_certificates();
    let leaf = leaf
        .and_then(<[_]>::first)
        .ok_or_else(|| io::Error::other("the server has shown no certificate"))?;
    let identity = x509::identity(leaf).map_err(io::Error::other)?;
    Ok((stream, identity))
}

/// A client that believes those roots, and talks to nobody but `expected`.
fn trusting(
    roots: Arc<RootCertStore>,
    expected: &Expected,
) -> ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let verifier = verify::Server::new(roots, PROVIDER.clone(), expected.clone());
    ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

impl Ready {
    fn new(credential: Credential) -> Result<Self> {
        let verifier =
            || WebPkiClientVerifier::builder_with_provider(credential.roots(), PROVIDER.clone());
        let required = verifier().build();
        let optional = verifier().allow_unauthenticated().build();
        let required = required.map_err(Error::invalid("root certificate"))?;
        let optional = optional.map_err(Error::invalid("root certificate"))?;
        Ok(Self {
            mutual: serving(required, &credential)?,
            open: serving(optional, &credential)?,
            credential,
        })
    }
}

/// The same server for one protocol inside (RFC 7301): what a port does not speak it does not offer.
pub(crate) fn speaking(config: &ServerConfig, protocol: &[u8]) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// A server that proves itself by a credential.
fn serving(
    clients: Arc<dyn rustls::server::danger::ClientCertVerifier>,
    credential: &Credential,
) -> Result<Arc<ServerConfig>> {
    let builder: ConfigBuilder<ServerConfig, WantsVerifier> =
        ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(Error::crypto("serve TLS"))?;
    let certified = (*credential.certified).clone();
    let mut config = builder
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.ignore_client_order = true;
    // A resumed session would be that of a certificate that was checked long ago.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
