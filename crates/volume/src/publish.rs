//! Which node may use a volume: recorded in a file beside the record, which exists while a node
//! may.
//!
//! Unpublishing removes that file, which works on a disk without space for a new one. If even that
//! is impossible (a disk that became read-only), it is remembered until it is possible, and the
//! caller gets success: the kernel's lock on the file of a volume, which a node that uses the
//! volume holds, still prevents its deletion.

use std::sync::PoisonError;

use tracing::{info, warn};
use types::{NodeId, VolumeName, crash_point, report};

use super::published;
use super::record::{self, Publication};
use super::users::Use;
use super::{Volume, Volumes};
use crate::error::{Error, Result};
use store::durable;
use store::layout::VolumePaths;

impl Volumes {
    /// Records that a node may use a volume.
    pub fn publish(&self, name: &VolumeName, publication: Publication) -> Result<Volume> {
        let _busy = self.lock(name)?;
        let mut volume = self.get(name)?;
        if volume.is_replica {
            return Err(Error::Replica(name.clone()));
        }
        if publication.node_id != self.node_id {
            return Err(Error::NodeUnknown(publication.node_id));
        }
        let known = |p: &&Publication| p.node_id == publication.node_id;
        match volume.published.iter().find(known) {
            Some(known) if *known == publication => return Ok(volume),
            Some(known) if known.by != publication.by => {
                return Err(Error::VolumePublished {
                    name: name.clone(),
                    node: known.node_id.clone(),
                    by: known.by,
                });
            }
            Some(known) => {
                return Err(Error::PublishedDifferently {
                    name: name.clone(),
                    node: known.node_id.clone(),
                    readonly: known.readonly,
                });
            }
            None => {}
        }
        let mut others = volume.published.iter();
        let shares =
            |p: &&Publication| p.multi_node && publication.multi_node && p.by == publication.by;
        if let Some(other) = others.find(|p| !shares(p)) {
            return Err(Error::VolumePublished {
                name: name.clone(),
                node: other.node_id.clone(),
                by: other.by,
            });
        }
        volume.published.push(publication);
        self.disk.check()?;
        self.write_published(&mut volume)?;
        crash_point!("volume.publish.recorded");
        Ok(volume)
    }

    /// Takes the publication for one kind of users back, on a node or on all of them; none there is no error.
    pub fn unpublish(&self, name: &VolumeName, node: Option<&NodeId>, by: Use) -> Result<()> {
        let _busy = self.lock(name)?;
        let mut volume = match self.get(name) {
            Err(Error::VolumeNotFound(_)) => return Ok(()),
            // Nothing may be stuck attached: what cannot be read is nobody's permission.
            Err(Error::Store(store::Error::DamagedRecord { path, .. }))
                if path == self.disk.layout().volume(name).published =>
            {
                warn!(volume = %name, path = %path.display(), "damaged, and removed");
                durable::remove_file(&path)?;
                return Ok(durable::sync_parent(&path)?);
            }
            other => other?,
        };
        let before = volume.published.len();
        let stays = |p: &Publication| p.by != by || node.is_some_and(|node| p.node_id != *node);
        volume.published.retain(stays);
        if volume.published.len() == before {
            return Ok(());
        }
        self.disk.check()?;
        let nobody = volume.published.is_empty();
        match self.write_published(&mut volume) {
            Err(Error::Store(error @ (store::Error::Io { .. } | store::Error::Full { .. })))
                if nobody =>
            {
                self.disk.note(&error);
                warn!(volume = %name, error = %report(&error),
                    "unpublished, but not recorded on the disk yet");
                self.unpublished().insert(name.clone());
            }
            other => other?,
        }
        crash_point!("volume.unpublish.recorded");
        Ok(())
    }

    /// Takes down what was taken back while the disk could not be written to.
    pub fn settle(&self) {
        let names: Vec<_> = self.unpublished().iter().cloned().collect();
        for name in names {
            let Ok(_busy) = self.lock(&name) else {
                continue;
            };
            match self
                .get(&name)
                .and_then(|mut volume| self.write_published(&mut volume))
            {
                Ok(()) => info!(volume = %name, "recorded as unpublished"),
                Err(Error::VolumeNotFound(_)) => drop(self.unpublished().remove(&name)),
                Err(_) => {}
            }
        }
    }

    /// Makes the disk say who may use the volume. Where nobody may, nothing new is written, except for
    /// a record of an earlier version.
    fn write_published(&self, volume: &mut Volume) -> Result<()> {
        let name = &volume.record.name;
        let VolumePaths {
            record,
            published: path,
            ..
        } = self.disk.layout().volume(name);
        if volume.published.is_empty() {
            durable::remove_file(&path)?;
            durable::sync_parent(&path)?;
        } else {
            published::write(&path, &volume.published)?;
        }
        let before = record::Record::read(&record, name)?;
        if !before.published_before.is_empty() {
            volume.record.published_before.clear();
            volume.record.write(&record)?;
        }
        self.unpublished().remove(name);
        Ok(())
    }

    /// Volumes that were unpublished, and whose disk does not say so yet.
    pub(super) fn unpublished(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashSet<VolumeName>> {
        self.unpublished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
