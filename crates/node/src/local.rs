//! The service at a unix socket, for root and for the user of this process alone.

use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use proto::node::v1::node_server::NodeServer;
use tokio::net::UnixStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::Service;

/// Calls that one connection may have under way.
const CALLS_MAX: usize = 32;
/// A peer that does not answer a ping is gone.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Answers at `listener`, which nobody else can have bound, until `shutdown` resolves.
///
/// The mode of the socket keeps others out. It is the only thing that does, and can be changed by a mistake of an
/// operator, so the kernel is asked about each caller as well (`SO_PEERCRED`, unix(7)).
pub async fn serve(
    listener: UnixListener,
    service: Service,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let ours = rustix::process::geteuid().as_raw();
    let streams = UnixListenerStream::new(listener).filter(move |stream| match stream {
        Ok(stream) => may_call(stream, ours),
        Err(_) => true,
    });
    Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX)
        .max_concurrent_streams(u32::try_from(CALLS_MAX).unwrap_or(u32::MAX))
        .http2_keepalive_interval(Some(PING_EVERY))
        .add_service(NodeServer::new(service))
        .serve_with_incoming_shutdown(streams, shutdown)
        .await
        .map_err(io::Error::other)
}

fn may_call(stream: &UnixStream, ours: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == ours => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                "a caller of the node service is not root: refused"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "a caller of the node service cannot be told: refused");
            false
        }
    }
}
