//! `longhorn.storage.v1.Volumes`.

use proto::storage::v1 as pb;
use proto::storage::v1::volumes_server::Volumes as VolumesRpc;
use tonic::{Request, Response, Status};
use types::{ByteSize, ImageId, NodeId, VolumeName};

use super::{Service, blocking, status, wire};
use crate::error::{Error, Result};
use crate::volume::{NewVolume, Origin, Volume};

type Answer<T> = Result<Response<T>, Status>;

fn name_of(text: &str) -> Result<VolumeName, Status> {
    VolumeName::new(text).map_err(|error| status::of(&Error::from(error)))
}

impl Service {
    async fn create_volume_of(
        &self,
        new: NewVolume,
        image_name: &str,
        image_uuid: &str,
        source_volume: &str,
    ) -> Result<Volume, Status> {
        let volumes = self.volumes.clone();
        let to_status = |error: Error| status::of(&error);
        if !source_volume.is_empty() {
            let source = wire::source_volume(&new, source_volume, image_name).map_err(to_status)?;
            return blocking(move || volumes.create(&new, Origin::Volume(&source))).await;
        }
        if image_name.is_empty() {
            return blocking(move || volumes.create(&new, Origin::Blank)).await;
        }
        let (name, uuid) = wire::image_key(image_name, image_uuid).map_err(to_status)?;
        // An existing volume needs no image, ready or not.
        let known = self.known_image(&new.name, &name.to_string(), image_uuid);
        if let Some(id) = known {
            let (volumes, new) = (self.volumes.clone(), new.clone());
            if let Some(volume) = blocking(move || volumes.find(&new, Some(&id), None)).await? {
                return Ok(volume);
            }
        }
        let (image, files) = self
            .catalog
            .ready(&name, uuid.as_ref())
            .await
            .map_err(to_status)?;
        let raw = self
            .catalog
            .raw_form(&image, &files)
            .await
            .map_err(to_status)?;
        blocking(move || {
            let _files = files;
            volumes.create(&new, Origin::Image(&image, &raw))
        })
        .await
    }

    /// A volume with how its disk is doing.
    fn shown(&self, volume: Volume) -> pb::Volume {
        // A disk that cannot be asked says so elsewhere.
        let condition = self.disk.space().ok().and_then(|space| space.warning());
        pb::Volume {
            condition: condition.unwrap_or_default(),
            ..wire::volume(volume)
        }
    }

    /// The image of an existing volume, when the request's words for it fit.
    fn known_image(&self, volume: &VolumeName, name: &str, uuid: &str) -> Option<ImageId> {
        let image = self.volumes.get(volume).ok()?.record.image?.id;
        let fits = image.name.as_str() == name && (uuid.is_empty() || image.uuid.as_str() == uuid);
        fits.then_some(image)
    }
}

#[tonic::async_trait]
impl VolumesRpc for Service {
    async fn create_volume(&self, request: Request<pb::CreateVolumeRequest>) -> Answer<pb::Volume> {
        let request = request.into_inner();
        let (image, uuid) = (request.image_name.clone(), request.image_uuid.clone());
        let source_volume = request.source_volume.clone();
        let new = wire::new_volume(request).map_err(|error| status::of(&error))?;
        let volume = self
            .create_volume_of(new, &image, &uuid, &source_volume)
            .await?;
        Ok(Response::new(self.shown(volume)))
    }

    async fn get_volume(&self, request: Request<pb::GetVolumeRequest>) -> Answer<pb::Volume> {
        let name = name_of(&request.get_ref().name)?;
        let volumes = self.volumes.clone();
        let volume = blocking(move || volumes.get(&name)).await?;
        Ok(Response::new(self.shown(volume)))
    }

    async fn list_volumes(
        &self,
        request: Request<pb::ListVolumesRequest>,
    ) -> Answer<pb::ListVolumesResponse> {
        let pb::ListVolumesRequest { max_entries, after } = request.into_inner();
        let max = match max_entries {
            0 => usize::MAX,
            max => usize::try_from(max).unwrap_or(usize::MAX),
        };
        let volumes = self.volumes.clone();
        let (found, more) = blocking(move || volumes.list(&after, max)).await?;
        let volumes = found.into_iter().map(|volume| self.shown(volume)).collect();
        Ok(Response::new(pb::ListVolumesResponse { volumes, more }))
    }

    async fn delete_volume(
        &self,
        request: Request<pb::DeleteVolumeRequest>,
    ) -> Answer<pb::DeleteVolumeResponse> {
        let name = name_of(&request.get_ref().name)?;
        let volumes = self.volumes.clone();
        blocking(move || volumes.delete(&name)).await?;
        Ok(Response::new(pb::DeleteVolumeResponse {}))
    }

    async fn grow_volume(&self, request: Request<pb::GrowVolumeRequest>) -> Answer<pb::Volume> {
        let request = request.into_inner();
        let name = name_of(&request.name)?;
        let limit = (request.limit_bytes > 0).then_some(ByteSize(request.limit_bytes));
        let (volumes, required) = (self.volumes.clone(), ByteSize(request.required_bytes));
        let volume = blocking(move || volumes.grow(&name, required, limit)).await?;
        Ok(Response::new(self.shown(volume)))
    }

    async fn modify_volume(&self, request: Request<pb::ModifyVolumeRequest>) -> Answer<pb::Volume> {
        let request = request.into_inner();
        let name = name_of(&request.name)?;
        let replicas = request.number_of_replicas.map(|number| number.max(1));
        let owner = request.owner.map(wire::owner).transpose();
        let owner = owner.map_err(|error| status::of(&error))?;
        let (volumes, timeout) = (self.volumes.clone(), request.stale_replica_timeout);
        let volume = blocking(move || volumes.modify(&name, replicas, timeout, owner)).await?;
        Ok(Response::new(self.shown(volume)))
    }

    async fn publish_volume(
        &self,
        request: Request<pb::PublishVolumeRequest>,
    ) -> Answer<pb::Volume> {
        let request = request.into_inner();
        let name = name_of(&request.name)?;
        let publication = wire::publication(&request.node_id, request.readonly, request.multi_node)
            .map_err(|error| status::of(&error))?;
        let volumes = self.volumes.clone();
        let volume = blocking(move || volumes.publish(&name, publication)).await?;
        Ok(Response::new(self.shown(volume)))
    }

    async fn unpublish_volume(
        &self,
        request: Request<pb::UnpublishVolumeRequest>,
    ) -> Answer<pb::UnpublishVolumeResponse> {
        let request = request.into_inner();
        let name = name_of(&request.name)?;
        let node = wire::optional(&request.node_id, NodeId::new).map_err(|e| status::of(&e))?;
        let volumes = self.volumes.clone();
        blocking(move || volumes.unpublish(&name, node.as_ref())).await?;
        Ok(Response::new(pb::UnpublishVolumeResponse {}))
    }
}
