//! The steps of a plan, done: each may be repeated, and what fails is said and done again by a later plan.

use client::origin;
use client::replicas::Found;
use client::{Client, ImageOutcome, wire};
use replication::{Origin, Record, Step};
use types::{ByteSize, Classify as _, DiskUuid, ErrorKind, NodeId};

use super::look::Look;
use super::records::Stored;
use super::{Error, Replicated, Result};

/// Where the file of a replica has the uid of its record, so that the file of an earlier volume of the same name is
/// never taken for one of this. It is no parameter: nobody can give it.
pub(crate) const RECORD_UID: &str = "csi.record";

impl Replicated {
    /// Does one step. `wanted` describes the files, where a request for the volume is under way.
    pub(super) async fn execute(
        &self,
        step: Step,
        stored: &mut Stored,
        look: &Look,
        wanted: Option<&wire::CreateVolumeRequest>,
    ) -> Result<()> {
        let volume = stored.spec.volume.clone();
        match step {
            Step::Change(record) => {
                let before = stored.spec.address;
                stored.spec = *record;
                self.records.replace(stored).await?;
                types::crash_point!("csi.replicated.changed");
                if stored.spec.address != before {
                    self.settle_address(stored).await?;
                }
                Ok(())
            }
            Step::MakeFile { disk } => {
                let client = manager(look, &disk)?;
                self.make_file(&client, stored, look, wanted).await
            }
            Step::GrowFile { disk, size } => {
                let client = manager(look, &disk)?;
                client.grow_volume(&volume, size, None).await?;
                Ok(())
            }
            Step::Put { node } => {
                let Some(layout) = stored.spec.layout() else {
                    return Ok(());
                };
                let secret = self.records.secret(&volume).await?;
                let put: Found = client(look, &node)?.put_replica(&layout, &secret).await?;
                tracing::debug!(%volume, %node, generation = put.part.generation, "told");
                Ok(())
            }
            Step::Initialize { node } => {
                Ok(client(look, &node)?.initialize_replicas(&volume).await?)
            }
            Step::Grow { node } => Ok(client(look, &node)?.grow_replicas(&volume).await?),
            Step::Rejoin { node } => {
                tracing::warn!(%volume, %node, "joins the others again, and gives up what only it has");
                Ok(client(look, &node)?.rejoin_replica(&volume).await?)
            }
            Step::Remove { node } => Ok(client(look, &node)?.remove_replica(&volume).await?),
            Step::DeleteFile { disk } => Ok(manager(look, &disk)?.delete_volume(&volume).await?),
            Step::Release => {
                self.records.remove(stored).await?;
                tracing::info!(%volume, "gone");
                Ok(())
            }
        }
    }

    /// Makes the file of a replica: a clone of the image, which is brought to the disk first.
    async fn make_file(
        &self,
        client: &Client,
        stored: &Stored,
        look: &Look,
        wanted: Option<&wire::CreateVolumeRequest>,
    ) -> Result<()> {
        let record = &stored.spec;
        let mut wanted = match wanted {
            Some(wanted) => wanted.clone(),
            None => self.like_another(record, look).await?,
        };
        wanted.origin = Some(match &record.origin {
            Origin::Blank => origin::blank(),
            Origin::Image { .. } => match self.bring_image(client, record, look).await {
                Ok(image) => origin::image(image.name, image.uuid),
                // What it began with is gone everywhere: it gets all that the others have.
                Err(Error::NoImage { .. }) if record.initialized => {
                    return self.make_without_image(client, stored, look, wanted).await;
                }
                Err(error) => return Err(error),
            },
        });
        create_file(client, stored, wanted).await
    }

    /// Makes the file of a replica whose image nobody has any more. Its record says first that it is not like the
    /// others: its metadata would say otherwise.
    async fn make_without_image(
        &self,
        client: &Client,
        stored: &Stored,
        look: &Look,
        mut wanted: wire::CreateVolumeRequest,
    ) -> Result<()> {
        let is_here = |manager: &&client::Member| manager.client.address() == client.address();
        let disk = look.managers.iter().find(is_here);
        let mut changed = stored.clone();
        for member in &mut changed.spec.members {
            let here = |disk: &client::Member| {
                member
                    .disk
                    .as_ref()
                    .is_some_and(|own| own.as_str() == disk.disk.uuid)
            };
            if disk.is_some_and(here) {
                member.as_first = false;
            }
        }
        if let Some(next) = stored.spec.changed(changed.spec.clone()) {
            changed.spec = next;
            return self.records.replace(&mut changed).await;
        }
        wanted.origin = Some(origin::blank());
        create_file(client, stored, wanted).await
    }

    /// What the file of another replica was made with.
    async fn like_another(
        &self,
        record: &Record,
        look: &Look,
    ) -> Result<wire::CreateVolumeRequest> {
        let volume = self.describe(record, look).await?;
        let volume = volume.ok_or_else(|| Error::Waiting {
            volume: record.volume.clone(),
            why: "no disk that answers has a replica".to_owned(),
        })?;
        Ok(wire::CreateVolumeRequest {
            name: volume.name,
            number_of_replicas: volume.number_of_replicas,
            stale_replica_timeout: volume.stale_replica_timeout,
            fs_type: volume.fs_type,
            parameters: volume.parameters,
            partition: volume.partition.map_or(0, |partition| partition.number),
            owner: volume.owner,
            ..Default::default()
        })
    }

    /// The volume as a disk with a replica describes it, best one that began as the record says. `None`: no disk
    /// that answers has one.
    pub(super) async fn describe(
        &self,
        record: &Record,
        look: &Look,
    ) -> Result<Option<wire::Volume>> {
        let mut second = None;
        for disk in record.replicas().filter_map(|member| member.disk.as_ref()) {
            let Some(manager) = look.manager(disk) else {
                continue;
            };
            match manager.client.volume(&record.volume).await {
                Ok(volume) => {
                    let fits = match &record.origin {
                        Origin::Blank => true,
                        Origin::Image { id, .. } => volume.image_name == id.name.as_str(),
                    };
                    if fits {
                        return Ok(Some(volume));
                    }
                    second = Some(volume);
                }
                Err(error) => {
                    tracing::debug!(volume = %record.volume, %disk, "{}", types::report(&error));
                }
            }
        }
        Ok(second)
    }

    /// The ready image of a record on a disk: the one that is there, or a copy from the other managers.
    async fn bring_image(
        &self,
        client: &Client,
        record: &Record,
        look: &Look,
    ) -> Result<wire::BackingImage> {
        let Origin::Image { id, checksum } = &record.origin else {
            unreachable!("asked for volumes of images alone");
        };
        let sum = String::from(*checksum);
        let is_it = |image: &wire::BackingImage| image.current_checksum.eq_ignore_ascii_case(&sum);
        // Another manager that pulled the same image by itself has it under another uuid.
        for uuid in [Some(&id.uuid), None] {
            match client.image(&id.name, uuid).await {
                Ok(image) if image.state() == wire::State::Ready && is_it(&image) => {
                    return Ok(image);
                }
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::FailedPrecondition
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut addresses = Vec::new();
        for other in &look.managers {
            if other.client.address() == client.address() || other.disk.sync_address.is_empty() {
                continue;
            }
            // Any uuid: a peer that has other bytes under the name is found out by their checksum.
            if let Ok(image) = other.client.image(&id.name, Some(&id.uuid)).await
                && image.state() == wire::State::Ready
                && is_it(&image)
            {
                addresses.push(other.disk.sync_address.clone());
            }
        }
        if addresses.is_empty() {
            return Err(Error::NoImage {
                volume: record.volume.clone(),
                image: id.to_string(),
            });
        }
        let request = wire::CreateBackingImageRequest {
            name: id.name.to_string(),
            uuid: id.uuid.to_string(),
            source: Some(wire::Source {
                source: Some(wire::source::Source::Peers(wire::PeersSource {
                    addresses,
                    size: 0,
                })),
            }),
            expected_checksum: sum,
            for_volumes: true,
            ..Default::default()
        };
        match client.ensure(request, self.settings.image_wait).await? {
            ImageOutcome::Ready(image) => Ok(image),
            ImageOutcome::InProgress(image) => Err(Error::Waiting {
                volume: record.volume.clone(),
                why: format!(
                    "image {id} is being copied to the disk at {}, {}",
                    client.address(),
                    client::progress(&image)
                ),
            }),
            ImageOutcome::Failed { message, .. } => Err(Error::Waiting {
                volume: record.volume.clone(),
                why: format!(
                    "image {id} cannot be copied to the disk at {}: {message}",
                    client.address()
                ),
            }),
        }
    }
}

/// Makes a file as it is described, of the record's size, and the one for metadata beside it.
async fn create_file(
    client: &Client,
    stored: &Stored,
    mut wanted: wire::CreateVolumeRequest,
) -> Result<()> {
    let record = &stored.spec;
    wanted.required_bytes = record.size.bytes();
    wanted.limit_bytes = record.size.bytes();
    let uid = || stored.uid.clone();
    let parameters = &mut wanted.parameters;
    parameters.entry(RECORD_UID.to_owned()).or_insert_with(uid);
    client.create_volume_of_origin(wanted).await?;
    types::crash_point!("csi.replicated.file_made");
    // Without DRBD it is a volume like any other.
    if record.address.is_some() {
        client.prepare_replica(&record.volume).await?;
    }
    Ok(())
}

/// The manager of a disk.
pub(super) fn manager(look: &Look, disk: &DiskUuid) -> Result<Client> {
    let manager = look.manager(disk);
    let manager = manager.ok_or_else(|| client::Error::silent(disk.as_str(), ""))?;
    Ok(manager.client.clone())
}

/// The node service of a node.
fn client(look: &Look, node: &NodeId) -> Result<client::Node> {
    let seen = look.nodes.get(node).filter(|seen| seen.answers);
    let seen = seen.ok_or_else(|| client::Error::silent("", node.as_str()))?;
    Ok(seen.node.clone())
}

/// The size that a new volume gets: what its manager would give it, which is asked for exactly.
pub(super) fn size_of(
    required: Option<ByteSize>,
    limit: Option<ByteSize>,
    content: Option<ByteSize>,
) -> Result<ByteSize> {
    // As a manager decides for one replica: a blank volume without a size has 1 GiB.
    let default = ByteSize(1 << 30);
    let natural = limit.map_or(default, |limit| limit.min(default));
    let asked = required.or(content).unwrap_or(natural);
    if let Some(content) = content.filter(|content| asked < *content) {
        return Err(Error::TooSmall { asked, content });
    }
    let size = asked.round_up(types::BLOCK).unwrap_or(asked);
    match limit {
        Some(limit) if size > limit => Err(Error::Limit { size, limit }),
        _ => Ok(size),
    }
}
