//! The managers of this node's disks: who publishes a volume before it is used here, and takes that back.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Address, Client, Cluster, Wait};
use proto::storage::v1::{PublishVolumeRequest, Use};
use types::{Classify as _, DiskUuid, ErrorKind, NodeId, VolumeName, report};

use super::record::Record;
use crate::error::{Error, Result};

/// The time that all of it may take: a person waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The managers that may be those of this node's disks.
#[derive(Debug)]
pub(super) struct Managers {
    cluster: Cluster,
    node: NodeId,
    /// Where the manager of each disk was the last time.
    known: Mutex<HashMap<DiskUuid, Address>>,
}

impl Managers {
    pub(super) fn new(cluster: Cluster, node: NodeId) -> Self {
        Self {
            cluster: cluster.with_patience(PATIENCE),
            node,
            known: Mutex::default(),
        }
    }

    /// Records at the manager of its disk that the volume is used here. Does nothing for a replicated one, of which
    /// DRBD decides who may use it.
    pub(super) async fn publish(&self, record: &Record) -> Result<()> {
        let Some(disk) = &record.disk else {
            return Ok(());
        };
        let request = PublishVolumeRequest {
            name: record.volume.to_string(),
            node_id: self.node.to_string(),
            readonly: record.read_only,
            multi_node: false,
            r#use: record.access.users().into(),
        };
        within(async {
            let client = self.of_disk(disk).await?;
            client.publish_volume(request).await?;
            Ok(())
        })
        .await
    }

    /// Takes that back; fine when there is nothing to take back.
    pub(super) async fn unpublish(&self, record: &Record) -> Result<()> {
        let Some(disk) = &record.disk else {
            return Ok(());
        };
        within(async {
            let client = self.of_disk(disk).await?;
            self.take_back(&client, &record.volume, record.access.users())
                .await
        })
        .await
    }

    /// The same without a record of how the volume was used, or of where it is.
    pub(super) async fn unpublish_any(&self, volume: &VolumeName) -> Result<()> {
        let ask = |client: Client| {
            let volume = volume.clone();
            async move {
                match client.volume(&volume).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                    found => found.map(|_| true),
                }
            }
        };
        within(async {
            let look = self.cluster.look(Wait::All(None), ask, |has| *has).await?;
            let Some((client, _)) = look.found else {
                return Ok(());
            };
            for by in [Use::Device, Use::Target] {
                self.take_back(&client, volume, by).await?;
            }
            Ok(())
        })
        .await
    }

    async fn take_back(&self, client: &Client, volume: &VolumeName, by: Use) -> Result<()> {
        match client.unpublish_volume(volume, Some(&self.node), by).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// The manager of a disk. Those of other nodes refuse to say which disk is theirs, and are passed over.
    async fn of_disk(&self, disk: &DiskUuid) -> Result<Client> {
        let hint = self.known().get(disk).cloned();
        let ask = |client: Client| {
            let disk = disk.clone();
            async move { Ok(client.disk().await?.uuid == disk.as_str()) }
        };
        let wait = Wait::All(hint.as_ref());
        let look = self.cluster.look(wait, ask, |is_its| *is_its).await?;
        if let Some((client, _)) = look.found {
            let address = client.address().clone();
            self.known().insert(disk.clone(), address);
            return Ok(client);
        }
        let why = look.census.failed.last().map_or_else(
            || "none of --manager has it".to_owned(),
            |error| report(error).to_string(),
        );
        Err(Error::NoManager {
            disk: disk.clone(),
            why,
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DiskUuid, Address>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or(Err(Error::ManagerSilent { after: PATIENCE }))
}
