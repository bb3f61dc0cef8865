//! Waiting for a backup, and for work of this program itself.

use std::sync::{Arc, Mutex, PoisonError};

use client::terminal::{Progress, follow};
use client::{Client, Result, backup_state_name, wire};
use tokio_util::sync::CancellationToken;

/// Waits until a backup is complete or has failed, and gives it as it is then.
pub(super) async fn wait_backup(
    client: &Client,
    request: wire::GetBackupRequest,
    backup: wire::Backup,
) -> Result<wire::Backup> {
    let watch = client.watch_backup(request).await?;
    let name = backup.name.clone();
    follow(watch, &name, backup, |backup| {
        let state = backup_state_name(backup.state());
        (state, (backup.processed_size, backup.total_size))
    })
    .await
}

/// The progress of work that this program does itself.
#[derive(Debug)]
struct Own {
    name: String,
    shown: Mutex<(Progress, &'static str, u64, u64)>,
}

/// Work on a store that this program does itself, and shows under that name.
pub(super) fn own(name: &str) -> backup::Job {
    backup::Job {
        cancel: CancellationToken::new(),
        progress: Arc::new(Own::new(name)),
    }
}

impl Own {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            shown: Mutex::new((Progress::new(name), "", 0, 0)),
        }
    }

    fn change(&self, change: impl FnOnce(&mut &'static str, &mut u64, &mut u64)) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, phase, done, total) = &mut *shown;
        change(phase, done, total);
        shown.update(&self.name, phase, (*done, *total));
    }
}

impl backup::Progress for Own {
    fn phase(&self, phase: backup::Phase, of: u64) {
        self.change(|name, done, total| {
            *name = match phase {
                backup::Phase::Comparing => "comparing",
                backup::Phase::Uploading => "uploading",
                backup::Phase::Finishing => "finishing",
                backup::Phase::Restoring => "restoring",
                backup::Phase::Verifying => "verifying",
                backup::Phase::Collecting => "collecting",
            };
            (*done, *total) = (0, of);
        });
    }

    fn advance(&self, bytes: u64) {
        self.change(|_, done, _| *done += bytes);
    }
}
