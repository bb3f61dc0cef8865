//! How far the work on one backup is: one place where it is written, watched by whoever wants to know.

use std::sync::atomic::{AtomicU64, Ordering};

use backup::{BackupInfo, Phase, Progress};
use jiff::Timestamp;
use tokio::sync::watch;
use types::{Classify, ErrorKind, crash_point, report};

use crate::error::Error;

/// Where the work on a backup is.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Its snapshot is being taken, or it waits for its turn.
    Pending,
    Comparing,
    Uploading,
    Finishing,
    /// It can be restored. `None`: it is of a backing image, of which the store tells.
    Complete(Option<Box<BackupInfo>>),
    Failed {
        kind: ErrorKind,
        /// For people.
        message: String,
    },
}

impl Stage {
    /// Whether nothing more comes.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Complete(_) | Self::Failed { .. })
    }
}

/// A backup on its way, as it is at one moment.
#[derive(Debug, Clone)]
pub struct State {
    pub stage: Stage,
    /// Bytes done in this phase, and how many it has (0: unknown).
    pub processed: u64,
    pub total: u64,
    /// The snapshot, once it is known, and the bytes of the volume.
    pub snapshot: String,
    /// When it was taken: from then on what is written to the volume is not in the backup.
    pub snapshot_created_at: Option<Timestamp>,
    pub volume_size: u64,
}

/// The state of one backup, where it is changed.
#[derive(Debug)]
pub(crate) struct Board {
    state: watch::Sender<State>,
    processed: AtomicU64,
    /// What was told last: progress is told once a percent.
    told: AtomicU64,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new(State {
                stage: Stage::Pending,
                processed: 0,
                total: 0,
                snapshot: String::new(),
                snapshot_created_at: None,
                volume_size: 0,
            }),
            processed: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.state.borrow().stage.is_settled()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What is backed up.
    pub(crate) fn of(&self, snapshot: &str, created_at: Option<Timestamp>, volume_size: u64) {
        self.state.send_modify(|state| {
            snapshot.clone_into(&mut state.snapshot);
            state.snapshot_created_at = created_at;
            state.volume_size = volume_size;
        });
    }

    pub(crate) fn complete(&self, info: Option<BackupInfo>) {
        self.end(Stage::Complete(info.map(Box::new)));
    }

    pub(crate) fn failed(&self, error: &Error) {
        self.end(Stage::Failed {
            kind: error.kind(),
            message: report(error).to_string(),
        });
    }

    fn end(&self, stage: Stage) {
        self.state.send_modify(|state| {
            state.stage = stage;
            state.processed = self.processed.load(Ordering::Relaxed);
        });
    }
}

impl Progress for Board {
    fn phase(&self, phase: Phase, total: u64) {
        self.processed.store(0, Ordering::Relaxed);
        self.told.store(0, Ordering::Relaxed);
        self.state.send_modify(|state| {
            state.stage = match phase {
                Phase::Comparing => Stage::Comparing,
                Phase::Finishing => Stage::Finishing,
                Phase::Uploading | Phase::Restoring | Phase::Verifying | Phase::Collecting => {
                    Stage::Uploading
                }
            };
            (state.processed, state.total) = (0, total);
        });
    }

    fn advance(&self, bytes: u64) {
        let done = self.processed.fetch_add(bytes, Ordering::Relaxed) + bytes;
        crash_point!("backup.make.advanced");
        let step = (self.state.borrow().total / 100).max(1);
        let told = self.told.load(Ordering::Relaxed);
        if done >= told + step {
            self.told.store(done, Ordering::Relaxed);
            self.state.send_modify(|state| state.processed = done);
        }
    }
}
