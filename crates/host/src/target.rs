//! The targets of this node. To be replaced by the module that serves them.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use types::VolumeName;

use crate::{Error, Result};

fn missing() -> Error {
    Error::Requirement {
        why: "targets are not served yet".to_owned(),
    }
}

pub fn portal(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Initiator(String);
impl Initiator {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for Initiator {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(Self(text.to_owned()))
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Chap {
    user: String,
    secret: String,
}
impl Chap {
    pub fn new(user: &str, secret: &str) -> Result<Self> {
        Ok(Self {
            user: user.to_owned(),
            secret: secret.to_owned(),
        })
    }
    pub fn user(&self) -> &str {
        &self.user
    }
    pub fn secret(&self) -> &str {
        &self.secret
    }
}
impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chap").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub struct Wanted {
    pub volume: VolumeName,
    pub file: PathBuf,
    pub size: u64,
    pub read_only: bool,
    pub initiators: Vec<Initiator>,
    pub chap: Option<Chap>,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub socket: PathBuf,
    pub portal: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub initiator: String,
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub volume: VolumeName,
    pub sessions: Vec<Session>,
}

#[derive(Debug, Clone)]
pub struct Targets {
    portal: SocketAddr,
}
impl Targets {
    pub fn new(settings: Settings) -> Self {
        Self {
            portal: settings.portal,
        }
    }
    pub fn name(volume: &VolumeName) -> String {
        format!("iqn.2019-10.io.longhorn:{volume}")
    }
    pub fn portal(&self) -> SocketAddr {
        self.portal
    }
    pub fn is_open(&self) -> Result<bool> {
        Err(missing())
    }
    pub fn open(&self) -> Result<()> {
        Err(missing())
    }
    pub fn put(&self, _: &Wanted) -> Result<Present> {
        Err(missing())
    }
    pub fn remove(&self, _: &VolumeName, _: bool) -> Result<()> {
        Ok(())
    }
    pub fn list(&self) -> Result<Vec<Present>> {
        Err(missing())
    }
}
