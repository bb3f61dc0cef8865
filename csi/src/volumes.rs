//! What the controller service does, by asking the manager.
//!
//! A volume that exists is found before anything else is looked at, so that a call that is repeated
//! needs neither the registry nor the image again.

use std::collections::HashMap;
use std::time::Duration;

use client::parameters::BASE_IMAGE;
use client::{Client, ImageOutcome, PullSecret, wire};
use types::{ByteSize, Classify as _, ErrorKind, NodeId, VolumeName};

use crate::content;
use crate::error::{Error, Result};
use crate::location;
use crate::request::{Capacity, CreateVolume, ExpandVolume, ListVolumes, PublishVolume};

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

    /// The key of the topology segment that names a node.
    pub(crate) fn topology_key(&self) -> &str {
        &self.topology_key
    }

    /// Makes a volume, or finds the one that an equal request has made.
    pub(crate) async fn create(&self, request: CreateVolume) -> Result<wire::Volume> {
        if let Some(existing) = self.find(&request.name).await? {
            same(&existing, &request)?;
            content::suits(
                &existing.image_name,
                existing.content.as_ref(),
                &request.capabilities,
            )?;
            return Ok(existing);
        }
        self.reachable(&request.requisite).await?;
        let mut wanted = wire::CreateVolumeRequest {
            name: request.name.to_string(),
            required_bytes: request.capacity.required.unwrap_or_default().bytes(),
            limit_bytes: request.capacity.limit.unwrap_or_default().bytes(),
            number_of_replicas: request.parameters.number_of_replicas.unwrap_or_default(),
            stale_replica_timeout: request.parameters.stale_replica_timeout.unwrap_or_default(),
            fs_type: asked_fs_type(&request),
            parameters: request.parameters.recorded(),
            ..Default::default()
        };
        if let Some(reference) = &request.parameters.base_image {
            let image = self.image(reference, request.pull_secret).await?;
            content::suits(reference, image.content.as_ref(), &request.capabilities)?;
            (wanted.image_name, wanted.image_uuid) = (image.name, image.uuid);
        } else if request.is_mount() {
            content::can_format(request.capacity, request.fs_type())?;
        }
        types::crash_point!("csi.create_volume.image_ready");
        Ok(self.client.create_volume(wanted).await?)
    }

    /// The ready image of a reference, or how far it has come.
    async fn image(&self, reference: &str, pull_secret: PullSecret) -> Result<wire::BackingImage> {
        let source = wire::source::Source::Registry(wire::RegistrySource {
            reference: reference.to_owned(),
            platform: String::new(),
            docker_config_json: pull_secret.into_bytes(),
        });
        let image = reference.to_owned();
        match self.client.ensure_image(source, self.image_wait).await? {
            ImageOutcome::Ready(ready) => Ok(ready),
            ImageOutcome::InProgress(wire) => Err(Error::ImageInProgress {
                image,
                state: client::state_name(wire.state()),
                progress: client::progress(&wire),
            }),
            ImageOutcome::Failed { kind, message } => Err(Error::ImageFailed {
                image,
                kind,
                message,
            }),
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
        Ok(self.client.delete_volume(volume).await?)
    }

    /// One volume.
    pub(crate) async fn get(&self, volume: &VolumeName) -> Result<wire::Volume> {
        Ok(self.client.volume(volume).await?)
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

    /// A page of volumes and the token of the next.
    pub(crate) async fn list(&self, request: &ListVolumes) -> Result<(Vec<wire::Volume>, String)> {
        let (volumes, more) = self
            .client
            .list_volumes(request.max_entries, &request.after)
            .await?;
        let last = volumes.last().filter(|_| more);
        let token = last
            .map(|last| ListVolumes::token(&last.name))
            .unwrap_or_default();
        Ok((volumes, token))
    }

    /// Bytes that volumes can still take, where a topology (none: anywhere) wants them.
    pub(crate) async fn capacity(
        &self,
        topology: Option<&HashMap<String, String>>,
    ) -> Result<ByteSize> {
        let disk = self.client.disk().await?;
        let here = topology.is_none_or(|segments| self.covers(segments, &disk.node_id));
        Ok(ByteSize(if here { disk.available } else { 0 }))
    }

    /// Grows a volume.
    pub(crate) async fn expand(&self, request: ExpandVolume) -> Result<ByteSize> {
        let Capacity { required, limit } = request.capacity;
        let required = required.unwrap_or_default();
        let grown = self
            .client
            .grow_volume(&request.volume, required, limit)
            .await?;
        Ok(ByteSize(grown.size))
    }
}

fn asked_fs_type(request: &CreateVolume) -> String {
    request
        .fs_type()
        .map(|fs_type| fs_type.to_string())
        .unwrap_or_default()
}

/// Compares a volume with the request for it, and names the first difference.
pub(crate) fn same(existing: &wire::Volume, request: &CreateVolume) -> Result<()> {
    let differs = |what, existing: String, asked: String| {
        Err(Error::Differs {
            volume: request.name.clone(),
            what,
            existing,
            asked,
        })
    };
    let size = ByteSize(existing.size);
    if !request.capacity.allows(size) {
        return differs("size", size.to_string(), request.capacity.to_string());
    }
    let asked = request.parameters.recorded();
    for what in crate::request::COMPARED {
        let value = |map: &HashMap<String, String>| map.get(what).cloned().unwrap_or_default();
        if value(&existing.parameters) != value(&asked) {
            return differs(what, value(&existing.parameters), value(&asked));
        }
    }
    let asked = asked_fs_type(request);
    // Recorded may be the type that the manager settled for where none was asked.
    if !asked.is_empty() && existing.fs_type != asked {
        return differs("fsType", existing.fs_type.clone(), asked);
    }
    let has_image = !existing.image_name.is_empty();
    if has_image != request.parameters.base_image.is_some() {
        return differs(BASE_IMAGE, existing.image_name.clone(), String::new());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
