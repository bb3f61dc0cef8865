//! TLS by Longhorn's own certificates, as its instance manager speaks it: the Secret `longhorn-grpc-tls` is mounted
//! at `/tls-files`, and both sides must have a certificate of its authority. They name no program, so a caller
//! that shows one is Longhorn's control plane, and no more.
//!
//! Longhorn's backing image manager itself speaks no TLS (v1.10), and its pod has no such mount. Where an operator
//! adds one, callers with TLS are served beside those without.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{Acceptor, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};
use types::report;

use crate::credential::roots;
use crate::files::{CA_CERTIFICATE, CERTIFICATE, KEY, read};
use crate::held::{Held, Peer, Proof, SERVER_NAME_SUFFIX, peer_of, speaking};
use crate::{Error, Result, x509};

/// Where Longhorn mounts its Secret.
pub const DIRECTORY: &str = "/tls-files";
/// How old what was read may be when a client comes.
const FRESH: Duration = Duration::from_secs(10);

/// The certificates in a directory, read when they are needed.
#[derive(Debug)]
pub struct LonghornTls {
    directory: PathBuf,
    known: Mutex<Option<Known>>,
}

struct Known {
    read: Instant,
    texts: [String; 3],
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

impl LonghornTls {
    /// Those in a directory; `None`: nothing is mounted there.
    pub fn find(directory: &Path) -> Option<Self> {
        directory.join(CERTIFICATE).exists().then(|| {
            info!(
                "callers with Longhorn's certificates in {} are served too",
                directory.display()
            );
            Self {
                directory: directory.to_owned(),
                known: Mutex::default(),
            }
        })
    }

    /// Answers a client at a port that is Longhorn's as well as ours: whose certificate it is shown goes by the
    /// name that it asks for. `None`: it is Longhorn's control plane.
    ///
    /// # Errors
    /// See [`Held::accept`].
    pub async fn accept<S>(
        &self,
        held: Option<&Held>,
        stream: S,
        protocol: &[u8],
    ) -> io::Result<(TlsStream<S>, Option<Peer>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = hello
            .client_hello()
            .server_name()
            .unwrap_or_default()
            .to_owned();
        if let Some(held) = held.filter(|_| name.ends_with(SERVER_NAME_SUFFIX)) {
            let stream = hello
                .into_stream(held.serving(Proof::Required, protocol)?)
                .await?;
            let peer = peer_of(&stream)?;
            return Ok((stream, peer));
        }
        let config = self.config().map_err(io::Error::other)?;
        let config = speaking(&config, protocol);
        Ok((hello.into_stream(config).await?, None))
    }

    /// How to serve a client now: whoever replaces the files need not restart the program, and files that are of no
    /// use change nothing. It reads three small files of memory.
    ///
    /// # Errors
    /// There never were any of use.
    fn config(&self) -> Result<Arc<ServerConfig>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.read.elapsed() < FRESH) {
            return Ok(known.config.clone());
        }
        match (self.read(known.as_ref()), known.as_mut()) {
            (Ok(fresh), _) => {
                let config = fresh.config.clone();
                *known = Some(fresh);
                Ok(config)
            }
            (Err(error), Some(known)) => {
                warn!(
                    "Longhorn's certificates are not replaced: {}",
                    report(&error)
                );
                known.read = Instant::now();
                Ok(known.config.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn read(&self, known: Option<&Known>) -> Result<Known> {
        let text = |name| read(&self.directory.join(name));
        // A Secret's file has the mode that its mount says: that of the key is Longhorn's to choose.
        let texts = [text(CA_CERTIFICATE)?, text(CERTIFICATE)?, text(KEY)?];
        let config = match known.filter(|known| known.texts == texts) {
            Some(known) => known.config.clone(),
            None => serving(&texts)?,
        };
        Ok(Known {
            read: Instant::now(),
            texts,
            config,
        })
    }
}

/// As Go's servers do that require a client's certificate: TLS 1.2 or 1.3.
fn serving([ca, certificate, key]: &[String; 3]) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone())
            .build()
            .map_err(Error::invalid("root certificate"))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::crypto("serve TLS"))?
        .with_client_cert_verifier(clients)
        .with_single_cert(x509::certificates(certificate)?, x509::private_key(key)?)
        .map_err(Error::invalid("certificate"))?;
    Ok(Arc::new(config))
}
