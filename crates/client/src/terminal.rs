//! What people see of a command in their terminal: tables, and how far something has come.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use proto::storage::v1 as wire;
use types::{ImageName, ImageUuid};

use crate::{Client, Result, Watch, state_name};

/// Percent between two lines where there is no terminal.
const LINE_EVERY: u32 = 10;

/// Rows under a head, in columns as wide as they need to be.
pub fn table<R: AsRef<[String]>>(head: &[&str], rows: &[R]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.as_ref().iter().map(String::as_str)));
    }
    text
}

/// Waits until `image` is ready or has failed, and gives it as it is then.
pub async fn wait_image(client: &Client, image: wire::BackingImage) -> Result<wire::BackingImage> {
    let (Ok(name), Ok(uuid)) = (ImageName::new(&image.name), ImageUuid::new(&image.uuid)) else {
        return Ok(image);
    };
    let watch = client.watch_image(&name, Some(&uuid)).await?;
    follow(watch, name.as_str(), image, |image| {
        (
            state_name(image.state()),
            (image.processed_size, image.total_size),
        )
    })
    .await
}

/// Shows each state, and gives the last: `last` where there is none. `told`: its name, and bytes done and in all.
pub async fn follow<T>(
    mut watch: Watch<T>,
    name: &str,
    mut last: T,
    told: impl Fn(&T) -> (&'static str, (u64, u64)),
) -> Result<T> {
    let mut shown = Progress::new(name);
    while let Some(next) = watch.next().await? {
        let (state, bytes) = told(&next);
        shown.update(name, state, bytes);
        last = next;
    }
    drop(shown);
    Ok(last)
}

/// How far something has come: a bar on a terminal, a line now and then elsewhere. Dropping it takes the bar away.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    /// The next percent worth a line.
    next: u32,
    state: &'static str,
}

impl Progress {
    /// Of what has that name.
    pub fn new(name: &str) -> Self {
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

    /// Shows a state, and bytes done and in all (0: unknown).
    pub fn update(&mut self, name: &str, state: &'static str, (done, total): (u64, u64)) {
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

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
