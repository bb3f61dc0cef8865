//! What every backup needs: the images and volumes of the disk, the targets, and a turn.

use std::sync::Arc;

use backup::Store;
use catalog::Catalog;
use tokio::sync::{Semaphore, SemaphorePermit};
use volume::Volumes;

use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::targets::{Target, Targets};

/// Backups at once. Each reads, hashes and compresses with several threads.
const RUNNING_MAX: usize = 2;

/// The surroundings of all backups of a disk.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) targets: Targets,
    pub(crate) catalog: Catalog,
    /// `None`: there are none here.
    pub(crate) volumes: Option<Volumes>,
    pub(crate) counters: Counters,
    turns: Semaphore,
}

impl Room {
    pub(crate) fn new(targets: Targets, catalog: Catalog, volumes: Option<Volumes>) -> Arc<Self> {
        Arc::new(Self {
            targets,
            catalog,
            volumes,
            counters: Counters::default(),
            turns: Semaphore::new(RUNNING_MAX),
        })
    }

    /// The store of a target, with the credentials of now.
    pub(crate) async fn open(&self, target: &Target) -> Result<Store> {
        let (targets, target) = (self.targets.clone(), target.clone());
        tokio::task::spawn_blocking(move || targets.open(&target)).await?
    }

    /// Waits for a turn, as long as the backup is wanted.
    pub(crate) async fn turn(&self, job: &Job) -> Result<SemaphorePermit<'_>> {
        let gone = || Error::Cancelled("the backup is not wanted");
        tokio::select! {
            turn = self.turns.acquire() => turn.map_err(|_| gone()),
            () = job.cancel.cancelled() => Err(gone()),
        }
    }
}
