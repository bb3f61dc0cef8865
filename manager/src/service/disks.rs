//! `longhorn.storage.v1.Disks`.

use proto::storage::v1 as pb;
use proto::storage::v1::disks_server::Disks;
use tonic::{Request, Response, Status};

use super::{Service, blocking};

#[tonic::async_trait]
impl Disks for Service {
    async fn get_disk(&self, _: Request<pb::GetDiskRequest>) -> Result<Response<pb::Disk>, Status> {
        let disk = self.disk.clone();
        let space = blocking(move || {
            disk.check()?;
            disk.space()
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
        }))
    }
}
