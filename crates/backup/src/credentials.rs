//! The keys and values of a target's Secret: who we are to a store, and how to reach it.
//!
//! They are values, never environment: two targets of one process must not see each other's. No value
//! gets into a text that this crate makes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// Most bytes of a value; certificates are the longest.
const LENGTH_MAX: usize = 1 << 20;
/// Most bytes of a value that becomes a line of a file for mount(8).
const LINE_MAX: usize = 4096;
/// Most keys of a Secret.
const KEYS_MAX: usize = 256;

/// The keys that mean something here, as in the Secrets of Longhorn's backup targets.
const KEYS: [&str; 16] = [
    ACCESS_KEY,
    SECRET_KEY,
    ENDPOINT,
    CERTIFICATES,
    REGION,
    VIRTUAL_HOSTED,
    SIGN_ACCEPT_ENCODING,
    AZURE_ACCOUNT,
    AZURE_KEY,
    AZURE_ENDPOINT,
    AZURE_CERTIFICATES,
    CIFS_USER,
    CIFS_PASSWORD,
    HTTPS_PROXY,
    HTTP_PROXY,
    NO_PROXY,
];
pub(crate) const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
pub(crate) const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
pub(crate) const ENDPOINT: &str = "AWS_ENDPOINTS";
pub(crate) const CERTIFICATES: &str = "AWS_CERT";
pub(crate) const REGION: &str = "AWS_REGION";
const VIRTUAL_HOSTED: &str = "VIRTUAL_HOSTED_STYLE";
const SIGN_ACCEPT_ENCODING: &str = "AWS_SIGN_ACCEPT_ENCODING";
pub(crate) const AZURE_ACCOUNT: &str = "AZBLOB_ACCOUNT_NAME";
pub(crate) const AZURE_KEY: &str = "AZBLOB_ACCOUNT_KEY";
pub(crate) const AZURE_ENDPOINT: &str = "AZBLOB_ENDPOINT";
pub(crate) const AZURE_CERTIFICATES: &str = "AZBLOB_CERT";
const CIFS_USER: &str = "CIFS_USERNAME";
const CIFS_PASSWORD: &str = "CIFS_PASSWORD";
pub(crate) const HTTPS_PROXY: &str = "HTTPS_PROXY";
pub(crate) const HTTP_PROXY: &str = "HTTP_PROXY";
pub(crate) const NO_PROXY: &str = "NO_PROXY";

/// The keys of a target's Secret. Values are wiped from memory when they are dropped, and never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<&'static str, Zeroizing<String>>);

impl Credentials {
    /// The keys and values of a Secret. Answers also what was changed or ignored, each as a sentence for
    /// people and without a value.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<(Self, Vec<String>)>
    where
        K: AsRef<str>,
        V: AsRef<[u8]>,
    {
        let mut values = BTreeMap::new();
        let mut said = Vec::new();
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            let (key, value) = (key.as_ref(), value.as_ref());
            if index == KEYS_MAX {
                return Err(refused(key, "the Secret has more than 256 keys"));
            }
            let Some(key) = KEYS.into_iter().find(|known| *known == key) else {
                said.push(match key {
                    "AWS_IAM_ROLE_ARN" => {
                        "AWS_IAM_ROLE_ARN is ignored: annotate the service account of the manager with the role"
                            .to_owned()
                    }
                    key => format!("{:?} is ignored: it is no key of a backup target", types::shown(key)),
                });
                continue;
            };
            if value.len() > LENGTH_MAX {
                return Err(refused(key, "the value is longer than 1 MiB"));
            }
            let text =
                std::str::from_utf8(value).map_err(|_| refused(key, "the value is not UTF-8"))?;
            let trimmed = text.trim();
            if trimmed.len() < text.len() {
                said.push(format!("{key}: white space around the value was removed"));
            }
            if !trimmed.is_empty() {
                check(key, trimmed)?;
                values.insert(key, Zeroizing::new(with_scheme(trimmed, is_proxy(key))));
            }
        }
        for (one, other) in [
            (ACCESS_KEY, SECRET_KEY),
            (AZURE_ACCOUNT, AZURE_KEY),
            (CIFS_USER, CIFS_PASSWORD),
        ] {
            match (values.contains_key(one), values.contains_key(other)) {
                (true, false) => {
                    return Err(refused(
                        other,
                        "it is missing, and the other of its pair is there",
                    ));
                }
                (false, true) => {
                    return Err(refused(
                        one,
                        "it is missing, and the other of its pair is there",
                    ));
                }
                _ => {}
            }
        }
        said.sort_unstable();
        Ok((Self(values), said))
    }

    /// A directory with a file for each key, as Kubernetes mounts a Secret. One that does not exist is a
    /// Secret without keys.
    pub fn from_directory(directory: &Path) -> Result<(Self, Vec<String>)> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File {
                operation,
                path,
                source,
            }
        };
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            other => other.map_err(failed("list", directory))?,
        };
        let mut pairs = Vec::new();
        for entry in entries.take(KEYS_MAX + 1) {
            let path = entry.map_err(failed("list", directory))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            // Kubernetes keeps what the keys are links to in such ones.
            if name.starts_with('.') || !path.is_file() {
                continue;
            }
            let mut value = Zeroizing::new(Vec::new());
            File::open(&path)
                .and_then(|file| file.take(LENGTH_MAX as u64 + 1).read_to_end(&mut value))
                .map_err(failed("read", &path))?;
            pairs.push((name.to_owned(), value));
        }
        Self::from_pairs(pairs.iter().map(|(key, value)| (key, value.as_slice())))
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// User name and password of a CIFS share: for a file that mount(8) reads, never for its arguments.
    pub fn cifs(&self) -> Option<(&str, &str)> {
        Some((self.get(CIFS_USER)?, self.get(CIFS_PASSWORD)?))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &'static str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }

    /// Whether the bucket is part of the host's name: as it is said, else only where no endpoint is.
    pub(crate) fn virtual_hosted(&self) -> bool {
        let said = self.get(VIRTUAL_HOSTED).and_then(boolean);
        said.unwrap_or_else(|| self.get(ENDPOINT).is_none())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether a value can be what its key says. No text here holds it.
fn check(key: &'static str, value: &str) -> Result<()> {
    let is_pem = [CERTIFICATES, AZURE_CERTIFICATES].contains(&key);
    if !is_pem && value.contains(char::is_control) {
        return Err(refused(
            key,
            "the value has a line break or a control character inside",
        ));
    }
    match key {
        ENDPOINT | AZURE_ENDPOINT | HTTPS_PROXY | HTTP_PROXY => {
            let url = Url::parse(&with_scheme(value, is_proxy(key)))
                .map_err(|_| refused(key, "it is not one address as https://host:port"))?;
            if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
                return Err(refused(key, "it is not one address as https://host:port"));
            }
            let has_user = !url.username().is_empty() || url.password().is_some();
            if !is_proxy(key) && (has_user || url.query().is_some() || url.fragment().is_some()) {
                return Err(refused(
                    key,
                    "it has more than a scheme, a host, a port and a path",
                ));
            }
        }
        CERTIFICATES | AZURE_CERTIFICATES => {
            certificates(key, value)?;
        }
        CIFS_USER | CIFS_PASSWORD if value.len() > LINE_MAX => {
            return Err(refused(key, "the value is longer than 4096 bytes"));
        }
        VIRTUAL_HOSTED | SIGN_ACCEPT_ENCODING if boolean(value).is_none() => {
            return Err(refused(key, "it is neither true nor false"));
        }
        REGION => {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            if !value.bytes().all(is_name) {
                return Err(refused(key, "it is not the name of a region"));
            }
        }
        _ => {}
    }
    Ok(())
}

fn is_proxy(key: &str) -> bool {
    [HTTPS_PROXY, HTTP_PROXY].contains(&key)
}

/// The address of a proxy may be written without its scheme, as in environments.
fn with_scheme(value: &str, is_proxy: bool) -> String {
    if is_proxy && !value.contains("://") {
        return format!("http://{value}");
    }
    value.to_owned()
}

/// The certificates of a value with one or more of them, as PEM.
pub(crate) fn certificates(key: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(refused(key, "it holds no certificate in PEM form")),
        Err(_) => Err(refused(
            key,
            "it holds a certificate that is cut short or not PEM",
        )),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn refused(key: &str, why: &str) -> Error {
    Error::Credentials {
        key: types::shown(key),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<(Credentials, Vec<String>)> {
        Credentials::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn white_space_is_removed_and_said_and_unknown_keys_are_said() {
        let (credentials, said) = of(&[
            (ACCESS_KEY, " id\n"),
            (SECRET_KEY, "secret"),
            ("AWS_SECRET", "x"),
            ("AWS_IAM_ROLE_ARN", "arn"),
            (NO_PROXY, "  "),
        ])
        .unwrap();
        assert_eq!(credentials.get(ACCESS_KEY), Some("id"));
        assert_eq!(credentials.get(NO_PROXY), None);
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(
            said.contains(
                &"AWS_ACCESS_KEY_ID: white space around the value was removed".to_owned()
            )
        );
        assert!(
            said.iter()
                .any(|text| text.starts_with("\"AWS_SECRET\" is ignored"))
        );
    }

    #[test]
    fn no_text_shows_a_value() {
        let all = KEYS.map(|key| (key, "hunter2\u{7}hunter2"));
        for pair in all {
            let error = of(&[pair]).map(drop);
            if let Err(error) = error {
                assert!(
                    !types::report(&error).to_string().contains("hunter2"),
                    "{error}"
                );
                assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            }
        }
        let (credentials, said) = of(&[
            (ACCESS_KEY, "hunter2"),
            (SECRET_KEY, " hunter2 "),
            (CIFS_USER, "hunter2"),
            (CIFS_PASSWORD, "hunter2"),
            (HTTPS_PROXY, "http://hunter2:hunter2@proxy"),
            ("OTHER", "hunter2"),
        ])
        .unwrap();
        let shown = format!("{credentials:?} {credentials:#?} {said:?}");
        assert!(
            shown.contains(SECRET_KEY) && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_key() {
        for (pairs, key) in [
            (&[(ACCESS_KEY, "id")][..], SECRET_KEY),
            (&[(SECRET_KEY, "secret")], ACCESS_KEY),
            (&[(CIFS_PASSWORD, "secret")], CIFS_USER),
            (&[(AZURE_ACCOUNT, "account")], AZURE_KEY),
            (&[(ENDPOINT, "https://a:9000,https://b:9000")], ENDPOINT),
            (&[(ENDPOINT, "minio:9000")], ENDPOINT),
            (&[(ENDPOINT, "https://user:pass@host")], ENDPOINT),
            (&[(CERTIFICATES, "no certificate")], CERTIFICATES),
            (
                &[(CERTIFICATES, "-----BEGIN CERTIFICATE-----\nAAAA")],
                CERTIFICATES,
            ),
            (&[(VIRTUAL_HOSTED, "maybe")], VIRTUAL_HOSTED),
            (&[(SIGN_ACCEPT_ENCODING, "off")], SIGN_ACCEPT_ENCODING),
            (&[(HTTPS_PROXY, "ftp://proxy")], HTTPS_PROXY),
            (&[(REGION, "a b")], REGION),
            (&[(SECRET_KEY, "a\nb"), (ACCESS_KEY, "id")], SECRET_KEY),
        ] {
            let Err(Error::Credentials { key: found, .. }) = of(pairs) else {
                panic!("{pairs:?} is not refused");
            };
            assert_eq!(found, key);
        }
    }

    #[test]
    fn a_proxy_needs_no_scheme() {
        let (credentials, said) = of(&[(HTTPS_PROXY, "proxy:3128")]).unwrap();
        assert_eq!(credentials.get(HTTPS_PROXY), Some("http://proxy:3128"));
        assert!(said.is_empty());
    }

    #[test]
    fn the_bucket_is_part_of_the_host_where_no_endpoint_is_said() {
        let virtual_hosted = |pairs: &[(&str, &str)]| of(pairs).unwrap().0.virtual_hosted();
        assert!(virtual_hosted(&[]));
        assert!(!virtual_hosted(&[(ENDPOINT, "https://s3.example")]));
        assert!(virtual_hosted(&[
            (ENDPOINT, "https://s3.example"),
            (VIRTUAL_HOSTED, "True")
        ]));
        assert!(!virtual_hosted(&[(VIRTUAL_HOSTED, "false")]));
    }

    #[test]
    fn a_mounted_secret_is_read_and_one_that_is_missing_has_no_keys() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("..data");
        std::fs::create_dir(&data).unwrap();
        File::create(data.join(ENDPOINT)).unwrap();
        let mut file = File::create(data.join(CIFS_USER)).unwrap();
        io::Write::write_all(&mut file, b"me\n").unwrap();
        let mut file = File::create(data.join(CIFS_PASSWORD)).unwrap();
        io::Write::write_all(&mut file, b"it,is").unwrap();
        for key in [CIFS_USER, CIFS_PASSWORD, ENDPOINT] {
            std::os::unix::fs::symlink(data.join(key), directory.path().join(key)).unwrap();
        }
        let (credentials, said) = Credentials::from_directory(directory.path()).unwrap();
        assert_eq!(credentials.cifs(), Some(("me", "it,is")));
        assert_eq!(said.len(), 1);
        let (none, _) = Credentials::from_directory(&directory.path().join("none")).unwrap();
        assert!(none.is_empty());
    }
}
