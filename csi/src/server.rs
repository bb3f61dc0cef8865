//! Serves the services on the socket, and lets running calls finish when it stops.

use std::time::Duration;

use proto::csi::v1::controller_server::ControllerServer;
use proto::csi::v1::group_controller_server::GroupControllerServer;
use proto::csi::v1::identity_server::IdentityServer;
use proto::csi::v1::node_server::NodeServer;
use proto::csi::v1::snapshot_metadata_server::SnapshotMetadataServer;
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::authority::Lenient;
use crate::begun::Begun;
use crate::blocks::BlocksService;
use crate::controller::ControllerService;
use crate::error::{Error, Result};
use crate::group::GroupService;
use crate::identity::IdentityService;
use crate::node::NodeService;

/// How long calls under way may take after SIGTERM. Kubernetes kills a pod after 30 seconds.
pub(crate) const GRACE: Duration = Duration::from_secs(25);

#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) identity: IdentityService,
    pub(crate) controller: Option<ControllerService>,
    pub(crate) group: Option<GroupService>,
    pub(crate) blocks: Option<BlocksService>,
    pub(crate) node: Option<NodeService>,
}

/// Serves until `shutdown` resolves, then lets calls finish for [`GRACE`].
pub(crate) async fn serve(
    listener: std::os::unix::net::UnixListener,
    services: Services,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)
        .map_err(Error::io("serve on", "the socket"))?;
    let streams = UnixListenerStream::new(listener).map(|stream| stream.map(Lenient::new));
    let (stop, stopped) = oneshot::channel::<()>();
    let calls = TaskTracker::new();
    let server = Server::builder()
        .add_service(IdentityServer::new(services.identity))
        .add_optional_service(
            (services.controller).map(|service| Begun::new(ControllerServer::new(service), &calls)),
        )
        .add_optional_service(
            (services.group).map(|service| Begun::new(GroupControllerServer::new(service), &calls)),
        )
        .add_optional_service(
            (services.blocks)
                .map(|service| Begun::new(SnapshotMetadataServer::new(service), &calls)),
        )
        .add_optional_service(services.node.map(NodeServer::new))
        .serve_with_incoming_shutdown(streams, async {
            // An error means that the sender is gone, which is a reason to stop as well.
            drop(stopped.await);
        });
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return ended.map_err(Error::Serve),
        () = shutdown => {}
    }
    tracing::info!("stopping; running calls have {} seconds", GRACE.as_secs());
    // Fails only when the server has ended meanwhile, which the next line sees.
    let _ = stop.send(());
    let ended = async {
        let ended = server.await;
        // Calls whose callers are gone are calls all the same.
        calls.close();
        calls.wait().await;
        ended
    };
    if let Ok(ended) = tokio::time::timeout(GRACE, ended).await {
        ended.map_err(Error::Serve)
    } else {
        tracing::warn!("calls are still running; repeating them will finish the work");
        Ok(())
    }
}
