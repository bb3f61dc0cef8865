//! The images of a manager as they become ready.

use proto::storage::v1 as pb;
use tonic::Status;

use super::Manager;
use crate::{block_on, wait};

impl Manager {
    /// Makes an image and waits until it is ready and has its checksum, or failed.
    pub fn make_image(
        &self,
        request: pb::CreateBackingImageRequest,
    ) -> Result<pb::BackingImage, Status> {
        let made = self.create_image(request)?;
        self.wait_image(&made.name)
    }

    /// Makes an image and waits until it is ready or failed: its checksum may follow.
    pub fn ready_image(
        &self,
        request: pb::CreateBackingImageRequest,
    ) -> Result<pb::BackingImage, Status> {
        let made = self.create_image(request)?;
        self.settled_image(&made.name)
    }

    /// Waits until an image is ready and has its checksum, or failed.
    #[track_caller]
    pub fn wait_image(&self, name: &str) -> Result<pb::BackingImage, Status> {
        let settled = self.settled_image(name)?;
        if settled.state() == pb::State::Ready && settled.current_checksum.is_empty() {
            return Ok(self.summed_image(name));
        }
        Ok(settled)
    }

    /// Waits until a ready image has its checksum.
    #[track_caller]
    pub fn summed_image(&self, name: &str) -> pb::BackingImage {
        wait::until(&format!("image {name} has its checksum"), || {
            let image = self.image(name).ok()?;
            (!image.current_checksum.is_empty()).then_some(image)
        })
    }

    /// Waits until an image is ready or failed: its checksum may follow.
    #[track_caller]
    pub fn settled_image(&self, name: &str) -> Result<pb::BackingImage, Status> {
        let request = pb::GetBackingImageRequest {
            name: name.into(),
            uuid: String::new(),
        };
        let watch = async {
            let mut changes = self
                .images()
                .watch_backing_image(request)
                .await?
                .into_inner();
            let mut last = None;
            while let Some(image) = changes.message().await? {
                last = Some(image);
            }
            last.ok_or_else(|| Status::unknown("the watch ended without an image"))
        };
        block_on(async { tokio::time::timeout(wait::LONG, watch).await })
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("neither ready nor failed")))
    }
}
