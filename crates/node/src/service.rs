//! The calls: each checks its request, goes to a thread that may block, and answers what the node found.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host::staging::{self, NodeVolume};
use host::{Disks, Holder, requirements};
use proto::node::v1 as wire;
use proto::node::v1::node_server::Node;
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};
use tracing::Instrument as _;
use types::{Classify as _, DiskUuid, ErrorKind, NodeId, VolumeName, report};

use crate::error::{Error, Result};
use crate::show;

/// How many calls may be in the kernel at once; others wait. What hangs there hangs in a dead disk, and more
/// threads would not help it.
const THREADS: usize = 16;

/// What is told of each call that ended: its name, its code, and how long it took.
pub type Observe = fn(&'static str, Code, Duration);

/// What the service knows of its node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the node.
    pub node_id: NodeId,
    /// The version of the program.
    pub version: &'static str,
    /// The disks of the node.
    pub disks: Disks,
    /// The kubelet's directory: mounts below it must reach the kubelet.
    pub kubelet_dir: PathBuf,
    /// The directory of the records of attachments. It is made when it is needed.
    pub records: PathBuf,
}

/// The node service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    settings: Arc<Settings>,
    observe: Observe,
    threads: Arc<Semaphore>,
}

impl Service {
    /// A service that tells `observe` of each call.
    pub fn new(settings: Settings, observe: Observe) -> Self {
        Self {
            settings: Arc::new(settings),
            observe,
            threads: Arc::new(Semaphore::new(THREADS)),
        }
    }

    pub(crate) fn node_id(&self) -> &NodeId {
        &self.settings.node_id
    }

    /// Does `work` on a thread of its own, which goes on when the caller goes away.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Settings) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.threads).acquire_owned().await;
        let permit = permit.map_err(|_| Error::Lost)?;
        let (settings, span) = (Arc::clone(&self.settings), tracing::Span::current());
        let work = move || {
            let _permit = permit;
            span.in_scope(|| work(&settings))
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Error::Lost)?
    }

    /// Runs a call in a span of its own and turns what comes of it into what goes on the wire.
    async fn answer<T>(
        &self,
        rpc: &'static str,
        volume: &str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<Response<T>, Status> {
        let volume: String = volume.chars().take(128).collect();
        let span = tracing::info_span!("rpc", name = rpc, volume);
        async {
            let started = Instant::now();
            let answer = call.await;
            let code = answer
                .as_ref()
                .map_or_else(|error| client::code_of(error.kind()), |_| Code::Ok);
            (self.observe)(rpc, code, started.elapsed());
            answer.map(Response::new).map_err(|error| refuse(&error))
        }
        .instrument(span)
        .await
    }

    async fn attach(&self, request: wire::AttachVolumeRequest) -> Result<wire::Attachment> {
        let volume = volume(&request.volume)?;
        let disk = match request.disk_uuid.as_str() {
            "" => None,
            uuid => Some(DiskUuid::new(uuid).map_err(|source| Error::Name {
                field: "disk_uuid",
                source,
            })?),
        };
        self.run(move |settings| {
            let file = match &disk {
                Some(disk) => settings.disks.find(&volume, disk)?,
                None => settings.disks.find_anywhere(&volume)?,
            };
            let wanted = NodeVolume {
                name: volume,
                file: file.path,
                size: file.length,
                // Nothing is formatted here, whatever the volume holds.
                has_source: true,
                part: None,
            };
            let attached = staging::attach(&settings.records, &wanted, request.read_only)?;
            let (device, direct_io) = (attached.device.display(), attached.direct_io);
            tracing::info!(%device, direct_io, "attached");
            Ok(show::attachment(staging::Attachment {
                volume: wanted.name.to_string(),
                holder: Holder::Node,
                device: Some(staging::Device {
                    path: attached.device,
                    size: wanted.size,
                    direct_io: attached.direct_io,
                    mounts: Vec::new(),
                }),
                read_only: request.read_only,
                file: wanted.file,
                troubles: Vec::new(),
            }))
        })
        .await
    }

    async fn detach(&self, request: wire::DetachVolumeRequest) -> Result<()> {
        let volume = volume(&request.volume)?;
        self.run(move |settings| {
            staging::detach(&settings.records, &volume)?;
            tracing::info!("detached");
            Ok(())
        })
        .await
    }

    async fn info(&self) -> Result<wire::NodeInfo> {
        self.run(|settings| {
            let lacks = [
                requirements::check(),
                requirements::check_propagation(&settings.kubelet_dir),
            ];
            let lacks = lacks.into_iter().filter_map(std::result::Result::err);
            Ok(wire::NodeInfo {
                node_id: settings.node_id.to_string(),
                version: settings.version.to_owned(),
                kernel: requirements::kernel(),
                lacks: lacks.map(|error| report(&error).to_string()).collect(),
                disks: settings.disks.look().into_iter().map(show::disk).collect(),
                replication: None,
            })
        })
        .await
    }
}

fn volume(name: &str) -> Result<VolumeName> {
    VolumeName::new(name).map_err(|source| Error::Name {
        field: "volume",
        source,
    })
}

/// The one place where a failed call is logged and becomes a status.
fn refuse(error: &Error) -> Status {
    let (kind, text) = (error.kind(), report(error).to_string());
    match kind {
        ErrorKind::Aborted => tracing::debug!(%kind, "{text}"),
        ErrorKind::DataLoss | ErrorKind::Internal => tracing::error!(%kind, "{text}"),
        _ => tracing::warn!(%kind, "{text}"),
    }
    Status::new(client::code_of(kind), text)
}

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

    async fn get_node(
        &self,
        _: Request<wire::GetNodeRequest>,
    ) -> Result<Response<wire::NodeInfo>, Status> {
        self.answer("GetNode", "", self.info()).await
    }

    async fn put_replica(
        &self,
        _: Request<wire::PutReplicaRequest>,
    ) -> Result<Response<wire::ReplicaPart>, Status> {
        Err(Status::unimplemented(
            "replicated volumes are not served here yet",
        ))
    }

    async fn remove_replica(
        &self,
        _: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        Err(Status::unimplemented(
            "replicated volumes are not served here yet",
        ))
    }

    async fn list_replicas(
        &self,
        _: Request<wire::ListReplicasRequest>,
    ) -> Result<Response<wire::ListReplicasResponse>, Status> {
        Err(Status::unimplemented(
            "replicated volumes are not served here yet",
        ))
    }

    async fn initialize_replicas(
        &self,
        _: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        Err(Status::unimplemented(
            "replicated volumes are not served here yet",
        ))
    }

    async fn grow_replicas(
        &self,
        _: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        Err(Status::unimplemented(
            "replicated volumes are not served here yet",
        ))
    }

    async fn rejoin_replica(
        &self,
        _: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        Err(Status::unimplemented(
            "replicated volumes are not served here yet",
        ))
    }

    async fn suspend_volume(
        &self,
        _: Request<wire::SuspendVolumeRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        Err(Status::unimplemented(
            "replicated volumes are not served here yet",
        ))
    }

    async fn resume_volume(
        &self,
        _: Request<wire::ReplicaRequest>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        Err(Status::unimplemented(
            "replicated volumes are not served here yet",
        ))
    }
}
