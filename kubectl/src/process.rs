//! Children: they end with this program, whatever ends it, and what they print and how long they take is bounded.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::error::{Error, Result};

/// What a child may print on standard error; more is cut.
const STDERR_MAX: u64 = 64 << 10;
/// How much of that is repeated in an error.
const SAID_MAX: usize = 2_000;

/// How a child is bounded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of its standard output.
    pub(crate) bytes: usize,
    /// The time that it has.
    pub(crate) time: Duration,
}

/// What came of a child.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It succeeded, and printed this.
    Done(Vec<u8>),
    /// It failed, and said this.
    Failed(String),
    /// It printed more than it may.
    TooMuch,
    /// It took longer than it may.
    Slow,
}

/// A child that ends with this program: when it is dropped, and when this program is killed.
pub(crate) fn child(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    #[cfg(target_os = "linux")]
    die_with_us(&mut command);
    command
}

/// Nothing runs after a SIGKILL but the kernel. Elsewhere a child lives on until its pipes break.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "pre_exec")]
fn die_with_us(command: &mut Command) {
    let die_with_us = || {
        let signal = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal).map_err(Into::into)
    };
    // SAFETY: between fork and exec only one system call is made, nothing is allocated or locked.
    unsafe { command.pre_exec(die_with_us) };
}

/// Runs a child to its end.
///
/// # Errors
/// It cannot be started, or its output cannot be read.
pub(crate) async fn run(mut command: Command, bounds: Bounds) -> Result<Ended> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|source| Error::Start { program, source })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let limit = bounds.bytes as u64 + 1;
    let work = async {
        let (out, err) = tokio::join!(read(stdout, limit), read(stderr, STDERR_MAX));
        let out = out?;
        if out.len() > bounds.bytes {
            // It is killed: it may wait forever for somebody to read the rest.
            return Ok(Ended::TooMuch);
        }
        let status = child.wait().await?;
        Ok(if status.success() {
            Ended::Done(out)
        } else {
            Ended::Failed(said(&err?))
        })
    };
    match tokio::time::timeout(bounds.time, work).await {
        Ok(ended) => ended,
        Err(_) => Ok(Ended::Slow),
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// What a child said, for an error: without its end of line, and its end rather than its beginning.
pub(crate) fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(SAID_MAX);
    text.chars().skip(skipped).collect()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = child("sh".as_ref());
        command.args(["-c", script]);
        command
    }

    fn bounds(bytes: usize, seconds: u64) -> Bounds {
        let time = Duration::from_secs(seconds);
        Bounds { bytes, time }
    }

    #[tokio::test]
    async fn row_500_a_child_is_bounded_in_what_it_prints_and_how_long_it_takes() {
        let ended = run(shell("echo fine"), bounds(10, 60)).await.unwrap();
        assert!(matches!(ended, Ended::Done(out) if out == b"fine\n"));
        let ended = run(shell("echo no >&2; exit 3"), bounds(10, 60))
            .await
            .unwrap();
        assert!(matches!(ended, Ended::Failed(said) if said == "no"));
        let ended = run(shell("yes"), bounds(1000, 60)).await.unwrap();
        assert!(matches!(ended, Ended::TooMuch));
        let ended = run(shell("sleep 1000"), bounds(10, 0)).await.unwrap();
        assert!(matches!(ended, Ended::Slow));
    }
}
