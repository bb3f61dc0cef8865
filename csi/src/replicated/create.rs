//! New replicated volumes.

use std::time::Duration;

use client::wire;
use replication::{Generation, Member, Origin, Record, View, Wanted, founders, place};
use tokio::time::Instant;
use types::{ByteSize, DiskUuid, ImageId};

use super::execute::{RECORD_UID, size_of};
use super::look::Look;
use super::records::Stored;
use super::shown::shown;
use super::{Error, Replicated, Result};
use crate::managers::Located;
use crate::request::CreateVolume;
use crate::volumes::create;

/// How long a call drives a volume, beside the time that images take. The sidecars' own deadline must be longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// Minutes after which a lost replica is replaced where the class does not say: Longhorn's default.
const STALE_REPLICA_TIMEOUT: u32 = 30;

impl Replicated {
    /// Whether a request is for a replicated volume.
    pub(crate) fn is_for(request: &CreateVolume) -> bool {
        request.parameters.number_of_replicas.unwrap_or(1) > 1
    }

    /// Makes a volume, or finds the one that an equal request has made.
    pub(crate) async fn create(
        &self,
        request: &CreateVolume,
    ) -> Result<wire::Volume, crate::Error> {
        let volume = &request.name;
        let wanted = create::wire(request, create::named_origin(request));
        let stored = match self.records.get(volume).await? {
            Some(stored) if stored.spec.deleting => {
                return Err(Error::Deleting(volume.clone()).into());
            }
            Some(stored) => stored,
            None => match self.managers.locate(request).await? {
                // One that was made before there were records.
                Located::Has(volume) => return Ok(*volume),
                Located::New(volumes) => {
                    let image = match volumes.first_contents(request).await? {
                        // By its sum the disks of the other replicas know the image.
                        Some(image) => Some(volumes.summed(image).await?),
                        None => None,
                    };
                    types::crash_point!("csi.create_volume.image_ready");
                    self.begin(request, image).await?
                }
            },
        };
        let ready = |record: &Record, view: &View| is_ready(record, view);
        let until = Instant::now() + PATIENCE;
        let driven = self.drive(volume, Some(&wanted), until, ready).await;
        let driven = match driven {
            Ok(Some(driven)) => driven,
            Ok(None) => return Err(Error::Deleting(volume.clone()).into()),
            Err(error) => {
                self.abandon(&error, stored).await;
                return Err(error);
            }
        };
        let record = &driven.stored.spec;
        let found = self.describe(record, &driven.look).await?;
        let found = found.ok_or_else(|| Error::Waiting {
            volume: volume.clone(),
            why: "no disk with a replica answers".to_owned(),
        })?;
        self.compare(&found, wanted, &driven.look, record).await?;
        let status = replication::judge(record, &driven.view);
        let shown = shown(found, &driven.stored, Some(&status));
        create::suits(&shown, &request.capabilities)?;
        Ok(shown)
    }

    /// Refuses a request that is not the one that made the volume, in its manager's words.
    async fn compare(
        &self,
        found: &wire::Volume,
        mut wanted: wire::CreateVolumeRequest,
        look: &Look,
        record: &Record,
    ) -> Result<()> {
        // What the record added, and what the controller chose.
        if let Some(uid) = found.parameters.get(RECORD_UID) {
            wanted.parameters.insert(RECORD_UID.to_owned(), uid.clone());
        }
        if let Origin::Image { id, .. } = &record.origin
            && matches!(
                wanted.origin,
                Some(wire::create_volume_request::Origin::Volume(_))
            )
        {
            wanted.origin = Some(client::origin::image(id.name.as_str(), ""));
        }
        let disks = found.replicas.iter();
        let disks = disks.filter_map(|replica| DiskUuid::new(&replica.disk_uuid).ok());
        if let Some(manager) = disks.into_iter().find_map(|disk| look.manager(&disk)) {
            manager.client.find_volume(wanted).await?;
        }
        Ok(())
    }

    /// Places a volume and makes its record.
    async fn begin(
        &self,
        request: &CreateVolume,
        image: Option<wire::BackingImage>,
    ) -> Result<Stored, crate::Error> {
        let volume = &request.name;
        let (origin, content) = match &image {
            None => (Origin::Blank, None),
            Some(image) => {
                let id = ImageId::new(&image.name, &image.uuid).map_err(crate::Error::Name)?;
                let checksum = image.current_checksum.parse();
                let checksum = checksum.map_err(|_| Error::NoImage {
                    volume: volume.clone(),
                    image: image.name.clone(),
                })?;
                let content = ByteSize(image.virtual_size);
                (Origin::Image { id, checksum }, Some(content))
            }
        };
        let mut capacity = request.capacity;
        if image.is_none() && request.is_mount() {
            let least = crate::content::can_format(capacity, request.fs_type())?;
            capacity.required = least.or(capacity.required);
            crate::content::flags_fit(request.fs_type(), &request.capabilities)?;
        }
        let size = size_of(capacity.required, capacity.limit, content)?;
        let replicas = request.parameters.number_of_replicas.unwrap_or(1);
        let mut record = Record {
            number_of_replicas: replicas,
            stale_replica_timeout: (request.parameters.stale_replica_timeout)
                .unwrap_or(STALE_REPLICA_TIMEOUT),
            day_zero: Some(day_zero()?),
            ..Record::new(volume.clone(), size, origin)
        };
        let look = self.look().await?;
        let mut view = self.view(&look, &record).await;
        for disk in view.disks.values_mut() {
            disk.preferred = self.managers.rank(request, disk.node.as_str());
        }
        let wanted = Wanted {
            volume: volume.clone(),
            replicas,
            require_all: request.parameters.require_replicas,
            size,
        };
        let disks = place(&wanted, &view).map_err(Error::Shortage)?;
        let node_of = |disk| view.disks.get(disk).map(|disk| disk.node.clone());
        // One replica too, where DRBD is there: others join it while it is used.
        let able = |disk| node_of(disk).is_some_and(|node| view.able(&node).is_some());
        if disks.iter().all(able) {
            record.address = Some(self.free_address().await?);
        }
        // All begin with the same bytes, each a clone made here.
        let alike = |member| Member {
            as_first: true,
            ..member
        };
        record.members = founders(&disks, &view).into_iter().map(alike).collect();
        let mut stored = self.records.create(&record).await?;
        self.settle_address(&mut stored).await?;
        let (replicas, has) = (record.number_of_replicas, record.members.len());
        let drbd = record.address.is_some();
        tracing::info!(%volume, replicas, has, drbd, "placed");
        types::crash_point!("csi.replicated.begun");
        Ok(stored)
    }

    /// Takes a volume back that cannot be made.
    async fn abandon(&self, error: &crate::Error, stored: Stored) {
        use types::Classify as _;
        let volume = stored.spec.volume.clone();
        let again = matches!(
            error.kind(),
            types::ErrorKind::Aborted
                | types::ErrorKind::Unavailable
                | types::ErrorKind::DeadlineExceeded
                | types::ErrorKind::AlreadyExists
        );
        if again || stored.spec.initialized {
            return;
        }
        if let Err(error) = self.delete(&volume).await {
            tracing::warn!(%volume, "is taken back later: {}", types::report(&error));
        }
    }
}

/// The generation with which the replicas of a new volume begin.
fn day_zero() -> Result<Generation> {
    let mut bits = [0; 8];
    super::records::fill(&mut bits)?;
    Ok(Generation::random(u64::from_ne_bytes(bits)))
}

/// Whether a new volume can be used: its replicas are equal, and the kernels say so. Its record says first that it
/// holds data: a file that is lost before that is made anew.
fn is_ready(record: &Record, view: &View) -> bool {
    if !record.initialized {
        return false;
    }
    if record.address.is_none() {
        return record.replicas().all(|member| {
            let disk = member.disk.as_ref().and_then(|disk| view.disk(disk));
            disk.is_some_and(|disk| disk.file.is_some())
        });
    }
    record.replicas().any(|member| {
        let part = view.part(member);
        part.is_some_and(|part| part.disk == replication::DiskState::UpToDate && part.quorum)
    })
}
