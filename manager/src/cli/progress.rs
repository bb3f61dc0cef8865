//! Waiting for an image: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};

use client::{Client, Result, wire};
use indicatif::{ProgressBar, ProgressStyle};
use types::{ImageName, ImageUuid};

use super::images::state_name;

/// Percent between two lines where there is no terminal.
const LINE_EVERY: u32 = 10;

/// Waits until `image` is ready or has failed, and gives it as it is then.
pub(super) async fn wait(client: &Client, image: wire::BackingImage) -> Result<wire::BackingImage> {
    let (Ok(name), Ok(uuid)) = (ImageName::new(&image.name), ImageUuid::new(&image.uuid)) else {
        return Ok(image);
    };
    let mut watch = client.watch_image(&name, Some(&uuid)).await?;
    let mut shown = Shown::new(&image.name);
    let mut last = image;
    while let Some(next) = watch.next().await? {
        shown.update(&next);
        last = next;
    }
    shown.bar.finish_and_clear();
    Ok(last)
}

struct Shown {
    bar: ProgressBar,
    terminal: bool,
    /// The next percent worth a line.
    next: u32,
    state: &'static str,
}

impl Shown {
    fn new(name: &str) -> Self {
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

    fn update(&mut self, image: &wire::BackingImage) {
        let state = state_name(image);
        if self.terminal {
            self.bar
                .set_length(image.total_size.max(image.processed_size));
            self.bar.set_position(image.processed_size);
            self.bar.set_message(state);
        } else if state != self.state || image.progress >= self.next {
            let line = format!(
                "{}: {state} {}% ({} of {} bytes)\n",
                image.name, image.progress, image.processed_size, image.total_size
            );
            // Progress that nobody can read is not worth an error.
            let _ = std::io::stderr().write_all(line.as_bytes());
            self.next = (image.progress / LINE_EVERY + 1) * LINE_EVERY;
        }
        self.state = state;
    }
}
