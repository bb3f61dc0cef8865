//! What the controller service does, by asking the manager.
//!
//! A volume that exists is found before anything else is looked at, so that a call that is repeated
//! needs neither the registry nor the image again.

mod create;
mod same;

pub(crate) use create::ready;

use std::collections::HashMap;
use std::time::Duration;

use client::owner::{self, Asker};
use client::{Client, wire};
use types::{ByteSize, Classify as _, ErrorKind, NodeId, VolumeName};

use crate::error::{Error, Result};
use crate::location;
use crate::request::{Capacity, ExpandVolume, ModifyVolume, PublishVolume};

/// The volumes of one manager.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    client: Client,
    topology_key: String,
    /// How long one call waits for an image. The provisioner's own deadline must be longer.
    image_wait: Duration,
}

impl Volumes {
    pub(crate) const fn new(client: Client, topology_key: String, image_wait: Duration) -> Self {
        Self {
            client,
            topology_key,
            image_wait,
        }
    }

    /// Whether volumes can be made where one of these topologies wants them; none: anywhere.
    async fn reachable(&self, requisite: &[HashMap<String, String>]) -> Result<()> {
        if requisite.is_empty() {
            return Ok(());
        }
        let here = self.client.disk().await?.node_id;
        if requisite
            .iter()
            .any(|segments| self.covers(segments, &here))
        {
            Ok(())
        } else {
            Err(Error::Topology { here })
        }
    }

    /// Whether a node lies in a topology.
    fn covers(&self, segments: &HashMap<String, String>, node: &str) -> bool {
        segments
            .get(&self.topology_key)
            .map_or(segments.is_empty(), |segment| segment == node)
    }

    /// Deletes a volume; fine when there is none.
    pub(crate) async fn delete(&self, volume: &VolumeName) -> Result<()> {
        // What cannot be described any more can be deleted all the same.
        if let Ok(found) = self.client.volume(volume).await {
            check_owner(&found)?;
        }
        Ok(self.client.delete_volume(volume).await?)
    }

    /// One volume.
    pub(crate) async fn get(&self, volume: &VolumeName) -> Result<wire::Volume> {
        Ok(self.client.volume(volume).await?)
    }

    /// One volume, which must not be another driver's.
    async fn own(&self, volume: &VolumeName) -> Result<wire::Volume> {
        let found = self.get(volume).await?;
        check_owner(&found)?;
        Ok(found)
    }

    async fn find(&self, volume: &VolumeName) -> Result<Option<wire::Volume>> {
        match self.client.volume(volume).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a node use a volume, and says what the node must know.
    pub(crate) async fn publish(&self, request: PublishVolume) -> Result<HashMap<String, String>> {
        self.own(&request.volume).await?;
        let readonly = request.readonly || request.capability.mode.read_only();
        let wanted = wire::PublishVolumeRequest {
            name: request.volume.to_string(),
            node_id: request.node.to_string(),
            readonly,
            multi_node: request.capability.mode.multi_node(),
        };
        let volume = self.client.publish_volume(wanted).await?;
        types::crash_point!("csi.controller_publish.published");
        location::publish_context(&volume, &request.node, readonly).ok_or_else(|| {
            Error::NoReplica {
                volume: request.volume,
                node: request.node,
            }
        })
    }

    /// Takes that back; fine when there is nothing to take back.
    pub(crate) async fn unpublish(&self, volume: &VolumeName, node: Option<&NodeId>) -> Result<()> {
        match self.client.unpublish_volume(volume, node).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// Changes what may change of a volume.
    pub(crate) async fn modify(&self, request: ModifyVolume) -> Result<()> {
        self.own(&request.volume).await?;
        let wanted = wire::ModifyVolumeRequest {
            name: request.volume.to_string(),
            number_of_replicas: request.mutable.number_of_replicas,
            stale_replica_timeout: request.mutable.stale_replica_timeout,
            owner: None,
        };
        self.client.modify_volume(wanted).await?;
        Ok(())
    }

    /// Grows a volume.
    pub(crate) async fn expand(&self, request: ExpandVolume) -> Result<ByteSize> {
        let Capacity { required, limit } = request.capacity;
        let required = required.unwrap_or_default();
        self.own(&request.volume).await?;
        let grown = self
            .client
            .grow_volume(&request.volume, required, limit)
            .await?;
        types::crash_point!("csi.controller_expand.grown");
        Ok(ByteSize(grown.size))
    }
}

/// Refuses a volume that another driver made.
pub(crate) fn check_owner(volume: &wire::Volume) -> Result<()> {
    let refusal = owner::refusal(volume, Asker::Csi);
    refusal.map_or(Ok(()), |why| {
        let volume = volume.name.clone();
        Err(Error::NotOurs { volume, why })
    })
}

#[cfg(test)]
mod tests;
