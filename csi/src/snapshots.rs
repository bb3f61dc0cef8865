//! The snapshots of the controller service. A snapshot is a backing image whose source is a volume;
//! its id is the name of the image.

use std::time::Duration;

use client::{Client, ImageOutcome, there, wire};
use jiff::Timestamp;
use proto::csi::v1 as csi;
use types::{ImageName, ImageUuid, report};

use crate::error::{Error, Result};
use crate::request::{CreateSnapshot, ListSnapshots};
use crate::volumes::check_owner;
use crate::volumes::create::ready;

/// The snapshots of one manager.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    client: Client,
    /// How long one call waits for a snapshot. The snapshotter's own deadline must be longer.
    wait: Duration,
}

impl Snapshots {
    pub(crate) const fn new(client: Client, wait: Duration) -> Self {
        Self { client, wait }
    }

    pub(crate) fn into_client(self) -> Client {
        self.client
    }

    /// Takes a snapshot, or finds the one that an equal request has taken.
    pub(crate) async fn create(&self, request: &CreateSnapshot) -> Result<csi::Snapshot> {
        match self.find(&request.name).await? {
            Some(image) if image.source_volume != request.volume.as_str() => {
                return Err(Error::SnapshotDiffers {
                    name: request.name.clone(),
                    existing: described(&image),
                    asked: request.volume.clone(),
                });
            }
            Some(image) if image.state() == wire::State::Ready => return Ok(show(&image)),
            Some(_) => {}
            // Of a volume that there is; the manager would say so only later, of a failed image.
            None => check_owner(&self.client.volume(&request.volume).await?)?,
        }
        let source = wire::source::Source::Volume(wire::VolumeSource {
            name: request.volume.to_string(),
        });
        let wanted = wire::CreateBackingImageRequest {
            name: request.name.to_string(),
            source: Some(wire::Source {
                source: Some(source),
            }),
            format: "raw".to_owned(),
            ..Default::default()
        };
        let outcome = self.client.ensure(wanted, self.wait).await?;
        if let ImageOutcome::Failed { .. } = outcome
            && let Err(error) = self.client.delete_image(&request.name, None).await
        {
            tracing::warn!("a failed snapshot is left: {}", report(&error));
        }
        let image = ready(request.name.as_str(), outcome)?;
        types::crash_point!("csi.create_snapshot.taken");
        Ok(show(&image))
    }

    /// Refuses a name that an image has which is no snapshot of the volume of the request.
    pub(crate) async fn check_source(&self, request: &CreateSnapshot) -> Result<()> {
        match self.find(&request.name).await? {
            Some(image) if image.source_volume != request.volume.as_str() => {
                Err(Error::SnapshotDiffers {
                    name: request.name.clone(),
                    existing: described(&image),
                    asked: request.volume.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Deletes a snapshot; fine when there is none.
    pub(crate) async fn delete(&self, id: &ImageName) -> Result<()> {
        let Some(image) = self.find(id).await?.filter(is_snapshot) else {
            return Ok(());
        };
        if !image.snapshot_group.is_empty() {
            let (snapshot, group) = (id.clone(), image.snapshot_group);
            return Err(Error::InGroup { snapshot, group });
        }
        // By its uuid: another image may take the name meanwhile.
        let uuid = ImageUuid::new(&image.uuid).ok();
        Ok(self.client.delete_image(id, uuid.as_ref()).await?)
    }

    pub(crate) async fn get(&self, id: &ImageName) -> Result<csi::Snapshot> {
        let image = self.find(id).await?.filter(is_snapshot);
        let image = image.ok_or_else(|| Error::NoSuchSnapshot {
            snapshot_id: id.to_string(),
        })?;
        Ok(show(&image))
    }

    /// Every snapshot of this manager that is asked for.
    pub(crate) async fn all(&self, request: &ListSnapshots) -> client::Result<Vec<csi::Snapshot>> {
        let mut images = self.client.list_images().await?;
        images.retain(|image| {
            is_snapshot(image)
                // One that is kept for a backup is nobody's.
                && image.backup_store.is_empty()
                && (request.volume.is_empty() || image.source_volume == request.volume)
                && (request.snapshot.is_empty() || image.name == request.snapshot)
        });
        Ok(images.iter().map(show).collect())
    }

    async fn find(&self, id: &ImageName) -> Result<Option<wire::BackingImage>> {
        Ok(there(self.client.image(id, None).await)?)
    }
}

/// Whether an image is a snapshot that was taken, or is being taken.
pub(crate) fn is_snapshot(image: &wire::BackingImage) -> bool {
    !image.source_volume.is_empty() && image.state() != wire::State::Failed
}

fn described(image: &wire::BackingImage) -> String {
    match image.source_volume.as_str() {
        "" => "a backing image".to_owned(),
        volume => format!("a snapshot of volume {volume}"),
    }
}

/// A snapshot as CSI shows it.
pub(crate) fn show(image: &wire::BackingImage) -> csi::Snapshot {
    csi::Snapshot {
        size_bytes: i64::try_from(image.virtual_size).unwrap_or(i64::MAX),
        snapshot_id: image.name.clone(),
        source_volume_id: image.source_volume.clone(),
        creation_time: created_at(&image.created_at),
        ready_to_use: image.state() == wire::State::Ready,
        group_snapshot_id: image.snapshot_group.clone(),
    }
}

/// A time of RFC 3339 as it goes on the wire.
pub(crate) fn created_at(text: &str) -> Option<prost_types::Timestamp> {
    let time: Timestamp = text.parse().ok()?;
    // Before 1970 the fraction would have to be turned round; there were no snapshots then.
    let nanos = time.subsec_nanosecond().max(0);
    Some(prost_types::Timestamp {
        seconds: time.as_second(),
        nanos,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_shown_as_the_image_it_is() {
        let image = wire::BackingImage {
            name: "snapshot-1".to_owned(),
            source_volume: "pvc-1".to_owned(),
            virtual_size: 64 << 20,
            created_at: "2026-11-22T08:50:01.5Z".to_owned(),
            state: wire::State::Ready.into(),
            ..Default::default()
        };
        let expected = csi::Snapshot {
            size_bytes: 64 << 20,
            snapshot_id: "snapshot-1".to_owned(),
            source_volume_id: "pvc-1".to_owned(),
            creation_time: Some(prost_types::Timestamp {
                seconds: 1_795_337_401,
                nanos: 500_000_000,
            }),
            ready_to_use: true,
            group_snapshot_id: String::new(),
        };
        assert_eq!(show(&image), expected);
        assert_eq!(created_at(""), None);
    }
}
