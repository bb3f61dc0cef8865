//! Reads an image for a receiver: the files stay in place meanwhile, a deletion ends the reading
//! first, and the number of concurrent copies is limited.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::ImageId;

use super::status::StatusCell;
use super::{Catalog, FilesGuard};
use crate::error::{Error, Result};
use store::SealedImage;

/// Copies of one image that are sent at once, as many as Longhorn sends.
const SENDS_MAX: u32 = 3;

/// A ready image whose bytes may be read for as long as this lives.
#[derive(Debug)]
pub struct Reading {
    pub image: SealedImage,
    /// Where its bytes are.
    pub path: PathBuf,
    /// Keeps its files in place.
    pub files: FilesGuard,
    /// Cancelled when the image is being deleted, or the daemon stops: then the reading must end.
    pub cancel: CancellationToken,
}

/// One of the copies that may be sent at once. Counted until it is dropped.
#[derive(Debug)]
pub struct SendGuard {
    pub reading: Reading,
    board: StatusCell,
    tasks: TaskTracker,
}

impl Catalog {
    /// Opens a ready image for reading.
    pub async fn read(&self, id: &ImageId) -> Result<Reading> {
        let (image, files) = self.ready(&id.name, Some(&id.uuid)).await?;
        let cancel = self.entry(&id.name, Some(&id.uuid))?.cancel();
        Ok(Reading {
            path: self.file_path(id),
            image,
            files,
            cancel,
        })
    }

    /// Begins to send a ready image, unless enough copies of it are being sent.
    pub async fn begin_send(&self, id: &ImageId) -> Result<SendGuard> {
        let reading = self.read(id).await?;
        let entry = self.entry(&id.name, Some(&id.uuid))?;
        let (board, tasks) = (entry.board.clone(), entry.tasks.clone());
        let counted = board.change(|status| {
            let sending = &mut status.sending;
            let free = *sending < SENDS_MAX;
            *sending += u32::from(free);
            free
        });
        if !counted {
            return Err(Error::SendingLimit(SENDS_MAX));
        }
        Ok(SendGuard {
            reading,
            board,
            tasks,
        })
    }
}

impl SendGuard {
    /// Sends in a task of the image: deleting the image, or stopping, ends the task and waits for it.
    pub fn send(self, work: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            work.await;
            drop(self);
        });
    }
}

impl Drop for SendGuard {
    fn drop(&mut self) {
        self.board.change(|status| {
            status.sending -= 1;
            true
        });
    }
}
