//! What the controller service does with snapshots: those that are images, of the managers, and those that are
//! backups, of their stores.

use proto::csi::v1 as csi;
use types::ImageName;

use super::{ControllerService, gone_is_fine};
use crate::error::{Error, Result};
use crate::request::{ListSnapshots, SnapshotRequest};

impl ControllerService {
    /// A page of snapshots and the token of the next. One that is a backup is looked for in its store alone; those of
    /// one volume are followed by its backups in the default target, where that answers.
    pub(super) async fn snapshots(
        &self,
        request: &ListSnapshots,
    ) -> Result<(Vec<csi::Snapshot>, String)> {
        if let Some((id, target)) = &request.backup {
            let mut found = match self.backups.get(id, target).await {
                Err(Error::NoSuchSnapshot { .. }) => Vec::new(),
                // A store that does not answer says nothing of what it has.
                other => vec![other?],
            };
            let volume = request.volume.as_str();
            found.retain(|found| volume.is_empty() || found.source_volume_id == volume);
            return Ok((found, String::new()));
        }
        let more = if request.volume.is_empty() || !request.snapshot.is_empty() {
            Vec::new()
        } else {
            self.backups.of_volume(&request.volume).await
        };
        self.managers.list_snapshots(request, more).await
    }

    /// One snapshot.
    pub(super) async fn snapshot(&self, request: SnapshotRequest) -> Result<csi::Snapshot> {
        match request {
            SnapshotRequest::Image(id) => {
                let snapshots = self.managers.of_snapshot(&id).await?;
                let snapshots = snapshots.ok_or_else(|| Error::NoSuchSnapshot {
                    snapshot_id: id.to_string(),
                })?;
                snapshots.get(&id).await
            }
            SnapshotRequest::Backup(id, target) => self.backups.get(&id, &target).await,
        }
    }

    /// Deletes a snapshot; fine when there is none.
    pub(super) async fn delete_one(&self, request: SnapshotRequest) -> Result<()> {
        let _guard = self.in_flight_snapshots.enter(&request.name())?;
        match request {
            SnapshotRequest::Image(id) => gone_is_fine(self.delete_image(&id).await),
            // Where nothing is found, its target may be what is not found.
            SnapshotRequest::Backup(id, target) => self.backups.delete(&id, &target).await,
        }
    }

    async fn delete_image(&self, id: &ImageName) -> Result<()> {
        match self.managers.of_snapshot(id).await? {
            Some(snapshots) => snapshots.delete(id).await,
            None => Ok(()),
        }
    }
}
