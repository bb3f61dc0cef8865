//! `longhorn.storage.v1.Disks`.

use std::sync::atomic::Ordering;

use proto::storage::v1 as pb;
use proto::storage::v1::disks_server::Disks;
use tonic::{Request, Response, Status};
use types::{DiskUuid, NodeId};

use super::{Service, blocking, status};
use crate::observe;
use catalog::{Error, Result};
use store::roster::{KnownDisk, SeenDisk};

/// Disks that are told of in one call.
const DISKS_MAX: usize = 1_000;

fn disk_uuid(text: &str) -> Result<DiskUuid> {
    Ok(DiskUuid::new(text)?)
}

fn seen_disks(request: pb::RecordDisksRequest) -> Result<Vec<SeenDisk>> {
    if request.disks.len() > DISKS_MAX {
        return Err(Error::InvalidField {
            field: "disks",
            why: format!("{DISKS_MAX} at most"),
        });
    }
    let disk = |disk: pb::SeenDisk| {
        Ok(SeenDisk {
            uuid: disk_uuid(&disk.uuid)?,
            node_id: NodeId::new(&disk.node_id)?,
            answers: disk.answers,
        })
    };
    request.disks.into_iter().map(disk).collect()
}

fn known_disk((uuid, known): (DiskUuid, KnownDisk)) -> pb::KnownDisk {
    pb::KnownDisk {
        uuid: uuid.into(),
        node_id: known.node_id.map(String::from).unwrap_or_default(),
        first_seen: known.first_seen,
        last_seen: known.last_seen,
        forgotten: known.forgotten,
    }
}

#[tonic::async_trait]
impl Disks for Service {
    async fn get_disk(
        &self,
        request: Request<pb::GetDiskRequest>,
    ) -> Result<Response<pb::Disk>, Status> {
        let disk = self.disk.clone();
        let with_known = request.get_ref().known_disks;
        let volumes = self.volumes.clone();
        let (space, promise, known) = blocking(move || {
            disk.check()?;
            let known = if with_known {
                disk.roster().known()
            } else {
                Vec::new()
            };
            Ok::<_, Error>((disk.space()?, volumes.promise()?, known))
        })
        .await?;
        let held = self.held.as_ref();
        let not_ready = observe::not_ready(&self.catalog, &self.disk, held).await;
        let io_errors = &self.disk.counters().io_errors;
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Response::new(pb::Disk {
            promised_volumes: promise.volumes,
            promised_images: promise.images,
            images: count(self.catalog.count()),
            volumes: count(promise.count),
            io_errors: io_errors.load(Ordering::Relaxed),
            not_ready: not_ready.unwrap_or_default(),
            uuid: self.disk.uuid().to_string(),
            node_id: self.volumes.node_id().to_string(),
            path: self.disk.layout().root().to_string_lossy().into_owned(),
            file_system: self.disk.file_system().to_owned(),
            reflink: self.disk.reflink(),
            size: space.size,
            available: space.available,
            promised: promise.promised,
            creatable: Some(promise.creatable),
            warning: space.warning().unwrap_or_default(),
            sync_address: self.sync_address.clone(),
            known_disks: known.into_iter().map(known_disk).collect(),
        }))
    }

    async fn record_disks(
        &self,
        request: Request<pb::RecordDisksRequest>,
    ) -> Result<Response<pb::RecordDisksResponse>, Status> {
        let mut seen = seen_disks(request.into_inner()).map_err(|e| status::of(&e))?;
        // Its own it need not be told of.
        seen.retain(|disk| disk.uuid != *self.disk.uuid());
        let disk = self.disk.clone();
        blocking(move || {
            disk.roster().record(&seen);
            Ok::<_, Error>(())
        })
        .await?;
        Ok(Response::new(pb::RecordDisksResponse {}))
    }

    async fn forget_disk(
        &self,
        request: Request<pb::ForgetDiskRequest>,
    ) -> Result<Response<pb::ForgetDiskResponse>, Status> {
        let uuid = disk_uuid(&request.get_ref().uuid).map_err(|e| status::of(&e))?;
        if uuid == *self.disk.uuid() {
            let why = format!("disk {uuid} is served here, so it is not gone");
            let field = "uuid";
            return Err(status::of(&Error::InvalidField { field, why }));
        }
        let disk = self.disk.clone();
        blocking(move || disk.roster().forget(&uuid)).await?;
        Ok(Response::new(pb::ForgetDiskResponse {}))
    }
}
