//! The calls on volumes.
//!
//! Each call first locks its target and then its volume, always in this order. The volume is staged
//! once per node, in the state directory, and bound to each target from there; [`host::staging`]
//! stages and binds.

mod attach;
mod mount;
mod unmount;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::wire;
use host::Disks;
use host::staging::{self, NodeVolume};
use types::{ByteSize, DiskUuid, NodeId, VolumeName};

use crate::call::DriverCall;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::options::Options;
use crate::process::{Stop, blocking};
use crate::records::State;
use crate::reply::Reply;
use crate::target::Target;
use crate::volumes::Volumes;

/// How often a lock that somebody else holds is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Everything that a call needs.
pub(crate) struct Driver {
    config: Config,
    state: State,
    disks: Disks,
    volumes: Volumes,
    /// Set when the manager did not take something back: it is not asked again by this call.
    owes: AtomicBool,
    stop: Stop,
}

impl Driver {
    pub(crate) fn new(config: Config, stop: Stop) -> Result<Self> {
        Ok(Self {
            state: State::open(&config.state_dir)?,
            disks: Disks::new(config.disks.clone()),
            volumes: Volumes::new(&config, stop.clone())?,
            config,
            owes: AtomicBool::new(false),
            stop,
        })
    }

    /// Does a call, and then what calls before it could not do.
    pub(crate) async fn call(&self, call: DriverCall) -> Result<Reply> {
        let reply = self.answer(call).await?;
        if !self.owes.load(Ordering::Relaxed) {
            self.pay_debts().await;
        }
        Ok(reply)
    }

    async fn answer(&self, call: DriverCall) -> Result<Reply> {
        match call {
            DriverCall::Attach { json, node } => {
                self.attach(Options::parse(&json)?, self::node(&node)?)
                    .await
            }
            DriverCall::Detach { volume, node } => {
                let volume = VolumeName::new(&volume).map_err(Error::Name)?;
                self.detach(&volume, &self::node(&node)?).await
            }
            DriverCall::WaitForAttach { device, json } => {
                self.wait_for_attach(&device, &Options::parse(&json)?).await
            }
            DriverCall::IsAttached { json, node } => {
                self.is_attached(&Options::parse(&json)?, &self::node(&node)?)
                    .await
            }
            DriverCall::MountDevice {
                target,
                device,
                json,
            } => {
                let (target, options) = checked(&target, &json)?;
                self.mount_device(target, &device, options).await
            }
            DriverCall::UnmountDevice { target } => self.unmount_device(target).await,
            DriverCall::Mount { target, json } => {
                let (target, options) = checked(&target, &json)?;
                self.mount(target, options).await
            }
            DriverCall::Unmount { target } => self.unmount(target).await,
            DriverCall::ExpandVolume { json, size } => {
                self.expand_volume(&Options::parse(&json)?, size).await
            }
            DriverCall::ExpandFs { json, path, size } => {
                self.expand_fs(Options::parse(&json)?, path, size).await
            }
        }
    }

    async fn expand_volume(&self, options: &Options, size: ByteSize) -> Result<Reply> {
        let grown = self.volumes.expand(&options.volume, size).await?;
        Ok(Reply::success("").with_new_size(ByteSize(grown.size)))
    }

    async fn expand_fs(
        &self,
        options: Options,
        path: PathBuf,
        required: ByteSize,
    ) -> Result<Reply> {
        let path = Target::new(&path)?.path().to_owned();
        let _volume = self.lock_volume(&options.volume).await?;
        let staged = self.state.staging_path(&options.volume);
        let volume = options.volume;
        let size = blocking(move || {
            // Wherever the kubelet looks at it: the file system is one and the same.
            let here = staging::is_at(&volume, &path)?;
            let size = staging::expand(&volume, if here { &path } else { &staged })?;
            if size < required {
                return Err(Error::NotGrown {
                    volume,
                    size,
                    required,
                });
            }
            Ok(size)
        })
        .await?;
        Ok(Reply::success(format!("the file system has {size} bytes")))
    }

    async fn lock_target(&self, target: &Target) -> Result<Lock> {
        let what = target.path().display().to_string();
        self.lock(self.state.target_lock(target), what).await
    }

    async fn lock_volume(&self, volume: &VolumeName) -> Result<Lock> {
        let what = format!("volume {volume}");
        self.lock(self.state.volume_lock(volume), what).await
    }

    async fn lock(&self, path: PathBuf, what: String) -> Result<Lock> {
        let start = Instant::now();
        loop {
            if let Some(lock) = Lock::try_acquire(&path)? {
                return Ok(lock);
            }
            let waited = start.elapsed();
            if waited > self.config.lock_wait {
                return Err(Error::Busy { what, waited });
            }
            self.stop.unless(tokio::time::sleep(LOCK_INTERVAL)).await?;
        }
    }

    /// The replica of this node: the one on a disk that is here.
    async fn replica_here(&self, volume: &wire::Volume) -> Result<(NodeId, NodeVolume)> {
        let (disks, volume) = (self.disks.clone(), volume.clone());
        let wanted = self.config.node_id.clone();
        blocking(move || replica_here(&disks, &volume, wanted.as_ref())).await
    }
}

/// The target and the options of a call, held against each other.
fn checked(target: &Path, json: &str) -> Result<(Target, Options)> {
    let target = Target::new(target)?;
    let options = Options::parse(json)?;
    target.check(&options)?;
    Ok((target, options))
}

fn node(text: &str) -> Result<NodeId> {
    NodeId::new(text).map_err(|error| Error::Options {
        why: error.to_string(),
    })
}

fn replica_here(
    disks: &Disks,
    volume: &wire::Volume,
    wanted: Option<&NodeId>,
) -> Result<(NodeId, NodeVolume)> {
    let name = VolumeName::new(&volume.name).map_err(Error::Name)?;
    let mut missing = None;
    for replica in &volume.replicas {
        let (Ok(node), Ok(disk)) = (
            NodeId::new(&replica.node_id),
            DiskUuid::new(&replica.disk_uuid),
        ) else {
            continue;
        };
        if wanted.is_some_and(|wanted| *wanted != node) {
            continue;
        }
        match disks.find(&name, &disk) {
            Ok(file) => {
                let volume = NodeVolume {
                    name,
                    file: file.path,
                    size: ByteSize(volume.size),
                    has_source: client::has_source(volume),
                    part: part(volume),
                };
                return Ok((node, volume));
            }
            Err(error @ host::Error::NoSuchDisk { .. }) => missing = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    let nodes: Vec<_> = volume
        .replicas
        .iter()
        .map(|replica| replica.node_id.as_str())
        .collect();
    Err(missing.map_or_else(
        || Error::NoReplica {
            volume: name,
            nodes: nodes.join(", "),
        },
        Error::from,
    ))
}

/// The partition that is used; the manager has found it.
fn part(volume: &wire::Volume) -> Option<Range<u64>> {
    let partition = volume.partition.as_ref()?;
    // One that cannot be is no place at all, and staging says so.
    Some(partition.offset..partition.offset.saturating_add(partition.length))
}
