//! Backups in requests: the ids of snapshots that are backups, the classes that make them, and what a volume is
//! restored from.
//!
//! The id of a backup is `bak://VOLUME/BACKUP`, as with Longhorn, and `?target=NAME` behind it where it is in
//! another target than the default one: a call that deletes a snapshot is told its id and the secrets of its class,
//! and nothing else of the class. So a class with a store of its own has the address of that in its secret too.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use backup::{Address, Item, Name, is_target_name};
use client::{BackupTarget, wire};
use types::shown;

use crate::error::{Error, Result};

/// What the id of a backup begins with.
const SCHEME: &str = "bak://";
/// What stands before the name of a target in it.
const IN_TARGET: &str = "?target=";
/// The key of a secret with the address of the store; the others are Longhorn's.
const SECRET_ADDRESS: &str = "BACKUP_TARGET";
/// The keys of a secret for a registry, which is not for a store.
const REGISTRY_KEYS: [&str; 3] = [".dockerconfigjson", "username", "password"];
/// Several certificates and keys have less.
const SECRETS_BYTES: usize = 64 << 10;

/// `full`, `incremental` or `on-base`.
const MODE: &str = "backupMode";
/// The name of a target in the configuration of the managers.
pub(crate) const TARGET_NAME: &str = "backupTargetName";
/// 2Mi or 16Mi.
const BLOCK_SIZE: &str = "backupBlockSize";
/// `none`, `gzip` or `lz4`.
const COMPRESSION: &str = "backupCompression";
/// The parameters of a class that makes backups.
pub(super) const CLASS_KEYS: [&str; 4] = [MODE, TARGET_NAME, BLOCK_SIZE, COMPRESSION];

/// The id of a snapshot that is a backup, whether there is one or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupId {
    pub(crate) volume: Name,
    pub(crate) backup: Name,
    /// The name of its target; empty: the default one, or that of a secret.
    pub(crate) target: String,
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.volume, self.backup)?;
        match self.target.as_str() {
            "" => Ok(()),
            target => write!(f, "{IN_TARGET}{target}"),
        }
    }
}

impl BackupId {
    /// Whether a text is meant as the id of a backup.
    pub(super) fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// An id of some backup of a volume; `None`: no backup can be of it.
    pub(crate) fn of_volume(volume: &str) -> Option<Self> {
        Self::parse(&format!("{SCHEME}{volume}/any"))
    }

    /// Reads an id; `None`: it is that of no backup.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(SCHEME)?;
        let (path, target) = rest.split_once(IN_TARGET).unwrap_or((rest, ""));
        let (volume, backup) = path.split_once('/')?;
        let is_target = path.len() == rest.len() || is_target_name(target);
        is_target.then_some(Self {
            volume: volume.parse().ok()?,
            backup: backup.parse().ok()?,
            target: target.to_owned(),
        })
    }
}

/// The value of [`TARGET_NAME`].
pub(super) fn target_name(text: &str) -> Result<String> {
    if is_target_name(text) {
        return Ok(text.to_owned());
    }
    Err(Error::Parameter {
        key: TARGET_NAME,
        value: shown(text),
        why: "the name of a target is expected, as in --backup-target NAME=ADDRESS of the manager",
    })
}

/// The value of `fromBackup`, which names a backup in a store.
pub(super) fn address(text: &str) -> Result<Address> {
    let address: Address = text.parse().map_err(Error::FromBackup)?;
    match address.item {
        Some(Item::Backup { .. } | Item::BackingImage(_)) => Ok(address),
        Some(Item::Volume(_)) | None => Err(Error::FromBackupItem {
            address: address.to_string(),
        }),
    }
}

/// The keys of a secret for a store, and its address if it has one. Its `Debug` tells no value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Secrets(BackupTarget);

impl Secrets {
    /// Takes the secrets of a call. What is for a registry is for somebody else.
    pub(crate) fn parse(map: HashMap<String, String>) -> Result<Self> {
        let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > SECRETS_BYTES {
            return Err(refuse_secrets("they hold more than 64 KiB"));
        }
        let pairs = map.into_iter();
        let pairs = pairs.filter(|(key, _)| !REGISTRY_KEYS.contains(&key.as_str()));
        let mut credentials: BTreeMap<_, _> = pairs.collect();
        let address = credentials.remove(SECRET_ADDRESS).unwrap_or_default();
        Ok(Self(BackupTarget {
            name: String::new(),
            address: address.trim().to_owned(),
            credentials,
        }))
    }

    /// Where the backups of a class are, or that of an id; `name`: the target that it names, or nothing.
    pub(crate) fn target(self, name: &str) -> Result<BackupTarget> {
        let Self(own) = self;
        match (name, own.address.as_str()) {
            ("", "") if own.credentials.is_empty() => Ok(own),
            (_, "") if own.credentials.is_empty() => Ok(BackupTarget::named(name)),
            (_, "") => Err(refuse_secrets(
                "credentials of a backup target need its address: add the key BACKUP_TARGET to the secret, or name a \
                 target of the managers without a secret",
            )),
            ("", _) => Ok(own),
            _ => Err(refuse_secrets(
                "the secret has the address of a backup target and another target is named: keep one of them",
            )),
        }
    }

    /// The store of an address that is given elsewhere, with these credentials.
    fn with_address(self, address: String) -> BackupTarget {
        BackupTarget { address, ..self.0 }
    }
}

fn refuse_secrets(why: &'static str) -> Error {
    let field = "secrets";
    Error::Invalid { field, why }
}

/// How a class makes backups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BackupClass {
    pub(crate) target: BackupTarget,
    /// `full` or `incremental`; empty: the manager's choice.
    pub(crate) mode: &'static str,
    /// Whether only what differs from the base image is stored.
    pub(crate) on_base: bool,
    /// Bytes; 0: the manager's choice.
    pub(crate) block_size: u64,
    /// Empty: the manager's choice.
    pub(crate) compression: &'static str,
    /// Whom the snapshot is for; stored with the backup.
    pub(crate) labels: BTreeMap<String, String>,
}

impl BackupClass {
    /// Checks those parameters of a class that are about backups.
    pub(super) fn parse(map: &HashMap<String, String>, secrets: Secrets) -> Result<Self> {
        let value = |key| map.get(key).map(String::as_str).unwrap_or_default();
        let refuse = |key, why| Error::Parameter {
            key,
            value: shown(value(key)),
            why,
        };
        let (mode, on_base) = match value(MODE) {
            "" => ("", false),
            "full" => ("full", false),
            "incremental" => ("incremental", false),
            "on-base" => ("incremental", true),
            _ => return Err(refuse(MODE, "use full, incremental or on-base")),
        };
        let sizes = "use 2Mi or 16Mi: Longhorn has no other blocks";
        let block_size = match value(BLOCK_SIZE) {
            "" => 0,
            text => {
                let size = types::parse_quantity(text).map_err(|_| refuse(BLOCK_SIZE, sizes))?;
                let is_known = [2 << 20, 16 << 20].contains(&size.bytes());
                is_known
                    .then_some(size.bytes())
                    .ok_or_else(|| refuse(BLOCK_SIZE, sizes))?
            }
        };
        let compression = match value(COMPRESSION) {
            "" => "",
            "none" => "none",
            "gzip" => "gzip",
            "lz4" => "lz4",
            _ => return Err(refuse(COMPRESSION, "use none, gzip or lz4")),
        };
        let name = match value(TARGET_NAME) {
            "" => String::new(),
            name => target_name(name)?,
        };
        Ok(Self {
            target: secrets.target(&name)?,
            mode,
            on_base,
            block_size,
            compression,
            labels: BTreeMap::new(),
        })
    }

    /// The request for a backup of what a volume holds now.
    pub(crate) fn request(&self, id: &BackupId) -> wire::CreateBackupRequest {
        wire::CreateBackupRequest {
            target: Some(self.target.to_wire()),
            name: id.backup.to_string(),
            volume: id.volume.to_string(),
            // One is taken, and kept to be compared with the next.
            snapshot: String::new(),
            mode: self.mode.to_owned(),
            compression: self.compression.to_owned(),
            block_size: self.block_size,
            on_base: self.on_base,
            labels: self.labels.clone().into_iter().collect(),
            storage_class: String::new(),
        }
    }
}

/// What a volume is restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restore {
    /// As in the request: the id of a snapshot, or an address.
    pub(crate) shown: String,
    target: BackupTarget,
    item: Item,
}

impl Restore {
    /// From the backup of an id. `class`: the target that the StorageClass names, where the id names none.
    pub(super) fn of_id(id: BackupId, class: &str, secrets: Secrets) -> Result<Self> {
        let shown = id.to_string();
        let BackupId {
            volume,
            backup,
            target,
        } = id;
        let name = if target.is_empty() { class } else { &target };
        Ok(Self {
            shown,
            target: secrets.target(name)?,
            item: Item::Backup { volume, backup },
        })
    }

    /// From the backup at an address, which [`address`] has checked; `None`: it names none.
    pub(super) fn of_address(address: Address, secrets: Secrets) -> Option<Self> {
        Some(Self {
            shown: address.to_string(),
            target: secrets.with_address(address.store.to_string()),
            item: address.item?,
        })
    }

    /// The source of the image that it becomes.
    pub(crate) fn source(&self) -> wire::source::Source {
        let (volume, backup, backing_image) = match &self.item {
            Item::Backup { volume, backup } => (volume.to_string(), backup.to_string(), None),
            Item::Volume(volume) => (volume.to_string(), String::new(), None),
            Item::BackingImage(name) => (String::new(), String::new(), Some(name.to_string())),
        };
        wire::source::Source::Backup(wire::BackupSource {
            target: Some(self.target.to_wire()),
            volume,
            backup,
            backing_image: backing_image.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests;
