//! Replicated volumes: the records, what is seen of them, and what is done about the difference.
//!
//! ```text
//!  CSI call ─ create, publish, expand … ─┐                       ┌─ replication::plan ─┐
//!                                        ├─▶ drive: look ─▶ view ─┤                     ├─▶ execute ─▶ managers, nodes, record
//!  the leader's loop (keep) ─────────────┘                       └─ replication::judge ─┘─▶ status, events
//! ```
//!
//! Nothing of safety is decided here: the kernels' DRBD says what is acknowledged, who is current and who may write.

mod address;
mod attach;
mod change;
mod create;
mod drive;
mod execute;
mod keep;
mod look;
mod nodes;
mod rebuild;
mod records;
mod shown;
mod snapshot;

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kubernetes::{Api, Events};
use replication::{Record, View};
use tokio::time::Instant;
use types::{NodeId, VolumeName};

pub(crate) use self::attach::Published;
use self::drive::Turns;
pub(crate) use self::nodes::Nodes;
pub(crate) use self::records::{Records, Stored, seen};
use crate::error::replicated::{Error, Result};
use crate::managers::Managers;

/// What the operator says about replicated volumes.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// TCP ports between the nodes: one for each volume.
    pub(crate) ports: RangeInclusive<u16>,
    /// How many replicas are filled at a time in the whole cluster.
    pub(crate) rebuilds: usize,
    /// How long one call waits for an image.
    pub(crate) image_wait: Duration,
}

/// The replicated volumes of the cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Replicated {
    api: Arc<Api>,
    records: Records,
    nodes: Nodes,
    managers: Managers,
    settings: Settings,
    turns: Turns,
    events: Events,
    /// The zones of nodes, as far as they were asked for; empty: none.
    zones: Arc<Mutex<BTreeMap<NodeId, String>>>,
    /// Held while a volume gets its address.
    addressing: Arc<tokio::sync::Mutex<()>>,
    /// Volumes with a replica that is being filled, as the leader's loop has seen them.
    filling: Arc<Mutex<HashSet<VolumeName>>>,
    /// Volumes with parts and without a record, and since when.
    orphans: Arc<Mutex<BTreeMap<VolumeName, Instant>>>,
    /// The records as they were the last time, for lists.
    known: Arc<Mutex<Vec<Stored>>>,
}

impl Replicated {
    pub(crate) fn new(api: Arc<Api>, nodes: Nodes, managers: Managers, settings: Settings) -> Self {
        Self {
            records: Records::new(api.clone()),
            nodes,
            managers,
            settings,
            turns: Turns::default(),
            events: Events::new(api.clone(), "longhorn-base-image"),
            api,
            zones: Arc::default(),
            addressing: Arc::default(),
            filling: Arc::default(),
            orphans: Arc::default(),
            known: Arc::default(),
        }
    }

    /// What writes Events, with the memory of what was written.
    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    /// Whether one more replica of this volume may be filled now. New volumes need no filling, and never wait.
    fn may_fill(&self, record: &Record, view: &View) -> bool {
        let mut filling = lock(&self.filling);
        if is_filling(record, view) {
            filling.insert(record.volume.clone());
        } else {
            filling.remove(&record.volume);
        }
        filling.contains(&record.volume) || filling.len() < self.settings.rebuilds
    }
}

/// Whether a replica gets what it lacks.
fn is_filling(record: &Record, view: &View) -> bool {
    use replication::{DiskState, Replication};
    record.initialized
        && record.replicas().any(|member| {
            view.part(member).is_some_and(|part| {
                part.disk == DiskState::Inconsistent
                    || (part.links.iter()).any(|link| link.replication == Replication::SyncTarget)
            })
        })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
