//! The methods as tonic wants them: each names itself and its volume, and leaves the rest to the service.

use std::sync::Arc;
use std::time::Duration;

use host::staging;
use proto::node::v1 as wire;
use proto::node::v1::node_server::Node;
use tonic::{Request, Response, Status};

use super::{SUSPENDED_SECONDS, Service, Settings, volume};
use crate::error::Error;
use crate::replicas::Replicas;
use crate::show;

#[tonic::async_trait]
impl Node for Service {
    async fn attach_volume(
        &self,
        request: Request<wire::AttachVolumeRequest>,
    ) -> Result<Response<wire::Attachment>, Status> {
        let request = request.into_inner();
        let volume = request.volume.clone();
        self.answer("AttachVolume", &volume, self.attach(request))
            .await
    }

    async fn detach_volume(
        &self,
        request: Request<wire::DetachVolumeRequest>,
    ) -> Result<Response<wire::DetachVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = request.volume.clone();
        self.answer("DetachVolume", &volume, async {
            self.detach(request).await?;
            Ok(wire::DetachVolumeResponse {})
        })
        .await
    }

    async fn list_attachments(
        &self,
        _: Request<wire::ListAttachmentsRequest>,
    ) -> Result<Response<wire::ListAttachmentsResponse>, Status> {
        self.answer("ListAttachments", "", async {
            let all = self.run(|settings| Ok(staging::attachments(&settings.records)?));
            let attachments = all.await?.into_iter().map(show::attachment).collect();
            Ok(wire::ListAttachmentsResponse { attachments })
        })
        .await
    }

    async fn expose_volume(
        &self,
        request: Request<wire::ExposeVolumeRequest>,
    ) -> Result<Response<wire::Exposed>, Status> {
        let request = request.into_inner();
        let volume = request.volume.clone();
        self.answer("ExposeVolume", &volume, self.exposures.expose(request))
            .await
    }

    async fn unexpose_volume(
        &self,
        request: Request<wire::UnexposeVolumeRequest>,
    ) -> Result<Response<wire::UnexposeVolumeResponse>, Status> {
        let wire::UnexposeVolumeRequest { volume, disconnect } = request.into_inner();
        self.answer("UnexposeVolume", &volume, async {
            self.exposures.unexpose(&volume, disconnect).await?;
            Ok(wire::UnexposeVolumeResponse {})
        })
        .await
    }

    async fn list_exposed(
        &self,
        _: Request<wire::ListExposedRequest>,
    ) -> Result<Response<wire::ListExposedResponse>, Status> {
        self.answer("ListExposed", "", async {
            let exposed = self.exposures.list().await?;
            Ok(wire::ListExposedResponse { exposed })
        })
        .await
    }

    async fn get_node(
        &self,
        _: Request<wire::GetNodeRequest>,
    ) -> Result<Response<wire::NodeInfo>, Status> {
        self.answer("GetNode", "", self.info()).await
    }

    async fn put_replica(
        &self,
        request: Request<wire::PutReplicaRequest>,
    ) -> Result<Response<wire::ReplicaPart>, Status> {
        let request = request.into_inner();
        let volume = request.layout.as_ref();
        let volume = volume.map_or_else(String::new, |layout| layout.volume.clone());
        self.answer("PutReplica", &volume, self.put(request)).await
    }

    async fn remove_replica(
        &self,
        request: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        self.replica("RemoveReplica", request, Replicas::remove)
            .await
    }

    async fn list_replicas(
        &self,
        _: Request<wire::ListReplicasRequest>,
    ) -> Result<Response<wire::ListReplicasResponse>, Status> {
        let replicas = Arc::clone(&self.replicas);
        self.answer("ListReplicas", "", async {
            let all = self.run(move |_| replicas.list()).await?;
            let parts = all.iter().map(client::replicas::part).collect();
            Ok(wire::ListReplicasResponse { parts })
        })
        .await
    }

    async fn initialize_replicas(
        &self,
        request: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        self.replica("InitializeReplicas", request, Replicas::initialize)
            .await
    }

    async fn grow_replicas(
        &self,
        request: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        self.replica("GrowReplicas", request, Replicas::grow).await
    }

    async fn rejoin_replica(
        &self,
        request: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        self.replica("RejoinReplica", request, Replicas::rejoin)
            .await
    }

    async fn suspend_volume(
        &self,
        request: Request<wire::SuspendVolumeRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        let request = request.into_inner();
        let name = request.volume.clone();
        let replicas = Arc::clone(&self.replicas);
        self.answer("SuspendVolume", &name, async {
            let volume = volume(&request.volume)?;
            let seconds = u64::from(request.seconds);
            if !SUSPENDED_SECONDS.contains(&seconds) {
                return Err(Error::Field {
                    field: "seconds",
                    why: "1 to 60 are expected".to_owned(),
                });
            }
            let work = move |_: &Settings| replicas.suspend(&volume, Duration::from_secs(seconds));
            self.run(work).await?;
            Ok(wire::ReplicaResponse {})
        })
        .await
    }

    async fn resume_volume(
        &self,
        request: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        self.replica("ResumeVolume", request, Replicas::resume)
            .await
    }
}
