//! Whether there is a place for backups, and what it has. A store is slow and may cost money: it is asked seldom.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{BackupTarget, Client, wire};
use tokio::time::Instant;

use crate::pages::Backups;

/// How long a list is the answer for all who look at the page,
const KEPT: Duration = Duration::from_secs(10);
/// and how long for the menu.
const SOUGHT: Duration = Duration::from_mins(1);

/// The store of the default target.
#[derive(Debug, Default)]
pub(super) struct Store {
    kept: Mutex<Option<(Instant, Arc<Backups>)>>,
    sought: Mutex<Option<Instant>>,
    there: AtomicBool,
}

impl Store {
    pub(super) fn is_there(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }

    /// Looks whether it is there, beside everything else.
    pub(super) fn seek(self: Arc<Self>, managers: Vec<Client>) {
        let mut sought = self.sought.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = sought.is_some_and(|at| at.elapsed() < SOUGHT);
        if recent || managers.is_empty() {
            return;
        }
        *sought = Some(Instant::now());
        drop(sought);
        tokio::spawn(async move { self.list(managers).await });
    }

    /// What it has, as the first manager that can reach it says.
    pub(super) async fn list(&self, managers: Vec<Client>) -> client::Result<Arc<Backups>> {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((at, backups)) = kept
            && at.elapsed() < KEPT
        {
            return Ok(backups);
        }
        let mut last = None;
        for manager in managers {
            let request = wire::ListBackupsRequest {
                target: Some(BackupTarget::default().to_wire()),
                volume: String::new(),
            };
            match manager.list_backups(request).await {
                Ok(answer) => {
                    self.there.store(true, Ordering::Relaxed);
                    let backups = Arc::new(Backups {
                        backups: answer.backups,
                        problems: answer.problems,
                    });
                    let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                    *kept = Some((Instant::now(), backups.clone()));
                    return Ok(backups);
                }
                Err(error) => last = Some(error),
            }
        }
        // A store that does not answer now is still one that people look for in the menu.
        Err(last.unwrap_or_else(|| client::Error::silent("of an unknown name", "")))
    }
}
