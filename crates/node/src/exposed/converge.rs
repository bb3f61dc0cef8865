//! What is recorded is made again, and what is owed is taken back: after a boot, after a crash, after somebody detached a
//! device, when tgtd was started anew, when a volume has grown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use host::staging;
use tokio::time::MissedTickBehavior;
use types::{Classify as _, ErrorKind, VolumeName, report};

use super::names::Present;
use super::record::{Access, Record};
use super::{Exposures, Place, blocking, lock, node_volume};
use crate::error::{Error, Result};

/// How often all is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the manager of a volume that is well is asked to confirm that it is published.
const CONFIRM_EVERY: Duration = Duration::from_mins(1);

impl Exposures {
    /// Looks after everything, now and again and again. Never ends; it is to be run once.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut at = tokio::time::interval(LOOK_EVERY);
        at.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            at.tick().await;
            if let Err(error) = self.look_around().await {
                tracing::warn!("cannot look after volumes without pods: {}", report(&error));
            }
        }
    }

    async fn look_around(self: &Arc<Self>) -> Result<()> {
        let this = self.clone();
        let (records, debtors) = blocking(move || {
            let debtors = this.kept.debtors().map_err(this.failed("list"))?;
            this.remove_strays()?;
            Ok((this.kept.list().map_err(this.failed("list"))?, debtors))
        })
        .await?;
        if records.iter().any(|record| record.access != Access::Device) {
            self.look_at_targets().await;
        }
        for volume in debtors {
            // A call on it, or the last round, is still at it.
            if let Some(busy) = self.enter(&volume) {
                let this = self.clone();
                tokio::spawn(async move {
                    let _busy = busy;
                    if let Err(error) = this.settle(&volume).await {
                        tracing::debug!(%volume, "still to be unpublished: {}", report(&error));
                    }
                });
            }
        }
        for record in records {
            if let Some(busy) = self.enter(&record.volume) {
                let this = self.clone();
                tokio::spawn(async move {
                    let _busy = busy;
                    let done = this.converge(&record.volume).await;
                    this.note(&record.volume, done.as_ref().err());
                });
            }
        }
        Ok(())
    }

    /// Removes names that lead to devices, and that nothing is kept of.
    fn remove_strays(self: &Arc<Self>) -> Result<()> {
        for volume in self.names.all()? {
            let Some(_busy) = self.enter(&volume) else {
                continue;
            };
            if matches!(self.kept.load(&volume), Ok(None)) {
                tracing::warn!(%volume, "a name without a record is removed");
                self.names.remove(&volume)?;
            }
        }
        Ok(())
    }

    /// Tells a tgtd that was started anew of all targets, and lets initiators in.
    async fn look_at_targets(self: &Arc<Self>) {
        let Some(targets) = self.targets.clone() else {
            return;
        };
        let asked = targets.clone();
        match blocking(move || asked.is_open()).await {
            Ok(true) => {}
            Ok(false) => {
                if let Err(error) = self.open_targets(targets, None).await {
                    tracing::warn!("the targets are not served: {}", report(&error));
                }
            }
            Err(error) => tracing::debug!("the targets are not served: {}", report(&error)),
        }
    }

    /// Makes what is missing of one. The record is read again: it may have been taken back meanwhile.
    async fn converge(self: &Arc<Self>, volume: &VolumeName) -> Result<()> {
        let (this, of) = (self.clone(), volume.clone());
        let looked = blocking(move || {
            let Some(record) = this.kept.load(&of).map_err(this.failed("read"))? else {
                return Ok(None);
            };
            let place = this.place(&of, record.disk.as_ref());
            let is_whole = this.is_whole(&record, place.as_ref().ok())?;
            Ok(Some((record, place, is_whole)))
        })
        .await?;
        let Some((record, place, is_whole)) = looked else {
            return Ok(());
        };
        let confirmed = lock(&self.confirmed).get(volume).copied();
        let is_confirmed = confirmed.is_some_and(|at| at.elapsed() < CONFIRM_EVERY);
        match (is_whole, is_confirmed) {
            (true, true) => Ok(place.map(drop)?),
            // It is used already: that its manager is away changes nothing.
            (true, false) => match self.managers.publish(&record).await {
                Err(error) if is_away(&error) => Ok(()),
                Err(error) => Err(error),
                Ok(()) => {
                    lock(&self.confirmed).insert(volume.clone(), Instant::now());
                    Ok(())
                }
            },
            (false, _) => {
                self.make(&record, place?).await?;
                tracing::info!(%volume, "exposed again");
                Ok(())
            }
        }
    }

    /// Whether nothing of it is missing. A name that leads to the device of another volume is removed at once.
    fn is_whole(&self, record: &Record, place: Option<&Place>) -> Result<bool> {
        let volume = &record.volume;
        // Without its file it cannot be made again, and what there is stays.
        let wanted = place.map(|place| node_volume(volume, place));
        let file = wanted
            .as_ref()
            .map(|wanted| wanted.file.clone())
            .unwrap_or_default();
        let Access::Device = record.access else {
            let told = match (&self.targets, &wanted) {
                (Some(targets), Some(wanted)) => targets.was_told(volume, wanted.size.bytes()),
                (None, _) => return Err(Error::NoTargets),
                (_, None) => false,
            };
            return Ok(told && staging::is_reserved(volume, &file)?);
        };
        let Present::Device(device) = self.names.present(volume)? else {
            return Ok(false);
        };
        if let Some(shown) = staging::exposed_at(&device, volume, &file)? {
            return Ok(!shown.is_behind);
        }
        let device = device.display();
        tracing::warn!(%volume, %device, "its name leads to another device and is removed");
        self.names.remove(volume)?;
        Ok(false)
    }

    /// Notes what is wrong with a volume, and says it once.
    pub(super) fn note(&self, volume: &VolumeName, wrong: Option<&Error>) {
        let mut troubles = lock(&self.troubles);
        let Some(error) = wrong else {
            troubles.remove(volume);
            return;
        };
        let text = report(error).to_string();
        if troubles.get(volume) != Some(&text) {
            tracing::warn!(%volume, "it is not exposed as it shall be: {text}");
            troubles.insert(volume.clone(), text);
        }
    }
}

fn is_away(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded
    )
}
