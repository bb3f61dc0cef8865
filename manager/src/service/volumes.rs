//! `longhorn.storage.v1.Volumes`.

use proto::storage::v1 as pb;
use proto::storage::v1::volumes_server::Volumes as VolumesRpc;
use tonic::{Request, Response, Status};
use types::{ByteSize, ImageId, NodeId, VolumeName};

use super::{Service, blocking, status, version, wire};
use catalog::{Error, Result};
use volume::{Origin, Reserved, Template, Vacancy, Volume};

type Answer<T> = Result<Response<T>, Status>;

fn name_of(text: &str) -> Result<VolumeName, Status> {
    VolumeName::new(text).map_err(|error| status::of(&Error::from(error)))
}

impl Service {
    /// Makes a volume that is not there: with its image, as soon as that has a raw form.
    async fn make_volume(&self, vacancy: Box<Vacancy>) -> Result<Volume, Status> {
        let Origin::Image(name, uuid) = &vacancy.asked().origin else {
            return blocking(move || vacancy.make(None)).await;
        };
        let to_status = |error: Error| status::of(&error);
        let ready = self.catalog.ready(name, uuid.as_ref()).await;
        let (image, files) = ready.map_err(to_status)?;
        let raw = self.catalog.raw_form(&image, &files).await;
        let raw = raw.map_err(to_status)?;
        blocking(move || {
            let _files = files;
            let (image, raw) = (&image, &*raw);
            vacancy.make(Some(Template { image, raw }))
        })
        .await
    }

    /// How the disk of all volumes is doing; empty: well.
    fn condition(&self) -> String {
        // A disk that cannot be asked says so elsewhere.
        let condition = self.disk.space().ok().and_then(|space| space.warning());
        condition.unwrap_or_default()
    }

    /// A volume with how its disk is doing.
    fn shown(&self, volume: Volume) -> pb::Volume {
        pb::Volume {
            condition: self.condition(),
            ..self.described(volume)
        }
    }

    /// A volume, whether somebody uses it, and the checksum of its image if that is known by now.
    fn described(&self, volume: Volume) -> pb::Volume {
        let unsummed = volume.record.image.as_ref();
        let unsummed = unsummed.filter(|image| image.checksum.is_none());
        let checksum = unsummed.and_then(|image| self.checksum_of(&image.id));
        let in_use = self.volumes.is_in_use(&volume);
        let mut shown = wire::volume(volume);
        shown.in_use = in_use;
        if let Some(checksum) = checksum {
            shown.image_checksum = checksum;
        }
        shown
    }

    /// The SHA-512 of an image that a volume was made from before it was known.
    fn checksum_of(&self, id: &ImageId) -> Option<String> {
        let status = self.catalog.get(&id.name, Some(&id.uuid)).ok()?;
        Some(status.sidecar()?.current_checksum.clone())
    }
}

#[tonic::async_trait]
impl VolumesRpc for Service {
    async fn create_volume(&self, request: Request<pb::CreateVolumeRequest>) -> Answer<pb::Volume> {
        let new = wire::new_volume(request.into_inner()).map_err(|error| status::of(&error))?;
        let volumes = self.volumes.clone();
        // An existing volume needs no image, ready or not.
        let volume = match blocking(move || volumes.reserve(new)).await? {
            Reserved::Exists(volume) => *volume,
            Reserved::New(vacancy) => self.make_volume(vacancy).await?,
        };
        Ok(Response::new(self.shown(volume)))
    }

    async fn find_volume(&self, request: Request<pb::CreateVolumeRequest>) -> Answer<pb::Volume> {
        let new = wire::new_volume(request.into_inner()).map_err(|error| status::of(&error))?;
        let volumes = self.volumes.clone();
        let none = Error::from(volume::Error::VolumeNotFound(new.name.to_string()));
        let volume = blocking(move || volumes.find(&new)?.ok_or(none)).await?;
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
        let pb::ListVolumesRequest {
            max_entries,
            after,
            known_version,
        } = request.into_inner();
        let max = match max_entries {
            0 => usize::MAX,
            max => usize::try_from(max).unwrap_or(usize::MAX),
        };
        let volumes = self.volumes.clone();
        let (found, more) = blocking(move || volumes.list(&after, max)).await?;
        // Asked once: it is the same for all of them.
        let condition = self.condition();
        let shown = |volume| pb::Volume {
            condition: condition.clone(),
            ..self.described(volume)
        };
        let volumes = found.into_iter().map(shown).collect();
        let list = pb::ListVolumesResponse {
            volumes,
            more,
            ..Default::default()
        };
        Ok(Response::new(version::since(list, known_version)))
    }

    async fn delete_volume(
        &self,
        request: Request<pb::DeleteVolumeRequest>,
    ) -> Answer<pb::DeleteVolumeResponse> {
        let name = name_of(&request.get_ref().name)?;
        let volumes = self.volumes.clone();
        let deleted = name.clone();
        blocking(move || volumes.delete(&name)).await?;
        self.backups.volume_deleted(&deleted).await;
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

    async fn prepare_replica(&self, request: Request<pb::GetVolumeRequest>) -> Answer<pb::Volume> {
        let name = name_of(&request.get_ref().name)?;
        let volumes = self.volumes.clone();
        let volume = blocking(move || volumes.prepare_replica(&name)).await?;
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
        let publication = wire::publication(&request).map_err(|error| status::of(&error))?;
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
        let by = wire::users(request.r#use).map_err(|error| status::of(&error))?;
        let volumes = self.volumes.clone();
        blocking(move || volumes.unpublish(&name, node.as_ref(), by)).await?;
        Ok(Response::new(pb::UnpublishVolumeResponse {}))
    }
}
