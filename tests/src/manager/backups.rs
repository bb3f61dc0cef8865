//! Backups of a manager.

use proto::storage::v1 as pb;
use proto::storage::v1::backups_client::BackupsClient;
use tonic::Status;
use tonic::transport::Channel;

use super::Manager;
use crate::{block_on, wait};

/// One backup in the default target.
pub fn backup_key(volume: &str, name: &str) -> pb::GetBackupRequest {
    pb::GetBackupRequest {
        target: None,
        volume: volume.into(),
        name: name.into(),
    }
}

/// The request to back up a volume as it is now.
pub fn new_backup(volume: &str, name: &str) -> pb::CreateBackupRequest {
    pb::CreateBackupRequest {
        volume: volume.into(),
        name: name.into(),
        ..Default::default()
    }
}

/// The request for an image from a backup in the default target.
pub fn from_backup(image: &str, volume: &str, name: &str) -> pb::CreateBackingImageRequest {
    let source = pb::BackupSource {
        volume: volume.into(),
        backup: name.into(),
        ..Default::default()
    };
    pb::CreateBackingImageRequest {
        name: image.into(),
        source: Some(pb::Source {
            source: Some(pb::source::Source::Backup(source)),
        }),
        ..Default::default()
    }
}

impl Manager {
    /// The client of backups.
    pub fn backups(&self) -> BackupsClient<Channel> {
        BackupsClient::new(self.channel())
    }

    /// Starts a backup.
    pub fn create_backup(&self, request: pb::CreateBackupRequest) -> Result<pb::Backup, Status> {
        block_on(self.backups().create_backup(request)).map(tonic::Response::into_inner)
    }

    /// Makes a backup and waits until it is complete or failed.
    pub fn make_backup(&self, request: pb::CreateBackupRequest) -> Result<pb::Backup, Status> {
        let target = request.target.clone();
        let begun = self.create_backup(request)?;
        let key = pb::GetBackupRequest {
            target,
            ..backup_key(&begun.volume, &begun.name)
        };
        self.wait_backup(key)
    }

    /// The backup as it is now.
    pub fn backup(&self, key: pb::GetBackupRequest) -> Result<pb::Backup, Status> {
        block_on(self.backups().get_backup(key)).map(tonic::Response::into_inner)
    }

    /// Waits until a backup is complete or failed, or what else the store says of it.
    pub fn wait_backup(&self, key: pb::GetBackupRequest) -> Result<pb::Backup, Status> {
        let watch = async {
            let mut states = self.backups().watch_backup(key).await?.into_inner();
            let mut last = None;
            while let Some(backup) = states.message().await? {
                last = Some(backup);
            }
            last.ok_or_else(|| Status::unknown("the watch ended without a backup"))
        };
        block_on(async { tokio::time::timeout(wait::LONG, watch).await })
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("neither complete nor failed")))
    }

    /// Ends a backup.
    pub fn cancel_backup(&self, key: pb::GetBackupRequest) -> Result<(), Status> {
        block_on(self.backups().cancel_backup(key)).map(drop)
    }

    /// Deletes a backup.
    pub fn delete_backup(&self, key: pb::GetBackupRequest) -> Result<(), Status> {
        block_on(self.backups().delete_backup(key)).map(drop)
    }

    /// What the default target has.
    pub fn list_backups(&self) -> Result<pb::ListBackupsResponse, Status> {
        self.list_backups_in(pb::BackupTarget::default())
    }

    /// What a target has.
    pub fn list_backups_in(
        &self,
        target: pb::BackupTarget,
    ) -> Result<pb::ListBackupsResponse, Status> {
        let request = pb::ListBackupsRequest {
            target: Some(target),
            volume: String::new(),
        };
        block_on(self.backups().list_backups(request)).map(tonic::Response::into_inner)
    }
}
