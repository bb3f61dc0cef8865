//! Deleting a volume. Steps, none of which needs room on the disk, which may be full:
//!
//! 1. remove its file and sync the directory: from here on the volume is gone
//! 2. remove what else is in its directory, and the directory
//!
//! A crash after 1 leaves a directory whose record has no data: the next start removes it.

use std::fs::{self, File};
use std::path::Path;

use tracing::{info, warn};
use types::{Classify, ErrorKind, VolumeName, crash_point, report};

use super::Volumes;
use store::IoContext;

use crate::error::{Error, Result};
use store::durable;
use store::held::hold;
use store::layout::VolumePaths;

/// What is in a volume's directory besides its bytes.
const BESIDE: [&str; 7] = [
    // A file that a node was formatting.
    "volume.format",
    "volume.cfg",
    "volume.cfg.tmp",
    "published.cfg",
    "published.cfg.tmp",
    // DRBD's metadata of a replica.
    "drbd",
    "drbd.tmp",
];

impl Volumes {
    /// Deletes a volume that no node uses; none there is no error.
    pub fn delete(&self, name: &VolumeName) -> Result<()> {
        let _busy = self.lock(name)?;
        self.disk.check()?;
        match self.get(name) {
            Ok(volume) => {
                if let Some(publication) = volume.published.first() {
                    return Err(Error::VolumePublished {
                        name: name.clone(),
                        node: publication.node_id.clone(),
                        by: publication.by,
                    });
                }
            }
            Err(Error::VolumeNotFound(_)) => return self.remove_dir(name),
            // Nothing may be stuck deleting: a broken record cannot say that the volume is in use.
            Err(error @ Error::Store(store::Error::DamagedRecord { .. })) => {
                warn!(volume = %name, error = %report(&error), "deleted nevertheless");
            }
            Err(error @ Error::Store(store::Error::Io { .. }))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) =>
            {
                warn!(volume = %name, error = %report(&error), "deleted nevertheless");
            }
            Err(error) => return Err(error),
        }
        let VolumePaths { data, .. } = self.disk.layout().volume(name);
        // A node that uses the volume holds its file, shared, through its loop device.
        let held = match File::open(&data) {
            Ok(file) if !hold(&file, &data)? => {
                let (name, node) = (name.clone(), self.node_id.clone());
                return Err(Error::VolumeAttached { name, node });
            }
            file => file,
        };
        durable::remove_file(&data)?; // 1
        // Its blocks are free when nobody has it open any more.
        drop(held);
        durable::sync_parent(&data)?;
        crash_point!("volume.delete.unlinked");
        self.remove_dir(name)?;
        info!(volume = %name, "deleted");
        Ok(())
    }

    /// Removes what deleting a volume left, if it is there and nothing else is.
    pub(super) fn remove_remains(&self, name: &VolumeName) -> Result<()> {
        let dir = self.disk.layout().volume(name).dir;
        if dir.try_exists().context("look for", &dir)? && !is_remains(&dir)? {
            let others = std::io::Error::other("it holds files of others; look at them");
            return Ok(Err(others).context("remove", &dir)?);
        }
        self.remove_dir(name)
    }

    fn remove_dir(&self, name: &VolumeName) -> Result<()> {
        let dir = self.disk.layout().volume(name).dir;
        durable::remove_dir(&dir)?; // 2
        match durable::sync_parent(&dir) {
            // Somebody removed the directory of all volumes: there is no name left to be made durable.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            synced => synced?,
        }
        self.unpublished().remove(name);
        self.sizes().remove(name);
        Ok(())
    }
}

/// Whether a directory holds nothing but what describes bytes that are gone.
pub(super) fn is_remains(dir: &Path) -> Result<bool> {
    for entry in fs::read_dir(dir).context("list", dir)? {
        let name = entry.context("list", dir)?.file_name();
        if !BESIDE.iter().any(|beside| name == *beside) {
            return Ok(false);
        }
    }
    Ok(true)
}
