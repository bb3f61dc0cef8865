//! How a sender learns that a receiver waits for it.

use std::io::ErrorKind::ConnectionRefused;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use fetch::AddressPolicy;
use proto::bimrpc::SendRequest;
use proto::bimrpc::backing_image_manager_service_client::BackingImageManagerServiceClient;
use proto::enginerpc::VolumeExportRequest;
use proto::enginerpc::sync_agent_service_client::SyncAgentServiceClient;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};
use types::{Classify, ErrorKind, ImageId, report};

use crate::error::{Error, Result};

/// How long a sender may take to answer; then its bytes are waited for all the same.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a sender that was asked is looked for, and how often in a row nobody may be there.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const MISSED_MAX: u32 = 3;
/// How long an export may take: the incumbent's own limit.
const EXPORT: Duration = Duration::from_hours(24);
/// How long a manager may take to answer a Send, which only starts the work.
const SEND: Duration = Duration::from_mins(1);

/// Who sends, and how it is asked to.
#[derive(Debug, Clone)]
pub enum Invite {
    /// Somebody else asks it: the REST call `receiveFromPeer`.
    Unasked,
    /// A manager, by gRPC `Send`.
    Manager {
        /// Its gRPC address, `host:port`.
        address: String,
        /// What it is told to send to: our host, as peers reach it.
        host: String,
    },
    /// A replica of a volume, by gRPC `VolumeExport` at its sync agent.
    Replica {
        /// The replica's address, `host:port`; its sync agent is two ports further.
        address: String,
        /// The snapshot to export, with all below it.
        snapshot: String,
        /// Our host, as the replica reaches it.
        host: String,
        /// Seconds that the replica waits for the answer to one request.
        timeout: i32,
        /// Which addresses a replica may have.
        policy: AddressPolicy,
    },
}

impl Invite {
    /// Who sends, as text.
    pub fn text(&self) -> String {
        match self {
            Self::Unasked => "ssync:".to_owned(),
            Self::Manager { address, .. } => format!("ssync://{address}"),
            Self::Replica {
                address, snapshot, ..
            } => format!("snapshot://{address}/{snapshot}"),
        }
    }

    /// Whether the answer to the invitation comes when all is sent, or cannot be.
    pub(super) fn is_told_the_end(&self) -> bool {
        matches!(self, Self::Replica { .. })
    }

    /// Asks. Comes back only when the sender itself says that it will not send. One that cannot be
    /// reached may have begun, or somebody else may send: `hint` gets the reason, for the case that
    /// nobody does.
    pub(super) async fn refused(
        &self,
        receiver: SocketAddr,
        id: &ImageId,
        hint: &OnceLock<String>,
    ) -> Error {
        match self.ask(receiver, id).await {
            Ok(()) => {
                if let Self::Manager { address, .. } = self {
                    return gone(address, LOOK_EVERY).await;
                }
            }
            Err(error @ Error::Peer { .. }) => return error,
            // An address that may not be connected to.
            Err(error @ Error::Catalog(catalog::Error::Fetch(_)))
                if error.kind() == ErrorKind::InvalidArgument =>
            {
                return error;
            }
            Err(error) => {
                let error = report(&error).to_string();
                warn!(error, "cannot ask the sender; waiting for its bytes");
                let _ = hint.set(error);
            }
        }
        std::future::pending().await
    }

    async fn ask(&self, receiver: SocketAddr, id: &ImageId) -> Result<()> {
        match self {
            Self::Unasked => {}
            Self::Manager { address, host } => {
                let request = SendRequest {
                    name: id.name.to_string(),
                    uuid: id.uuid.to_string(),
                    to_address: host_port(host, receiver.port()),
                };
                info!(
                    from = address,
                    to = request.to_address,
                    "asking a manager to send"
                );
                let channel = channel(address, SEND)?;
                let mut manager = BackingImageManagerServiceClient::new(channel);
                let asked = manager.send(request).await;
                settled(address, asked)?;
            }
            Self::Replica {
                address,
                snapshot,
                host,
                timeout,
                policy,
            } => {
                let agent = sync_agent(address)?;
                let agent = policy.resolve_one(&agent).await?.to_string();
                let request = VolumeExportRequest {
                    snapshot_file_name: snapshot.clone(),
                    host: host.clone(),
                    port: i32::from(receiver.port()),
                    export_backing_image_if_exist: true,
                    file_sync_http_client_timeout: *timeout,
                };
                info!(from = agent, %snapshot, "asking a replica to export");
                let channel = channel(&agent, EXPORT)?;
                let exported = SyncAgentServiceClient::new(channel)
                    .volume_export(request)
                    .await;
                settled(&agent, exported)?;
            }
        }
        Ok(())
    }
}

/// Comes back when nobody listens any more where a sender was asked: it was killed, and its bytes will not
/// come. One that is slow, frozen or behind a bad network is waited for.
async fn gone(address: &str, every: Duration) -> Error {
    let mut missed = 0;
    while missed < MISSED_MAX {
        sleep(every).await;
        let connected = timeout(CONNECT, TcpStream::connect(address)).await;
        let nobody = connected
            .is_ok_and(|connected| connected.is_err_and(|error| error.kind() == ConnectionRefused));
        missed = if nobody { missed + 1 } else { 0 };
    }
    let (address, what) = (address.to_owned(), "it has ended".to_owned());
    Error::Peer { address, what }
}

/// An error that the sender itself answered is a reason to end; a broken connection is not.
fn settled<T>(address: &str, answer: Result<T, tonic::Status>) -> Result<()> {
    use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable};
    let Err(status) = answer else { return Ok(()) };
    let address = address.to_owned();
    if matches!(status.code(), Cancelled | DeadlineExceeded | Unavailable) {
        let what = format!("it did not answer: {}", report(&status));
        return Err(Error::PeerSilent { address, what });
    }
    let what = format!("it cannot send: {}", status.message());
    Err(Error::Peer { address, what })
}

fn channel(address: &str, timeout: Duration) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|_| Error::InvalidField {
        field: "address",
        why: format!("{address:?} is not host:port"),
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .timeout(timeout)
        .connect_lazy())
}

/// Where the sync agent of a replica listens.
fn sync_agent(replica: &str) -> Result<String> {
    let plain = replica.strip_prefix("tcp://").unwrap_or(replica);
    let parts = plain.rsplit_once(':');
    let port = parts.and_then(|(_, port)| port.parse::<u16>().ok()?.checked_add(2));
    match (parts, port) {
        (Some((host, _)), Some(port)) if !host.is_empty() => Ok(format!("{host}:{port}")),
        _ => Err(Error::InvalidField {
            field: "sender-address",
            why: format!("{replica:?} is not the host:port of a replica"),
        }),
    }
}

/// A host and a port; IPv6 addresses get their brackets.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_agent_is_two_ports_after_its_replica() {
        for (replica, agent) in [
            ("10.42.0.7:10015", "10.42.0.7:10017"),
            ("tcp://10.42.0.7:10015", "10.42.0.7:10017"),
            ("[fd00::7]:10015", "[fd00::7]:10017"),
        ] {
            assert_eq!(sync_agent(replica).unwrap(), agent);
        }
        for wrong in ["invalid-addr", "", ":1", "a:x", "a:65535"] {
            assert!(sync_agent(wrong).is_err(), "{wrong}");
        }
    }

    /// Row 120: a sender that was killed is not waited for.
    #[tokio::test]
    async fn row_120_a_sender_that_is_gone_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let every = Duration::from_millis(10);
        let mut waiting = std::pin::pin!(gone(&address, every));
        let there = timeout(Duration::from_millis(200), waiting.as_mut()).await;
        assert!(there.is_err(), "it is there");
        drop(listener);
        let error = waiting.await.to_string();
        assert!(error.contains("it has ended"), "{error}");
    }

    #[test]
    fn addresses_are_spelled_as_peers_need_them() {
        assert_eq!(host_port("10.0.0.1", 30001), "10.0.0.1:30001");
        assert_eq!(host_port("fd00::1", 30001), "[fd00::1]:30001");
    }
}
