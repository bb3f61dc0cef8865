//! The certificate authority of a cluster: its key, what it signs, and when another takes its place.
//!
//! A new authority is believed everywhere before it signs anything ([`OVERLAP`]), and the one before it is
//! believed until it ends, so that a change breaks no connection. Everything here is a function of
//! what is stored and of the time; who stores it, and where, is not known.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SanType,
};
use zeroize::Zeroizing;

use crate::identity::Identity;
use crate::x509::{self, Validity};
use crate::{Error, Result};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// The life of the certificate of a program (issue 15: a day).
pub const LEAF_LIFE: Duration = DAY;
/// The life of an authority (issue 15: 5 years).
pub const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * (5 * 365 + 1));
/// The next authority is made when this much is left of the newest one: long enough for a cluster that was
/// switched off for months.
pub const SUCCESSION: Duration = Duration::from_hours(24 * 365);
/// How long a new authority is published before it signs. A kubelet refreshes a mounted ConfigMap within
/// about two minutes; a node may be slow or cut off for a while.
pub const OVERLAP: Duration = HOUR;
/// How far a clock may be behind: a certificate is good from this long before it was made. Clocks of a
/// cluster may be wrong by five minutes either way.
pub const CLOCK_SKEW: Duration = Duration::from_mins(10);
/// The largest request for a certificate; one with a P-256 key has some 400 bytes.
const CSR_MAX: usize = 8 << 10;
/// Certificates in a bundle that are kept; there are two or three unless somebody loses the Secret again and again.
const BUNDLE_MAX: usize = 16;

/// A key that signs, and its certificate.
pub struct Authority {
    key: KeyPair,
    certificate_pem: String,
    validity: Validity,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn create(now: SystemTime) -> Result<Self> {
        let key = KeyPair::generate().map_err(Error::crypto("make a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Each has a name of its own, so that whoever is certified by another one is told "unknown issuer".
        let made = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("Longhorn base images {:x}", made.as_nanos());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + AUTHORITY_LIFE).into();
        let certificate = params
            .self_signed(&key)
            .map_err(Error::crypto("make a certificate authority"))?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Reads one. Of a chain, the first certificate counts.
    ///
    /// # Errors
    /// The certificate may not sign others, or the key is not its own.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self> {
        let certificates = x509::certificates(certificate_pem)?;
        let certificate = &certificates[0];
        if !x509::is_authority(certificate)? {
            let why = "it is not that of a certificate authority (CA:TRUE is missing)";
            return Err(Error::invalid("certificate")(why));
        }
        // The error of the parser may show what it has read.
        let key = KeyPair::from_pem(key_pem).map_err(|_| {
            Error::invalid("private key")("write it in PEM as PKCS #8 (BEGIN PRIVATE KEY)")
        })?;
        if key.subject_public_key_info() != x509::public_key(certificate)? {
            return Err(Error::invalid("private key")(
                "it is not the key of the certificate",
            ));
        }
        Ok(Self {
            key,
            validity: x509::validity(certificate)?,
            certificate_pem: certificate_pem.to_owned(),
        })
    }

    /// Its certificate, which others believe; with what came behind it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// When it was made, as far as the certificate tells.
    pub const fn not_before(&self) -> SystemTime {
        self.validity.not_before
    }

    /// Until when it is good.
    pub const fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// Signs the request of a program that was found out to be `identity`, for so long or until the authority
    /// ends. What the request itself says of names, times and rights is not read. Returns the certificate in
    /// PEM.
    ///
    /// # Errors
    /// The request is none, it is not signed by its key, its key is of another kind than P-256, P-384 or Ed25519,
    /// or the authority has expired.
    pub fn sign(
        &self,
        csr_pem: &str,
        identity: &Identity,
        life: Duration,
        now: SystemTime,
    ) -> Result<String> {
        let refuse = Error::invalid("certificate request");
        if csr_pem.len() > CSR_MAX {
            return Err(refuse("it is larger than 8 KiB"));
        }
        let asked = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| Error::invalid("certificate request")(error))?;
        let allowed = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ];
        if !allowed.contains(&asked.public_key.algorithm()) {
            return Err(refuse("its key is none of P-256, P-384 and Ed25519"));
        }
        if self.validity.not_after <= now {
            let why = "the certificate authority has expired";
            return Err(Error::crypto("sign")(why));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = Ia5String::try_from(identity.to_string());
        let uri = uri.map_err(Error::crypto("name the program"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + life).min(self.validity.not_after).into();
        params.use_authority_key_identifier_extension = true;
        let der = x509::certificates(&self.certificate_pem)?;
        let issuer = Issuer::from_ca_cert_der(&der[0], &self.key)
            .map_err(Error::crypto("sign a certificate"))?;
        let signed = params.signed_by(&asked.public_key, &issuer);
        Ok(signed.map_err(Error::crypto("sign a certificate"))?.pem())
    }
}

/// The newest authority and the one before it.
#[derive(Debug)]
pub struct Lineage {
    /// The one that signs, or will.
    pub newest: Authority,
    /// The one that signs until the newest is known everywhere.
    pub previous: Option<Authority>,
}

impl Lineage {
    /// The first of its kind.
    ///
    /// # Errors
    /// See [`Authority::create`].
    pub fn create(now: SystemTime) -> Result<Self> {
        Ok(Self {
            newest: Authority::create(now)?,
            previous: None,
        })
    }

    /// Whether it is time for the next authority.
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.newest.not_after() <= now + SUCCESSION
    }

    /// The lineage with a new authority in front.
    ///
    /// # Errors
    /// See [`Authority::create`].
    pub fn succeed(self, now: SystemTime) -> Result<Self> {
        Ok(Self {
            newest: Authority::create(now)?,
            previous: Some(self.newest),
        })
    }

    /// Who signs: the newest when it has been published for [`OVERLAP`], and until then the one before it, as long
    /// as that can. `published`: since when the newest is published, as far as the caller has seen. When it was
    /// made says nothing: it may have been made elsewhere, long ago, or not have been published yet.
    pub fn signer(&self, published: Option<SystemTime>, now: SystemTime) -> &Authority {
        let is_known = published.is_some_and(|since| now >= since + OVERLAP);
        match &self.previous {
            Some(previous) if !is_known && now + LEAF_LIFE < previous.not_after() => previous,
            _ => &self.newest,
        }
    }

    /// What is published: who is to be believed. Certificates of `published` that nobody has the key of any
    /// more stay until they expire, because programs that run may have been certified by them.
    ///
    /// # Errors
    /// A certificate of this lineage is damaged; damaged ones of `published` are left out.
    pub fn bundle(&self, published: &str, now: SystemTime) -> Result<String> {
        let ours = [Some(&self.newest), self.previous.as_ref()];
        let mut bundle = String::new();
        let mut known = Vec::new();
        for authority in ours.into_iter().flatten() {
            known.push(x509::certificates(authority.certificate_pem())?.swap_remove(0));
        }
        let ours = known.len();
        // An empty or damaged bundle holds nothing that is worth keeping.
        known.extend(x509::certificates(published).unwrap_or_default());
        for (n, certificate) in known.iter().enumerate() {
            let is_new = !known[..n].contains(certificate);
            let is_good = x509::validity(certificate).is_ok_and(|good| good.not_after > now)
                && x509::is_authority(certificate).unwrap_or(false);
            if n < ours || (is_new && is_good && n < BUNDLE_MAX) {
                bundle.push_str(&x509::pem(certificate));
            }
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests;
