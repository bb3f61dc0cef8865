//! Waiting for an image or a backup: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use client::{Client, Result, Watch, backup_state_name, wire};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;
use types::{ImageName, ImageUuid};

use super::images::state_name;

/// Percent between two lines where there is no terminal.
const LINE_EVERY: u32 = 10;

/// Waits until `image` is ready or has failed, and gives it as it is then.
pub(super) async fn wait(client: &Client, image: wire::BackingImage) -> Result<wire::BackingImage> {
    let (Ok(name), Ok(uuid)) = (ImageName::new(&image.name), ImageUuid::new(&image.uuid)) else {
        return Ok(image);
    };
    let watch = client.watch_image(&name, Some(&uuid)).await?;
    follow(watch, name.as_str(), image, |image| {
        (state_name(image), (image.processed_size, image.total_size))
    })
    .await
}

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

/// Shows each state, and gives the last: `last` where there is none. `told`: its name, and bytes done and in all.
async fn follow<T>(
    mut watch: Watch<T>,
    name: &str,
    mut last: T,
    told: impl Fn(&T) -> (&'static str, (u64, u64)),
) -> Result<T> {
    let mut shown = Shown::new(name);
    while let Some(next) = watch.next().await? {
        let (state, bytes) = told(&next);
        shown.update(name, state, bytes);
        last = next;
    }
    shown.bar.finish_and_clear();
    Ok(last)
}

/// The progress of work that this program does itself.
#[derive(Debug)]
struct Own {
    name: String,
    shown: Mutex<(Shown, &'static str, u64, u64)>,
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
            shown: Mutex::new((Shown::new(name), "", 0, 0)),
        }
    }

    fn change(&self, change: impl FnOnce(&mut &'static str, &mut u64, &mut u64)) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, phase, done, total) = &mut *shown;
        change(phase, done, total);
        shown.update(&self.name, phase, (*done, *total));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let shown = self.shown.get_mut().unwrap_or_else(PoisonError::into_inner);
        shown.0.bar.finish_and_clear();
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

/// What is shown of work that goes on.
#[derive(Debug)]
pub(super) struct Shown {
    bar: ProgressBar,
    terminal: bool,
    /// The next percent worth a line.
    next: u32,
    state: &'static str,
}

impl Shown {
    pub(super) fn new(name: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        let style = "{prefix} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        Self {
            bar,
            terminal,
            next: 0,
            state: "",
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    pub(super) fn update(&mut self, name: &str, state: &'static str, (done, total): (u64, u64)) {
        let percent = match total {
            0 => 0,
            total => u32::try_from(done.min(total).saturating_mul(100) / total).unwrap_or(100),
        };
        if self.terminal {
            self.bar.set_length(total.max(done));
            self.bar.set_position(done);
            self.bar.set_message(state);
        } else if state != self.state || percent >= self.next {
            let line = match total {
                0 => format!("{name}: {state}\n"),
                _ => format!("{name}: {state} {percent}% ({done} of {total} bytes)\n"),
            };
            // Progress that nobody can read is not worth an error.
            let _ = std::io::stderr().write_all(line.as_bytes());
            self.next = (percent / LINE_EVERY + 1) * LINE_EVERY;
        }
        self.state = state;
    }
}
