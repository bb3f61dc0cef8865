//! Calls about backups in Longhorn's store format.

use std::collections::BTreeMap;

use proto::storage::v1 as wire;
use tonic::transport::Channel;
use types::ErrorKind;
use wire::backups_client::BackupsClient;

use crate::client::ANSWER_BYTES_MAX;
use crate::images::failure_kind;
use crate::{Client, Result, Watch};

impl Client {
    /// Starts to back up a snapshot of a volume, or joins the running backup of that name, and answers at once.
    pub async fn create_backup(&self, request: wire::CreateBackupRequest) -> Result<wire::Backup> {
        let mut backups = self.backups();
        self.call("start the backup", backups.create_backup(request))
            .await
    }

    /// A running backup, or else what the store has.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub async fn backup(&self, request: wire::GetBackupRequest) -> Result<wire::Backup> {
        let mut backups = self.backups();
        self.call("describe the backup", backups.get_backup(request))
            .await
    }

    /// The backup as it is now, then at each change.
    pub async fn watch_backup(
        &self,
        request: wire::GetBackupRequest,
    ) -> Result<Watch<wire::Backup>> {
        let mut backups = self.backups();
        let answer = backups.watch_backup(request);
        let states = self.call("watch the backup", answer).await?;
        Ok(Watch::new(self.clone(), states))
    }

    /// Ends a running backup at its next block; fine when it does not run there.
    pub async fn cancel_backup(&self, request: wire::GetBackupRequest) -> Result<()> {
        let mut backups = self.backups();
        self.call("cancel the backup", backups.cancel_backup(request))
            .await?;
        Ok(())
    }

    /// What a store has, in the order of volumes and names, and what is wrong with the rest of it.
    pub async fn list_backups(
        &self,
        request: wire::ListBackupsRequest,
    ) -> Result<wire::ListBackupsResponse> {
        let mut backups = self.backups();
        self.call("list the backups", backups.list_backups(request))
            .await
    }

    /// Deletes a backup and the blocks that no other one needs; fine when there is none.
    pub async fn delete_backup(&self, request: wire::GetBackupRequest) -> Result<()> {
        let mut backups = self.backups();
        self.call("delete the backup", backups.delete_backup(request))
            .await?;
        Ok(())
    }

    /// Uploads damaged blocks again from the snapshots that the manager has.
    pub async fn repair_blocks(
        &self,
        request: wire::RepairBlocksRequest,
    ) -> Result<wire::RepairBlocksResponse> {
        let mut backups = self.backups();
        self.call("repair the blocks", backups.repair_blocks(request))
            .await
    }

    fn backups(&self) -> BackupsClient<Channel> {
        BackupsClient::new(self.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

/// Where backups are, as a request says it. Its `Debug` tells no value of the credentials, which the message's own
/// would.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BackupTarget {
    /// A configured target; empty with an empty address: `default`.
    pub name: String,
    /// The address of the store.
    pub address: String,
    /// The keys of Longhorn's Secret; empty: those of the configured target.
    pub credentials: BTreeMap<String, String>,
}

impl std::fmt::Debug for BackupTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<&String> = self.credentials.keys().collect();
        f.debug_struct("BackupTarget")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("credentials", &keys)
            .finish()
    }
}

impl BackupTarget {
    /// A target of the configuration; empty: the default one.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// As it goes on the wire.
    pub fn to_wire(&self) -> wire::BackupTarget {
        wire::BackupTarget {
            name: self.name.clone(),
            address: self.address.clone(),
            credentials: self.credentials.clone().into_iter().collect(),
        }
    }

    /// The request for one backup.
    pub fn backup(&self, volume: &str, name: &str) -> wire::GetBackupRequest {
        wire::GetBackupRequest {
            target: Some(self.to_wire()),
            volume: volume.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// What the cause of a failed backup means.
pub fn backup_failure(backup: &wire::Backup) -> ErrorKind {
    failure_kind(backup.failure_code)
}

/// The name of a state, as everywhere else.
pub const fn backup_state_name(state: wire::BackupState) -> &'static str {
    match state {
        wire::BackupState::Pending => "pending",
        wire::BackupState::Comparing => "comparing",
        wire::BackupState::Uploading => "uploading",
        wire::BackupState::Finishing => "finishing",
        wire::BackupState::Complete => "complete",
        wire::BackupState::Failed => "failed",
        wire::BackupState::Incomplete => "incomplete",
        wire::BackupState::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_shows_the_keys_of_its_secret_and_no_value() {
        let pair = ("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2".to_owned());
        let target = BackupTarget {
            credentials: BTreeMap::from([pair]),
            ..BackupTarget::named("nightly")
        };
        let text = format!("{target:?}");
        assert!(text.contains("AWS_SECRET_ACCESS_KEY") && text.contains("nightly"));
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(
            target.to_wire().credentials["AWS_SECRET_ACCESS_KEY"],
            "hunter2"
        );
    }

    #[test]
    fn a_failure_keeps_its_cause() {
        let of = |failure_code| wire::Backup {
            failure_code,
            ..Default::default()
        };
        assert_eq!(backup_failure(&of(0)), ErrorKind::FailedPrecondition);
        assert_eq!(backup_failure(&of(14)), ErrorKind::Unavailable);
    }
}
