//! Ingests a complete file, for example a clone by the kernel where no byte passes through this
//! program, and reads it back to hash it.

use std::fs::File;
use std::path::PathBuf;

use types::{ImageId, crash_point};

use super::durable;
use super::hash::{digest_file, hash_file};
use super::images::ImageStore;
use super::reading::Reading;
use super::received::Received;
use crate::error::{Error, IoContext, Result};

/// A work file that is removed unless it became a [`Received`].
struct WorkFile(Option<PathBuf>);

impl Drop for WorkFile {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // What cannot be removed now is a leftover that the next start removes.
            let _ = durable::remove_file(&path);
        }
    }
}

impl ImageStore {
    /// Makes the work file of an image, lets `fill` fill it, and computes its digests, or those of its chunks alone
    /// if the SHA-512 is left for later.
    pub fn receive_file<E: From<Error>>(
        &self,
        id: &ImageId,
        checksum_later: bool,
        reading: Reading<'_>,
        fill: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<Received, E> {
        let path = self.enter(id)?.backing_tmp; // 1
        durable::remove_file(&path)?;
        let file = durable::create_file(&path)?; // 2
        let mut work = WorkFile(Some(path.clone()));
        fill(&file)?; // 3
        file.sync_all().context("sync", &path)?;
        crash_point!("store.whole.filled");
        let manifest = if checksum_later {
            digest_file(&file, &path, reading)?
        } else {
            hash_file(&file, &path, reading)?
        };
        work.0 = None;
        Ok(Received {
            file,
            path,
            manifest,
            padded: None,
            unproven: checksum_later,
            armed: true,
        })
    }
}
