//! The addresses of stores, and of volumes, backups and backing images in them.
//!
//! They look like URLs and are not quite: the bucket is where a user is (`s3://bucket@region/path/`), a
//! colon stands behind the host of a share (`nfs://server:/export`), and of the parameters some belong
//! to the store and some name a thing in it. They hold no secret: those are in [`crate::Credentials`].

mod mount;
mod parse;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use self::parse::{Parts, path_text, query_text};
use crate::{Error, Name, Result};

/// What kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    S3,
    Nfs,
    Cifs,
    Azblob,
    /// `vfs`: a directory of this machine.
    Directory,
}

impl Scheme {
    /// As in addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Nfs => "nfs",
            Self::Cifs => "cifs",
            Self::Azblob => "azblob",
            Self::Directory => "vfs",
        }
    }
}

/// How a store that is a share is mounted, by whoever mounts: nobody here does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mount {
    /// The device argument of mount(8).
    pub source: String,
    /// `nfs4` or `cifs`.
    pub fs_type: &'static str,
    /// Texts for `-o`, to be tried in this order until one works. Without any secret.
    pub attempts: Vec<String>,
    /// Where, below the directory of mounts.
    pub point: PathBuf,
}

/// The address of a store. Two are equal if they are the same text in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreAddress {
    scheme: Scheme,
    /// Bucket or container; empty for the others.
    pub(crate) bucket: String,
    /// Region, suffix of the endpoint, or server; empty: not said.
    pub(crate) host: String,
    /// Names with slashes between them, and none around them.
    pub(crate) path: String,
    /// In the order of their keys, each once.
    parameters: Vec<(String, String)>,
    mount: Option<Mount>,
}

impl StoreAddress {
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What must be mounted first, if anything.
    pub fn mount(&self) -> Option<&Mount> {
        self.mount.as_ref()
    }

    /// The address with these parameters besides its own, in alphabetical order.
    fn write(&self, f: &mut fmt::Formatter<'_>, more: &[(&str, &str)]) -> fmt::Result {
        let Self {
            scheme,
            bucket,
            host,
            path,
            ..
        } = self;
        write!(f, "{}://", scheme.as_str())?;
        let path = path_text(path);
        match scheme {
            Scheme::S3 | Scheme::Azblob => {
                f.write_str(bucket)?;
                if !host.is_empty() {
                    write!(f, "@{host}")?;
                }
                let end = if path.is_empty() { "" } else { "/" };
                write!(f, "/{path}{end}")?;
            }
            Scheme::Nfs => write!(f, "{host}:/{path}")?,
            Scheme::Cifs => write!(f, "{host}/{path}")?,
            Scheme::Directory => write!(f, "/{path}")?,
        }
        let own = self
            .parameters
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let mut all: Vec<_> = own.chain(more.iter().copied()).collect();
        all.sort_by_key(|(key, _)| *key);
        for (index, (key, value)) in all.into_iter().enumerate() {
            let before = if index == 0 { '?' } else { '&' };
            write!(f, "{before}{}={}", query_text(key), query_text(value))?;
        }
        Ok(())
    }
}

impl FromStr for StoreAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let address: Address = text.parse()?;
        match address.item {
            None => Ok(address.store),
            Some(_) => Err(parse::refused(
                text,
                "it is the address of something in a store; leave out backup, volume and backingImage",
            )),
        }
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &[])
    }
}

/// The address of a store or of something in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub store: StoreAddress,
    /// `None`: the store itself.
    pub item: Option<Item>,
}

/// Something in a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    Volume(Name),
    Backup { volume: Name, backup: Name },
    BackingImage(Name),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Parts {
            scheme,
            bucket,
            host,
            path,
            mut parameters,
        } = Parts::of(text).map_err(|why| parse::refused(text, why))?;
        let item = item(&mut parameters).map_err(|why| match why {
            Why::Text(why) => parse::refused(text, why),
            Why::Name(error) => error,
        })?;
        let mount = mount::of(scheme, &host, &path, &mut parameters)
            .map_err(|why| parse::refused(text, why))?;
        let store = StoreAddress {
            scheme,
            bucket,
            host,
            path,
            parameters,
            mount,
        };
        Ok(Self { store, item })
    }
}

enum Why {
    Text(&'static str),
    Name(Error),
}

/// Takes the parameters that name something in the store.
fn item(parameters: &mut Vec<(String, String)>) -> Result<Option<Item>, Why> {
    let mut take = |wanted: &str| -> Result<Option<Name>, Why> {
        let found = parameters.iter().position(|(key, _)| key == wanted);
        let Some(found) = found else {
            return Ok(None);
        };
        let (_, value) = parameters.remove(found);
        value.parse().map(Some).map_err(Why::Name)
    };
    match (take("backup")?, take("volume")?, take("backingImage")?) {
        (None, None, None) => Ok(None),
        (None, Some(volume), None) => Ok(Some(Item::Volume(volume))),
        (Some(backup), Some(volume), None) => Ok(Some(Item::Backup { volume, backup })),
        (None, None, Some(image)) => Ok(Some(Item::BackingImage(image))),
        (Some(_), None, None) => Err(Why::Text(
            "it names a backup and not its volume: add &volume=NAME",
        )),
        (_, _, Some(_)) => Err(Why::Text("it names both a backing image and a volume")),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.item {
            None => self.store.write(f, &[]),
            Some(Item::Volume(volume)) => self.store.write(f, &[("volume", volume.as_str())]),
            Some(Item::Backup { volume, backup }) => {
                let names = [("backup", backup.as_str()), ("volume", volume.as_str())];
                self.store.write(f, &names)
            }
            Some(Item::BackingImage(image)) => {
                self.store.write(f, &[("backingImage", image.as_str())])
            }
        }
    }
}

#[cfg(test)]
mod tests;
