//! Shows progress on standard error: a bar on a terminal, plain lines elsewhere. Results go to
//! standard output.

use std::io::{IsTerminal, Read, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a command.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
}

/// A part whose length is known.
#[derive(Debug)]
pub(super) struct Part(Option<ProgressBar>);

impl Progress {
    /// Looks at standard error.
    pub(super) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Says what comes next.
    pub(super) fn say(&self, what: &str) {
        // Nobody to tell is no reason to stop.
        let mark = if self.terminal { "• " } else { "" };
        let _ = writeln!(std::io::stderr(), "{mark}{what}");
    }

    /// Says what comes next, which is `bytes` long.
    pub(super) fn part(&self, what: &str, bytes: u64) -> Part {
        if !self.terminal {
            self.say(&format!("{what} ({bytes} bytes)"));
            return Part(None);
        }
        let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(style).expect("the template is a valid one");
        let bar = ProgressBar::new(bytes)
            .with_style(style)
            .with_message(what.to_owned());
        Part(Some(bar))
    }
}

impl Part {
    /// Counts what is read.
    pub(super) fn reader<'a, R: Read + 'a>(&'a self, inner: R) -> impl Read + 'a {
        Counted {
            inner,
            bar: self.0.as_ref(),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish();
        }
    }
}

struct Counted<'a, R> {
    inner: R,
    bar: Option<&'a ProgressBar>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(bytes)?;
        if let Some(bar) = self.bar {
            bar.inc(count as u64);
        }
        Ok(count)
    }
}
