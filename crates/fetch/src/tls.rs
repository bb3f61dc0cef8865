//! Whom to believe on the other end of a connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::{Error, Result};

/// How far a host is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Trust {
    /// Plain HTTP, or a certificate that nobody vouches for, is good enough.
    pub(crate) insecure: bool,
    /// Certificate authorities besides the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// More of them, as PEM, of one download.
    pub(crate) authorities: Option<Arc<[u8]>>,
}

/// The TLS side of a client that trusts `trust` and the system's authorities.
pub(crate) fn client_config(
    trust: &Trust,
    system: &[CertificateDer<'static>],
) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls {
            why: error.to_string(),
        })?;
    let mut config = if trust.insecure {
        let verifier = Arc::new(Unverified(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        // Some systems ship authorities that cannot be parsed; the others are still good.
        roots.add_parsable_certificates(system.iter().cloned());
        if let Some(path) = &trust.ca_file {
            for certificate in ca_certificates(path)? {
                let bad = |error: rustls::Error| Error::Tls {
                    why: format!(
                        "{} holds a certificate that is not valid: {error}",
                        path.display()
                    ),
                };
                roots.add(certificate).map_err(bad)?;
            }
        }
        let of_request = trust.authorities.as_deref().and_then(pem_certificates);
        roots.add_parsable_certificates(of_request.unwrap_or_default());
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    // HTTP/1.1 alone: one stream of one blob is what we want, without HTTP/2's windows around it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates of a PEM file, at least one.
fn ca_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = |source| Error::File {
        operation: "read the ca-file",
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::read(path).map_err(read)?;
    let broken = || Error::Tls {
        why: format!("the ca-file {} holds no PEM certificate", path.display()),
    };
    pem_certificates(&bytes).ok_or_else(broken)
}

/// The certificates of a PEM text, at least one.
pub(crate) fn pem_certificates(bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    certificates.ok().filter(|all| !all.is_empty())
}

/// Takes any certificate: only for a registry that the configuration calls insecure.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
