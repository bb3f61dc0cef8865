//! Where backups may go: the configured targets with their credentials, and who may use which.
//!
//! An address of a request counts only with credentials of its own, or when it is that of a configured target:
//! otherwise whoever may ask for a backup could make the daemon write to any store that the machine reaches.
//! What is a directory of this machine is a configured target always.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use backup::{Credentials, Options, Scheme, Store, StoreAddress, is_target_name};
use clap::Args;
use tracing::warn;

use crate::error::{Error, Result};

/// The name of the target where none is said.
pub const DEFAULT: &str = "default";
/// Where Kubernetes mounts the Secrets of the targets, unless another directory is said.
pub const CREDENTIALS: &str = "/etc/longhorn-base-image/backup";

/// The targets, as an operator says them.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// A backup target: NAME=ADDRESS, where ADDRESS is s3://BUCKET@REGION/PATH/, azblob://CONTAINER/PATH,
    /// nfs://HOST:/EXPORT, cifs://HOST/SHARE or vfs:///DIRECTORY; NAME `default` is used where none is
    /// said; may be given several times
    #[arg(
        long,
        env = "BACKUP_TARGETS",
        value_name = "NAME=ADDRESS",
        value_delimiter = ' ',
        global = true
    )]
    pub backup_target: Vec<NamedTarget>,
    /// Directory with one directory for each target, which holds one file for each key of Longhorn's
    /// Secret (AWS_ACCESS_KEY_ID, …); read again at each use
    #[arg(
        long,
        env = "BACKUP_CREDENTIALS",
        value_name = "DIR",
        default_value = CREDENTIALS,
        global = true
    )]
    pub backup_credentials: PathBuf,
}

/// A configured target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTarget {
    pub name: String,
    pub address: StoreAddress,
}

impl FromStr for NamedTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.split_once('=');
        // An address may have = in it, before which is no name then.
        let (name, address) = split.filter(|(name, _)| is_target_name(name)).ok_or(
            "it is not NAME=ADDRESS; a name has up to 63 letters, digits, '-', '_' and '.'",
        )?;
        let address = address
            .parse::<StoreAddress>()
            .map_err(|error| types::report(&error).to_string())?;
        let name = name.to_owned();
        Ok(Self { name, address })
    }
}

/// The target that a request names.
#[derive(Clone, Default)]
pub struct Asked {
    /// A configured one; empty with an empty address: [`DEFAULT`].
    pub name: String,
    pub address: String,
    /// Credentials of this request alone, as the keys of Longhorn's Secret.
    pub credentials: BTreeMap<String, String>,
}

impl fmt::Debug for Asked {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A target that may be used.
#[derive(Debug, Clone)]
pub struct Target {
    /// The name in the configuration, if it is a configured one.
    pub name: Option<String>,
    pub address: StoreAddress,
    /// Of the request; `None`: those of the configuration.
    credentials: Option<Credentials>,
}

impl Target {
    /// Whether it can be opened again when the request is over.
    pub fn is_configured(&self) -> bool {
        self.credentials.is_none()
    }
}

/// The configured targets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Targets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    named: BTreeMap<String, StoreAddress>,
    credentials: PathBuf,
    options: Options,
    /// What was said of credentials already: they are read often.
    said: Mutex<BTreeSet<String>>,
}

impl Targets {
    /// The targets of the options; `spool` is a directory for unnamed work files.
    pub fn new(args: &TargetArgs, options: Options) -> Result<Self> {
        let mut named = BTreeMap::new();
        for target in &args.backup_target {
            let NamedTarget { name, address } = target.clone();
            if let Some(other) = named.insert(name.clone(), address) {
                return Err(Error::InvalidField {
                    field: "backup-target",
                    why: format!("{name} is given twice, once as {other}"),
                });
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                named,
                credentials: args.backup_credentials.clone(),
                options,
                said: Mutex::default(),
            }),
        })
    }

    /// The configured targets by their names.
    pub fn named(&self) -> &BTreeMap<String, StoreAddress> {
        &self.inner.named
    }

    /// The target that a request names, if it may be used. Nothing is asked of the store.
    pub fn choose(&self, asked: &Asked) -> Result<Target> {
        let credentials = if asked.credentials.is_empty() {
            None
        } else {
            let pairs = asked.credentials.clone();
            let (credentials, said) = Credentials::from_pairs(pairs)?;
            self.say("the request", &said);
            (!credentials.is_empty()).then_some(credentials)
        };
        if !asked.address.is_empty() && !asked.name.is_empty() {
            return Err(Error::InvalidField {
                field: "target",
                why: "it has a name and an address; give one of them".to_owned(),
            });
        }
        if asked.address.is_empty() {
            let name = match asked.name.as_str() {
                "" => DEFAULT,
                name => name,
            };
            let address = self.inner.named.get(name);
            let address = address.ok_or_else(|| self.no_target(name))?.clone();
            // What is mounted has its credentials where it is mounted.
            let credentials = credentials.filter(|_| has_credentials(&address));
            let name = Some(name.to_owned());
            return Ok(Target {
                name,
                address,
                credentials,
            });
        }
        let address: StoreAddress = asked.address.parse()?;
        let configured = self.inner.named.iter().find(|(_, has)| **has == address);
        let name = configured.map(|(name, _)| name.clone());
        let text = address.to_string();
        match (&name, &credentials) {
            _ if !has_credentials(&address) => match name {
                Some(_) => Ok(Target {
                    name,
                    address,
                    credentials: None,
                }),
                None => Err(Error::OnlyConfigured { address: text }),
            },
            (None, None) => Err(Error::NotConfigured { address: text }),
            _ => Ok(Target {
                name,
                address,
                credentials,
            }),
        }
    }

    fn no_target(&self, name: &str) -> Error {
        let known: Vec<&str> = self.inner.named.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            String::new()
        } else {
            format!(", or use one of {}", known.join(", "))
        };
        let name = types::shown(name);
        Error::NoTarget { name, known }
    }

    /// Opens the store of a target, with the credentials that it has now. Blocks on small files.
    pub fn open(&self, target: &Target) -> Result<Store> {
        let credentials = match (&target.credentials, &target.name) {
            (Some(credentials), _) => credentials.clone(),
            (None, Some(name)) => self.credentials_of(name)?,
            (None, None) => Credentials::default(),
        };
        Ok(Store::open(
            &target.address,
            &credentials,
            &self.inner.options,
        )?)
    }

    fn credentials_of(&self, name: &str) -> Result<Credentials> {
        let directory: &Path = &self.inner.credentials.join(name);
        if !directory.is_dir() {
            // None: the machine's own, as for a role in the cloud.
            return Ok(Credentials::default());
        }
        let (credentials, said) = Credentials::from_directory(directory)?;
        self.say(name, &said);
        Ok(credentials)
    }

    /// Says once what was odd about credentials.
    fn say(&self, of: &str, odd: &[String]) {
        let mut said = (self.inner.said.lock()).unwrap_or_else(PoisonError::into_inner);
        for odd in odd {
            if said.len() < 1000 && said.insert(format!("{of} {odd}")) {
                warn!(target = of, "backup credentials: {odd}");
            }
        }
    }
}

/// Whether stores of this kind are opened with credentials, and not mounted.
fn has_credentials(address: &StoreAddress) -> bool {
    match address.scheme() {
        Scheme::S3 | Scheme::Azblob => true,
        Scheme::Nfs | Scheme::Cifs | Scheme::Directory => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn targets(named: &[&str], credentials: &Path) -> Targets {
        let args = TargetArgs {
            backup_target: named.iter().map(|text| text.parse().unwrap()).collect(),
            backup_credentials: credentials.to_owned(),
        };
        Targets::new(&args, Options::default()).unwrap()
    }

    fn asked(name: &str, address: &str, secret: &str) -> Asked {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Asked {
            name: name.into(),
            address: address.into(),
            credentials: if secret.is_empty() {
                BTreeMap::new()
            } else {
                pairs.into()
            },
        }
    }

    #[test]
    fn a_target_is_a_name_and_an_address() {
        let target: NamedTarget = "default=s3://bucket@region/path/".parse().unwrap();
        assert_eq!(target.name, "default");
        for wrong in [
            "",
            "s3://bucket@region/path/?a=b",
            "=s3://bucket@region/path/",
            "../x=s3://bucket@region/path/",
            ".=vfs:///x",
            "a=gopher://x",
            "a=",
        ] {
            assert!(wrong.parse::<NamedTarget>().is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn an_address_needs_a_configured_target_or_credentials_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let targets = targets(
            &["default=vfs:///srv/store", "cloud=s3://bucket@region/path/"],
            dir.path(),
        );
        let choose = |name, address, secret| targets.choose(&asked(name, address, secret));
        let name = |target: Target| target.name.unwrap();
        assert_eq!(name(choose("", "", "").unwrap()), DEFAULT);
        assert_eq!(name(choose("cloud", "", "").unwrap()), "cloud");
        // However it is spelt.
        let same = choose("", "s3://bucket@region//path", "").unwrap();
        assert!(same.is_configured() && name(same) == "cloud");
        assert_eq!(name(choose("", "vfs:///srv/store", "").unwrap()), DEFAULT);
        let own = choose("", "s3://other@region/path/", "secret").unwrap();
        assert!(!own.is_configured() && own.name.is_none());
        assert!(!format!("{own:?}").contains("secret"), "{own:?}");
        // What is no object store has no credentials, and is never of a request.
        assert!(choose("", "", "secret").unwrap().is_configured());
        for (address, secret) in [
            ("vfs:///srv/other", ""),
            ("vfs:///srv/other", "secret"),
            ("nfs://server:/export", "secret"),
            ("cifs://server/share", "secret"),
        ] {
            let refused = choose("", address, secret).unwrap_err();
            assert!(matches!(refused, Error::OnlyConfigured { .. }), "{refused}");
        }
        let refused = choose("", "s3://other@region/path/", "").unwrap_err();
        assert!(matches!(refused, Error::NotConfigured { .. }), "{refused}");
        let refused = choose("nope", "", "").unwrap_err();
        assert!(refused.to_string().contains("cloud, default"), "{refused}");
    }

    #[test]
    fn a_secret_that_changes_is_used_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let targets = targets(&["cloud=s3://bucket@region/path/"], dir.path());
        assert!(targets.credentials_of("cloud").unwrap().is_empty());
        let keys = dir.path().join("cloud");
        std::fs::create_dir(&keys).unwrap();
        let put = |key: &str, value: &str| {
            let mut file = std::fs::File::create(keys.join(key)).unwrap();
            file.write_all(value.as_bytes()).unwrap();
        };
        for secret in ["one", "two"] {
            put("AWS_ACCESS_KEY_ID", "id");
            put("AWS_SECRET_ACCESS_KEY", secret);
            let has = targets.credentials_of("cloud").unwrap();
            let pairs = [
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", secret),
            ];
            assert!(has == Credentials::from_pairs(pairs).unwrap().0, "{secret}");
        }
    }
}
