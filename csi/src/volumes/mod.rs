//! What the controller service does with the volumes of one manager, by asking it.

pub(crate) mod create;

use std::collections::HashMap;
use std::time::Duration;

use client::owner::{self, Asker};
use client::{Client, wire};
use types::{Classify as _, ErrorKind, NodeId, VolumeName};

use crate::error::{Error, Result};
use crate::location;
use crate::request::{Capacity, ExpandVolume, ModifyVolume, PublishVolume};

/// The volumes of one manager.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    client: Client,
    /// How long one call waits for an image. The provisioner's own deadline must be longer.
    image_wait: Duration,
}

impl Volumes {
    pub(crate) const fn new(client: Client, image_wait: Duration) -> Self {
        Self { client, image_wait }
    }

    pub(crate) fn into_client(self) -> Client {
        self.client
    }

    /// Deletes a volume; fine when there is none.
    pub(crate) async fn delete(&self, volume: &VolumeName) -> Result<()> {
        Ok(self.client.delete_volume(volume).await?)
    }

    /// Lets a node that can reach a volume use it, and says what the node must know.
    pub(crate) async fn publish(
        &self,
        request: PublishVolume,
        volume: &wire::Volume,
    ) -> Result<(wire::Volume, HashMap<String, String>)> {
        check_owner(volume)?;
        let readonly = request.readonly || request.capability.mode.read_only();
        let wanted = wire::PublishVolumeRequest {
            name: request.volume.to_string(),
            node_id: request.node.to_string(),
            readonly,
            multi_node: request.capability.mode.multi_node(),
            r#use: wire::Use::Pods.into(),
        };
        let volume = self.client.publish_volume(wanted).await?;
        types::crash_point!("csi.controller_publish.published");
        let context = location::publish_context(&volume, &request.node, readonly);
        let context = context.ok_or(Error::NoReplica {
            volume: request.volume,
            node: request.node,
        })?;
        Ok((volume, context))
    }

    /// Takes that back; fine when there is nothing to take back.
    pub(crate) async fn unpublish(&self, volume: &VolumeName, node: Option<&NodeId>) -> Result<()> {
        match self
            .client
            .unpublish_volume(volume, node, wire::Use::Pods)
            .await
        {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// Changes what may change of a volume.
    pub(crate) async fn modify(&self, request: ModifyVolume) -> Result<()> {
        let wanted = wire::ModifyVolumeRequest {
            name: request.volume.to_string(),
            number_of_replicas: request.mutable.number_of_replicas,
            stale_replica_timeout: request.mutable.stale_replica_timeout,
            owner: None,
        };
        self.client.modify_volume(wanted).await?;
        Ok(())
    }

    pub(crate) async fn expand(&self, request: ExpandVolume) -> Result<wire::Volume> {
        let Capacity { required, limit } = request.capacity;
        let required = required.unwrap_or_default();
        let grown = self
            .client
            .grow_volume(&request.volume, required, limit)
            .await?;
        types::crash_point!("csi.controller_expand.grown");
        Ok(grown)
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
