//! Reading certificates: PEM to DER, the times and the one URI that we need of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identity::Identity;
use crate::{Error, Result};

/// The largest PEM text that is read: a chain or bundle of a few certificates has some thousand bytes.
pub(crate) const PEM_MAX: usize = 256 << 10;
/// Certificates in a chain or in a bundle of roots.
const CERTIFICATES_MAX: usize = 32;

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// The certificates of a PEM text; at least one.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let refuse = Error::invalid("certificate");
    if pem.len() > PEM_MAX {
        return Err(refuse("it is too large"));
    }
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        match certificate {
            Ok(certificate) if found.len() < CERTIFICATES_MAX => found.push(certificate),
            Ok(_) => return Err(refuse("there are more than 32 of them")),
            Err(error) => return Err(refuse(&error.to_string())),
        }
    }
    if found.is_empty() {
        return Err(refuse("there is no PEM block CERTIFICATE"));
    }
    Ok(found)
}

/// The private key of a PEM text.
pub(crate) fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    if pem.len() > PEM_MAX {
        return Err(Error::invalid("private key")("it is too large"));
    }
    // The error of the parser may show what it has read.
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| Error::invalid("private key")("there is no PEM block PRIVATE KEY"))
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(Error::invalid("certificate"))?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(Error::invalid("certificate")("bytes follow it"))
    }
}

/// When a certificate is good.
pub(crate) fn validity(der: &CertificateDer<'_>) -> Result<Validity> {
    let certificate = parsed(der)?;
    let at = |seconds: i64| {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .unwrap_or(UNIX_EPOCH)
    };
    Ok(Validity {
        not_before: at(certificate.validity().not_before.timestamp()),
        not_after: at(certificate.validity().not_after.timestamp()),
    })
}

/// The public key of a certificate, to compare it with that of a private key.
pub(crate) fn public_key(der: &CertificateDer<'_>) -> Result<Vec<u8>> {
    Ok(parsed(der)?.public_key().raw.to_vec())
}

/// Whether a certificate may sign others.
pub(crate) fn is_authority(der: &CertificateDer<'_>) -> Result<bool> {
    Ok(parsed(der)?.is_ca())
}

/// Who a certificate names: it has one URI name, and that is an identity.
pub(crate) fn identity(der: &CertificateDer<'_>) -> Result<Identity> {
    let certificate = parsed(der)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(Error::invalid("certificate"))?;
    let mut uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse(),
        (None, _) => Err(Error::invalid("certificate")("it names no program")),
        (Some(_), Some(_)) => Err(Error::invalid("certificate")(
            "it names more than one program",
        )),
    }
}

/// The name of a certificate, for people: an authority's common name, or all of its subject.
pub(crate) fn name(der: &CertificateDer<'_>) -> Result<String> {
    let certificate = parsed(der)?;
    let subject = certificate.subject();
    let common = subject.iter_common_name().next();
    let common = common.and_then(|name| name.as_str().ok());
    Ok(common.map_or_else(|| types::shown(&subject.to_string()), types::shown))
}

/// A certificate in PEM (RFC 7468): base 64 in lines of 64 characters.
pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    let block = ::pem::Pem::new("CERTIFICATE", der.to_vec());
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    ::pem::encode_config(&block, config)
}
