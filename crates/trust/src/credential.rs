//! The certificate, key and roots of one program, and the request by which it gets them.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::crypto::ring::{self, sign::any_supported_type};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::identity::Identity;
use crate::verify;
use crate::x509::{self, Validity};
use crate::{Error, Result};

/// A new key that is in memory alone, and the request for its certificate.
pub struct KeyRequest {
    key: KeyPair,
    csr_pem: String,
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

impl KeyRequest {
    /// Makes a key on the curve P-256 and the request (PKCS #10, RFC 2986). It names nobody: who
    /// the program is, the issuer has to find out.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate().map_err(Error::crypto("make a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .map_err(Error::crypto("make a certificate request"))?;
        Ok(Self { key, csr_pem: csr })
    }

    /// The request, in PEM.
    pub fn csr_pem(&self) -> &str {
        &self.csr_pem
    }

    /// The private key, in PEM: to be written to a file of its owner alone.
    pub(crate) fn key_pem(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(self.key.serialize_pem())
    }

    /// Joins the key with the certificate that was issued for it.
    ///
    /// # Errors
    /// What came is not a certificate for this key, or names no program. Whether it is believed, [`Credential::verify`]
    /// says.
    pub fn complete(&self, chain_pem: &str, roots_pem: &str) -> Result<Credential> {
        Credential::from_pem(chain_pem, &self.key_pem(), roots_pem)
    }
}

/// What a program proves itself with, and whom it believes.
#[derive(Clone)]
pub struct Credential {
    identity: Identity,
    validity: Validity,
    pub(crate) certified: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    roots_pem: Arc<str>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("identity", &self.identity)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// Reads a certificate with its chain, its private key, and the certificates of the authorities that
    /// are believed.
    ///
    /// # Errors
    /// One of them is damaged, the key is not the certificate's, or the certificate names no program.
    pub fn from_pem(chain_pem: &str, key_pem: &str, roots_pem: &str) -> Result<Self> {
        let chain = x509::certificates(chain_pem)?;
        let key = x509::private_key(key_pem)?;
        let key = any_supported_type(&key).map_err(Error::invalid("private key"))?;
        let leaf = &chain[0];
        let (identity, validity) = (x509::identity(leaf)?, x509::validity(leaf)?);
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|_| Error::invalid("private key")("it is not the key of the certificate"))?;
        Ok(Self {
            identity,
            validity,
            certified: Arc::new(certified),
            roots: Arc::new(roots(roots_pem)?),
            roots_pem: roots_pem.into(),
        })
    }

    /// The same with other roots: the authority has another certificate beside, or in place of, its own.
    ///
    /// # Errors
    /// They are no certificates.
    pub fn with_roots(&self, roots_pem: &str) -> Result<Self> {
        Ok(Self {
            roots: Arc::new(roots(roots_pem)?),
            roots_pem: roots_pem.into(),
            ..self.clone()
        })
    }

    /// Who it is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// From when it is good.
    pub const fn not_before(&self) -> SystemTime {
        self.validity.not_before
    }

    /// Until when it is good.
    pub const fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// Whether the other programs would believe it at that time: an authority that it believes itself signed it, and
    /// it is good then.
    ///
    /// # Errors
    /// They would not; the error says why.
    pub fn verify(&self, now: SystemTime) -> Result<()> {
        let (leaf, rest) = self
            .certified
            .cert
            .split_first()
            .ok_or_else(|| Error::invalid("certificate")("there is none"))?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(since);
        verify::signed(&self.roots, &ring::default_provider(), leaf, rest, time).map_err(|error| {
            Error::invalid("certificate")(match error {
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                    "no authority in ca.crt signed it".to_owned()
                }
                _ if self.not_after() <= now => "it has expired".to_owned(),
                _ if self.not_before() > now => {
                    "it is not valid yet: compare the clock with that of the machine that made it"
                        .to_owned()
                }
                error => error.to_string(),
            })
        })
    }

    /// Who is believed.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        self.roots.clone()
    }

    /// The text of who is believed, to see whether it has changed.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// When it is to be replaced: at two thirds of its life, so that a third is left for an authority that is away.
    pub fn renew_at(&self) -> SystemTime {
        let life = self
            .validity
            .not_after
            .duration_since(self.validity.not_before);
        self.validity.not_before + life.unwrap_or_default() * 2 / 3
    }
}

/// An authority that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// Its name, for people.
    pub name: String,
    /// Until when it is good.
    pub not_after: SystemTime,
}

/// The authorities in a bundle.
///
/// # Errors
/// The text is no bundle, or one of its certificates may not sign others.
pub fn believed(roots_pem: &str) -> Result<Vec<Believed>> {
    roots(roots_pem)?;
    let certificates = x509::certificates(roots_pem)?;
    let each = certificates.iter().map(|der| {
        Ok(Believed {
            name: x509::name(der)?,
            not_after: x509::validity(der)?.not_after,
        })
    });
    each.collect()
}

/// The store of roots in a bundle.
pub(crate) fn roots(pem: &str) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for root in x509::certificates(pem)? {
        add(&mut store, root)?;
    }
    Ok(store)
}

fn add(store: &mut RootCertStore, root: CertificateDer<'static>) -> Result<()> {
    if !x509::is_authority(&root)? {
        let why = "it is not that of a certificate authority (CA:TRUE is missing)";
        return Err(Error::invalid("root certificate")(why));
    }
    store.add(root).map_err(Error::invalid("root certificate"))
}
