//! `published.cfg`: who may use a volume.

use std::path::Path;

use serde::{Deserialize, Serialize};
use store::durable;

use super::record::{self, Publication};
use crate::error::Result;

/// The version of the file that this program writes and understands.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Published {
    version: u32,
    #[serde(default)]
    published: Vec<Publication>,
}

/// The publications in the file at `path`; none without one.
pub(super) fn read(path: &Path) -> Result<Vec<Publication>> {
    match record::read_json::<Published>(path, VERSION) {
        Ok(file) => Ok(file.published),
        Err(store::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Replaces the publications in the file at `path`, durably.
pub(super) fn write(path: &Path, published: &[Publication]) -> Result<()> {
    let file = Published {
        version: VERSION,
        published: published.to_vec(),
    };
    let file = serde_json::to_vec(&file).expect("publications are plain JSON");
    Ok(durable::replace(path, &file)?)
}
