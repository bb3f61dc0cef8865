//! Calls about volumes.

use proto::storage::v1 as wire;
use proto::storage::v1::create_volume_request::Origin;
use types::{ByteSize, Classify, ErrorKind, NodeId, VolumeName};

use crate::{Client, Error, Result};

/// Whether the volume is a copy of another one that nobody had written to yet: it is then as blank as
/// a new one, which the manager has found by reading all of it, and may be formatted as one.
pub fn is_blank_copy(volume: &wire::Volume) -> bool {
    let is_copy = !volume.source_volume.is_empty() || !volume.source_snapshot.is_empty();
    let content = volume.content.as_ref();
    is_copy && content.is_some_and(|content| content.kind() == wire::content::Kind::Blank)
}

/// Whether the volume came with contents, so that it is never formatted.
pub fn has_source(volume: &wire::Volume) -> bool {
    let sources = [
        &volume.image_name,
        &volume.source_volume,
        &volume.source_snapshot,
    ];
    sources.into_iter().any(|source| !source.is_empty()) && !is_blank_copy(volume)
}

impl Client {
    /// Calls, and takes no answer about volumes of other nodes.
    async fn volume_of(
        &self,
        operation: &'static str,
        answer: impl Future<Output = std::result::Result<tonic::Response<wire::Volume>, tonic::Status>>,
    ) -> Result<wire::Volume> {
        // The futures of calls are large, and callers nest them.
        let volume = Box::pin(self.call(operation, answer)).await?;
        self.of_this_manager(&volume)?;
        Ok(volume)
    }

    fn of_this_manager(&self, volume: &wire::Volume) -> Result<()> {
        let mut replicas = volume.replicas.iter();
        replicas.try_for_each(|replica| self.of_its_node(&replica.node_id))
    }

    /// The volume that the same request has made.
    ///
    /// # Errors
    /// `NotFound` where no volume has the name, `AlreadyExists` where another request made it.
    pub async fn find_volume(&self, request: wire::CreateVolumeRequest) -> Result<wire::Volume> {
        let mut volumes = self.volumes();
        self.volume_of("look for the volume", volumes.find_volume(request))
            .await
    }

    /// Makes a volume, or gives back the one that an equal request has made.
    pub async fn create_volume(&self, request: wire::CreateVolumeRequest) -> Result<wire::Volume> {
        let mut volumes = self.volumes();
        self.volume_of("make the volume", volumes.create_volume(request))
            .await
    }

    /// The same, for callers that may be newer than the manager: one that does not know
    /// [`Client::find_volume`] would ignore the origin, and make a blank volume in place of a clone.
    ///
    /// # Errors
    /// [`Error::Older`] for a volume that is not to be blank.
    pub async fn create_volume_of_origin(
        &self,
        request: wire::CreateVolumeRequest,
    ) -> Result<wire::Volume> {
        let blank = matches!(request.origin, Some(Origin::Blank(_)));
        if !blank
            && let Err(error) = self.find_volume(request.clone()).await
            && error.kind() == ErrorKind::Unimplemented
        {
            let address = self.address().clone();
            return Err(Error::Older { address });
        }
        self.create_volume(request).await
    }

    /// One volume.
    pub async fn volume(&self, name: &VolumeName) -> Result<wire::Volume> {
        let mut volumes = self.volumes();
        let request = wire::GetVolumeRequest {
            name: name.to_string(),
        };
        self.volume_of("describe the volume", volumes.get_volume(request))
            .await
    }

    /// At most `max_entries` volumes (0: all) whose names come after `after` (empty: from the
    /// first), in byte order, and whether there are more.
    pub async fn list_volumes(
        &self,
        max_entries: u32,
        after: &str,
    ) -> Result<(Vec<wire::Volume>, bool)> {
        let mut volumes = self.volumes();
        let request = wire::ListVolumesRequest {
            max_entries,
            after: after.to_owned(),
            known_version: 0,
        };
        let answer = self
            .call("list its volumes", volumes.list_volumes(request))
            .await?;
        for volume in &answer.volumes {
            self.of_this_manager(volume)?;
        }
        Ok((answer.volumes, answer.more))
    }

    /// All volumes with the version of the list; without the list when it is the `known` one (0: none).
    pub async fn list_volumes_since(&self, known: u64) -> Result<wire::ListVolumesResponse> {
        let mut volumes = self.volumes();
        let request = wire::ListVolumesRequest {
            known_version: known,
            ..Default::default()
        };
        let answer = self
            .call("list its volumes", volumes.list_volumes(request))
            .await?;
        for volume in &answer.volumes {
            self.of_this_manager(volume)?;
        }
        Ok(answer)
    }

    /// Deletes a volume; fine when there is none, refused while it is published.
    pub async fn delete_volume(&self, name: &VolumeName) -> Result<()> {
        let mut volumes = self.volumes();
        let request = wire::DeleteVolumeRequest {
            name: name.to_string(),
        };
        self.call("delete the volume", volumes.delete_volume(request))
            .await?;
        Ok(())
    }

    /// Makes a volume one replica of a replicated volume; one that is that already is left as it is.
    pub async fn prepare_replica(&self, name: &VolumeName) -> Result<wire::Volume> {
        let mut volumes = self.volumes();
        let request = wire::GetVolumeRequest {
            name: name.to_string(),
        };
        self.volume_of("prepare the replica", volumes.prepare_replica(request))
            .await
    }

    /// Grows a volume to at least `required`, at most `limit` where there is one.
    pub async fn grow_volume(
        &self,
        name: &VolumeName,
        required: ByteSize,
        limit: Option<ByteSize>,
    ) -> Result<wire::Volume> {
        let mut volumes = self.volumes();
        let request = wire::GrowVolumeRequest {
            name: name.to_string(),
            required_bytes: required.bytes(),
            limit_bytes: limit.unwrap_or_default().bytes(),
        };
        self.volume_of("grow the volume", volumes.grow_volume(request))
            .await
    }

    /// Changes what may change of a volume.
    pub async fn modify_volume(&self, request: wire::ModifyVolumeRequest) -> Result<wire::Volume> {
        let mut volumes = self.volumes();
        self.volume_of("modify the volume", volumes.modify_volume(request))
            .await
    }

    /// Records that a node may use the volume.
    pub async fn publish_volume(
        &self,
        request: wire::PublishVolumeRequest,
    ) -> Result<wire::Volume> {
        let mut volumes = self.volumes();
        self.volume_of("publish the volume", volumes.publish_volume(request))
            .await
    }

    /// Takes that back for one kind of user, for one node or for all; fine when there is nothing to take back.
    pub async fn unpublish_volume(
        &self,
        name: &VolumeName,
        node_id: Option<&NodeId>,
        kind: wire::Use,
    ) -> Result<()> {
        let mut volumes = self.volumes();
        let request = wire::UnpublishVolumeRequest {
            name: name.to_string(),
            node_id: node_id.map(ToString::to_string).unwrap_or_default(),
            r#use: kind.into(),
        };
        self.call("unpublish the volume", volumes.unpublish_volume(request))
            .await?;
        Ok(())
    }
}
