//! `volume.cfg`: a volume as a store knows it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::fields::{Fields, invalid, nested, time};
use crate::{Compression, Name, Result};

/// Most bytes of a `volume.cfg`.
pub(crate) const LENGTH_MAX: u64 = 1 << 20;

/// The engine of volumes that Longhorn has always had, and what absence means.
const DATA_ENGINE: &str = "v1";

/// The image that the blocks of a volume lie above: what is not mapped is the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// Of a Longhorn backing image.
    pub name: String,
    /// SHA-512 of the image's file, in hexadecimal digits.
    pub checksum: String,
}

/// A `volume.cfg`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VolumeConfig {
    pub(crate) name: Name,
    /// Bytes of the volume now; a multiple of its block size.
    pub(crate) size: u64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created_at: Option<Timestamp>,
    /// The parent of the next incremental backup.
    pub(crate) last_backup: Option<Name>,
    /// When its snapshot was taken.
    pub(crate) last_backup_at: Option<Timestamp>,
    /// Distinct blocks.
    pub(crate) block_count: u64,
    pub(crate) base: Option<BaseImage>,
    pub(crate) compression: Compression,
    pub(crate) storage_class: String,
    pub(crate) data_engine: String,
    /// What others have written and we do not know: kept.
    pub(crate) other: Map<String, Value>,
}

/// The file, with its types and in its order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    name: &'a str,
    size: String,
    labels: &'a BTreeMap<String, String>,
    created_time: String,
    last_backup_name: &'a str,
    last_backup_at: String,
    block_count: String,
    backing_image_name: String,
    backing_image_checksum: String,
    compression_method: String,
    storage_class_name: String,
    data_engine: String,
    #[serde(flatten)]
    other: &'a Map<String, Value>,
}

impl VolumeConfig {
    /// Reads the file at `key`, which must be that of `volume`.
    pub(crate) fn parse(bytes: &[u8], key: &str, volume: &Name) -> Result<Self> {
        let values = serde_json::from_slice(bytes).map_err(|error| match bytes {
            [] => invalid(key, "it is empty".to_owned()),
            _ => invalid(key, format!("it is cut short or not JSON: {error}")),
        })?;
        let mut fields = Fields::new(key, values);
        let name = fields.name("Name", volume)?;
        let size = fields.size("Size")?;
        let last_backup = fields.text("LastBackupName")?;
        let last_backup = match last_backup.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                let text = types::shown(text);
                fields.invalid(format!("LastBackupName {text:?} is not a name"))
            })?),
        };
        let base = BaseImage {
            name: fields.nested("BackingImageName")?,
            checksum: fields.nested("BackingImageChecksum")?,
        };
        let compression = fields.nested("CompressionMethod")?;
        let data_engine = fields.nested("DataEngine")?;
        Ok(Self {
            name,
            size,
            labels: fields.map("Labels")?,
            created_at: fields.time("CreatedTime")?,
            last_backup,
            last_backup_at: fields.time("LastBackupAt")?,
            block_count: fields.number("BlockCount")?,
            base: Some(base).filter(|base| !base.name.is_empty()),
            compression: fields.compression("CompressionMethod", &compression)?,
            storage_class: fields.nested("StorageClassName")?,
            data_engine: match data_engine.as_str() {
                "" => DATA_ENGINE.to_owned(),
                _ => data_engine,
            },
            other: fields.rest(),
        })
    }

    /// The file's bytes.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let base = self.base.as_ref();
        let written = Written {
            name: self.name.as_str(),
            size: self.size.to_string(),
            labels: &self.labels,
            created_time: time(self.created_at),
            last_backup_name: self.last_backup.as_ref().map_or("", Name::as_str),
            last_backup_at: time(self.last_backup_at),
            block_count: self.block_count.to_string(),
            backing_image_name: nested(base.map_or("", |base| &base.name)),
            backing_image_checksum: nested(base.map_or("", |base| &base.checksum)),
            compression_method: nested(&self.compression.to_string()),
            storage_class_name: nested(&self.storage_class),
            data_engine: nested(&self.data_engine),
            other: &self.other,
        };
        serde_json::to_vec(&written).expect("texts and numbers are JSON")
    }
}
