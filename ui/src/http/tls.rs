//! The certificate that browsers are shown: two files, read again when they change.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use types::report;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// How often the files are read again.
const POLL: Duration = Duration::from_secs(10);
/// The largest file of certificates.
const FILE_MAX: u64 = 256 << 10;

/// Where the certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our certificate and those between it and an authority that browsers know, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// What is in them.
#[derive(PartialEq, Eq)]
struct Texts {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// Reads the certificate, and reads it again whenever the files have changed, until nobody listens by it any more. What
/// cannot be read is said in the log, and the last good one is kept.
///
/// # Errors
/// There is no good one to begin with.
pub async fn watch(files: Files) -> Result<watch::Receiver<Arc<ServerConfig>>> {
    let mut known = files.read()?;
    let (sender, receiver) = watch::channel(Arc::new(files.config(&known)?));
    tokio::spawn(async move {
        let mut said = String::new();
        while !sender.is_closed() {
            tokio::time::sleep(POLL).await;
            let read = files.read();
            let fresh = match read {
                Ok(texts) if texts == known => continue,
                Ok(texts) => files.config(&texts).map(|config| (texts, config)),
                Err(error) => Err(error),
            };
            match fresh {
                Ok((texts, config)) => {
                    tracing::info!(
                        "using the new certificate in {}",
                        files.certificate.display()
                    );
                    known = texts;
                    sender.send_replace(Arc::new(config));
                    said.clear();
                }
                Err(error) => {
                    let why = report(&error).to_string();
                    if why != said {
                        tracing::warn!("the certificate is not replaced: {why}");
                        said = why;
                    }
                }
            }
        }
    });
    Ok(receiver)
}

impl Files {
    fn read(&self) -> Result<Texts> {
        Ok(Texts {
            certificate: bytes(&self.certificate)?,
            key: Zeroizing::new(bytes(&self.key)?),
        })
    }

    fn config(&self, texts: &Texts) -> Result<ServerConfig> {
        let wrong = |path: &Path, why: String| Error::File {
            path: path.to_owned(),
            why,
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&texts.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(&self.certificate, error.to_string()))?;
        if chain.is_empty() {
            let why = "it holds no certificate in PEM format".to_owned();
            return Err(wrong(&self.certificate, why));
        }
        // What the parser says of a key may not show it.
        let key = PrivateKeyDer::from_pem_slice(&texts.key).map_err(|_| {
            wrong(
                &self.key,
                "it holds no private key in PEM format".to_owned(),
            )
        })?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&self.certificate, error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| {
                wrong(
                    &self.certificate,
                    format!("{error}; is {} its key?", self.key.display()),
                )
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// A file, which is small.
fn bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)
        .map_err(Error::io("open", path.display().to_string()))?
        .take(FILE_MAX);
    file.read_to_end(&mut bytes)
        .map_err(Error::io("read", path.display().to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_are_no_certificate_are_named_without_their_words() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            certificate: dir.path().join("tls.crt"),
            key: dir.path().join("tls.key"),
        };
        let said = |error: Error| report(&error).to_string();
        assert!(said(watch(files.clone()).await.unwrap_err()).contains("tls.crt"));
        crate::written(&files.certificate, "no certificate");
        crate::written(&files.key, "a secret word");
        let why = said(watch(files.clone()).await.unwrap_err());
        assert!(why.contains("tls.crt"), "{why}");
        assert!(!why.contains("secret word"), "{why}");
    }
}
