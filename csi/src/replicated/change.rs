//! What becomes of a replicated volume besides being used: grown, changed, deleted.

use client::wire;
use replication::{Member, Origin, Record};
use tokio::time::Instant;
use types::{ByteSize, DiskUuid, ImageId, NodeId, VolumeName};

use super::create::PATIENCE;
use super::execute::{manager, size_of};
use super::look::Look;
use super::records::Stored;
use super::{Error, Replicated, Result};
use crate::request::{Capacity, Mutable};

impl Replicated {
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
    async fn can_grow(&self, stored: &Stored, look: &Look, size: ByteSize) -> Result<()> {
        for disk in stored
            .spec
            .replicas()
            .filter_map(|member| member.disk.as_ref())
        {
            let volume = &stored.spec.volume;
            manager(look, disk)?.grow_volume(volume, size, None).await?;
        }
        Ok(())
    }

    /// Changes what may change of a volume. `false`: it has no record, and needs none.
    pub(crate) async fn modify(
        &self,
        found: &wire::Volume,
        mutable: &Mutable,
    ) -> Result<bool, crate::Error> {
        let volume = VolumeName::new(&found.name).map_err(crate::Error::Name)?;
        let mut stored = match self.records.get(&volume).await? {
            Some(stored) => stored,
            None if mutable.number_of_replicas.unwrap_or(1) > 1 => {
                self.records.create(&of_plain(&volume, found)?).await?
            }
            None => return Ok(false),
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
}

/// The record of a volume that had one replica until now: it gets others when no node uses it.
fn of_plain(volume: &VolumeName, found: &wire::Volume) -> Result<Record, crate::Error> {
    if !found.image_name.is_empty() && found.image_checksum.is_empty() {
        let (volume, why) = (
            volume.clone(),
            "the SHA-512 of its image is being computed".to_owned(),
        );
        return Err(Error::Waiting { volume, why }.into());
    }
    let mut record = Record {
        number_of_replicas: found.number_of_replicas,
        stale_replica_timeout: found.stale_replica_timeout,
        initialized: true,
        ..Record::new(volume.clone(), ByteSize(found.size), origin_of(found))
    };
    for replica in &found.replicas {
        let node = NodeId::new(&replica.node_id).map_err(crate::Error::Name)?;
        let disk = DiskUuid::new(&replica.disk_uuid).map_err(crate::Error::Name)?;
        let member = record.next_member(node, Member::NOWHERE, Some(disk));
        record.members.extend(member.map(|member| Member {
            create: false,
            ..member
        }));
    }
    record.whole = record.members.iter().map(|member| member.id).collect();
    // Another user than pods is no holder; its manager refuses to make a replica of the volume.
    let for_pods = |to: &&wire::Publication| to.r#use() == wire::Use::Pods;
    for to in found.published.iter().filter(for_pods) {
        let node = NodeId::new(&to.node_id).map_err(crate::Error::Name)?;
        if to.multi_node && to.readonly {
            record.readers.push(node);
        } else {
            record.holder = Some(node);
        }
    }
    Ok(record)
}

/// What a volume that is described began with.
pub(super) fn origin_of(found: &wire::Volume) -> Origin {
    let id = ImageId::new(&found.image_name, &found.image_uuid);
    match (id, found.image_checksum.parse()) {
        (Ok(id), Ok(checksum)) => Origin::Image { id, checksum },
        _ => Origin::Blank,
    }
}
