//! A typed client of a node service.

use std::time::Duration;

use proto::node::v1 as wire;
use proto::node::v1::node_client::NodeClient;
use tonic::transport::Channel;
use trust::{Dialer, Role};
use types::{DiskUuid, VolumeName};

use crate::{Address, Client, Result};

/// The time a call may take. To attach takes milliseconds; a device that is in use is waited for 10 seconds, and a
/// list of what hangs takes 15.
pub const NODE_DEADLINE: Duration = Duration::from_secs(30);

/// A client of the node service of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node(Client);

impl Node {
    /// The node service at `address`, reached by `dialer` unless it is a unix socket. It connects at the first call. Needs a tokio runtime.
    pub fn new(address: Address, dialer: &Dialer) -> Result<Self> {
        let client = Client::of("node service", Role::Node, address, dialer)?;
        Ok(Self(client.with_deadline(NODE_DEADLINE)))
    }

    pub(crate) fn stub(&self) -> NodeClient<Channel> {
        NodeClient::new(self.0.channel())
    }

    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        self.0.call(operation, answer).await
    }

    /// The same with another time that a call may take.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self(self.0.with_deadline(deadline))
    }

    /// Who is asked.
    pub fn address(&self) -> &Address {
        self.0.address()
    }

    /// Attaches a volume, or finds it attached. Without a disk, the only one that has it.
    pub async fn attach(
        &self,
        volume: &VolumeName,
        disk: Option<&DiskUuid>,
        read_only: bool,
    ) -> Result<wire::Attachment> {
        let request = wire::AttachVolumeRequest {
            volume: volume.to_string(),
            disk_uuid: disk.map(ToString::to_string).unwrap_or_default(),
            read_only,
        };
        let mut stub = self.stub();
        let answer = stub.attach_volume(request);
        self.call("attach the volume", answer).await
    }

    /// Detaches a volume; one that is not attached is a success.
    pub async fn detach(&self, volume: &VolumeName) -> Result<()> {
        let volume = volume.to_string();
        let mut stub = self.stub();
        let answer = stub.detach_volume(wire::DetachVolumeRequest { volume });
        self.call("detach the volume", answer).await.map(drop)
    }

    /// All that is attached on the node, and what should be.
    pub async fn attachments(&self) -> Result<Vec<wire::Attachment>> {
        let mut stub = self.stub();
        let answer = stub.list_attachments(wire::ListAttachmentsRequest {});
        let list = self.call("list its attachments", answer).await?;
        Ok(list.attachments)
    }

    /// Makes a volume usable without a pod, or finds it so.
    pub async fn expose(&self, request: wire::ExposeVolumeRequest) -> Result<wire::Exposed> {
        let mut stub = self.stub();
        let answer = stub.expose_volume(request);
        self.call("expose the volume", answer).await
    }

    /// Takes that back; one that is not exposed is a success.
    pub async fn unexpose(&self, volume: &VolumeName, disconnect: bool) -> Result<()> {
        let volume = volume.to_string();
        let mut stub = self.stub();
        let answer = stub.unexpose_volume(wire::UnexposeVolumeRequest { volume, disconnect });
        self.call("take the access back", answer).await.map(drop)
    }

    /// All that is exposed on the node, and what should be.
    pub async fn exposed(&self) -> Result<Vec<wire::Exposed>> {
        let mut stub = self.stub();
        let answer = stub.list_exposed(wire::ListExposedRequest {});
        let list = self.call("list what it exposes", answer).await?;
        Ok(list.exposed)
    }

    /// What the node is, and what it lacks.
    pub async fn info(&self) -> Result<wire::NodeInfo> {
        let mut stub = self.stub();
        let answer = stub.get_node(wire::GetNodeRequest {});
        let info = self.call("describe its node", answer).await?;
        self.0.of_its_node(&info.node_id)?;
        Ok(info)
    }
}
