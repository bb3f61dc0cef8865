//! A work file that is not filled by a stream of bytes, but by a clone that shares extents, a
//! converter, or cryptsetup. It becomes an image like any other: it is received and sealed.

use std::fs::File;
use std::path::{Path, PathBuf};

use types::Cancel;
use types::ImageId;

use super::durable;
use super::hash::hash_file;
use super::images::ImageStore;
use super::reading::Reading;
use super::received::Received;
use crate::error::{IoContext, Result};
use chunks::Manifest;

/// What a second work file has appended to its name, beside one that bytes come to.
const BESIDE: &str = ".qcow2tmp";

/// A work file of ours. Dropping it removes it.
#[derive(Debug)]
pub struct Made {
    file: File,
    path: PathBuf,
    cancel: Cancel,
    armed: bool,
}

impl ImageStore {
    /// An empty work file for an image; a leftover of an earlier attempt is void.
    pub fn make_file(&self, id: &ImageId, cancel: Cancel) -> Result<Made> {
        Made::create(self.enter(id)?.backing_tmp, cancel)
    }

    /// Another one, beside the first: for what is made from it.
    pub fn make_file_beside(&self, id: &ImageId, cancel: Cancel) -> Result<Made> {
        let mut path = self.enter(id)?.backing_tmp.into_os_string();
        path.push(BESIDE);
        Made::create(path.into(), cancel)
    }
}

impl Made {
    fn create(path: PathBuf, cancel: Cancel) -> Result<Self> {
        durable::remove_file(&path)?;
        let file = durable::create_file(&path)?;
        Ok(Self {
            file,
            path,
            cancel,
            armed: true,
        })
    }

    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file once, for its digests.
    pub fn hashed(self) -> Result<Received> {
        let reading = Reading {
            cancel: &self.cancel,
            progress: &|_, _| {},
        };
        let manifest = hash_file(&self.file, &self.path, reading)?;
        self.vouched(manifest)
    }

    /// Takes the file for what `manifest` says: it shares the bytes that the manifest was made of.
    pub fn vouched(mut self, manifest: Manifest) -> Result<Received> {
        let file = self.file.try_clone().context("keep open", &self.path)?;
        self.armed = false;
        Ok(Received {
            file,
            path: self.path.clone(),
            manifest,
            padded: None,
            unproven: false,
            armed: true,
        })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.armed {
            // What cannot be removed now is a leftover that the next start removes.
            let _ = durable::remove_file(&self.path);
        }
    }
}
