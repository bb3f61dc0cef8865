//! Unmounting: `unmount` and `unmountdevice`, and undoing a mount that failed.
//!
//! Steps, in order: 1 the mount at the target · 2 with the volume's last target, what staging made ·
//! 3 the publication · 4 the record. The record goes last: a call that is killed is finished by the
//! next one, also after a reboot, when only the record is left.

use std::path::PathBuf;

use host::staging;
use types::{Classify as _, ErrorKind, crash_point};

use super::Driver;
use crate::error::{Error, Result};
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
        self.take_down(&target, &record).await?;
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
        let mut record = Record::found(target, kind, volume);
        if !self.config.attach
            && let Some(volume) = self.volumes.find(&record.volume).await?
        {
            let (node, _) = self.replica_here(&volume).await?;
            record.published_to = Some(node);
        }
        Ok(Some(record))
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
        if self.live_others(record).await?.is_empty() {
            let (state, volume) = (self.state.clone(), record.volume.clone());
            blocking(move || {
                staging::unstage(&volume, &state.staging_path(&volume))?; // 2
                state.remove_volume_dir(&volume)
            })
            .await?;
            crash_point!("flexvolume.unmount.unstaged");
            if let Some(node) = &record.published_to {
                self.volumes.unpublish(&record.volume, node).await?; // 3
            }
            crash_point!("flexvolume.unmount.unpublished");
        }
        self.state.remove(target) // 4
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
