//! The connection, and the one place where a call gets its deadline.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::storage::v1 as wire;
use tonic::transport::{Channel, Endpoint};
use trust::held::H2;
use trust::{Dialer, Expected, Role};
use types::{DiskUuid, NodeId};
use wire::backing_images_client::BackingImagesClient;
use wire::disks_client::DisksClient;
use wire::volumes_client::VolumesClient;

use crate::{Address, Error, InvalidAddress, Result};

/// The time a call may take unless [`Client::with_deadline`] says otherwise. A volume on a disk
/// without reflink is a copy, so this is minutes where a mere answer would need seconds.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A listing may hold thousands of images; this is what the manager sends at the most.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// To connect takes a round trip; more than this means that nobody is there.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A client of one manager. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// What answers there, in words.
    service: &'static str,
    address: Arc<Address>,
    channel: Channel,
    deadline: Duration,
    /// The node of the manager, as its certificate says.
    node: Arc<Mutex<Option<NodeId>>>,
}

impl Client {
    /// A client of the manager at `address`, reached by `dialer` unless it is a unix socket. It connects at the
    /// first call, and again after the manager was restarted. Needs a tokio runtime.
    pub fn new(address: Address, dialer: &Dialer) -> Result<Self> {
        Self::of("backing image manager", Role::Manager, address, dialer)
    }

    /// The same of another service, which its errors name.
    pub(crate) fn of(
        service: &'static str,
        role: Role,
        address: Address,
        dialer: &Dialer,
    ) -> Result<Self> {
        let uri = match &address {
            Address::Tcp(authority) => format!("http://{authority}"),
            Address::Unix(path) => format!("unix://{}", path.display()),
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|_| InvalidAddress::of(&address.to_string()))?
            .connect_timeout(CONNECT_DEADLINE)
            .tcp_nodelay(true);
        let node = Arc::default();
        let channel = match (&address, dialer) {
            (Address::Tcp(authority), Dialer::Proven(_)) => {
                proven(&endpoint, (authority, role), dialer, &node)
            }
            _ => endpoint.connect_lazy(),
        };
        Ok(Self {
            service,
            address: Arc::new(address),
            channel,
            deadline: DEADLINE,
            node,
        })
    }

    /// Refuses the answer of a manager about a node that is not its own: one that was broken into may say anything.
    pub(crate) fn of_its_node(&self, claimed: &str) -> Result<()> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        match &*node {
            Some(node) if node.as_str() != claimed => Err(Error::OtherNode {
                address: (*self.address).clone(),
                node: node.to_string(),
                claimed: types::shown(claimed),
            }),
            _ => Ok(()),
        }
    }

    /// The same client with another time allowed for each call.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Who is asked.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The disk that the manager serves; also the cheapest way to see whether it answers.
    pub async fn disk(&self) -> Result<wire::Disk> {
        let mut disks = DisksClient::new(self.channel.clone());
        let disk = disks.get_disk(wire::GetDiskRequest::default());
        let disk = self.call("describe its disk", disk).await?;
        self.of_its_node(&disk.node_id)?;
        Ok(disk)
    }

    /// The same, with the other disks that it knows of.
    pub async fn disk_and_known(&self) -> Result<wire::Disk> {
        let mut disks =
            DisksClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let request = wire::GetDiskRequest { known_disks: true };
        let disk = self
            .call("describe its disk", disks.get_disk(request))
            .await?;
        self.of_its_node(&disk.node_id)?;
        Ok(disk)
    }

    /// Tells it of other disks.
    pub async fn record_disks(&self, seen: Vec<wire::SeenDisk>) -> Result<()> {
        let mut disks = DisksClient::new(self.channel.clone());
        let request = wire::RecordDisksRequest { disks: seen };
        self.call("note other disks", disks.record_disks(request))
            .await?;
        Ok(())
    }

    /// Says that another disk is gone for good.
    pub async fn forget_disk(&self, uuid: &DiskUuid) -> Result<()> {
        let mut disks = DisksClient::new(self.channel.clone());
        let uuid = uuid.to_string();
        let request = wire::ForgetDiskRequest { uuid };
        self.call("forget a disk", disks.forget_disk(request))
            .await?;
        Ok(())
    }

    /// The error that a status of this service is.
    pub(crate) fn failed(&self, status: &tonic::Status) -> Error {
        Error::from_status(self.service, &self.address, status)
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn images(&self) -> BackingImagesClient<Channel> {
        BackingImagesClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn volumes(&self) -> VolumesClient<Channel> {
        VolumesClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Waits for an answer, but not beyond the deadline. `operation` is a verb for the error.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(Error::Deadline {
                service: self.service,
                address: Address::clone(&self.address),
                operation,
                after: self.deadline,
            }),
        }
    }
}

/// A channel to a program that has to prove its role; `node` is told which node it is on.
fn proven(
    endpoint: &Endpoint,
    (authority, role): (&str, Role),
    dialer: &Dialer,
    node: &Arc<Mutex<Option<NodeId>>>,
) -> Channel {
    let (authority, dialer, node) = (authority.to_owned(), dialer.clone(), node.clone());
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let (authority, dialer, node) = (authority.clone(), dialer.clone(), node.clone());
        async move {
            let expected = Expected::role(role);
            let connecting = dialer.connect(&authority, &expected, H2);
            let (stream, peer) = tokio::time::timeout(CONNECT_DEADLINE, connecting).await??;
            let found = peer.and_then(|peer| peer.node().cloned());
            *node.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    }))
}
