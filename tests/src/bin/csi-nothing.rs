//! A CSI driver that does nothing: `csi-nothing NODE SOCKET REGISTRATION`. What its claims and pods take is the time of
//! Kubernetes and of the sidecars alone, which a benchmark subtracts.
//!
//! A volume is a name. It is published as an empty directory, and there is nothing to attach, stage or format. It ends when
//! its standard input does.
#![allow(
    clippy::print_stderr,
    reason = "a test: who starts it reads what it says"
)]

/// The driver's own filter: kubelets do not register what resets their calls.
#[path = "../../../csi/src/authority/lenient.rs"]
mod lenient;

use std::path::Path;
use std::process::ExitCode;

use lenient::Lenient;

use proto::csi::v1 as csi;
use proto::csi::v1::controller_server::{Controller, ControllerServer};
use proto::csi::v1::identity_server::{Identity, IdentityServer};
use proto::csi::v1::node_server::{Node, NodeServer};
use proto::pluginregistration as registration;
use registration::registration_server::{Registration, RegistrationServer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// The name of the driver.
const NAME: &str = "nothing.example.org";

#[derive(Debug, Clone)]
struct Nothing {
    node: String,
    socket: String,
}

type Reply<T> = Result<Response<T>, Status>;

fn unimplemented<T>() -> Reply<T> {
    Err(Status::unimplemented("it does nothing"))
}

#[tonic::async_trait]
impl Registration for Nothing {
    async fn get_info(
        &self,
        _: Request<registration::InfoRequest>,
    ) -> Reply<registration::PluginInfo> {
        Ok(Response::new(registration::PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: NAME.to_owned(),
            endpoint: self.socket.clone(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<registration::RegistrationStatus>,
    ) -> Reply<registration::RegistrationStatusResponse> {
        eprintln!("csi-nothing: {:?}", request.into_inner());
        Ok(Response::new(registration::RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl Identity for Nothing {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Reply<csi::GetPluginInfoResponse> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: NAME.to_owned(),
            vendor_version: "1".to_owned(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Reply<csi::GetPluginCapabilitiesResponse> {
        use csi::plugin_capability::{Service, Type, service};
        let kind = service::Type::ControllerService.into();
        let r#type = Some(Type::Service(Service { r#type: kind }));
        let capabilities = vec![csi::PluginCapability { r#type }];
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Reply<csi::ProbeResponse> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Controller for Nothing {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Reply<csi::CreateVolumeResponse> {
        let request = request.into_inner();
        let range = request.capacity_range.unwrap_or_default();
        let volume = Some(csi::Volume {
            capacity_bytes: range.required_bytes,
            volume_id: request.name,
            ..Default::default()
        });
        Ok(Response::new(csi::CreateVolumeResponse { volume }))
    }

    async fn delete_volume(
        &self,
        _: Request<csi::DeleteVolumeRequest>,
    ) -> Reply<csi::DeleteVolumeResponse> {
        Ok(Response::new(csi::DeleteVolumeResponse {}))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Reply<csi::ControllerGetCapabilitiesResponse> {
        use csi::controller_service_capability::{Rpc, Type, rpc};
        let kind = rpc::Type::CreateDeleteVolume.into();
        let r#type = Some(Type::Rpc(Rpc { r#type: kind }));
        let capabilities = vec![csi::ControllerServiceCapability { r#type }];
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn controller_publish_volume(
        &self,
        _: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Reply<csi::ControllerPublishVolumeResponse> {
        unimplemented()
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Reply<csi::ControllerUnpublishVolumeResponse> {
        unimplemented()
    }

    async fn validate_volume_capabilities(
        &self,
        _: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Reply<csi::ValidateVolumeCapabilitiesResponse> {
        unimplemented()
    }

    async fn list_volumes(
        &self,
        _: Request<csi::ListVolumesRequest>,
    ) -> Reply<csi::ListVolumesResponse> {
        unimplemented()
    }

    async fn get_capacity(
        &self,
        _: Request<csi::GetCapacityRequest>,
    ) -> Reply<csi::GetCapacityResponse> {
        unimplemented()
    }

    async fn controller_expand_volume(
        &self,
        _: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Reply<csi::ControllerExpandVolumeResponse> {
        unimplemented()
    }

    async fn controller_get_volume(
        &self,
        _: Request<csi::ControllerGetVolumeRequest>,
    ) -> Reply<csi::ControllerGetVolumeResponse> {
        unimplemented()
    }

    async fn get_snapshot(
        &self,
        _: Request<csi::GetSnapshotRequest>,
    ) -> Reply<csi::GetSnapshotResponse> {
        unimplemented()
    }

    async fn controller_modify_volume(
        &self,
        _: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Reply<csi::ControllerModifyVolumeResponse> {
        unimplemented()
    }

    async fn create_snapshot(
        &self,
        _: Request<csi::CreateSnapshotRequest>,
    ) -> Reply<csi::CreateSnapshotResponse> {
        unimplemented()
    }

    async fn delete_snapshot(
        &self,
        _: Request<csi::DeleteSnapshotRequest>,
    ) -> Reply<csi::DeleteSnapshotResponse> {
        unimplemented()
    }

    async fn list_snapshots(
        &self,
        _: Request<csi::ListSnapshotsRequest>,
    ) -> Reply<csi::ListSnapshotsResponse> {
        unimplemented()
    }
}

#[tonic::async_trait]
impl Node for Nothing {
    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Reply<csi::NodePublishVolumeResponse> {
        let path = request.into_inner().target_path;
        let made = tokio::fs::create_dir_all(&path).await;
        made.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Reply<csi::NodeUnpublishVolumeResponse> {
        let path = request.into_inner().target_path;
        match tokio::fs::remove_dir_all(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Status::internal(error.to_string()))
            }
            _ => Ok(Response::new(csi::NodeUnpublishVolumeResponse {})),
        }
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Reply<csi::NodeGetInfoResponse> {
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.node.clone(),
            ..Default::default()
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Reply<csi::NodeGetCapabilitiesResponse> {
        Ok(Response::new(csi::NodeGetCapabilitiesResponse::default()))
    }

    async fn node_stage_volume(
        &self,
        _: Request<csi::NodeStageVolumeRequest>,
    ) -> Reply<csi::NodeStageVolumeResponse> {
        unimplemented()
    }

    async fn node_unstage_volume(
        &self,
        _: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Reply<csi::NodeUnstageVolumeResponse> {
        unimplemented()
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Reply<csi::NodeGetVolumeStatsResponse> {
        unimplemented()
    }

    async fn node_expand_volume(
        &self,
        _: Request<csi::NodeExpandVolumeRequest>,
    ) -> Reply<csi::NodeExpandVolumeResponse> {
        unimplemented()
    }
}

fn listen(path: &str) -> std::io::Result<impl Stream<Item = std::io::Result<Lenient<UnixStream>>>> {
    if let Some(directory) = Path::new(path).parent() {
        std::fs::create_dir_all(directory)?;
    }
    let listening = UnixListenerStream::new(UnixListener::bind(path)?);
    Ok(listening.map(|accepted| accepted.map(Lenient::new)))
}

async fn serve(nothing: Nothing, door: &str) -> Result<(), Box<dyn std::error::Error>> {
    let (socket, registered) = (listen(&nothing.socket)?, listen(door)?);
    let driver = Server::builder()
        .add_service(IdentityServer::new(nothing.clone()))
        .add_service(ControllerServer::new(nothing.clone()))
        .add_service(NodeServer::new(nothing.clone()))
        .serve_with_incoming(socket);
    let registration = Server::builder()
        .add_service(RegistrationServer::new(nothing.clone()))
        .serve_with_incoming(registered);
    let mut input = tokio::io::stdin();
    let mut byte = [0];
    let ended = tokio::select! {
        served = driver => served.map_err(Into::into),
        served = registration => served.map_err(Into::into),
        _ = input.read(&mut byte) => Ok(()),
    };
    for path in [door, &nothing.socket] {
        std::fs::remove_file(path)?;
    }
    ended
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [node, socket, door] = &arguments[..] else {
        eprintln!("csi-nothing NODE SOCKET REGISTRATION");
        return ExitCode::from(2);
    };
    let nothing = Nothing {
        node: node.clone(),
        socket: socket.clone(),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("csi-nothing: {error}");
            return ExitCode::FAILURE;
        }
    };
    let served = runtime.block_on(serve(nothing, door));
    // A read of the standard input that is under way cannot be taken back.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("csi-nothing: {error}");
            ExitCode::FAILURE
        }
    }
}
