//! The options of a volume: the JSON object that the kubelet passes to nearly every call.
//!
//! It combines three sources: the kubelet's own keys (`kubernetes.io/…`), the keys of the secret
//! (`kubernetes.io/secret/…`, base64) and the options of the author of the pod. Nothing is trusted
//! before it is checked here, and nothing becomes a path or an argument of a command. Secrets are
//! extracted here and are in no printable type.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use backup::{Address, Item};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::PullSecret;
use client::parameters::{
    self, BASE_IMAGE, FROM_BACKUP, NUMBER_OF_REPLICAS, STALE_REPLICA_TIMEOUT,
};
use probe::FsType;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use types::{ByteSize, VolumeName};

use crate::error::{Error, Result, shown};

/// The kernel allows 128 KiB for one argument; this is for callers that have no kernel between.
const JSON_BYTES_MAX: usize = 1 << 20;
/// Far more keys than anybody has uses for.
const KEYS_MAX: usize = 1024;

/// What the kubelet's own keys begin with.
const KUBERNETES: &str = "kubernetes.io/";
const SECRET: &str = "kubernetes.io/secret/";
/// The name of the PersistentVolume, or of the volume in the pod.
pub(crate) const VOLUME_NAME: &str = "kubernetes.io/pvOrVolumeName";
const FS_TYPE: &str = "kubernetes.io/fsType";
const READ_WRITE: &str = "kubernetes.io/readwrite";
const POD_NAME: &str = "kubernetes.io/pod.name";
pub(crate) const POD_NAMESPACE: &str = "kubernetes.io/pod.namespace";
pub(crate) const POD_UID: &str = "kubernetes.io/pod.uid";

/// How large the volume shall be: a Kubernetes quantity.
const SIZE: &str = "size";
/// Whether pods share the volume.
pub(crate) const SHARE: &str = "share";
/// How the first provisioner asked for a block device; nothing else was ever to be had.
const FRONTEND: &str = "frontend";
/// A place where people put the field `fsType` by mistake.
const MISPLACED_FS_TYPE: &str = "fsType";

/// Every key that the author of a pod may write.
const KEYS: [&str; 8] = [
    SIZE,
    NUMBER_OF_REPLICAS,
    STALE_REPLICA_TIMEOUT,
    FROM_BACKUP,
    BASE_IMAGE,
    SHARE,
    FRONTEND,
    MISPLACED_FS_TYPE,
];

/// The keys of a secret that mean something here; others belong to somebody else.
const SECRET_KEYS: [&str; 3] = [".dockerconfigjson", "username", "password"];

/// The first driver's defaults.
const REPLICAS_DEFAULT: u32 = 3;
const STALE_REPLICA_TIMEOUT_DEFAULT: u32 = 20;

/// Whether several pods may use the volume at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// One pod at a time.
    #[default]
    None,
    /// Any number of readers, if all of them say so.
    ReadOnly,
    /// Pods of one node that agree among themselves who writes.
    ReadWrite,
}

impl Share {
    /// As in the options.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        }
    }
}

/// The pod that a volume is for, as far as it is told; for texts and comparisons only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace; empty: not told.
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return f.write_str("(unknown)");
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub volume: VolumeName,
    /// The file system asked for; `None`: the image's own, or ext4 on a blank volume.
    pub fs_type: Option<FsType>,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// Whether pods share it.
    pub share: Share,
    /// At least; `None`: the image's virtual size.
    pub size: Option<ByteSize>,
    /// On how many disks.
    pub number_of_replicas: u32,
    /// Minutes until a replica that is gone is given up.
    pub stale_replica_timeout: u32,
    /// The container image with the first contents.
    pub base_image: Option<String>,
    /// The backup with the first contents.
    pub from_backup: Option<Address>,
    pub pod: Pod,
    /// What the registry wants to hear.
    pub pull_secret: PullSecret,
}

impl Options {
    /// Reads and checks the JSON object of a call.
    pub fn parse(json: &str) -> Result<Self> {
        let map = object(json)?;
        let kubelet = |key: &str| map.get(key).map(String::as_str).unwrap_or_default();
        let volume = VolumeName::new(kubelet(VOLUME_NAME)).map_err(Error::Name)?;
        let read_only = match kubelet(READ_WRITE) {
            "" | "rw" => false,
            "ro" => true,
            value => return Err(refuse(READ_WRITE, value, "it is rw or ro")),
        };
        let mut options = Self {
            volume,
            fs_type: fs_type(kubelet(FS_TYPE))?,
            read_only,
            share: Share::None,
            size: None,
            number_of_replicas: REPLICAS_DEFAULT,
            stale_replica_timeout: STALE_REPLICA_TIMEOUT_DEFAULT,
            base_image: None,
            from_backup: None,
            pod: Pod {
                namespace: told(kubelet(POD_NAMESPACE)),
                name: told(kubelet(POD_NAME)),
                uid: told(kubelet(POD_UID)),
            },
            pull_secret: PullSecret::default(),
        };
        let users = map.iter().filter(|(key, _)| !key.starts_with(KUBERNETES));
        for (key, value) in users {
            options.take(key, value)?;
        }
        if let (Some(_), Some(backup)) = (&options.base_image, &options.from_backup) {
            let why = "a volume has one image: set baseImage or fromBackup";
            return Err(refuse(FROM_BACKUP, &backup.to_string(), why));
        }
        if options.share == Share::ReadOnly && !options.read_only {
            let why = "set readOnly: true in the pod's flexVolume as well";
            return Err(refuse(SHARE, options.share.as_str(), why));
        }
        options.pull_secret = pull_secret(&map, options.base_image.as_deref())?;
        Ok(options)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(key) = KEYS.into_iter().find(|known| *known == key) else {
            return Err(Error::UnknownOption {
                key: shown(key),
                nearest: parameters::nearest(key, &KEYS),
            });
        };
        // Unset and empty are the same; templates write the text `null`, which is neither.
        if value.is_empty() {
            return Ok(());
        }
        if value == "null" {
            return Err(refuse(
                key,
                value,
                "leave the option out, or empty, to unset it",
            ));
        }
        let refuse_why = |why| refuse(key, value, why);
        match key {
            SIZE => self.size = Some(size(value)?),
            NUMBER_OF_REPLICAS => {
                self.number_of_replicas =
                    parameters::number_of_replicas(value).map_err(refuse_why)?;
            }
            STALE_REPLICA_TIMEOUT => {
                let minutes = parameters::stale_replica_timeout(value).map_err(refuse_why)?;
                self.stale_replica_timeout = minutes;
            }
            BASE_IMAGE => {
                self.base_image = Some(parameters::base_image(value).map_err(refuse_why)?);
            }
            SHARE => self.share = share(value)?,
            FRONTEND if value == "blockdev" => {}
            FRONTEND => return Err(refuse_why("there is only blockdev; leave it out")),
            FROM_BACKUP => self.from_backup = Some(from_backup(value)?),
            _ => {
                let why = "fsType is a field of flexVolume, beside options and not among them";
                return Err(refuse_why(why));
            }
        }
        Ok(())
    }

    /// Whether the volume itself is used for reading only.
    pub(crate) fn stages_read_only(&self) -> bool {
        self.read_only && self.share != Share::ReadWrite
    }
}

fn refuse(key: &'static str, value: &str, why: &str) -> Error {
    Error::Option {
        key,
        value: shown(value),
        why: why.to_owned(),
    }
}

/// The address of a backup of a volume or of a backing image.
fn from_backup(value: &str) -> Result<Address> {
    let address: Address = value.parse().map_err(Error::FromBackup)?;
    match address.item {
        Some(Item::Backup { .. } | Item::BackingImage(_)) => Ok(address),
        Some(Item::Volume(_)) | None => {
            let why =
                "it names no backup; add ?backup=NAME&volume=NAME to the address of the store";
            Err(refuse(FROM_BACKUP, &address.to_string(), why))
        }
    }
}

fn size(value: &str) -> Result<ByteSize> {
    let size =
        types::parse_quantity(value).map_err(|error| refuse(SIZE, value, &error.to_string()))?;
    if size == ByteSize(0) {
        return Err(refuse(SIZE, value, "a volume has at least one byte"));
    }
    Ok(size)
}

fn share(value: &str) -> Result<Share> {
    match value {
        "none" => Ok(Share::None),
        "read-only" => Ok(Share::ReadOnly),
        "read-write" => Ok(Share::ReadWrite),
        _ => Err(refuse(
            SHARE,
            value,
            "the values are none, read-only and read-write",
        )),
    }
}

fn fs_type(value: &str) -> Result<Option<FsType>> {
    if value.is_empty() {
        return Ok(None);
    }
    let known = value.parse().ok();
    let fs_type = known.filter(|fs_type| host::mounts::is_supported(*fs_type));
    let why = "use ext4, ext3, ext2, xfs or btrfs, or leave fsType empty to use the image's own";
    fs_type.map(Some).ok_or_else(|| refuse(FS_TYPE, value, why))
}

/// A text about the pod, fit to be printed.
fn told(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(253).collect()
}

fn pull_secret(map: &BTreeMap<String, String>, base_image: Option<&str>) -> Result<PullSecret> {
    let mut secrets = HashMap::new();
    for (key, value) in map {
        let Some(key) = key
            .strip_prefix(SECRET)
            .filter(|key| SECRET_KEYS.contains(key))
        else {
            continue;
        };
        let bytes = STANDARD
            .decode(value.trim_end())
            .map_err(|_| Error::Secret {
                why: "a value is not base64",
            })?;
        let text = String::from_utf8(bytes).map_err(|_| Error::Secret {
            why: "a value is not UTF-8",
        })?;
        secrets.insert(key.to_owned(), text);
    }
    PullSecret::parse(&secrets, base_image).map_err(|why| Error::Secret { why })
}

/// The object, each key once. A key that comes twice is somebody's attempt to have two readers read
/// two things.
fn object(json: &str) -> Result<BTreeMap<String, String>> {
    let invalid = |why: String| Error::Options { why };
    if json.len() > JSON_BYTES_MAX {
        return Err(invalid("they hold more than 1 MiB".to_owned()));
    }
    // What is something else whole, a text for one, would be repeated whole by the reader below.
    if !json.trim_start().starts_with('{') {
        return Err(invalid("they are not a JSON object".to_owned()));
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let map = reader
        .deserialize_map(Object)
        .and_then(|map| reader.end().map(|()| map));
    map.map_err(|error| {
        // The position and the kind, never the text: it may be a secret.
        let at = format!("line {} column {}", error.line(), error.column());
        let why = match error.classify() {
            serde_json::error::Category::Data => error.to_string(),
            _ => format!("they are not a JSON object, at {at}"),
        };
        invalid(why)
    })
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value::<serde_json::Value>()?;
            let serde_json::Value::String(value) = value else {
                return Err(A::Error::custom(format!("{:?} is not a text", shown(&key))));
            };
            if map.len() == KEYS_MAX {
                return Err(A::Error::custom("there are more than 1024 keys"));
            }
            if map.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("{:?} occurs twice", shown(&key))));
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests;
