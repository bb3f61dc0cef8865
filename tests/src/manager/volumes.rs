//! The volumes of a manager, by gRPC.

use proto::storage::v1 as pb;
use tonic::Status;

use super::Manager;
use crate::block_on;

impl Manager {
    /// Makes a volume from a ready image, or a blank one when the name is empty.
    pub fn create_volume(&self, name: &str, image: &str, size: u64) -> Result<pb::Volume, Status> {
        use pb::create_volume_request::Origin;
        let request = pb::CreateVolumeRequest {
            name: name.into(),
            origin: Some(match image {
                "" => Origin::Blank(pb::BlankOrigin {}),
                name => Origin::Image(pb::ImageOrigin {
                    name: name.into(),
                    uuid: String::new(),
                }),
            }),
            required_bytes: size,
            ..Default::default()
        };
        block_on(self.volumes().create_volume(request)).map(tonic::Response::into_inner)
    }

    /// A volume.
    pub fn volume(&self, name: &str) -> Result<pb::Volume, Status> {
        let request = pb::GetVolumeRequest { name: name.into() };
        block_on(self.volumes().get_volume(request)).map(tonic::Response::into_inner)
    }

    /// All volumes.
    pub fn list_volumes(&self) -> Result<Vec<pb::Volume>, Status> {
        let listed = block_on(
            self.volumes()
                .list_volumes(pb::ListVolumesRequest::default()),
        );
        listed.map(|reply| reply.into_inner().volumes)
    }

    /// Grows a volume.
    pub fn grow_volume(&self, name: &str, size: u64) -> Result<pb::Volume, Status> {
        let request = pb::GrowVolumeRequest {
            name: name.into(),
            required_bytes: size,
            limit_bytes: 0,
        };
        block_on(self.volumes().grow_volume(request)).map(tonic::Response::into_inner)
    }

    /// Asks for another number of replicas.
    pub fn modify_volume(&self, name: &str, replicas: u32) -> Result<pb::Volume, Status> {
        let request = pb::ModifyVolumeRequest {
            name: name.into(),
            number_of_replicas: Some(replicas),
            ..Default::default()
        };
        block_on(self.volumes().modify_volume(request)).map(tonic::Response::into_inner)
    }

    /// Publishes a volume to a node, for writing.
    pub fn publish_volume(&self, name: &str, node: &str) -> Result<pb::Volume, Status> {
        let request = pb::PublishVolumeRequest {
            name: name.into(),
            node_id: node.into(),
            ..Default::default()
        };
        block_on(self.volumes().publish_volume(request)).map(tonic::Response::into_inner)
    }

    /// Takes a publication back.
    pub fn unpublish_volume(&self, name: &str, node: &str) -> Result<(), Status> {
        let request = pb::UnpublishVolumeRequest {
            name: name.into(),
            node_id: node.into(),
            ..Default::default()
        };
        block_on(self.volumes().unpublish_volume(request)).map(drop)
    }

    /// Deletes a volume.
    pub fn delete_volume(&self, name: &str) -> Result<(), Status> {
        let request = pb::DeleteVolumeRequest { name: name.into() };
        block_on(self.volumes().delete_volume(request)).map(drop)
    }
}
