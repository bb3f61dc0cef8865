//! The node service: a thin translation to `host::staging`, on threads of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use host::staging::{
    self, Check, PublishRequest, StageRequest, Stats, Survivor, SurvivorState, Usage,
};
use host::{Disks, paths};
use proto::csi::v1 as csi;
use tonic::{Request, Response, Status};
use types::{ByteSize, NodeId, VolumeName};

use crate::blocking::Blocking;
use crate::capabilities;
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::location::{self, Place};
use crate::request::{AtPath, NodePublish, NodeStage};
use crate::status::answer;

type Reply<T> = Result<Response<T>, Status>;

/// What answers on the node service. Cheap to clone; clones share the guard of each volume.
#[derive(Debug, Clone)]
pub(crate) struct NodeService {
    node_id: NodeId,
    topology_key: String,
    disks: Disks,
    /// What this node was told of replicated volumes.
    local: node::Service,
    /// 0: as many as the kubelet allows.
    max_volumes: i64,
    /// Of file systems that come with a volume.
    check: Check,
    /// What is mounted is mounted below it.
    kubelet_dir: PathBuf,
    /// When mounts were last seen to reach the kubelet: to look costs a line for each mount of the node.
    seen_shared: Arc<Mutex<Option<Instant>>>,
    in_flight: InFlight,
    blocking: Blocking,
}

/// How long mounts that were seen to reach the kubelet are believed to.
const SHARED_FOR: Duration = Duration::from_mins(1);

impl NodeService {
    pub(crate) fn new(
        node_id: NodeId,
        topology_key: String,
        disks: Disks,
        local: node::Service,
        max_volumes: i64,
        check: Check,
        kubelet_dir: PathBuf,
    ) -> Self {
        let (in_flight, blocking) = (InFlight::default(), Blocking::new());
        Self {
            node_id,
            topology_key,
            disks,
            local,
            max_volumes,
            check,
            kubelet_dir,
            seen_shared: Arc::default(),
            in_flight,
            blocking,
        }
    }

    /// Why volumes cannot be staged here yet: a disk that is not there may still come. `None`: they
    /// can.
    ///
    /// # Errors
    /// What the node lacks, which does not come by itself.
    pub(crate) async fn look(&self) -> Result<Option<String>> {
        let (disks, kubelet_dir) = (self.disks.clone(), self.kubelet_dir.clone());
        let seen_shared = Arc::clone(&self.seen_shared);
        self.blocking
            .run(move || {
                host::requirements::check()?;
                let seen = || seen_shared.lock().unwrap_or_else(PoisonError::into_inner);
                let is_known = seen().is_some_and(|at| at.elapsed() < SHARED_FOR);
                if !is_known {
                    host::requirements::check_propagation(&kubelet_dir)?;
                    *seen() = Some(Instant::now());
                }
                Ok(disks
                    .check()
                    .err()
                    .map(|error| types::report(&error).to_string()))
            })
            .await
    }

    /// Runs `work` while no other call works on the volume.
    async fn alone<T: Send + 'static>(
        &self,
        volume: &VolumeName,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let guard = self.in_flight.enter(volume)?;
        self.blocking
            .run(move || {
                let _guard = guard;
                work()
            })
            .await
    }

    async fn stage(&self, request: NodeStage) -> Result<()> {
        let disks = self.disks.clone();
        let volume = request.volume.clone();
        let (check, kubelet_dir) = (self.check, self.kubelet_dir.clone());
        let local = self.local.clone();
        self.alone(&volume, move || {
            // Also while its device is not there yet, as after a boot. Where nothing is attached no manager refuses it.
            local.refuse_exposed(&request.volume)?;
            let stage = StageRequest {
                volume: location::find(&disks, &request.volume, &request.location)?,
                staging_path: paths::below(&kubelet_dir, &request.staging_path)?,
                access: request.capability.access,
                read_only: request.capability.mode.read_only() || request.location.readonly,
                mkfs_options: request.location.mkfs,
                check,
            };
            let staged = match request.location.place {
                Place::Disk(_) => staging::stage(&stage)?,
                Place::Replicated { minor } => {
                    let layout = local.layout(&request.volume)?;
                    let layout = layout.filter(|layout| layout.minor == minor);
                    let layout = layout.ok_or_else(|| Error::NotPrepared {
                        volume: request.volume.clone(),
                    })?;
                    staging::stage_replicated(&stage, local.drbd(), &layout)?
                }
            };
            let fs_type = staged.fs_type.map_or("none", host::FsType::as_str);
            let device = staged.device.display();
            tracing::info!(%device, fs_type, direct_io = staged.direct_io, "staged");
            Ok(())
        })
        .await
    }

    async fn publish(&self, request: NodePublish) -> Result<()> {
        let volume = request.volume.clone();
        let kubelet_dir = self.kubelet_dir.clone();
        self.alone(&volume, move || {
            let publish = PublishRequest {
                volume: request.volume,
                staging_path: paths::below(&kubelet_dir, &request.staging_path)?,
                target_path: paths::below(&kubelet_dir, &request.target_path)?,
                single_writer: request.capability.mode.single_writer(),
                access: request.capability.access,
                read_only: request.read_only,
            };
            Ok(staging::publish(&publish)?)
        })
        .await
    }

    /// Runs something that takes a volume away from a path.
    async fn take_away(
        &self,
        request: AtPath,
        work: fn(&VolumeName, &Path) -> host::Result<()>,
    ) -> Result<()> {
        let AtPath { volume, path } = request;
        let kubelet_dir = self.kubelet_dir.clone();
        self.alone(&volume.clone(), move || {
            Ok(work(&volume, &paths::below(&kubelet_dir, &path)?)?)
        })
        .await
    }

    async fn expand(&self, request: AtPath, required: ByteSize) -> Result<ByteSize> {
        let AtPath { volume, path } = request;
        let kubelet_dir = self.kubelet_dir.clone();
        self.alone(&volume.clone(), move || {
            let path = existing(&kubelet_dir, &volume, &path)?;
            let size = staging::expand(&volume, &path)?;
            if size < required {
                return Err(Error::NotGrown {
                    volume,
                    size,
                    required,
                });
            }
            Ok(size)
        })
        .await
    }
}

/// The path of a call that only looks, without links: a volume is never at a path that is not the kubelet's.
fn existing(kubelet_dir: &Path, volume: &VolumeName, path: &Path) -> Result<PathBuf> {
    paths::below(kubelet_dir, path).map_err(|error| match error {
        host::Error::InvalidPath { .. } => Error::NotAtPath {
            volume: volume.clone(),
        },
        error => error.into(),
    })
}

fn show(stats: Stats) -> csi::NodeGetVolumeStatsResponse {
    use csi::volume_usage::Unit;
    let bytes = |count| i64::try_from(count).unwrap_or(i64::MAX);
    let amounts = |unit: Unit, amounts: staging::Amounts| csi::VolumeUsage {
        available: bytes(amounts.available),
        total: bytes(amounts.total),
        used: bytes(amounts.used),
        unit: unit.into(),
    };
    let usage = match stats.usage {
        None => Vec::new(),
        Some(Usage::FileSystem { bytes, inodes }) => {
            vec![amounts(Unit::Bytes, bytes), amounts(Unit::Inodes, inodes)]
        }
        Some(Usage::Block { size }) => vec![csi::VolumeUsage {
            total: bytes(size.bytes()),
            unit: Unit::Bytes.into(),
            ..Default::default()
        }],
    };
    let staging::Condition { abnormal, message } = stats.condition;
    let volume_condition = Some(csi::VolumeCondition { abnormal, message });
    csi::NodeGetVolumeStatsResponse {
        usage,
        volume_condition,
    }
}

#[tonic::async_trait]
impl csi::node_server::Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Reply<csi::NodeStageVolumeResponse> {
        let wire = request.into_inner();
        answer("NodeStageVolume", &wire.volume_id.clone(), async {
            self.stage(NodeStage::parse(wire)?).await?;
            Ok(csi::NodeStageVolumeResponse {})
        })
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Reply<csi::NodeUnstageVolumeResponse> {
        let csi::NodeUnstageVolumeRequest {
            volume_id,
            staging_target_path,
        } = request.into_inner();
        answer("NodeUnstageVolume", &volume_id, async {
            let at = AtPath::parse(&volume_id, "staging_target_path", &staging_target_path)?;
            self.take_away(at, staging::unstage).await?;
            Ok(csi::NodeUnstageVolumeResponse {})
        })
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Reply<csi::NodePublishVolumeResponse> {
        let wire = request.into_inner();
        answer("NodePublishVolume", &wire.volume_id.clone(), async {
            self.publish(NodePublish::parse(wire)?).await?;
            Ok(csi::NodePublishVolumeResponse {})
        })
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Reply<csi::NodeUnpublishVolumeResponse> {
        let csi::NodeUnpublishVolumeRequest {
            volume_id,
            target_path,
        } = request.into_inner();
        answer("NodeUnpublishVolume", &volume_id, async {
            let at = AtPath::parse(&volume_id, "target_path", &target_path)?;
            self.take_away(at, staging::unpublish).await?;
            Ok(csi::NodeUnpublishVolumeResponse {})
        })
        .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Reply<csi::NodeGetVolumeStatsResponse> {
        let wire = request.into_inner();
        answer("NodeGetVolumeStats", &wire.volume_id, async {
            let at = AtPath::parse(&wire.volume_id, "volume_path", &wire.volume_path)?;
            let kubelet_dir = self.kubelet_dir.clone();
            // Only looks, so it needs no guard: a stage that takes long must not hide the figures.
            let look = move || {
                let path = existing(&kubelet_dir, &at.volume, &at.path)?;
                Ok(staging::stats(&at.volume, &path)?)
            };
            Ok(show(self.blocking.run(look).await?))
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Reply<csi::NodeExpandVolumeResponse> {
        let wire = request.into_inner();
        answer("NodeExpandVolume", &wire.volume_id, async {
            let at = AtPath::parse(&wire.volume_id, "volume_path", &wire.volume_path)?;
            let required = crate::request::Capacity::parse(wire.capacity_range)?.required;
            let size = self.expand(at, required.unwrap_or_default()).await?;
            let capacity_bytes = i64::try_from(size.bytes()).unwrap_or(i64::MAX);
            Ok(csi::NodeExpandVolumeResponse { capacity_bytes })
        })
        .await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Reply<csi::NodeGetCapabilitiesResponse> {
        let capabilities = capabilities::node();
        Ok(Response::new(csi::NodeGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Reply<csi::NodeGetInfoResponse> {
        let node_id = self.node_id.to_string();
        let own = (self.topology_key.clone(), node_id.clone());
        let key = location::replication_key(&self.topology_key);
        let can = self.local.can_replicate();
        let can = can.map(|can| (key, can.to_string()));
        let segments = std::iter::once(own).chain(can).collect();
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id,
            max_volumes_per_node: self.max_volumes,
            accessible_topology: Some(csi::Topology { segments }),
        }))
    }
}

/// How long the look at what earlier processes left may hold up the start.
const SURVEY: Duration = Duration::from_secs(5);

impl NodeService {
    /// Tells the log what earlier processes left staged. It changes nothing: the next call for a volume
    /// does.
    pub(crate) async fn report(&self) {
        let directory = self.kubelet_dir.join("plugins/kubernetes.io/csi");
        let look = move || Ok(staging::survey(&directory)?);
        match tokio::time::timeout(SURVEY, self.blocking.run(look)).await {
            Ok(Ok(survivors)) => survivors.iter().for_each(tell),
            Ok(Err(error)) => {
                tracing::warn!(
                    "cannot determine which volumes are staged: {}",
                    types::report(&error)
                );
            }
            Err(_) => tracing::warn!("staged volumes do not answer; a disk may have failed"),
        }
    }
}

fn tell(survivor: &Survivor) {
    let (volume, path) = (&survivor.volume, survivor.staging_path.display());
    match survivor.state {
        SurvivorState::Staged => tracing::info!(%volume, %path, "staged by an earlier process"),
        SurvivorState::Dead => {
            tracing::warn!(%volume, %path, "its mount is dead; the next stage replaces it");
        }
        SurvivorState::Interrupted => {
            tracing::info!(%volume, %path, "half staged; the next stage or unstage finishes it");
        }
    }
}
