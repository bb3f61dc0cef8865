//! Snapshots of groups, as the external snapshotter takes them.

use proto::csi::v1 as pb;
use proto::csi::v1::group_controller_client::GroupControllerClient;
use tonic::Status;
use tonic::transport::Channel;

use super::{Plugin, still_going_on};
use crate::{block_on, wait};

impl Plugin {
    /// CreateVolumeGroupSnapshot, again while it is still going on.
    pub fn group(&self, name: &str, volumes: &[&str]) -> Result<pb::VolumeGroupSnapshot, Status> {
        let request = pb::CreateVolumeGroupSnapshotRequest {
            name: name.into(),
            source_volume_ids: volumes.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        wait::until("the snapshots of the group are taken", || {
            let reply = block_on(self.groups().create_volume_group_snapshot(request.clone()));
            match reply {
                Err(status) if still_going_on(&status) => None,
                Err(status) => Some(Err(status)),
                Ok(reply) => {
                    let group = reply.into_inner().group_snapshot;
                    Some(group.ok_or_else(|| Status::internal("no group")))
                }
            }
        })
    }

    /// DeleteVolumeGroupSnapshot.
    pub fn delete_group(&self, id: &str) -> Result<(), Status> {
        let request = pb::DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: id.into(),
            ..Default::default()
        };
        block_on(self.groups().delete_volume_group_snapshot(request)).map(drop)
    }

    /// The client of the group controller service.
    pub fn groups(&self) -> GroupControllerClient<Channel> {
        GroupControllerClient::new(self.channel.clone())
    }
}
