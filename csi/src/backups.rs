//! The snapshots of the controller service that are backups: copies of a volume in a store outside the cluster, in
//! Longhorn's format. A manager makes and reads them; what is told of one is what its store has.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use client::{BackupTarget, Client, backup_failure, backup_state_name, there, wire};
use proto::csi::v1 as csi;
use tokio::time::Instant;
use types::{Classify as _, ErrorKind, report};
use wire::BackupState;

use crate::error::{Error, Result};
use crate::managers::Managers;
use crate::request::{BackupClass, BackupId, CreateSnapshot};
use crate::snapshots::created_at;
use crate::volumes::check_owner;

/// Failures that are remembered as told; with more, one is told twice.
const TOLD_MAX: usize = 1000;

/// The backups that the managers make.
#[derive(Debug, Clone)]
pub(crate) struct Backups {
    managers: Managers,
    /// Those whose failure a caller was told: the next call starts them again. Lost with the process.
    told: Arc<Mutex<BTreeSet<String>>>,
}

impl Backups {
    pub(crate) fn new(managers: Managers) -> Self {
        let told = Arc::default();
        Self { managers, told }
    }

    /// Takes a snapshot of a volume and begins to back it up, or says how far that has come. `place`: the manager
    /// to do it, where it is not any one that has the volume.
    pub(crate) async fn create(
        &self,
        request: &CreateSnapshot,
        class: &BackupClass,
        place: Option<&Client>,
    ) -> Result<csi::Snapshot> {
        let volume = &request.volume;
        let id = request.backup_id();
        let id = id.ok_or_else(|| Error::NoBackupName {
            volume: volume.clone(),
        })?;
        let asked = class.target.backup(id.volume.as_str(), id.backup.as_str());
        let found = self.managers.for_snapshot(&request.name, volume, place);
        let snapshots = match found.await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The volume is gone, and what was backed up before is not.
                let client = self.managers.of_backup(&id).await?;
                let known = there(client.backup(asked).await)?;
                let known = known.filter(|known| known.state() == BackupState::Complete);
                return known.map(|known| show(&id, &known)).ok_or(error);
            }
            other => other?,
        };
        snapshots.check_source(request).await?;
        let client = snapshots.into_client();
        let known = there(client.backup(asked.clone()).await)?;
        let backup = match known {
            Some(known) if known.state() == BackupState::Failed && !self.was_told(&id) => known,
            Some(known) if is_running(known.state()) => known,
            Some(known) if known.state() == BackupState::Complete => known,
            // What a failed or an interrupted one has in the store is used by the next.
            Some(_) | None => {
                check_owner(&client.volume(volume).await?)?;
                let begun = client.create_backup(class.request(&id)).await?;
                types::crash_point!("csi.create_snapshot.backup_begun");
                begun
            }
        };
        let backup = self.wait(&client, asked, backup).await?;
        match backup.state() {
            BackupState::Failed => {
                self.tell(&id);
                Err(Error::BackupFailed {
                    backup: id.to_string(),
                    kind: backup_failure(&backup),
                    message: backup.message,
                })
            }
            // Whoever asks stops writing to the volume until the snapshot is taken.
            state if backup.snapshot_created_at.is_empty() => Err(Error::BackupPending {
                backup: id.to_string(),
                state: backup_state_name(state),
            }),
            _ => Ok(show(&id, &backup)),
        }
    }

    /// Deletes a backup; fine when there is none. Its volume, and the node of that, may be gone.
    pub(crate) async fn delete(&self, id: &BackupId, target: &BackupTarget) -> Result<()> {
        let client = self.managers.of_backup(id).await?;
        let asked = target.backup(id.volume.as_str(), id.backup.as_str());
        client.delete_backup(asked).await?;
        self.was_told(id);
        Ok(())
    }

    /// A backup as its store has it, or as it runs.
    pub(crate) async fn get(&self, id: &BackupId, target: &BackupTarget) -> Result<csi::Snapshot> {
        let client = self.managers.of_backup(id).await?;
        let asked = target.backup(id.volume.as_str(), id.backup.as_str());
        let backup = there(client.backup(asked).await)?;
        let backup = backup.ok_or_else(|| Error::NoSuchSnapshot {
            snapshot_id: id.to_string(),
        })?;
        Ok(show(id, &backup))
    }

    /// The complete backups of a volume in the default target. None where that does not answer, or there is no such
    /// target: nobody may miss the snapshots of the volume for it.
    pub(crate) async fn of_volume(&self, volume: &str) -> Vec<csi::Snapshot> {
        match self.list(volume).await {
            Ok(backups) => backups,
            Err(error) => {
                let why = report(&error);
                if error.kind() == ErrorKind::Unimplemented {
                    // Its manager is of an earlier version, and makes none.
                    tracing::debug!(volume, "its backups are not listed: {why}");
                } else {
                    tracing::info!(
                        volume,
                        "its backups are not listed, and may be there: {why}"
                    );
                }
                Vec::new()
            }
        }
    }

    async fn list(&self, volume: &str) -> Result<Vec<csi::Snapshot>> {
        // Any name does to find the manager that has the volume.
        let Some(some) = BackupId::of_volume(volume) else {
            return Ok(Vec::new());
        };
        let client = self.managers.of_backup(&some).await?;
        let listed = client.list_backups(wire::ListBackupsRequest {
            target: Some(BackupTarget::default().to_wire()),
            volume: volume.to_owned(),
        });
        let listed = listed.await?;
        for problem in listed.problems.iter().take(10) {
            tracing::warn!(volume, "the backup store: {problem}");
        }
        let complete = |backup: &wire::Backup| {
            let id = BackupId {
                backup: backup.name.parse().ok()?,
                ..some.clone()
            };
            (backup.state() == BackupState::Complete).then(|| show(&id, backup))
        };
        Ok(listed.backups.iter().filter_map(complete).collect())
    }

    /// Waits for the end of a backup, as long as one call may take.
    async fn wait(
        &self,
        client: &Client,
        asked: wire::GetBackupRequest,
        mut backup: wire::Backup,
    ) -> Result<wire::Backup> {
        let until = Instant::now() + self.managers.wait();
        if !is_running(backup.state()) {
            return Ok(backup);
        }
        let mut watch = client.watch_backup(asked).await?;
        loop {
            match tokio::time::timeout_at(until, watch.next()).await {
                Ok(Ok(Some(next))) => backup = next,
                Ok(Ok(None)) | Err(_) => return Ok(backup),
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }

    fn tell(&self, id: &BackupId) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(id.to_string());
    }

    /// Whether its failure was told already, which is forgotten by this.
    fn was_told(&self, id: &BackupId) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(&id.to_string())
    }
}

const fn is_running(state: BackupState) -> bool {
    matches!(
        state,
        BackupState::Pending
            | BackupState::Comparing
            | BackupState::Uploading
            | BackupState::Finishing
    )
}

/// A backup as CSI shows it.
fn show(id: &BackupId, backup: &wire::Backup) -> csi::Snapshot {
    csi::Snapshot {
        size_bytes: i64::try_from(backup.volume_size).unwrap_or(i64::MAX),
        snapshot_id: id.to_string(),
        source_volume_id: id.volume.to_string(),
        creation_time: created_at(&backup.snapshot_created_at),
        ready_to_use: backup.state() == BackupState::Complete,
        group_snapshot_id: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_backup_is_ready() {
        let id = BackupId::parse("bak://pvc-1/snapshot-1?target=nightly").unwrap();
        for state in [
            BackupState::Unspecified,
            BackupState::Pending,
            BackupState::Comparing,
            BackupState::Uploading,
            BackupState::Finishing,
            BackupState::Complete,
            BackupState::Failed,
            BackupState::Incomplete,
        ] {
            let backup = wire::Backup {
                state: state.into(),
                volume_size: 64 << 20,
                snapshot_created_at: "2026-11-22T08:50:01Z".to_owned(),
                ..Default::default()
            };
            let shown = show(&id, &backup);
            assert_eq!(
                shown.ready_to_use,
                state == BackupState::Complete,
                "{state:?}"
            );
            assert_eq!(shown.snapshot_id, "bak://pvc-1/snapshot-1?target=nightly");
            assert_eq!(shown.source_volume_id, "pvc-1");
            assert_eq!(shown.size_bytes, 64 << 20);
            assert!(shown.creation_time.is_some());
        }
    }
}
