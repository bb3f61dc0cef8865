//! The controller service: each call is checked, guarded, and executed by the responsible manager,
//! and the answer is converted to protobuf.

mod look;
mod show;
mod snapshots;

use client::wire;
use proto::csi::v1 as csi;
use tonic::{Request, Response, Status};
use types::{Classify as _, ErrorKind, NodeId};

use crate::backups::Backups;
use crate::capabilities;
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::limit::NodeLimit;
use crate::managers::{Located, Managers};
use crate::replicated::{Published, Replicated};
use crate::request::{self, Page, SnapshotRequest};
use crate::status::answer;
use crate::volumes::{check_owner, create};

use self::show::{bytes, condition, published_nodes};

type Reply<T> = Result<Response<T>, Status>;

/// What answers on the controller service.
#[derive(Debug)]
pub(crate) struct ControllerService {
    managers: Managers,
    /// `None`: every volume has one replica.
    replicated: Option<Replicated>,
    limit: NodeLimit,
    backups: Backups,
    in_flight: InFlight,
    in_flight_snapshots: InFlight,
}

impl ControllerService {
    pub(crate) fn new(
        managers: Managers,
        replicated: Option<Replicated>,
        max_volumes_per_node: u32,
    ) -> Self {
        Self {
            backups: Backups::new(managers.clone()),
            managers,
            replicated,
            limit: NodeLimit::new(max_volumes_per_node),
            in_flight: InFlight::default(),
            in_flight_snapshots: InFlight::default(),
        }
    }

    fn show(&self, volume: &wire::Volume) -> csi::Volume {
        show::volume(
            volume,
            self.managers.topology_key(),
            &self.managers.replication_key(),
        )
    }
}

/// A volume after the publication for pods of a node, or of every one, was taken back.
fn without(mut volume: wire::Volume, node: Option<&NodeId>) -> wire::Volume {
    let stays = |to: &wire::Publication| {
        to.r#use() != wire::Use::Pods || node.is_some_and(|node| to.node_id != node.as_str())
    };
    volume.published.retain(stays);
    volume
}

/// For calls that take back: what is not there is taken back already.
fn gone_is_fine<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}

#[tonic::async_trait]
impl csi::controller_server::Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Reply<csi::CreateVolumeResponse> {
        let wire = request.into_inner();
        answer("CreateVolume", &wire.name.clone(), async {
            let request = request::CreateVolume::parse(wire)?;
            let _guard = self.in_flight.enter(&request.name)?;
            if let Some(replicated) = &self.replicated
                && Replicated::is_for(&request)
            {
                let volume = Box::pin(replicated.create(&request)).await?;
                return Ok(csi::CreateVolumeResponse {
                    volume: Some(self.show(&volume)),
                });
            }
            let volume = match self.managers.locate(&request).await? {
                Located::Has(volume) => {
                    create::suits(&volume, &request.capabilities)?;
                    *volume
                }
                // The largest future by far: kept off the stack of the others.
                Located::New(volumes) => Box::pin(volumes.create(&request)).await?,
            };
            self.managers.seen().volume(&volume);
            Ok(csi::CreateVolumeResponse {
                volume: Some(self.show(&volume)),
            })
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Reply<csi::DeleteVolumeResponse> {
        let id = request.into_inner().volume_id;
        answer("DeleteVolume", &id, async {
            let deleted = async {
                let volume = request::volume_id(&id)?;
                let _guard = self.in_flight.enter(&volume)?;
                if let Some(replicated) = &self.replicated
                    && Box::pin(replicated.delete(&volume)).await?
                {
                    self.managers.seen().gone(&volume);
                    return Ok(());
                }
                if let Some((volumes, found)) = self.managers.find(&volume, None).await? {
                    // What cannot be described any more can be deleted all the same.
                    found.as_ref().map_or(Ok(()), check_owner)?;
                    volumes.delete(&volume).await?;
                    self.managers.seen().gone(&volume);
                }
                Ok(())
            };
            gone_is_fine(deleted.await)?;
            Ok(csi::DeleteVolumeResponse {})
        })
        .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Reply<csi::ControllerPublishVolumeResponse> {
        let wire = request.into_inner();
        answer("ControllerPublishVolume", &wire.volume_id.clone(), async {
            let request = request::PublishVolume::parse(wire)?;
            let _guard = self.in_flight.enter(&request.volume)?;
            let listed = async { Ok(self.merged(self.managers.list(&Page::default()).await?.0)) };
            let admitted = self.limit.admit(&request.volume, &request.node, listed);
            let _place = admitted.await?;
            if let Some(replicated) = &self.replicated
                && let Some(Published::There(publish_context)) =
                    Box::pin(replicated.publish(&request)).await?
            {
                return Ok(csi::ControllerPublishVolumeResponse { publish_context });
            }
            let (volumes, found) = self.managers.of_volume(&request.volume).await?;
            self.managers.check_node(&request.node, &found)?;
            let (volume, publish_context) = volumes.publish(request, &found).await?;
            self.managers.seen().volume(&volume);
            Ok(csi::ControllerPublishVolumeResponse { publish_context })
        })
        .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Reply<csi::ControllerUnpublishVolumeResponse> {
        let wire = request.into_inner();
        answer("ControllerUnpublishVolume", &wire.volume_id, async {
            let unpublished = async {
                let request = request::UnpublishVolume::parse(&wire)?;
                let _guard = self.in_flight.enter(&request.volume)?;
                let (name, node) = (&request.volume, request.node.as_ref());
                if let Some(replicated) = &self.replicated
                    && let Some(Published::There(_)) =
                        Box::pin(replicated.unpublish(name, node)).await?
                {
                    return Ok(());
                }
                let found = Box::pin(self.managers.find(name, node)).await?;
                if let Some((volumes, volume)) = found {
                    volumes.unpublish(name, node).await?;
                    if let Some(replicated) = &self.replicated {
                        Box::pin(replicated.released(name, node)).await?;
                    }
                    self.managers.seen().volume(&without(volume?, node));
                }
                Ok(())
            };
            gone_is_fine(unpublished.await)?;
            Ok(csi::ControllerUnpublishVolumeResponse {})
        })
        .await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Reply<csi::ValidateVolumeCapabilitiesResponse> {
        let wire = request.into_inner();
        answer(
            "ValidateVolumeCapabilities",
            &wire.volume_id.clone(),
            async {
                let request = request::ValidateVolume::parse(wire)?;
                let message = self.objection(&request).await?;
                let confirmed = message.is_none().then_some(
                    csi::validate_volume_capabilities_response::Confirmed {
                        volume_context: request.context,
                        volume_capabilities: request.capabilities,
                        parameters: request.parameters,
                        mutable_parameters: request.mutable_parameters,
                    },
                );
                let message = message.unwrap_or_default();
                Ok(csi::ValidateVolumeCapabilitiesResponse { confirmed, message })
            },
        )
        .await
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Reply<csi::ListVolumesResponse> {
        use csi::list_volumes_response::{Entry, VolumeStatus};
        answer("ListVolumes", "", async {
            let page = request::list_volumes(request.get_ref())?;
            let (volumes, next_token) = self.managers.list(&page).await?;
            let volumes = self.merged(volumes);
            let entry = |volume: &wire::Volume| Entry {
                volume: Some(self.show(volume)),
                status: Some(VolumeStatus {
                    published_node_ids: published_nodes(volume),
                    volume_condition: Some(condition(volume)),
                }),
            };
            Ok(csi::ListVolumesResponse {
                entries: volumes.iter().map(entry).collect(),
                next_token,
            })
        })
        .await
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Reply<csi::GetCapacityResponse> {
        answer("GetCapacity", "", async {
            let request = request::GetCapacity::parse(request.into_inner())?;
            let room = self.managers.room(request.topology.as_ref()).await?;
            Ok(csi::GetCapacityResponse {
                available_capacity: bytes(room.total.bytes()),
                maximum_volume_size: Some(bytes(room.largest.bytes())),
                minimum_volume_size: Some(bytes(types::BLOCK)),
            })
        })
        .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Reply<csi::ControllerGetCapabilitiesResponse> {
        let capabilities = capabilities::controller();
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Reply<csi::ControllerExpandVolumeResponse> {
        let wire = request.into_inner();
        answer("ControllerExpandVolume", &wire.volume_id.clone(), async {
            let request = request::ExpandVolume::parse(wire)?;
            let _guard = self.in_flight.enter(&request.volume)?;
            let (volumes, _) = self.managers.own_volume(&request.volume).await?;
            let grown = match &self.replicated {
                Some(replicated) => {
                    let (volume, capacity) = (&request.volume, request.capacity);
                    Box::pin(replicated.expand(volume, capacity)).await?
                }
                None => None,
            };
            let size = if let Some(size) = grown {
                size.bytes()
            } else {
                let grown = volumes.expand(request).await?;
                self.managers.seen().volume(&grown);
                grown.size
            };
            // Also for a raw block volume: its loop device has to learn its new size.
            let (capacity_bytes, node_expansion_required) = (bytes(size), true);
            Ok(csi::ControllerExpandVolumeResponse {
                capacity_bytes,
                node_expansion_required,
            })
        })
        .await
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Reply<csi::ControllerGetVolumeResponse> {
        use csi::controller_get_volume_response::VolumeStatus;
        let id = request.into_inner().volume_id;
        answer("ControllerGetVolume", &id, async {
            let name = request::volume_id(&id)?;
            let volume = self.volume(&name).await?;
            let status = VolumeStatus {
                published_node_ids: published_nodes(&volume),
                volume_condition: Some(condition(&volume)),
            };
            let (volume, status) = (Some(self.show(&volume)), Some(status));
            Ok(csi::ControllerGetVolumeResponse { volume, status })
        })
        .await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Reply<csi::ControllerModifyVolumeResponse> {
        let wire = request.into_inner();
        answer("ControllerModifyVolume", &wire.volume_id, async {
            let request = request::ModifyVolume::parse(&wire)?;
            let _guard = self.in_flight.enter(&request.volume)?;
            let (volumes, found) = self.managers.own_volume(&request.volume).await?;
            let has_record = match &self.replicated {
                Some(replicated) => Box::pin(replicated.modify(&found, &request.mutable)).await?,
                None => false,
            };
            if !has_record {
                volumes.modify(request).await?;
            }
            Ok(csi::ControllerModifyVolumeResponse {})
        })
        .await
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Reply<csi::CreateSnapshotResponse> {
        let wire = request.into_inner();
        answer("CreateSnapshot", &wire.source_volume_id.clone(), async {
            let request = request::CreateSnapshot::parse(wire)?;
            let _guard = self.in_flight_snapshots.enter(&request.name)?;
            // A large future: kept off the stack of the others.
            let volumes = std::slice::from_ref(&request.volume);
            let moment = match &self.replicated {
                Some(replicated) => replicated.moment(volumes).await?,
                None => None,
            };
            let place = moment.as_ref().map(|moment| &moment.client);
            if let Some(class) = &request.backup {
                let snapshot = Box::pin(self.backups.create(&request, class, place)).await?;
                let snapshot = Some(snapshot);
                return Ok(csi::CreateSnapshotResponse { snapshot });
            }
            let found = self
                .managers
                .for_snapshot(&request.name, &request.volume, place);
            let snapshots = found.await?;
            let snapshot = Some(Box::pin(snapshots.create(&request)).await?);
            Ok(csi::CreateSnapshotResponse { snapshot })
        })
        .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Reply<csi::DeleteSnapshotResponse> {
        let csi::DeleteSnapshotRequest {
            snapshot_id,
            secrets,
        } = request.into_inner();
        answer("DeleteSnapshot", &snapshot_id, async {
            let snapshot = match SnapshotRequest::parse(&snapshot_id, secrets) {
                // A text that is no id: what cannot be is not there.
                Err(Error::NoSuchSnapshot { .. }) => return Ok(csi::DeleteSnapshotResponse {}),
                parsed => parsed?,
            };
            self.delete_one(snapshot).await?;
            Ok(csi::DeleteSnapshotResponse {})
        })
        .await
    }

    async fn list_snapshots(
        &self,
        request: Request<csi::ListSnapshotsRequest>,
    ) -> Reply<csi::ListSnapshotsResponse> {
        use csi::list_snapshots_response::Entry;
        answer("ListSnapshots", "", async {
            let request = request::ListSnapshots::parse(request.into_inner())?;
            let (snapshots, next_token) = self.snapshots(&request).await?;
            let entry = |snapshot| Entry {
                snapshot: Some(snapshot),
            };
            let entries = snapshots.into_iter().map(entry).collect();
            Ok(csi::ListSnapshotsResponse {
                entries,
                next_token,
            })
        })
        .await
    }

    async fn get_snapshot(
        &self,
        request: Request<csi::GetSnapshotRequest>,
    ) -> Reply<csi::GetSnapshotResponse> {
        let csi::GetSnapshotRequest {
            snapshot_id,
            secrets,
        } = request.into_inner();
        answer("GetSnapshot", &snapshot_id, async {
            let asked = SnapshotRequest::parse(&snapshot_id, secrets)?;
            let snapshot = Some(self.snapshot(asked).await?);
            Ok(csi::GetSnapshotResponse { snapshot })
        })
        .await
    }
}
