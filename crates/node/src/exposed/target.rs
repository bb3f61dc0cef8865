//! The targets of this node's tgtd, which forgets all of them when it ends: what it was told, and when it is told again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use host::staging::NodeVolume;
use host::target::{Present, Settings, Targets, Wanted};
use types::{VolumeName, crash_point, report};

use super::record::{Access, Record};
use super::{Exposures, blocking, lock};
use crate::error::{Error, Result};

/// tgtd, and the size of each volume when it was last told. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct NodeTargets {
    targets: Targets,
    told: Arc<Mutex<HashMap<VolumeName, u64>>>,
}

impl NodeTargets {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            targets: Targets::new(settings),
            told: Arc::default(),
        }
    }

    pub(super) fn portal(&self) -> String {
        self.targets.portal().to_string()
    }

    pub(super) fn list(&self) -> Result<Vec<Present>> {
        Ok(self.targets.list()?)
    }

    pub(super) fn remove(&self, volume: &VolumeName, disconnect: bool) -> Result<()> {
        self.targets.remove(volume, disconnect)?;
        lock(&self.told).remove(volume);
        Ok(())
    }

    /// The size of the volume as it was told; `None`: it was not.
    pub(super) fn size(&self, volume: &VolumeName) -> Option<u64> {
        lock(&self.told).get(volume).copied()
    }

    /// Whether it was told of the volume as it is.
    pub(super) fn was_told(&self, volume: &VolumeName, size: u64) -> bool {
        self.size(volume) == Some(size)
    }

    /// Whether it lets initiators in; if not, it has forgotten everything.
    pub(super) fn is_open(&self) -> Result<bool> {
        let is_open = self.targets.is_open()?;
        if !is_open {
            lock(&self.told).clear();
        }
        Ok(is_open)
    }
}

impl Exposures {
    /// Makes the target of a volume, or finds it as it shall be.
    pub(super) fn put_target(&self, record: &Record, volume: &NodeVolume) -> Result<()> {
        let targets = self.targets.as_ref().ok_or(Error::NoTargets)?;
        let (initiators, chap) = record.access.of_target()?;
        targets.targets.put(&Wanted {
            volume: volume.name.clone(),
            file: volume.file.clone(),
            size: volume.size.bytes(),
            read_only: record.read_only,
            initiators,
            chap,
        })?;
        lock(&targets.told).insert(volume.name.clone(), volume.size.bytes());
        crash_point!("node.expose.named");
        Ok(())
    }

    /// Lets initiators in, once tgtd knows all targets: one that it does not know is an I/O error to an initiator that
    /// comes back. `known` was told it a moment ago.
    pub(super) async fn open_targets(
        self: &Arc<Self>,
        targets: NodeTargets,
        known: Option<&VolumeName>,
    ) -> Result<()> {
        let (this, known) = (self.clone(), known.cloned());
        blocking(move || {
            if targets.targets.is_open()? {
                return Ok(());
            }
            for record in this.kept.list().map_err(this.failed("list"))? {
                if known.as_ref() == Some(&record.volume) || record.access == Access::Device {
                    continue;
                }
                // Another call on it tells tgtd by itself, but perhaps too late: the loop opens then.
                let Some(_busy) = this.enter(&record.volume) else {
                    return Ok(());
                };
                this.tell_again(&record);
            }
            Ok(targets.targets.open()?)
        })
        .await
    }

    /// One that cannot be served must not keep the others shut out.
    pub(super) fn tell_again(&self, record: &Record) {
        let told = self
            .place(&record.volume, record.disk.as_ref())
            .and_then(|place| self.make_here(record, &place));
        if let Err(error) = told {
            self.note(&record.volume, Some(&error));
            tracing::warn!(volume = %record.volume, "its target is not served: {}", report(&error));
        }
    }
}
