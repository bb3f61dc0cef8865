//! A lock file: `{"Name":"lock-0123456789abcdef","Type":1,"Acquired":false}`.

use std::io;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::{Error, Result};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Record {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "Type")]
    kind: u64,
    #[serde(default)]
    acquired: bool,
}

impl Kind {
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Use => 1,
            Self::Remove => 2,
        }
    }

    pub(super) fn of(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Use),
            2 => Some(Self::Remove),
            _ => None,
        }
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Use => "for a backup or a restore",
            Self::Remove => "for a deletion",
        }
    }
}

impl Record {
    pub(super) fn new(name: &str, kind: Kind, acquired: bool) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.number(),
            acquired,
        }
    }

    /// `None`: nobody heeds a lock that cannot be read.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// As numbers: locks of two kinds exclude each other, also those that are not known here.
    pub(super) fn kind(&self) -> u64 {
        self.kind
    }

    pub(super) fn acquired(&self) -> bool {
        self.acquired
    }
}

/// A name that no other lock has.
pub(super) fn new_name() -> Result<String> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::File {
            operation: "read random bytes from",
            path: "/dev/urandom".into(),
            source: io::Error::other("the system gives none"),
        })?;
    Ok(format!("lock-{:016x}", u64::from_be_bytes(bytes)))
}
