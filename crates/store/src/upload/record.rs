//! What is written down of an upload: what was asked for, and how much of it is surely there.

use std::fs;
use std::io;

use image::Format;
use serde::{Deserialize, Serialize};
use types::{ImageId, ImageUuid, Sha512};

use crate::durable;
use crate::error::{Error, IoContext as _, Result};
use crate::layout::ImagePaths;
use chunks::IMAGE_SIZE_MAX;

/// The version of the record that this program writes.
const VERSION: u32 = 1;
/// A record that is larger is none of ours.
const RECORD_MAX: u64 = 64 << 10;

/// What was asked for, and how much of it is surely there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadRecord {
    version: u32,
    /// Of the image, whose directory it is in.
    uuid: ImageUuid,
    /// Bytes of the whole.
    pub size: u64,
    /// What the client calls the file.
    #[serde(default)]
    pub file_name: String,
    /// The SHA-512 that was asked for, as text; empty: none.
    #[serde(default)]
    expected: String,
    /// The format that was declared.
    #[serde(default)]
    pub format: Option<Format>,
    /// Only drivers asked for it.
    #[serde(default)]
    pub for_volumes: bool,
    /// Bytes from the first on that were synced.
    pub synced: u64,
}

impl UploadRecord {
    /// The record of an upload of which nothing has come.
    pub fn new(
        id: &ImageId,
        size: u64,
        file_name: &str,
        expected: Option<Sha512>,
        format: Option<Format>,
    ) -> Self {
        Self {
            version: VERSION,
            uuid: id.uuid.clone(),
            size,
            file_name: file_name.to_owned(),
            expected: expected.map(String::from).unwrap_or_default(),
            format,
            for_volumes: false,
            synced: 0,
        }
    }

    /// The SHA-512 that was asked for.
    pub fn expected(&self) -> Option<Sha512> {
        self.expected.parse().ok()
    }

    pub(crate) fn uuid(&self) -> &ImageUuid {
        &self.uuid
    }

    /// The record of an image's directory; `None`: there is none that means anything.
    ///
    /// # Errors
    /// [`Error::NewerFormat`] for one that this version must not touch.
    pub(crate) fn read(paths: &ImagePaths) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = &paths.upload_record;
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() && meta.len() <= RECORD_MAX => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("inspect", path),
        }
        let text = fs::read(path).context("read", path)?;
        if let Ok(Versioned { version }) = serde_json::from_slice(&text)
            && version > VERSION
        {
            let path = path.clone();
            return Err(Error::NewerFormat { path, version });
        }
        let record: Option<Self> = serde_json::from_slice(&text).ok();
        Ok(record.filter(|record| {
            (1..=IMAGE_SIZE_MAX).contains(&record.size) && record.synced <= record.size
        }))
    }

    pub(super) fn write(&self, paths: &ImagePaths) -> Result<()> {
        let text = serde_json::to_vec(self).expect("the structure has string keys only");
        durable::replace(&paths.upload_record, &text)
    }

    /// Whether both are of the same request.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let asked = |record: &Self| Self {
            synced: 0,
            // It may be asked for by others meanwhile.
            for_volumes: false,
            ..record.clone()
        };
        asked(self) == asked(other)
    }
}
