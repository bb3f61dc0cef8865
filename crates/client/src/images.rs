//! Calls about backing images.

use std::time::Duration;

use proto::storage::v1 as wire;
use tokio::time::Instant;
use tonic::Response;
use types::{ErrorKind, ImageName, ImageUuid};
use wire::source::Source;

use crate::{Client, Result, kind_of};

/// How far an image has come when the time to wait for it is up.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageOutcome {
    /// Volumes can be made from it.
    Ready(wire::BackingImage),
    /// Its making goes on in the manager; asking again joins it.
    InProgress(wire::BackingImage),
    /// Its making ended without an image.
    Failed {
        /// What the cause means.
        kind: ErrorKind,
        /// The cause, for people.
        message: String,
    },
}

impl From<wire::BackingImage> for ImageOutcome {
    fn from(image: wire::BackingImage) -> Self {
        match image.state() {
            wire::State::Ready => Self::Ready(image),
            wire::State::Failed => Self::Failed {
                kind: failure_kind(image.failure_code),
                message: image.message,
            },
            // `unknown` is an image on disk whose bytes are being checked again.
            wire::State::Unspecified
            | wire::State::Pending
            | wire::State::Starting
            | wire::State::InProgress
            | wire::State::ReadyForTransfer
            | wire::State::Unknown => Self::InProgress(image),
        }
    }
}

/// A manager that gives no code leaves only this to be said: the image is not there to be used.
pub(crate) fn failure_kind(code: u32) -> ErrorKind {
    match i32::try_from(code).unwrap_or_default() {
        0 => ErrorKind::FailedPrecondition,
        code => kind_of(tonic::Code::from_i32(code)),
    }
}

/// The states of one image or backup, as they come.
#[derive(Debug)]
pub struct Watch<T> {
    client: Client,
    states: tonic::Streaming<T>,
}

impl<T> Watch<T> {
    pub(crate) const fn new(client: Client, states: tonic::Streaming<T>) -> Self {
        Self { client, states }
    }

    /// The next state, however long it takes; `None` after the last. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<T>> {
        let state = self.states.message().await;
        state.map_err(|status| self.client.failed(&status))
    }
}

/// The blocks of a snapshot, message by message.
#[derive(Debug)]
pub struct Blocks {
    client: Client,
    messages: tonic::Streaming<wire::ListSnapshotBlocksResponse>,
}

impl Blocks {
    /// The next ranges, within the deadline of a call; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<wire::ListSnapshotBlocksResponse>> {
        let next = async { self.messages.message().await.map(Response::new) };
        self.client
            .call("list the blocks of the snapshot", next)
            .await
    }
}

impl Client {
    /// The ranges of a snapshot that hold data or, with a base, that may differ from it.
    pub async fn snapshot_blocks(
        &self,
        request: wire::ListSnapshotBlocksRequest,
    ) -> Result<Blocks> {
        let mut images = self.images();
        let answer = images.list_snapshot_blocks(request);
        let messages = self.call("list the blocks of the snapshot", answer).await?;
        Ok(Blocks {
            client: self.clone(),
            messages,
        })
    }

    /// Starts to make an image, or joins its making, and answers at once.
    pub async fn create_image(
        &self,
        request: wire::CreateBackingImageRequest,
    ) -> Result<wire::BackingImage> {
        let mut images = self.images();
        self.call("start the image", images.create_backing_image(request))
            .await
    }

    /// Sees to it that an image from `source` exists, waiting at most `wait` for it to be ready.
    /// Its name is the manager's to choose, so that callers of one source share one image.
    pub async fn ensure_image(&self, source: Source, wait: Duration) -> Result<ImageOutcome> {
        let request = wire::CreateBackingImageRequest {
            source: Some(wire::Source {
                source: Some(source),
            }),
            for_volumes: true,
            ..Default::default()
        };
        self.ensure(request, wait).await
    }

    /// The same for a request that says more, such as a name.
    pub async fn ensure(
        &self,
        request: wire::CreateBackingImageRequest,
        wait: Duration,
    ) -> Result<ImageOutcome> {
        let until = Instant::now() + wait;
        let mut image = Box::pin(self.create_image(request.clone())).await?;
        if !matches!(
            ImageOutcome::from(image.clone()),
            ImageOutcome::InProgress(_)
        ) {
            return Ok(image.into());
        }
        let mut watch = self.watch(&image.name, &image.uuid).await?;
        loop {
            match tokio::time::timeout_at(until, watch.next()).await {
                Ok(Ok(Some(next))) => image = next,
                // The stream ends after the last state, and with the manager. An image that came
                // meanwhile may have been pulled by somebody else: whether it is for this caller
                // too is said when it is asked for again.
                Ok(Ok(None)) if image.state() == wire::State::Ready => {
                    let again = Box::pin(self.create_image(request));
                    return Ok(again.await?.into());
                }
                Ok(Ok(None)) | Err(_) => return Ok(image.into()),
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Takes the snapshots of a group, and waits for them.
    pub async fn snapshot_group(
        &self,
        request: wire::SnapshotGroupRequest,
    ) -> Result<Vec<wire::BackingImage>> {
        let mut images = self.images();
        let answer = images.snapshot_group(request);
        let answer = self.call("take the snapshots of a group", answer).await?;
        Ok(answer.snapshots)
    }

    /// One image; without a uuid the only one of that name.
    pub async fn image(
        &self,
        name: &ImageName,
        uuid: Option<&ImageUuid>,
    ) -> Result<wire::BackingImage> {
        let mut images = self.images();
        let request = request(name.as_str(), uuid.map_or("", ImageUuid::as_str));
        self.call("describe the image", images.get_backing_image(request))
            .await
    }

    /// Every image of the disk, in the order of their names.
    pub async fn list_images(&self) -> Result<Vec<wire::BackingImage>> {
        let mut images = self.images();
        let request = wire::ListBackingImagesRequest::default();
        let answer = self
            .call("list its images", images.list_backing_images(request))
            .await?;
        Ok(answer.backing_images)
    }

    /// The same with the version of the list; without the list when it is the `known` one (0: none).
    pub async fn list_images_since(&self, known: u64) -> Result<wire::ListBackingImagesResponse> {
        let mut images = self.images();
        let request = wire::ListBackingImagesRequest {
            known_version: known,
        };
        self.call("list its images", images.list_backing_images(request))
            .await
    }

    /// What an image from this source would be; nothing is made.
    pub async fn inspect_source(&self, source: Source) -> Result<wire::InspectSourceResponse> {
        let mut images = self.images();
        let source = Some(source);
        let request = wire::InspectSourceRequest {
            source: Some(wire::Source { source }),
        };
        self.call("look at the source", images.inspect_source(request))
            .await
    }

    /// Appends a piece to an image that is being uploaded.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`] where another offset is expected.
    pub async fn write_upload(
        &self,
        request: wire::WriteUploadRequest,
    ) -> Result<wire::BackingImage> {
        let mut images = self.images();
        self.call("take a piece of the upload", images.write_upload(request))
            .await
    }

    /// Deletes an image; fine when there is none.
    pub async fn delete_image(&self, name: &ImageName, uuid: Option<&ImageUuid>) -> Result<()> {
        let mut images = self.images();
        let request = wire::DeleteBackingImageRequest {
            name: name.to_string(),
            uuid: uuid.map(ToString::to_string).unwrap_or_default(),
        };
        self.call("delete the image", images.delete_backing_image(request))
            .await?;
        Ok(())
    }

    /// The image as it is now, then at each change.
    pub async fn watch_image(
        &self,
        name: &ImageName,
        uuid: Option<&ImageUuid>,
    ) -> Result<Watch<wire::BackingImage>> {
        self.watch(name.as_str(), uuid.map_or("", ImageUuid::as_str))
            .await
    }

    async fn watch(&self, name: &str, uuid: &str) -> Result<Watch<wire::BackingImage>> {
        let mut images = self.images();
        let answer = images.watch_backing_image(request(name, uuid));
        let states = self.call("watch the image", answer).await?;
        Ok(Watch::new(self.clone(), states))
    }
}

/// The name of a state, as everywhere else.
pub const fn state_name(state: wire::State) -> &'static str {
    match state {
        wire::State::Pending => "pending",
        wire::State::Starting => "starting",
        wire::State::InProgress => "in-progress",
        wire::State::ReadyForTransfer => "ready-for-transfer",
        wire::State::Ready => "ready",
        wire::State::Failed => "failed",
        wire::State::Unknown | wire::State::Unspecified => "unknown",
    }
}

/// How far an image has come, in words.
pub fn progress(image: &wire::BackingImage) -> String {
    let mut text = match image.total_size {
        0 => format!("{} bytes so far", image.processed_size),
        total => format!(
            "{} % ({} of {total} bytes)",
            image.progress, image.processed_size
        ),
    };
    if !image.message.is_empty() {
        text.push_str(", ");
        text.extend(image.message.chars().take(500));
    }
    text
}

fn request(name: &str, uuid: &str) -> wire::GetBackingImageRequest {
    wire::GetBackingImageRequest {
        name: name.to_owned(),
        uuid: uuid.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(state: wire::State, failure_code: u32) -> wire::BackingImage {
        wire::BackingImage {
            state: state.into(),
            failure_code,
            message: "why".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn only_ready_is_ready() {
        use wire::State;
        for state in [
            State::Unspecified,
            State::Pending,
            State::Starting,
            State::InProgress,
            State::ReadyForTransfer,
            State::Unknown,
        ] {
            let outcome = ImageOutcome::from(image(state, 0));
            assert!(
                matches!(outcome, ImageOutcome::InProgress(_)),
                "{state:?}: {outcome:?}"
            );
        }
        let outcome = ImageOutcome::from(image(State::Ready, 0));
        assert!(matches!(outcome, ImageOutcome::Ready(_)));
    }

    #[test]
    fn a_failure_keeps_its_cause() {
        for (code, kind) in [
            (0, ErrorKind::FailedPrecondition),
            (5, ErrorKind::NotFound),
            (15, ErrorKind::DataLoss),
            (u32::MAX, ErrorKind::FailedPrecondition),
            (99, ErrorKind::Internal),
        ] {
            let message = "why".to_owned();
            let outcome = ImageOutcome::from(image(wire::State::Failed, code));
            assert_eq!(
                outcome,
                ImageOutcome::Failed { kind, message },
                "code {code}"
            );
        }
    }
}
