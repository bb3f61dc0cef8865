//! `longhorn.storage.v1.Disks`.

use proto::storage::v1 as pb;
use proto::storage::v1::disks_server::Disks;
use tonic::{Request, Response, Status};

use super::{Service, blocking, status, wire};
use crate::error::Error;

#[tonic::async_trait]
impl Disks for Service {
    async fn get_disk(
        &self,
        request: Request<pb::GetDiskRequest>,
    ) -> Result<Response<pb::Disk>, Status> {
        let disk = self.disk.clone();
        let with_known = request.get_ref().known_disks;
        let (space, known) = blocking(move || {
            disk.check()?;
            let known = if with_known {
                disk.roster().known()
            } else {
                Vec::new()
            };
            Ok((disk.space()?, known))
        })
        .await?;
        Ok(Response::new(pb::Disk {
            uuid: self.disk.uuid().to_string(),
            node_id: self.volumes.node_id().to_string(),
            path: self.disk.layout().root().to_string_lossy().into_owned(),
            file_system: self.disk.file_system().to_owned(),
            reflink: self.disk.reflink(),
            size: space.size,
            available: space.available,
            known_disks: known.into_iter().map(wire::known_disk).collect(),
        }))
    }

    async fn record_disks(
        &self,
        request: Request<pb::RecordDisksRequest>,
    ) -> Result<Response<pb::RecordDisksResponse>, Status> {
        let mut seen = wire::seen_disks(request.into_inner()).map_err(|e| status::of(&e))?;
        // Its own it need not be told of.
        seen.retain(|disk| disk.uuid != *self.disk.uuid());
        let disk = self.disk.clone();
        blocking(move || {
            disk.roster().record(&seen);
            Ok(())
        })
        .await?;
        Ok(Response::new(pb::RecordDisksResponse {}))
    }

    async fn forget_disk(
        &self,
        request: Request<pb::ForgetDiskRequest>,
    ) -> Result<Response<pb::ForgetDiskResponse>, Status> {
        let uuid = wire::disk_uuid(&request.get_ref().uuid).map_err(|e| status::of(&e))?;
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
