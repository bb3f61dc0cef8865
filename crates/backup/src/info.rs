//! What a store is said to have: backups, volumes and backing images, without their blocks.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::backing_image::BackingImageHead;
use crate::config::backup::BackupHead;
use crate::config::volume::VolumeConfig;
use crate::{BaseImage, BlockSize, Compression, Name};

/// A listing, and what was found in its place that is nothing of the kind: never an error, because one
/// damaged file must not hide all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// In the order of their names.
    pub items: Vec<T>,
    /// What cannot be read or has an impossible name, each as a sentence.
    pub problems: Vec<String>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            problems: Vec::new(),
        }
    }
}

/// A backup of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupInfo {
    /// The volume.
    pub volume: Name,
    /// Its own name.
    pub name: Name,
    /// The snapshot that it was made of.
    pub snapshot: String,
    /// When that was taken.
    pub snapshot_created_at: Timestamp,
    /// When it was complete; `None`: it is not, and cannot be restored.
    pub created_at: Option<Timestamp>,
    /// Bytes of its mapped blocks.
    pub size: u64,
    /// Bytes of the volume that it restores to: those at the time of the backup if its writer has said
    /// them, else the volume's now. `None`: the volume's own record cannot be read.
    pub volume_size: Option<u64>,
    /// Bytes of a block.
    pub block_size: BlockSize,
    /// Whether only what differs from another backup was uploaded. It can be restored alone all the same.
    pub incremental: bool,
    /// How its blocks were stored when it was made.
    pub compression: Compression,
    /// Bytes as stored of the blocks that it uploaded.
    pub uploaded: u64,
    /// Those of the blocks that the store had and that were uploaded again.
    pub reuploaded: u64,
    /// Labels of the backup.
    pub labels: BTreeMap<String, String>,
    /// The image without which it cannot be restored.
    pub base: Option<BaseImage>,
}

impl BackupInfo {
    /// A backup as its own cfg and that of its volume say it.
    pub(crate) fn new(head: BackupHead, volume: Option<&VolumeConfig>) -> Self {
        Self {
            volume_size: head.volume_size().or(volume.map(|volume| volume.size)),
            base: volume.and_then(|volume| volume.base.clone()),
            volume: head.volume,
            name: head.name,
            snapshot: head.snapshot,
            snapshot_created_at: head.snapshot_created_at,
            created_at: head.created_at,
            size: head.size,
            block_size: head.block_size,
            incremental: head.incremental,
            compression: head.compression,
            uploaded: head.uploaded,
            reuploaded: head.reuploaded,
            labels: head.labels,
        }
    }
}

/// A volume of which there are backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// The volume.
    pub name: Name,
    /// Bytes, a multiple of its block size.
    pub size: u64,
    /// The image that all its backups lie above.
    pub base: Option<BaseImage>,
    /// When it was first backed up.
    pub created_at: Option<Timestamp>,
    /// The parent of the next incremental backup.
    pub last_backup: Option<Name>,
    /// When the snapshot of that was taken.
    pub last_backup_at: Option<Timestamp>,
    /// Distinct blocks.
    pub block_count: u64,
    /// How the next backup's blocks are stored.
    pub compression: Compression,
    /// Labels of the volume.
    pub labels: BTreeMap<String, String>,
    /// The StorageClass that it was made with; empty: not known.
    pub storage_class: String,
}

impl From<VolumeConfig> for VolumeInfo {
    fn from(config: VolumeConfig) -> Self {
        Self {
            name: config.name,
            size: config.size,
            base: config.base,
            created_at: config.created_at,
            last_backup: config.last_backup,
            last_backup_at: config.last_backup_at,
            block_count: config.block_count,
            compression: config.compression,
            labels: config.labels,
            storage_class: config.storage_class,
        }
    }
}

/// A backup of a backing image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingImageInfo {
    /// The image.
    pub name: Name,
    /// Bytes of its file.
    pub size: u64,
    /// SHA-512 of its file, in hexadecimal digits.
    pub checksum: String,
    /// When it was complete; `None`: it is not, and cannot be restored.
    pub completed_at: Option<Timestamp>,
    /// Distinct blocks.
    pub block_count: u64,
    /// How its blocks were stored when it was made.
    pub compression: Compression,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The Secret of the keys of an encrypted image, and its namespace; empty: none.
    pub secret: String,
    /// The namespace of that Secret.
    pub secret_namespace: String,
}

impl From<BackingImageHead> for BackingImageInfo {
    fn from(head: BackingImageHead) -> Self {
        Self {
            name: head.name,
            size: head.size,
            checksum: head.checksum,
            completed_at: head.completed_at,
            block_count: head.block_count,
            compression: head.compression,
            labels: head.labels,
            secret: head.secret,
            secret_namespace: head.secret_namespace,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A complete backup, for tests that need any.
    pub(crate) fn backup() -> BackupInfo {
        BackupInfo {
            volume: "vol".parse().unwrap(),
            name: "one".parse().unwrap(),
            snapshot: "snap".to_owned(),
            snapshot_created_at: Timestamp::UNIX_EPOCH,
            created_at: Some(Timestamp::UNIX_EPOCH),
            size: 0,
            volume_size: Some(0),
            block_size: BlockSize::MIB2,
            incremental: false,
            compression: Compression::Lz4,
            uploaded: 0,
            reuploaded: 0,
            labels: BTreeMap::new(),
            base: None,
        }
    }
}
