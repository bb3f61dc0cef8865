//! What is asked for, checked.

use std::collections::BTreeMap;

use backup::{BlockSize, Compression, Mode, Name};
use types::{ImageId, ImageName, Sha512, VolumeName};

use crate::targets::Asked;

/// A request for a backup, checked.
#[derive(Debug, Clone)]
pub struct NewBackup {
    pub target: Asked,
    /// `None`: derived from the snapshot's name.
    pub name: Option<Name>,
    pub volume: VolumeName,
    /// `None`: one is taken now.
    pub snapshot: Option<ImageName>,
    pub mode: Mode,
    pub compression: Compression,
    /// `None`: that of the last backup.
    pub block_size: Option<BlockSize>,
    /// Only what differs from the base image.
    pub on_base: bool,
    pub labels: BTreeMap<String, String>,
    /// What the volume was made with.
    pub storage_class: String,
}

/// A request for a backup of an image, checked.
#[derive(Debug, Clone)]
pub struct NewImageBackup {
    pub target: Asked,
    pub image: ImageId,
    /// The SHA-512 that it must have.
    pub checksum: Sha512,
    pub compression: Compression,
    pub labels: BTreeMap<String, String>,
    /// The Secret of the keys of an encrypted image, and its namespace; empty: none.
    pub secret: String,
    pub secret_namespace: String,
}
