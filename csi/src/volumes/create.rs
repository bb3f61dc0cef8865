//! Creates a volume: its source, and whether the source suits the intended use.

use std::time::Duration;

use client::origin::{self, Origin};
use client::{ImageOutcome, PullSecret, is_blank_copy, wire};
use tokio::time::Instant;
use types::{Classify as _, ErrorKind, ImageName, ImageUuid, report};

use super::Volumes;
use crate::content;
use crate::error::{Error, Result};
use crate::request::{BackingImage, Capability, ContentSource, CreateVolume};

/// How often an image is had anew that is deleted while its volume is made.
const ATTEMPTS: usize = 3;
/// How long one call waits for the checksum of a ready image, and how often it looks.
const SUMMED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Volumes {
    /// Makes a volume. Somebody may delete its image between any two steps: it is then had anew, and what
    /// the manager says of an image that it has no more is not the caller's matter.
    pub(crate) async fn create(&self, request: &CreateVolume) -> Result<wire::Volume> {
        let gone = |error: &client::Error| error.kind() == ErrorKind::NotFound;
        for _ in 0..ATTEMPTS {
            match self.try_create(request).await {
                Err(Error::Manager(error)) if gone(&error) => match &request.source {
                    Some(ContentSource::Snapshot(id)) => {
                        return Err(Error::NoSuchSnapshot {
                            snapshot_id: id.to_string(),
                        });
                    }
                    None | Some(ContentSource::Backup(_)) if request.makes_image() => {
                        tracing::debug!("its image was deleted meanwhile: {}", report(&error));
                    }
                    _ => return Err(error.into()),
                },
                made => return made,
            }
        }
        Err(Error::ImageDeleted)
    }

    async fn try_create(&self, request: &CreateVolume) -> Result<wire::Volume> {
        let mut wanted = wire(request, named_origin(request));
        if !matches!(request.source, Some(ContentSource::Volume(_))) {
            match self.image_of(request).await? {
                Some(image) => wanted.origin = Some(origin::image(image.name, image.uuid)),
                None if request.is_mount() => {
                    let size = content::can_format(request.capacity, request.fs_type())?;
                    wanted.required_bytes = size.unwrap_or_default().bytes();
                    content::flags_fit(request.fs_type(), &request.capabilities)?;
                }
                None => {}
            }
        }
        types::crash_point!("csi.create_volume.image_ready");
        let made = self.client.create_volume(wanted).await?;
        // What a clone or a partition holds is known once the volume is made; an image was looked at.
        let is_known = (request.source.is_none() || request.restore.is_some())
            && request.parameters.partition.is_none();
        if !is_known && let Err(error) = suits(&made, &request.capabilities) {
            self.delete(&request.name).await?;
            return Err(error);
        }
        Ok(made)
    }

    /// The ready image that all replicas of a volume begin with; `None`: they are blank. What another volume holds
    /// now becomes an image first, which goes when nobody uses it.
    pub(crate) async fn first_contents(
        &self,
        request: &CreateVolume,
    ) -> Result<Option<wire::BackingImage>> {
        let Some(ContentSource::Volume(source)) = &request.source else {
            return self.image_of(request).await;
        };
        let source = wire::source::Source::Volume(wire::VolumeSource {
            name: source.to_string(),
        });
        // Of the name of the new volume, so that a repeated call finds it.
        let name: String = format!("clone-{}", request.name)
            .chars()
            .take(128)
            .collect();
        let wanted = wire::CreateBackingImageRequest {
            name: name.clone(),
            source: Some(wire::Source {
                source: Some(source),
            }),
            format: "raw".to_owned(),
            for_volumes: true,
            ..Default::default()
        };
        let outcome = self.client.ensure(wanted, self.image_wait).await?;
        ready(&name, outcome).map(Some)
    }

    /// The ready image that a volume begins with, checked against its use; `None`: it is blank.
    async fn image_of(&self, request: &CreateVolume) -> Result<Option<wire::BackingImage>> {
        if let Some(ContentSource::Snapshot(id)) = &request.source {
            let image = self.snapshot(id).await?;
            if !content::is_blank(image.content.as_ref()) && request.parameters.partition.is_none()
            {
                content::suits(id.as_str(), image.content.as_ref(), &request.capabilities)?;
            }
            return Ok(Some(image));
        }
        let parameters = &request.parameters;
        let named = (&parameters.base_image, &parameters.backing_image);
        let (name, image) = match named {
            _ if let Some(restore) = &request.restore => {
                let ensured = self.client.ensure_image(restore.source(), self.image_wait);
                (
                    restore.shown.as_str(),
                    ready(&restore.shown, ensured.await?)?,
                )
            }
            (Some(reference), _) => {
                let image = self
                    .base_image(reference, request.pull_secret.clone())
                    .await?;
                (reference.as_str(), image)
            }
            (None, Some(backing)) => (backing.name.as_str(), self.backing_image(backing).await?),
            (None, None) => return Ok(None),
        };
        if request.parameters.partition.is_none() {
            content::suits(name, image.content.as_ref(), &request.capabilities)?;
        }
        Ok(Some(image))
    }

    /// The ready image of a reference, or how far it has come.
    async fn base_image(
        &self,
        reference: &str,
        pull_secret: PullSecret,
    ) -> Result<wire::BackingImage> {
        let source = wire::source::Source::Registry(wire::RegistrySource {
            reference: reference.to_owned(),
            platform: String::new(),
            docker_config_json: pull_secret.into_bytes(),
        });
        let outcome = self.client.ensure_image(source, self.image_wait).await?;
        ready(reference, outcome)
    }

    /// The same for an image that is named by Longhorn's parameters of today.
    async fn backing_image(&self, asked: &BackingImage) -> Result<wire::BackingImage> {
        let Some(request) = asked.request() else {
            let image = self.client.image(&asked.name, None).await?;
            let image = ready(asked.name.as_str(), image.into())?;
            if asked.checksum.is_empty() {
                return Ok(image);
            }
            let image = self.summed(image).await?;
            if !asked.checksum.eq_ignore_ascii_case(&image.current_checksum) {
                return Err(Error::ImageFailed {
                    image: asked.name.to_string(),
                    kind: ErrorKind::AlreadyExists,
                    message: format!("its SHA-512 is {}", image.current_checksum),
                });
            }
            return Ok(image);
        };
        let outcome = self.client.ensure(request, self.image_wait).await?;
        ready(asked.name.as_str(), outcome)
    }

    /// A ready image with its checksum, which may follow it by a while.
    pub(crate) async fn summed(&self, mut image: wire::BackingImage) -> Result<wire::BackingImage> {
        let until = Instant::now() + SUMMED_WITHIN;
        let uuid = ImageUuid::new(&image.uuid).map_err(Error::Name)?;
        let name = ImageName::new(&image.name).map_err(Error::Name)?;
        while image.current_checksum.is_empty() {
            if Instant::now() >= until {
                return Err(Error::ImageInProgress {
                    state: client::state_name(image.state()),
                    image: image.name,
                    progress: "its SHA-512 is being computed".to_owned(),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
            image = self.client.image(&name, Some(&uuid)).await?;
        }
        Ok(image)
    }

    /// The ready image of a snapshot.
    async fn snapshot(&self, id: &ImageName) -> Result<wire::BackingImage> {
        let unknown = || Error::NoSuchSnapshot {
            snapshot_id: id.to_string(),
        };
        let image = match self.client.image(id, None).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(unknown()),
            other => other?,
        };
        // Other images are named by other parameters, which may say who may use them.
        if image.source_volume.is_empty() {
            return Err(unknown());
        }
        ready(id.as_str(), image.into())
    }
}

/// A request as it is told to a manager, which compares it with the volume of that name if there is one.
pub(crate) fn wire(request: &CreateVolume, origin: Origin) -> wire::CreateVolumeRequest {
    let (claim, namespace) = request.parameters.claim.clone();
    let fs_type = request.fs_type().map(|fs_type| fs_type.to_string());
    wire::CreateVolumeRequest {
        name: request.name.to_string(),
        origin: Some(origin),
        required_bytes: request.capacity.required.unwrap_or_default().bytes(),
        limit_bytes: request.capacity.limit.unwrap_or_default().bytes(),
        number_of_replicas: request.parameters.number_of_replicas.unwrap_or_default(),
        stale_replica_timeout: request.parameters.stale_replica_timeout.unwrap_or_default(),
        fs_type: fs_type.unwrap_or_default(),
        parameters: request.parameters.recorded(),
        partition: request.parameters.partition.unwrap_or_default(),
        owner: Some(wire::Owner {
            driver: wire::Driver::Csi.into(),
            namespace,
            claim,
        }),
    }
}

/// What a volume begins with, as far as the request names it: an image of a registry has its name from the
/// manager.
pub(crate) fn named_origin(request: &CreateVolume) -> Origin {
    let parameters = &request.parameters;
    match &request.source {
        Some(ContentSource::Volume(source)) => origin::volume(source.as_str()),
        Some(ContentSource::Snapshot(id)) => origin::image(id.as_str(), ""),
        // Its name is the manager's choice.
        Some(ContentSource::Backup(_)) => origin::image("", ""),
        None if request.restore.is_some() || parameters.names_image() => origin::image("", ""),
        None => origin::blank(),
    }
}

/// The image, if it is ready.
pub(crate) fn ready(image: &str, outcome: ImageOutcome) -> Result<wire::BackingImage> {
    let image = image.to_owned();
    match outcome {
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

/// Whether what a volume was made from suits its use. A copy of a volume that nobody wrote to is as
/// good as a new one.
pub(crate) fn suits(volume: &wire::Volume, capabilities: &[Capability]) -> Result<()> {
    if is_blank_copy(volume) {
        return Ok(());
    }
    let source = [&volume.image_name, &volume.source_volume]
        .into_iter()
        .find(|name| !name.is_empty());
    match source {
        Some(name) => content::suits(name, volume.content.as_ref(), capabilities),
        None => Ok(()),
    }
}
