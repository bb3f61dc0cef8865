//! Volumes that are used without a pod: as a block device with the volume's name, or as an iSCSI target.
//!
//! ```text
//!  record ─▶ published at its manager ─▶ attached (or kept for a target) ─▶ named (or a target)
//!    ▲                                                                          │
//!    └── forgotten ◀─ unpublished ◀─ owed ◀─ detached ◀─ unnamed ◀──────────────┘
//! ```
//!
//! The record comes first and goes last, so that whatever interrupts a call, the same call and the loop
//! ([`Exposures::keep`]) find what is to be done: what is recorded is made, and what is owed is taken back. A manager
//! that is silent holds up nothing that is taken back: its publication stays owed.
//!
//! One user at a time: the publication is the first lock, the device with our mark the second, for staging and the
//! other calls refuse a file that has one; its lock of the file is the third, by which the manager leaves it alone.
//! A replicated volume has no publication for this: its layout admits this node already, or DRBD refuses.

mod converge;
mod managers;
mod names;
mod record;
mod request;
mod shown;
mod target;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client::Cluster;
use host::Disks;
use host::disks::VolumeFile;
use host::drbd::device_path;
use host::staging::{self, NodeVolume};
use host::target::Settings as TargetSettings;
use proto::node::v1 as wire;
use replication::Layout;
use tracing::Instrument as _;
use types::{DiskUuid, NodeId, VolumeName, crash_point, report};

use self::managers::Managers;
use self::names::Names;
use self::record::{Access, Record};
use self::request::Asked;
use self::target::NodeTargets;
use crate::error::{Error, Result};
use crate::kept::Kept;
use crate::replicas::Replicas;

/// How long a call waits for another one on the same volume.
const TURN: Duration = Duration::from_secs(3);

/// What the node service needs to let somebody use volumes without a pod.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the records. It is made when it is needed, and must survive a reboot.
    pub records: PathBuf,
    /// The directory of the names of devices, in `/dev`.
    pub names: PathBuf,
    /// The managers, those of this node's disks among them.
    pub managers: Cluster,
    /// The tgtd of this node; `None`: it serves no targets.
    pub targets: Option<TargetSettings>,
}

/// The volumes of this node that are used without a pod.
#[derive(Debug)]
pub(crate) struct Exposures {
    disks: Disks,
    replicas: Arc<Replicas>,
    kept: Kept<Record>,
    /// The directory of the records of their devices.
    attached: PathBuf,
    names: Names,
    managers: Managers,
    targets: Option<NodeTargets>,
    /// Volumes that something works on.
    busy: Mutex<HashSet<VolumeName>>,
    /// When each publication was last confirmed by its manager.
    confirmed: Mutex<HashMap<VolumeName, Instant>>,
    /// What was last wrong with each, as the log has it.
    troubles: Mutex<BTreeMap<VolumeName, String>>,
}

/// Says that a volume is worked on, until it is dropped.
struct Busy {
    all: Arc<Exposures>,
    volume: VolumeName,
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.all.busy).remove(&self.volume);
    }
}

/// Where the bytes of a volume are on this node.
enum Place {
    File(DiskUuid, VolumeFile),
    Replicated(Box<Layout>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what may block on a thread of its own, which goes on when the caller goes away.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|_| Error::Lost)?
}

impl Exposures {
    pub(crate) fn new(
        settings: Settings,
        node: NodeId,
        disks: Disks,
        replicas: Arc<Replicas>,
    ) -> Self {
        Self {
            managers: Managers::new(settings.managers, node),
            disks,
            replicas,
            attached: settings.records.join("attached"),
            kept: Kept::new(settings.records),
            names: Names::new(settings.names),
            targets: settings.targets.as_ref().map(NodeTargets::new),
            busy: Mutex::default(),
            confirmed: Mutex::default(),
            troubles: Mutex::default(),
        }
    }

    /// Refuses to let pods use a volume that somebody uses without one: where there is no publication to do so.
    pub(crate) fn refuse(&self, volume: &VolumeName) -> Result<()> {
        match self.kept.load(volume) {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(Error::Exposed {
                volume: volume.clone(),
            }),
        }
    }

    /// Makes a volume usable, or finds it so. The work goes on when the caller goes away.
    pub(crate) async fn expose(
        self: &Arc<Self>,
        request: wire::ExposeVolumeRequest,
    ) -> Result<wire::Exposed> {
        let (this, asked) = (self.clone(), Asked::parse(request)?);
        let work = async move { this.expose_now(asked).await };
        let done = tokio::spawn(work.in_current_span()).await;
        done.map_err(|_| Error::Lost)?
    }

    async fn expose_now(self: &Arc<Self>, asked: Asked) -> Result<wire::Exposed> {
        let volume = asked.volume.clone();
        let _busy = self.turn(&volume).await?;
        if matches!(asked.access, Access::Target { .. }) && self.targets.is_none() {
            return Err(Error::NoTargets);
        }
        let this = self.clone();
        let (record, place, is_new) = blocking(move || this.begin(asked)).await?;
        match self.make(&record, place).await {
            Ok(()) => {}
            Err(error) if !is_new => return Err(error),
            Err(error) => {
                self.undo(&volume).await;
                return Err(error);
            }
        }
        lock(&self.troubles).remove(&volume);
        tracing::info!(read_only = record.read_only, by = ?record.access.users(), "exposed");
        self.shown(record).await
    }

    /// Compares a request with what is kept, and keeps a new one.
    fn begin(&self, asked: Asked) -> Result<(Record, Place, bool)> {
        let volume = asked.volume;
        let kept = self.kept.load(&volume).map_err(self.failed("read"))?;
        let known = kept.as_ref().and_then(|record| record.disk.as_ref());
        let place = self.place(&volume, asked.disk.as_ref().or(known))?;
        let disk = match &place {
            Place::File(disk, _) => Some(disk.clone()),
            Place::Replicated(_) if matches!(asked.access, Access::Target { .. }) => {
                return Err(Error::ReplicatedTarget { volume });
            }
            Place::Replicated(_) => None,
        };
        let record = Record::new(volume, disk, asked.read_only, asked.access);
        if let Some(kept) = kept {
            kept.suits(&record)?;
            return Ok((kept, place, false));
        }
        if record.access == Access::Device {
            self.names.refuse_foreign(&record.volume)?;
        }
        self.kept.store(&record).map_err(self.failed("write"))?;
        crash_point!("node.expose.recorded");
        Ok((record, place, true))
    }

    fn place(&self, volume: &VolumeName, disk: Option<&DiskUuid>) -> Result<Place> {
        if let Some(layout) = self.replicas.layout(volume)? {
            return Ok(Place::Replicated(Box::new(layout)));
        }
        if let Some(disk) = disk {
            return Ok(Place::File(disk.clone(), self.disks.find(volume, disk)?));
        }
        let (disk, file) = self.disks.find_anywhere(volume)?;
        Ok(Place::File(disk, file))
    }

    /// Makes what a record says, or what is missing of it.
    async fn make(self: &Arc<Self>, record: &Record, place: Place) -> Result<()> {
        self.settle(&record.volume).await?;
        self.managers.publish(record).await?;
        lock(&self.confirmed).insert(record.volume.clone(), Instant::now());
        crash_point!("node.expose.published");
        let (this, wanted) = (self.clone(), record.clone());
        blocking(move || this.make_here(&wanted, &place)).await?;
        if let (Access::Target { .. }, Some(targets)) = (&record.access, &self.targets) {
            self.open_targets(targets.clone(), Some(&record.volume))
                .await?;
        }
        Ok(())
    }

    /// The part of it that is this node's.
    fn make_here(&self, record: &Record, place: &Place) -> Result<()> {
        let wanted = node_volume(&record.volume, place);
        let Access::Device = record.access else {
            staging::reserve(&self.attached, &wanted)?;
            crash_point!("node.expose.attached");
            return self.put_target(record, &wanted);
        };
        let read_only = record.read_only;
        let staged = match place {
            Place::File(..) => staging::expose(&self.attached, &wanted, read_only)?,
            Place::Replicated(layout) => {
                let drbd = self.replicas.engine();
                staging::expose_replicated(&self.attached, &wanted, read_only, drbd, layout)?
            }
        };
        crash_point!("node.expose.attached");
        self.names.put(&record.volume, &staged.device)?;
        crash_point!("node.expose.named");
        Ok(())
    }

    /// Takes away what a call has made that failed.
    async fn undo(self: &Arc<Self>, volume: &VolumeName) {
        let (this, of) = (self.clone(), volume.clone());
        let undone = blocking(move || this.withdraw(&of, true)).await;
        let settled = match undone {
            Ok(_) => self.settle(volume).await,
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            tracing::warn!(
                "what a failed call has left is taken away later: {}",
                report(&error)
            );
        }
    }

    /// Takes the access back. The work goes on when the caller goes away.
    pub(crate) async fn unexpose(self: &Arc<Self>, volume: &str, disconnect: bool) -> Result<()> {
        let (this, volume) = (self.clone(), request::volume(volume)?);
        let work = async move { this.unexpose_now(&volume, disconnect).await };
        let done = tokio::spawn(work.in_current_span()).await;
        done.map_err(|_| Error::Lost)?
    }

    async fn unexpose_now(self: &Arc<Self>, volume: &VolumeName, disconnect: bool) -> Result<()> {
        let _busy = self.turn(volume).await?;
        let (this, of) = (self.clone(), volume.clone());
        let was_kept = blocking(move || this.withdraw(&of, disconnect)).await?;
        lock(&self.troubles).remove(volume);
        if let Err(error) = self.settle(volume).await {
            tracing::warn!(
                "taken back, and its manager is told later: {}",
                report(&error)
            );
        } else if !was_kept && self.managers.unpublish_any(volume).await.is_err() {
            // Nothing was exposed, and nobody can say whether a publication was left of a record that was lost.
            tracing::debug!("its manager does not answer");
        }
        tracing::info!("taken back");
        Ok(())
    }

    /// Takes away what is on this node, with the volume's file or without; its publication is owed afterwards. Says
    /// whether anything was kept of it.
    fn withdraw(&self, volume: &VolumeName, disconnect: bool) -> Result<bool> {
        // What is known to be a device needs no answer of tgtd to be given back.
        let kept = self.kept.load(volume);
        let is_device = matches!(&kept, Ok(Some(record)) if record.access == Access::Device);
        if let Some(targets) = self.targets.as_ref().filter(|_| !is_device) {
            targets.remove(volume, disconnect)?;
            crash_point!("node.unexpose.closed");
        }
        let before = self.names.present(volume)?;
        self.names.remove(volume)?;
        crash_point!("node.unexpose.unnamed");
        if let Err(error) = staging::unexpose(&self.attached, volume) {
            // It is in use, and stays as it was.
            if let names::Present::Device(device) = before
                && let Err(failure) = self.names.put(volume, &device)
            {
                tracing::warn!("its name comes back later: {}", report(&failure));
            }
            return Err(error.into());
        }
        crash_point!("node.unexpose.detached");
        self.kept.owe(volume).map_err(self.failed("change"))?;
        lock(&self.confirmed).remove(volume);
        crash_point!("node.unexpose.owed");
        Ok(!matches!(kept, Ok(None)))
    }

    /// Has the publication taken back that is owed; fine when none is.
    async fn settle(self: &Arc<Self>, volume: &VolumeName) -> Result<()> {
        let (this, of) = (self.clone(), volume.clone());
        let owed = blocking(move || Ok(this.kept.owed(&of))).await?;
        match &owed {
            Ok(None) => return Ok(()),
            Ok(Some(record)) => self.managers.unpublish(record).await?,
            // What cannot be read is nobody's permission.
            Err(_) => self.managers.unpublish_any(volume).await?,
        }
        crash_point!("node.unexpose.unpublished");
        let (this, of) = (self.clone(), volume.clone());
        blocking(move || this.kept.forgive(&of).map_err(this.failed("change"))).await
    }

    /// Waits for the turn of a call on the volume.
    async fn turn(self: &Arc<Self>, volume: &VolumeName) -> Result<Busy> {
        let until = Instant::now() + TURN;
        loop {
            if let Some(busy) = self.enter(volume) {
                return Ok(busy);
            }
            if Instant::now() > until {
                return Err(host::Error::Busy(volume.clone()).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn enter(self: &Arc<Self>, volume: &VolumeName) -> Option<Busy> {
        lock(&self.busy).insert(volume.clone()).then(|| Busy {
            all: self.clone(),
            volume: volume.clone(),
        })
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = self.kept.path().to_owned();
        move |source| Error::Kept { what, path, source }
    }
}

fn node_volume(volume: &VolumeName, place: &Place) -> NodeVolume {
    let (file, size) = match place {
        Place::File(_, file) => (file.path.clone(), file.length),
        Place::Replicated(layout) => (device_path(layout.minor), layout.size),
    };
    NodeVolume {
        name: volume.clone(),
        file,
        size,
        // Nothing is formatted here, whatever the volume holds.
        has_source: true,
        part: None,
    }
}
