//! Unmounting: `unmount` and `unmountdevice`, and undoing a mount that failed.
//!
//! The steps, in order: 1 the mount at the target · 2 with the last target of the volume, the
//! results of staging · 3 the publication · 4 the record. The record is last: the next call
//! finishes a killed one, also after a reboot, when only the record is left.
//!
//! Steps 1 and 2 are all that the kubelet waits for. Where the manager does not take the publication
//! back, the record becomes that of a debt, which later calls pay.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use host::staging;
use types::{Classify as _, ErrorKind, crash_point};

use super::Driver;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::process::blocking;
use crate::records::{Kind, Record};
use crate::reply::Reply;
use crate::target::Target;

impl Driver {
    /// `unmount`: whatever of ours is at the directory.
    pub(super) async fn unmount(&self, path: PathBuf) -> Result<Reply> {
        self.unmount_as(path, Kind::Pod).await
    }

    /// `unmountdevice`: the same, once no pod uses the volume.
    pub(super) async fn unmount_device(&self, path: PathBuf) -> Result<Reply> {
        self.unmount_as(path, Kind::Device).await
    }

    async fn unmount_as(&self, path: PathBuf, kind: Kind) -> Result<Reply> {
        let target = Target::new(&path)?;
        let _target = self.lock_target(&target).await?;
        let mut record = self.state.load(&target)?;
        if record.is_none() {
            record = self.found(&target, kind).await?;
        }
        let Some(record) = record else {
            let state = self.state.clone();
            blocking(move || state.sweep_locks()).await?;
            return Ok(Reply::success("nothing was mounted"));
        };
        let _volume = self.lock_volume(&record.volume).await?;
        if record.kind == Kind::Device
            && let Some(pod) = self.live_others(&record).await?.into_iter().next()
        {
            return Err(Error::StillMounted {
                volume: pod.volume,
                target: pod.target,
            });
        }
        self.unbind(&record).await?; // 1
        crash_point!("flexvolume.unmount.unbound");
        if self.unstage_last(&record).await?
            && let Err(error) = self.give_back(&record).await
        {
            let error = types::report(&error);
            tracing::warn!(volume = %record.volume, "unmounted, and to be unpublished later: {error}");
            self.owes.store(true, Ordering::Relaxed);
            if let Err(failure) = self.state.owe(&record) {
                let failure = types::report(&failure);
                tracing::warn!(volume = %record.volume, "unpublish it by hand: {failure}");
            }
            return Ok(Reply::success(
                "it is unmounted; the manager will be informed later",
            ));
        }
        crash_point!("flexvolume.unmount.unpublished");
        self.state.remove(&target)?; // 4
        Ok(Reply::success(""))
    }

    /// The record of a mount that has none, by what the kernel says is there.
    async fn found(&self, target: &Target, kind: Kind) -> Result<Option<Record>> {
        let path = target.path().to_owned();
        let volume = blocking(move || match staging::volume_at(&path) {
            Ok(Some(volume)) => Ok(Some(volume)),
            Ok(None) => refuse_foreign(&path).map(|()| None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await?;
        let Some(volume) = volume else {
            return Ok(None);
        };
        tracing::warn!(%volume, target = %target.path().display(), "mounted without a record");
        Ok(Some(Record::found(target, kind, volume)))
    }

    /// Gives the publication back that the record tells of; one that was made up tells of none, and the
    /// manager knows.
    async fn give_back(&self, record: &Record) -> Result<()> {
        let node = match &record.published_to {
            Some(node) => node.clone(),
            None if self.config.attach => return Ok(()),
            None => match self.volumes.find(&record.volume).await? {
                Some(volume) => self.replica_here(&volume).await?.0,
                None => return Ok(()),
            },
        };
        self.volumes.unpublish(&record.volume, &node).await // 3
    }

    /// Undoes a mount, step by step, and stops at the first step that fails: the next call goes on
    /// there.
    pub(super) async fn take_down(&self, target: &Target, record: &Record) -> Result<()> {
        self.unbind(record).await?; // 1
        crash_point!("flexvolume.unmount.unbound");
        self.release(target, record).await
    }

    /// The same for a mount that failed: what is at the target may be what was in its way.
    pub(super) async fn undo(&self, target: &Target, record: &Record) {
        if let Err(failure) = self.unbind(record).await {
            let failure = types::report(&failure);
            tracing::warn!(target = %record.target.display(), "the target stays: {failure}");
        }
        if let Err(failure) = self.release(target, record).await {
            let failure = types::report(&failure);
            tracing::warn!(volume = %record.volume, "a failed mount leaves its record: {failure}");
        }
    }

    async fn unbind(&self, record: &Record) -> Result<()> {
        let record = record.clone();
        blocking(move || Ok(staging::unpublish(&record.volume, &record.target)?)).await
    }

    async fn release(&self, target: &Target, record: &Record) -> Result<()> {
        if self.unstage_last(record).await? {
            self.give_back(record).await?;
        }
        self.state.remove(target) // 4
    }

    /// Takes away what staging made, if the volume is mounted nowhere else; tells whether it was.
    async fn unstage_last(&self, record: &Record) -> Result<bool> {
        if !self.live_others(record).await?.is_empty() {
            return Ok(false);
        }
        let (state, volume) = (self.state.clone(), record.volume.clone());
        blocking(move || {
            staging::unstage(&volume, &state.staging_path(&volume))?; // 2
            state.remove_volume_dir(&volume)
        })
        .await?;
        crash_point!("flexvolume.unmount.unstaged");
        Ok(true)
    }

    /// Gives back what earlier calls could not, as far as the manager takes it; the rest waits for a
    /// later call.
    pub(super) async fn pay_debts(&self) {
        let state = self.state.clone();
        let debts = blocking(move || state.debts()).await.unwrap_or_default();
        for debt in debts {
            // Somebody mounts it, who settles that first.
            let Ok(Some(_lock)) = Lock::try_acquire(&self.state.volume_lock(&debt.volume)) else {
                continue;
            };
            let in_use = self
                .live_others(&debt)
                .await
                .is_ok_and(|live| !live.is_empty());
            if !in_use
                && self.state.owes(&debt.volume)
                && let Err(error) = self.give_back(&debt).await
            {
                let (kind, error) = (error.kind(), types::report(&error).to_string());
                if matches!(kind, ErrorKind::NotFound | ErrorKind::FailedPrecondition) {
                    tracing::warn!(volume = %debt.volume, "it may have to be unpublished by hand: {error}");
                } else {
                    tracing::debug!(volume = %debt.volume, "still to be unpublished: {error}");
                    return;
                }
            }
            if let Err(error) = self.state.forgive(&debt.volume) {
                tracing::warn!("{}", types::report(&error));
            }
        }
    }

    /// The other targets where the volume is mounted.
    async fn live_others(&self, record: &Record) -> Result<Vec<Record>> {
        let (state, record) = (self.state.clone(), record.clone());
        blocking(move || {
            let mut live = Vec::new();
            for other in state.others(&record)? {
                if staging::is_at(&other.volume, &other.target)? {
                    live.push(other);
                }
            }
            Ok(live)
        })
        .await
    }
}

/// Says so when something that is not ours is mounted at the path: to call that success would leave
/// the kubelet with a directory that it cannot remove.
fn refuse_foreign(path: &std::path::Path) -> Result<()> {
    let place = host::paths::Place::open(path)?;
    let mounts = host::mountinfo::read()?;
    match host::mountinfo::at(&mounts, place.path()) {
        None => Ok(()),
        Some(mount) => Err(host::Error::ForeignMount {
            path: path.to_owned(),
            mounted: format!("{} ({})", mount.source.display(), mount.fs_type),
        }
        .into()),
    }
}
