//! The snapshots that backups are made of: taken, found again, and removed when the next backup is complete.
//!
//! A snapshot that was taken for a backup alone says so in its sidecar, with the store: after a restart it is
//! known what it is for. Its file is shared with the volume's, so that the next backup finds by their extents
//! what has changed.

use std::fs::File;

use backup::Name;
use catalog::source::Source;
use catalog::{Existing, Lifecycle, NewImage, Status};
use image::Format;
use jiff::Timestamp;
use store::{IoContext as _, Snapshot};
use tracing::{info, warn};
use types::{ImageId, ImageName, VolumeName, report};

use crate::error::{Error, Result};
use crate::job::Job;
use crate::request::NewBackup;
use crate::room::Room;
use crate::targets::Target;

/// A snapshot, open: its bytes stay as they are, also when its image is deleted meanwhile.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) id: ImageId,
    pub(crate) file: File,
    /// Bytes of the volume at that moment.
    pub(crate) size: u64,
    pub(crate) created_at: Timestamp,
}

impl Cut {
    /// The name that a store knows it by: another snapshot of the same name has another one.
    pub(crate) fn store_name(&self) -> String {
        self.id.to_string()
    }
}

impl Room {
    /// The snapshot that is to be backed up: the one that was asked for, or one that is taken now and named as
    /// the backup.
    pub(crate) async fn cut(&self, job: &Job, new: &NewBackup, name: &Name) -> Result<Cut> {
        let id = if let Some(snapshot) = &new.snapshot {
            let status = self.catalog.get(snapshot, None)?;
            is_of(&status, &new.volume)?;
            status.id
        } else {
            let id = self.catalog.create(taken_now(job, new, name)?)?.id;
            self.settled(job, &id).await?;
            id
        };
        self.open_cut(&id).await
    }

    async fn settled(&self, job: &Job, id: &ImageId) -> Result<()> {
        let mut states = self.catalog.watch(&id.name, Some(&id.uuid))?;
        let last = states.wait_for(|status| status.state.is_settled());
        let last = tokio::select! {
            last = last => last.map_err(|_| catalog::Error::ImageNotFound(id.to_string()))?.clone(),
            () = job.cancel.cancelled() => return Err(Error::Cancelled("the backup is not wanted")),
        };
        match last.state {
            Lifecycle::Failed(failure) => Err(catalog::Error::ImageNotReady {
                id: id.clone(),
                state: "failed",
                message: format!(": {}", failure.message),
            }
            .into()),
            _ => Ok(()),
        }
    }

    async fn open_cut(&self, id: &ImageId) -> Result<Cut> {
        // Its file is held while it is opened, and no longer: who deletes it needs not wait.
        let (image, _files) = self.catalog.ready(&id.name, Some(&id.uuid)).await?;
        let path = self.catalog.file_path(id);
        let created_at = image.seal().created_at.parse();
        let created_at = created_at.unwrap_or_else(|_| Timestamp::now());
        let opened = move || {
            let file = File::open(&path).context("open", &path)?;
            let size = file.metadata().context("inspect", &path)?.len();
            Ok::<_, store::Error>((file, size))
        };
        let (file, size) = catalog::blocking(opened).await?;
        Ok(Cut {
            id: id.clone(),
            file,
            size,
            created_at,
        })
    }

    /// The snapshot that a store knows by this name, if it is on this disk and of this volume.
    pub(crate) async fn find_cut(&self, volume: &VolumeName, store_name: &str) -> Option<Cut> {
        let id = self.catalog.by_name(store_name)?;
        let status = self.catalog.get(&id.name, Some(&id.uuid)).ok()?;
        is_of(&status, volume).ok()?;
        match self.open_cut(&id).await {
            Ok(cut) => Some(cut),
            Err(error) => {
                warn!(snapshot = %id, error = %report(&error), "the last backup's snapshot cannot be used");
                None
            }
        }
    }

    /// The snapshots that are kept for backups.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (Status, Snapshot)> {
        self.catalog.list().into_iter().filter_map(|status| {
            let snapshot = status.provenance.snapshot()?.clone();
            snapshot
                .backup_store
                .is_some()
                .then_some((status, snapshot))
        })
    }

    /// Removes the snapshots that were kept for earlier backups of a volume in the same store.
    pub(crate) async fn remove_older(&self, job: &Job, volume: &VolumeName, than: &Cut) {
        let store = job.key.store.to_string();
        let goes = |(status, snapshot): &(Status, Snapshot)| {
            snapshot.volume == *volume
                && snapshot.backup_store.as_ref() == Some(&store)
                && status.id != than.id
                && created_at(status).is_some_and(|at| at <= than.created_at)
        };
        for (status, _) in self.kept().filter(goes) {
            self.remove(&status.id, "a later backup is complete").await;
        }
    }

    /// Removes the snapshot that was kept for one backup.
    pub(crate) async fn remove_kept(
        &self,
        target: &Target,
        volume: &Name,
        name: &Name,
    ) -> Result<()> {
        let store = target.address.to_string();
        let goes = |(status, snapshot): &(Status, Snapshot)| {
            snapshot.volume.as_str() == volume.as_str()
                && snapshot.backup_store.as_ref() == Some(&store)
                && status.id.name.as_str() == name.as_str()
        };
        for (status, _) in self.kept().filter(goes) {
            self.catalog.delete(&status.id, || Ok(())).await?;
        }
        Ok(())
    }

    pub(crate) async fn remove(&self, id: &ImageId, why: &str) {
        match self.catalog.delete(id, || Ok(())).await {
            Ok(()) => {
                info!(snapshot = %id, why, "a snapshot that was kept for a backup is removed");
            }
            Err(error) => {
                warn!(snapshot = %id, error = %report(&error), "a snapshot that was kept for a backup stays");
            }
        }
    }
}

/// The request for a snapshot of now, which is kept for the next backup.
fn taken_now(job: &Job, new: &NewBackup, name: &Name) -> Result<NewImage> {
    Ok(NewImage {
        name: Some(ImageName::new(name.as_str())?),
        uuid: None,
        source: Some(Source::Volume(Snapshot {
            volume: new.volume.clone(),
            group: None,
            backup_store: Some(job.key.store.to_string()),
        })),
        size: 0,
        expected: None,
        format: Some(Format::Raw),
        for_volumes: false,
        existing: Existing::Join,
    })
}

fn created_at(status: &Status) -> Option<Timestamp> {
    match &status.state {
        Lifecycle::Ready(image) => image.seal().created_at.parse().ok(),
        _ => None,
    }
}

/// Refuses an image that is no snapshot of the volume.
fn is_of(status: &Status, volume: &VolumeName) -> Result<()> {
    match status.provenance.snapshot() {
        Some(snapshot) if snapshot.volume == *volume => Ok(()),
        _ => Err(Error::InvalidField {
            field: "snapshot",
            why: format!("image {} is no snapshot of volume {volume}", status.id),
        }),
    }
}
