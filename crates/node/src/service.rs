//! The calls: each checks its request, goes to a thread that may block, and answers what the node found.

mod rpc;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host::disks::VolumeFile;
use host::drbd::{Drbd, device_path};
use host::staging::{self, NodeVolume};
use host::{Disks, Holder, requirements};
use proto::node::v1 as wire;
use replication::{Engine as _, Layout, Secret};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tonic::{Code, Request, Response, Status};
use tracing::Instrument as _;
use types::{Classify as _, DiskUuid, ErrorKind, NodeId, VolumeName, report};

use crate::error::{Error, Result};
use crate::exposed::{Exposures, Settings as ExposeSettings};
use crate::replicas::{self, Replicas, StorageAddress};
use crate::show;

/// How many calls may be in the kernel at once; others wait. What hangs there hangs in a dead disk, and more
/// threads would not help it.
const THREADS: usize = 16;

/// How exactly the end of a stop of writes is kept.
const EXPIRY: Duration = Duration::from_millis(500);
/// How long writes may be stopped.
const SUSPENDED_SECONDS: std::ops::RangeInclusive<u64> = 1..=60;

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
    /// The directory of the layouts of replicated volumes. It is made when it is needed.
    pub replicas: PathBuf,
    /// Where other nodes reach the replicas of this one; `None`: it takes part in none.
    pub storage: Option<StorageAddress>,
    /// What lets somebody use volumes without a pod.
    pub expose: ExposeSettings,
}

/// The node service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    settings: Arc<Settings>,
    replicas: Arc<Replicas>,
    exposures: Arc<Exposures>,
    observe: Observe,
    threads: Arc<Semaphore>,
}

impl Service {
    /// A service that tells `observe` of each call.
    pub fn new(settings: Settings, observe: Observe) -> Self {
        let replicas = Replicas::new(
            settings.disks.clone(),
            settings.node_id.clone(),
            settings.replicas.clone(),
        );
        let replicas = Arc::new(replicas);
        let exposures = Exposures::new(
            settings.expose.clone(),
            settings.node_id.clone(),
            settings.disks.clone(),
            replicas.clone(),
        );
        Self {
            settings: Arc::new(settings),
            replicas,
            exposures: Arc::new(exposures),
            observe,
            threads: Arc::new(Semaphore::new(THREADS)),
        }
    }

    /// What this node was told of a replicated volume; `None`: nothing. Blocks.
    ///
    /// # Errors
    /// What it keeps cannot be read.
    pub fn layout(&self, volume: &VolumeName) -> Result<Option<Layout>> {
        self.replicas.layout(volume)
    }

    /// Refuses to let pods use a replicated volume that somebody uses without one. Of others their managers know, and
    /// staging. Blocks.
    ///
    /// # Errors
    /// [`Error::Exposed`].
    pub fn refuse_exposed(&self, volume: &VolumeName) -> Result<()> {
        self.exposures.refuse(volume)
    }

    /// Looks after volumes that are used without a pod, now and again and again. Never ends; it is to be run once.
    pub async fn keep_exposed(self) {
        self.exposures.keep().await;
    }

    /// The DRBD of this node.
    pub fn drbd(&self) -> &Drbd {
        self.replicas.engine()
    }

    /// Whether replicated volumes can be used on this node; `None`: it was not told to take part. Reads small files
    /// alone.
    pub fn can_replicate(&self) -> Option<bool> {
        let storage = self.settings.storage?;
        Some(storage.find().is_some() && self.drbd().version().is_ok())
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
        let replicas = Arc::clone(&self.replicas);
        self.run(move |settings| {
            let layout = replicas.layout(&volume)?;
            let file = match (&layout, &disk) {
                (Some(layout), _) => VolumeFile {
                    path: device_path(layout.minor),
                    length: layout.size,
                },
                (None, Some(disk)) => settings.disks.find(&volume, disk)?,
                (None, None) => settings.disks.find_anywhere(&volume)?.1,
            };
            let wanted = NodeVolume {
                name: volume,
                file: file.path,
                size: file.length,
                // Nothing is formatted here, whatever the volume holds.
                has_source: true,
                part: None,
            };
            let (records, read_only) = (&settings.records, request.read_only);
            let attached = match &layout {
                Some(layout) => {
                    let drbd = replicas.engine();
                    staging::attach_replicated(records, &wanted, read_only, drbd, layout)?
                }
                None => staging::attach(records, &wanted, read_only)?,
            };
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

    async fn put(&self, request: wire::PutReplicaRequest) -> Result<wire::ReplicaPart> {
        let layout = request.layout.unwrap_or_default();
        let layout = client::replicas::layout(layout);
        let layout = layout.map_err(|(field, why)| Error::Field { field, why })?;
        // What is wrong with a secret is not said.
        let secret = Secret::new(request.shared_secret).ok_or_else(|| Error::Field {
            field: "shared_secret",
            why: "1 to 64 printable characters without spaces are expected".to_owned(),
        })?;
        let replicas = Arc::clone(&self.replicas);
        let found = self.run(move |_| replicas.put(layout, secret)).await?;
        Ok(client::replicas::part(&found))
    }

    /// A call about one replicated volume that has no answer but success.
    async fn replica(
        &self,
        rpc: &'static str,
        request: Request<wire::ReplicaRequest>,
        work: fn(&Replicas, &VolumeName) -> Result<()>,
    ) -> Result<Response<wire::ReplicaResponse>, Status> {
        let name = request.into_inner().volume;
        let replicas = Arc::clone(&self.replicas);
        self.answer(rpc, &name, async {
            let volume = volume(&name)?;
            self.run(move |_| work(&replicas, &volume)).await?;
            Ok(wire::ReplicaResponse {})
        })
        .await
    }

    /// Makes this node's parts of replicated volumes what they should be, now and again and again. Never ends; it is
    /// to be run once.
    pub async fn keep_replicas(self) {
        let mut at = tokio::time::interval(EXPIRY);
        at.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked: Option<Instant> = None;
        if let Some(storage) = self.settings.storage {
            let can = show::replication(self.replicas.engine(), Some(storage));
            let (version, address) = (can.version, can.address);
            match can.trouble.as_str() {
                "" => tracing::info!(version, address, "takes part in replicated volumes"),
                trouble => tracing::warn!("takes part in no replicated volumes: {trouble}"),
            }
        }
        loop {
            at.tick().await;
            let replicas = Arc::clone(&self.replicas);
            let is_first = looked.is_none();
            let looks = looked.is_none_or(|at| at.elapsed() >= replicas::LOOK_EVERY);
            if looks {
                looked = Some(Instant::now());
            }
            // Not one of the threads of calls: a hung disk must not keep the others from their replicas.
            let done = tokio::task::spawn_blocking(move || {
                replicas.resume_expired(looks);
                if looks {
                    replicas.converge(is_first);
                }
            });
            if done.await.is_err() {
                tracing::error!(
                    "the look at the replicated volumes panicked; this is a bug of the plugin"
                );
            }
        }
    }

    async fn info(&self) -> Result<wire::NodeInfo> {
        let replicas = Arc::clone(&self.replicas);
        self.run(move |settings| {
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
                replication: Some(show::replication(replicas.engine(), settings.storage)),
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
