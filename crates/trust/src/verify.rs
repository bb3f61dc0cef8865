//! What is checked of the other side's certificate: an authority that we believe signed it, it is good now, and
//! it names the program that we mean to talk to. Host names and addresses prove nothing here.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use types::NodeId;

use crate::identity::{Identity, Role};
use crate::x509;
use crate::{Error, Result};

/// Whom a client means to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What it has to be.
    pub role: Role,
    /// Where it has to be, where that is known.
    pub node: Option<NodeId>,
}

impl Expected {
    /// A program of that role, on whatever node.
    pub const fn role(role: Role) -> Self {
        Self { role, node: None }
    }

    /// Whether a program is the one that is meant.
    ///
    /// # Errors
    /// It is another one; the error names both.
    pub fn check(&self, found: &Identity) -> Result<()> {
        let elsewhere = self.node.is_some() && found.node() != self.node.as_ref();
        if found.role() == self.role && !elsewhere {
            return Ok(());
        }
        Err(Error::Identity {
            text: found.to_string(),
            why: if elsewhere {
                "it is a program of another node than the one that was to be reached"
            } else {
                "it has another role than the program that was to be reached"
            },
        })
    }
}

/// Checks the certificate of a server.
#[derive(Debug)]
pub(crate) struct Server {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    expected: Expected,
}

impl Server {
    pub(crate) const fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        expected: Expected,
    ) -> Self {
        Self {
            roots,
            provider,
            expected,
        }
    }
}

/// Whether an authority that is believed signed a certificate, and it is good at that time.
pub(crate) fn signed(
    roots: &RootCertStore,
    provider: &CryptoProvider,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> std::result::Result<(), rustls::Error> {
    let certificate = ParsedCertificate::try_from(end_entity)?;
    verify_server_cert_signed_by_trust_anchor(
        &certificate,
        roots,
        intermediates,
        now,
        provider.signature_verification_algorithms.all,
    )
}

/// Our error, as the library carries it.
fn other(error: Error) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        signed(&self.roots, &self.provider, end_entity, intermediates, now)?;
        let found = x509::identity(end_entity).map_err(other)?;
        self.expected.check(&found).map_err(other)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
