//! `longhorn.storage.v1.BackingImages`.

use std::pin::Pin;

use proto::storage::v1 as pb;
use proto::storage::v1::backing_images_server::BackingImages;
use tokio_stream::{Stream, StreamExt, wrappers::WatchStream};
use tonic::{Request, Response, Status};

use super::{Service, status, version, wire};
use catalog::{self, Lifecycle, Status as ImageStatus};
use catalog::{Error, Result};

impl Service {
    fn wire_image(&self, image: &ImageStatus) -> pb::BackingImage {
        let has_raw_form = match &image.state {
            Lifecycle::Ready(sealed) => self.catalog.has_raw_form(sealed),
            _ => false,
        };
        wire::image(image, has_raw_form, self.catalog.usage(&image.id))
    }

    async fn create_image(&self, request: pb::CreateBackingImageRequest) -> Result<ImageStatus> {
        let new = wire::new_image(request, |source| self.restore(source))?;
        let status = self.catalog.create(new.clone())?;
        if let Some(source) = &new.source {
            self.catalog.check_access(source, &status).await?;
        }
        Ok(status)
    }

    fn get_image(&self, request: &pb::GetBackingImageRequest) -> Result<pb::BackingImage> {
        let (name, uuid) = wire::image_key(&request.name, &request.uuid)?;
        Ok(self.wire_image(&self.catalog.get(&name, uuid.as_ref())?))
    }

    async fn write_piece(&self, request: pb::WriteUploadRequest) -> Result<ImageStatus> {
        let (name, uuid) = wire::upload_key(&request.name, &request.uuid)?;
        let (offset, piece) = (request.offset, request.data);
        self.catalog.write_upload(&name, &uuid, offset, piece).await
    }

    async fn delete_image(&self, request: &pb::DeleteBackingImageRequest) -> Result<()> {
        let (name, uuid) = wire::image_key(&request.name, &request.uuid)?;
        let (id, is_snapshot) = match self.catalog.get(&name, uuid.as_ref()) {
            Ok(image) => (image.id, image.provenance.snapshot().is_some()),
            Err(Error::ImageNotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (volumes, asked) = (self.volumes.clone(), id.clone());
        let in_use = move || match volumes.user_of(&asked)? {
            // A volume has its bytes from a snapshot, and needs nothing of it any more.
            _ if is_snapshot => Ok(()),
            Some(volume) => Err(Error::ImageInUse {
                id: asked.clone(),
                volume,
            }),
            None => Ok(()),
        };
        self.catalog.delete(&id, in_use).await
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl BackingImages for Service {
    async fn create_backing_image(
        &self,
        request: Request<pb::CreateBackingImageRequest>,
    ) -> Answer<pb::BackingImage> {
        let created = self.create_image(request.into_inner()).await;
        let image = created.map_err(|error| status::of(&error))?;
        Ok(Response::new(self.wire_image(&image)))
    }

    async fn snapshot_group(
        &self,
        request: Request<pb::SnapshotGroupRequest>,
    ) -> Answer<pb::SnapshotGroupResponse> {
        let taken = Self::snapshot_group(self, request.into_inner()).await;
        Ok(Response::new(taken.map_err(|error| status::of(&error))?))
    }

    async fn get_backing_image(
        &self,
        request: Request<pb::GetBackingImageRequest>,
    ) -> Answer<pb::BackingImage> {
        let image = self
            .get_image(request.get_ref())
            .map_err(|error| status::of(&error))?;
        Ok(Response::new(image))
    }

    async fn list_backing_images(
        &self,
        request: Request<pb::ListBackingImagesRequest>,
    ) -> Answer<pb::ListBackingImagesResponse> {
        let known = request.get_ref().known_version;
        let volumes = self.volumes.clone();
        let users = super::blocking(move || catalog::users(&volumes)).await?;
        self.catalog.note_users(&users);
        let images = self.catalog.list();
        let backing_images = images.iter().map(|image| self.wire_image(image)).collect();
        let list = pb::ListBackingImagesResponse {
            backing_images,
            ..Default::default()
        };
        Ok(Response::new(version::since(list, known)))
    }

    async fn inspect_source(
        &self,
        request: Request<pb::InspectSourceRequest>,
    ) -> Answer<pb::InspectSourceResponse> {
        let looked = self.look_at(request.into_inner()).await?;
        Ok(Response::new(looked))
    }

    async fn write_upload(
        &self,
        request: Request<pb::WriteUploadRequest>,
    ) -> Answer<pb::BackingImage> {
        let written = self.write_piece(request.into_inner()).await;
        let image = written.map_err(|error| status::of(&error))?;
        Ok(Response::new(self.wire_image(&image)))
    }

    async fn delete_backing_image(
        &self,
        request: Request<pb::DeleteBackingImageRequest>,
    ) -> Answer<pb::DeleteBackingImageResponse> {
        self.delete_image(request.get_ref())
            .await
            .map_err(|error| status::of(&error))?;
        Ok(Response::new(pb::DeleteBackingImageResponse {}))
    }

    type WatchBackingImageStream =
        Pin<Box<dyn Stream<Item = Result<pb::BackingImage, Status>> + Send>>;

    async fn watch_backing_image(
        &self,
        request: Request<pb::GetBackingImageRequest>,
    ) -> Answer<Self::WatchBackingImageStream> {
        let request = request.get_ref();
        let watched = wire::image_key(&request.name, &request.uuid)
            .and_then(|(name, uuid)| self.catalog.watch(&name, uuid.as_ref()))
            .map_err(|error| status::of(&error))?;
        // `None` once the last state was told: the stream ends with it, not with the next change.
        let images = futures_util::stream::unfold(
            Some((self.clone(), WatchStream::new(watched))),
            |watching| async move {
                let (service, mut states) = watching?;
                let image = states.next().await?;
                let wire = Ok(service.wire_image(&image));
                Some((
                    wire,
                    (!image.state.is_settled() && !image.newer).then_some((service, states)),
                ))
            },
        );
        // A daemon that stops does not wait for those who watch.
        let images = futures_util::StreamExt::take_until(images, self.catalog.stopped());
        Ok(Response::new(Box::pin(images)))
    }

    type ListSnapshotBlocksStream =
        Pin<Box<dyn Stream<Item = Result<pb::ListSnapshotBlocksResponse, Status>> + Send>>;

    async fn list_snapshot_blocks(
        &self,
        request: Request<pb::ListSnapshotBlocksRequest>,
    ) -> Answer<Self::ListSnapshotBlocksStream> {
        let blocks = self.snapshot_blocks(request.into_inner()).await;
        let blocks = blocks.map_err(|error| status::of(&error))?;
        Ok(Response::new(Box::pin(blocks)))
    }
}
