//! One backup that runs, or ran not long ago: what it is about, how far it is, and how it is ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backup::{Item, StoreAddress};
use tokio_util::sync::CancellationToken;
use types::ImageName;

use crate::board::{Board, State};
use crate::targets::Target;

/// A backup that runs, or ran not long ago.
#[derive(Debug, Clone)]
pub struct View {
    pub volume: String,
    pub name: String,
    pub target: Target,
    pub state: State,
}

/// What a job is about: there is one for each at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) store: StoreAddress,
    pub(crate) item: Item,
}

/// One running backup.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) key: Key,
    pub(crate) target: Target,
    pub(crate) board: Arc<Board>,
    pub(crate) cancel: CancellationToken,
    /// Of a volume, the snapshot that was asked for.
    pub(crate) snapshot: Option<ImageName>,
    pub(crate) begun: Instant,
    ended: Mutex<Option<Instant>>,
}

impl Job {
    pub(crate) fn new(
        key: Key,
        target: Target,
        snapshot: Option<ImageName>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            key,
            target,
            board: Arc::new(Board::new()),
            cancel,
            snapshot,
            begun: Instant::now(),
            ended: Mutex::default(),
        }
    }

    /// As the crate of the format wants it.
    pub(crate) fn of_store(&self) -> backup::Job {
        backup::Job {
            cancel: self.cancel.clone(),
            progress: self.board.clone(),
        }
    }

    /// When its last state was told.
    pub(crate) fn ended(&self) -> Option<Instant> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn end(&self) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended = Some(Instant::now());
    }

    pub(crate) fn view(&self) -> View {
        let (volume, name) = match &self.key.item {
            Item::Backup { volume, backup } => (volume.to_string(), backup.to_string()),
            Item::Volume(name) | Item::BackingImage(name) => (String::new(), name.to_string()),
        };
        View {
            volume,
            name,
            target: self.target.clone(),
            state: self.board.state(),
        }
    }
}
