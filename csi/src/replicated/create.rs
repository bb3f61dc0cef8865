//! New replicated volumes, and what becomes of them besides being used: grown, changed, deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use client::wire;
use replication::{Generation, Origin, Record, Status, View, Wanted, place};
use tokio::time::Instant;
use types::{ByteSize, ImageId, NodeId, VolumeName};

use super::execute::{RECORD_UID, size_of};
use super::records::Stored;
use super::{Error, Replicated, Result};
use crate::managers::Located;
use crate::request::{Capacity, CreateVolume, Mutable};
use crate::volumes::create;

/// How long a call drives a volume, beside the time that images take. The sidecars' own deadline must be longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

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
                    let image = volumes.first_contents(request).await?;
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
        look: &super::look::Look,
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
        for replica in &found.replicas {
            let managers = look.managers.iter();
            let mut managers = managers.filter(|one| one.disk.uuid == replica.disk_uuid);
            if let Some(manager) = managers.next() {
                manager.client.find_volume(wanted).await?;
                return Ok(());
            }
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
            volume: volume.clone(),
            generation: 1,
            size,
            number_of_replicas: replicas,
            stale_replica_timeout: request.parameters.stale_replica_timeout.unwrap_or_default(),
            origin,
            address: None,
            members: Vec::new(),
            initialized: false,
            // All begin with the same bytes, each a clone made here.
            day_zero: Some(day_zero()?),
            whole: Vec::new(),
            holder: None,
            readers: Vec::new(),
            lost: Vec::new(),
            evacuate: Vec::new(),
            leftovers: Vec::new(),
            tls: false,
            deleting: false,
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
        for disk in &disks {
            let Some(node) = node_of(disk) else { continue };
            // Without DRBD nobody connects.
            let address = view.able(&node).unwrap_or([0, 0, 0, 0].into());
            if let Some(member) = record.next_member(node, address, Some(disk.clone())) {
                record.members.push(member);
            }
        }
        let stored = self.records.create(&record).await?;
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

    /// Deletes a volume. What nodes and disks have of it that do not answer goes when they do. `false`: it has no
    /// record.
    pub(crate) async fn delete(&self, volume: &VolumeName) -> Result<bool, crate::Error> {
        let Some(mut stored) = self.records.get(volume).await? else {
            return Ok(false);
        };
        if !stored.spec.deleting {
            let holder = stored.spec.holder.clone();
            if let Some(node) = holder.or_else(|| stored.spec.readers.first().cloned()) {
                let volume = volume.clone();
                return Err(Error::Held { volume, node }.into());
            }
            stored.spec.deleting = true;
            self.records.replace(&mut stored).await?;
            types::crash_point!("csi.replicated.deleting");
        }
        let until = Instant::now() + PATIENCE;
        match self.drive(volume, None, until, |_, _| false).await {
            Ok(_) => Ok(true),
            // It is nobody's any more; the rest is the loop's.
            Err(crate::Error::Replicated(Error::Waiting { why, .. })) => {
                tracing::info!(%volume, "is deleted when it can be: {why}");
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Grows a volume; `None`: it has no record.
    pub(crate) async fn expand(
        &self,
        volume: &VolumeName,
        capacity: Capacity,
    ) -> Result<Option<ByteSize>, crate::Error> {
        let (required, limit) = (capacity.required.unwrap_or_default(), capacity.limit);
        let Some(mut stored) = self.records.get(volume).await? else {
            return Ok(None);
        };
        let size = size_of(Some(required.max(stored.spec.size)), limit, None)?;
        if size > stored.spec.size {
            let look = self.look().await?;
            // A refusal of any disk comes before the promise.
            self.can_grow(&stored, &look, size).await?;
            stored.spec.size = size;
            stored.spec.generation += 1;
            self.records.replace(&mut stored).await?;
            types::crash_point!("csi.replicated.expanding");
        }
        let until = Instant::now() + PATIENCE;
        let driven = self.drive(volume, None, until, |record, view| {
            let mut replicas = record.replicas();
            match record.address {
                None => replicas.all(|member| {
                    let disk = member.disk.as_ref().and_then(|disk| view.disk(disk));
                    disk.is_some_and(|disk| disk.file.is_some_and(|file| file.size >= record.size))
                }),
                Some(_) => record.members.iter().all(|member| {
                    view.part(member)
                        .is_some_and(|part| part.size >= record.size)
                }),
            }
        });
        driven.await?;
        Ok(Some(size))
    }

    /// Asks the disks of a volume for more room before its record promises it: the files grow first.
    async fn can_grow(
        &self,
        stored: &Stored,
        look: &super::look::Look,
        size: ByteSize,
    ) -> Result<()> {
        for disk in stored
            .spec
            .replicas()
            .filter_map(|member| member.disk.as_ref())
        {
            let manager = look
                .manager(disk)
                .ok_or_else(|| client::Error::silent(disk.as_str(), ""))?;
            let volume = &stored.spec.volume;
            manager.client.grow_volume(volume, size, None).await?;
        }
        Ok(())
    }

    /// Changes what may change of a volume. `false`: it has no record.
    pub(crate) async fn modify(
        &self,
        volume: &VolumeName,
        mutable: &Mutable,
    ) -> Result<bool, crate::Error> {
        let Some(mut stored) = self.records.get(volume).await? else {
            return Ok(false);
        };
        let record = &mut stored.spec;
        let before = record.clone();
        record.number_of_replicas = mutable
            .number_of_replicas
            .unwrap_or(record.number_of_replicas);
        record.stale_replica_timeout = mutable
            .stale_replica_timeout
            .unwrap_or(record.stale_replica_timeout);
        if *record != before {
            self.records.replace(&mut stored).await?;
        }
        Ok(true)
    }

    /// A volume with a record, as it is now. `None`: it has no record.
    pub(crate) async fn get(
        &self,
        volume: &VolumeName,
    ) -> Result<Option<wire::Volume>, crate::Error> {
        let Some(stored) = self.records.get(volume).await? else {
            return Ok(None);
        };
        let look = self.look().await?;
        let (driven, _) = self.see(stored, look).await;
        let record = &driven.stored.spec;
        let found = self.describe(record, &driven.look).await?;
        let found = found.unwrap_or_else(|| wire::Volume {
            name: volume.to_string(),
            ..Default::default()
        });
        let status = replication::judge(record, &driven.view);
        Ok(Some(shown(found, &driven.stored, Some(&status))))
    }

    /// Puts what the records say over what managers say of the files: one volume for all files of a replica.
    pub(crate) fn merge(&self, volumes: Vec<wire::Volume>) -> Vec<wire::Volume> {
        let known = super::lock(&self.known);
        let known: BTreeMap<&str, &Stored> =
            known.iter().map(|stored| (&*stored.name, stored)).collect();
        let mut merged: Vec<wire::Volume> = Vec::with_capacity(volumes.len());
        for volume in volumes {
            if merged.last().is_some_and(|last| last.name == volume.name) {
                continue;
            }
            merged.push(match known.get(volume.name.as_str()) {
                Some(stored) => shown(volume, stored, stored.status.as_ref()),
                None => volume,
            });
        }
        merged
    }
}

/// The generation with which the replicas of a new volume begin.
fn day_zero() -> Result<Generation> {
    let mut bits = [0; 8];
    super::records::fill(&mut bits)?;
    Ok(Generation::random(u64::from_ne_bytes(bits)))
}

/// Whether a new volume can be used: its replicas are equal, and the kernels say so.
fn is_ready(record: &Record, view: &View) -> bool {
    if record.address.is_none() {
        return record.replicas().all(|member| {
            let disk = member.disk.as_ref().and_then(|disk| view.disk(disk));
            disk.is_some_and(|disk| disk.file.is_some())
        });
    }
    record.initialized
        && record.replicas().any(|member| {
            let part = view.part(member);
            part.is_some_and(|part| part.disk == replication::DiskState::UpToDate && part.quorum)
        })
}

/// A volume as its record and its status have it, on what a disk says of its file.
pub(super) fn shown(found: wire::Volume, stored: &Stored, status: Option<&Status>) -> wire::Volume {
    let record = &stored.spec;
    let replica = |member: &replication::Member| wire::Replica {
        node_id: member.node.to_string(),
        disk_uuid: member
            .disk
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        path: format!("volumes/{}/volume", record.volume),
    };
    let publication = |node: &NodeId, readonly| wire::Publication {
        node_id: node.to_string(),
        readonly,
        multi_node: readonly,
    };
    let holder = record.holder.iter().map(|node| publication(node, false));
    let readers = record.readers.iter().map(|node| publication(node, true));
    let mut parameters = found.parameters;
    parameters.remove(RECORD_UID);
    wire::Volume {
        size: record.size.bytes(),
        number_of_replicas: record.number_of_replicas,
        stale_replica_timeout: record.stale_replica_timeout,
        replicas: record.replicas().map(replica).collect(),
        published: holder.chain(readers).collect(),
        degraded: (status.and_then(Status::trouble))
            .unwrap_or_default()
            .to_owned(),
        is_replica: record.address.is_some(),
        parameters,
        ..found
    }
}
