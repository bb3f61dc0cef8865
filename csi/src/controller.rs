//! The controller service: each call is checked, guarded, done by [`Volumes`] and put on the wire.

use std::collections::HashMap;

use client::wire;
use proto::csi::v1 as csi;
use tonic::{Request, Response, Status};
use types::{Classify as _, ErrorKind};

use crate::capabilities;
use crate::content;
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::location;
use crate::request::{self, Capability, Parameters};
use crate::status::answer;
use crate::volumes::Volumes;

type Reply<T> = Result<Response<T>, Status>;

/// What answers on the controller service.
#[derive(Debug)]
pub(crate) struct ControllerService {
    volumes: Volumes,
    in_flight: InFlight,
}

impl ControllerService {
    pub(crate) fn new(volumes: Volumes) -> Self {
        Self {
            volumes,
            in_flight: InFlight::default(),
        }
    }

    /// A volume as CSI shows it.
    fn show(&self, volume: &wire::Volume) -> csi::Volume {
        let nodes = volume
            .replicas
            .iter()
            .filter(|replica| !replica.node_id.is_empty());
        let topology = |replica: &wire::Replica| csi::Topology {
            segments: HashMap::from([(
                self.volumes.topology_key().to_owned(),
                replica.node_id.clone(),
            )]),
        };
        csi::Volume {
            capacity_bytes: bytes(volume.size),
            volume_id: volume.name.clone(),
            volume_context: location::volume_context(volume),
            content_source: None,
            accessible_topology: nodes.map(topology).collect(),
        }
    }

    /// Why a volume cannot be used as asked, or `None`. Errors are the manager's.
    async fn objection(&self, request: &request::ValidateVolume) -> Result<Option<String>> {
        let volume = self.volumes.get(&request.volume).await?;
        let expected = location::volume_context(&volume);
        if !request.context.is_empty() && request.context != expected {
            return Ok(Some("volume_context is not that of the volume".to_owned()));
        }
        if !request.mutable_parameters.is_empty() {
            return Ok(Some("mutable_parameters are not offered".to_owned()));
        }
        let checked =
            Capability::parse_all(request.capabilities.clone()).and_then(|capabilities| {
                content::suits(&volume.image_name, volume.content.as_ref(), &capabilities)?;
                let parameters = Parameters::parse(&request.parameters)?.recorded();
                Ok(request.parameters.is_empty() || parameters == volume.parameters)
            });
        Ok(match checked {
            Ok(true) => None,
            Ok(false) => Some("parameters are not those of the volume".to_owned()),
            Err(error) => Some(types::report(&error).to_string()),
        })
    }
}

/// A size on the wire. The manager refuses sizes past `i64::MAX`.
fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn condition(volume: &wire::Volume) -> csi::VolumeCondition {
    let abnormal = !volume.degraded.is_empty();
    let message = if abnormal {
        volume.degraded.clone()
    } else {
        "healthy".to_owned()
    };
    csi::VolumeCondition { abnormal, message }
}

fn published_nodes(volume: &wire::Volume) -> Vec<String> {
    volume
        .published
        .iter()
        .map(|publication| publication.node_id.clone())
        .collect()
}

/// For calls that take back: what is not there is taken back already.
fn gone_is_fine<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}

async fn unimplemented<T>(rpc: &'static str) -> Reply<T> {
    answer(rpc, "", async { Err(Error::Unimplemented { rpc }) }).await
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
            // The largest future by far: kept off the stack of the others.
            let volume = Box::pin(self.volumes.create(request)).await?;
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
                self.volumes.delete(&volume).await
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
            let publish_context = self.volumes.publish(request).await?;
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
                self.volumes
                    .unpublish(&request.volume, request.node.as_ref())
                    .await
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
                        mutable_parameters: HashMap::new(),
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
            let request = request::ListVolumes::parse(request.get_ref())?;
            let (volumes, next_token) = self.volumes.list(&request).await?;
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
            let available = self.volumes.capacity(request.topology.as_ref()).await?;
            let available_capacity = bytes(available.bytes());
            Ok(csi::GetCapacityResponse {
                available_capacity,
                ..Default::default()
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
            let size = self.volumes.expand(request).await?;
            // Also for a raw block volume: its loop device has to learn its new size.
            let (capacity_bytes, node_expansion_required) = (bytes(size.bytes()), true);
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
            let volume = self.volumes.get(&request::volume_id(&id)?).await?;
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
        _: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Reply<csi::ControllerModifyVolumeResponse> {
        unimplemented("ControllerModifyVolume").await
    }

    async fn create_snapshot(
        &self,
        _: Request<csi::CreateSnapshotRequest>,
    ) -> Reply<csi::CreateSnapshotResponse> {
        unimplemented("CreateSnapshot").await
    }

    async fn delete_snapshot(
        &self,
        _: Request<csi::DeleteSnapshotRequest>,
    ) -> Reply<csi::DeleteSnapshotResponse> {
        unimplemented("DeleteSnapshot").await
    }

    async fn list_snapshots(
        &self,
        _: Request<csi::ListSnapshotsRequest>,
    ) -> Reply<csi::ListSnapshotsResponse> {
        unimplemented("ListSnapshots").await
    }

    async fn get_snapshot(
        &self,
        _: Request<csi::GetSnapshotRequest>,
    ) -> Reply<csi::GetSnapshotResponse> {
        unimplemented("GetSnapshot").await
    }
}
