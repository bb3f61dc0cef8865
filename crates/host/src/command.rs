//! Runs the external tools: by absolute path, without a shell, with a deadline, and with their
//! output in the error.

use std::ffi::OsStr;
use std::io::{PipeWriter, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Where tools are looked for. The environment of this process has no say.
pub(crate) const DIRECTORIES: [&str; 6] = [
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
];
/// How much of the end of a tool's output is kept, in bytes.
const TAIL_MAX: usize = 2048;
/// How long a killed tool is waited for: one that hangs in the kernel cannot be killed.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    pub name: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// How a tool ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// How it ended, in words.
    pub status: String,
    /// The end of what it wrote, on one line.
    pub said: String,
}

impl Tool {
    /// Where the tool is installed.
    ///
    /// # Errors
    /// [`Error::ToolMissing`].
    pub fn find(&self) -> Result<PathBuf> {
        DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(self.name))
            .find(|path| path.is_file())
            .ok_or(Error::ToolMissing {
                tool: self.name,
                package: self.package,
            })
    }

    /// Runs the tool and waits for its end, however that is.
    ///
    /// The tool dies with this process, so that it never works on a device while a process that was
    /// started anew does.
    ///
    /// # Errors
    /// [`Error::ToolMissing`], [`Error::ToolTimeout`], or an I/O error of starting it.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S], limit: Duration) -> Result<Outcome> {
        self.run_to(arguments, limit, None)
    }

    /// The same with its standard output to `answer`.
    fn run_to<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        limit: Duration,
        answer: Option<PipeWriter>,
    ) -> Result<Outcome> {
        let path = self.find()?;
        let (mut child, output) =
            spawn(&path, arguments, answer).map_err(Error::io("run", &path))?;
        let status = wait(&mut child, limit).map_err(Error::io("wait for", &path))?;
        let Some(status) = status else {
            return Err(Error::ToolTimeout {
                tool: self.name,
                limit,
            });
        };
        let said = output
            .recv_timeout(Duration::from_secs(1))
            .unwrap_or_default();
        Ok(Outcome {
            code: status.code(),
            status: status.to_string(),
            said: one_line(&said),
        })
    }

    /// Runs the tool and returns what it wrote to its standard output, at most `most` bytes, however it ended.
    ///
    /// # Errors
    /// As [`Tool::run`]; [`Error::Tool`] for a longer answer.
    pub fn ask<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        limit: Duration,
        most: u64,
    ) -> Result<(Outcome, Vec<u8>)> {
        let (reader, writer) = std::io::pipe().map_err(Error::io("make a pipe for", self.name))?;
        let (sender, answer) = sync_channel(1);
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = reader.take(most + 1).read_to_end(&mut bytes);
            sender.send(read.map(|_| bytes))
        });
        let outcome = self.run_to(arguments, limit, Some(writer))?;
        let bytes = answer
            .recv_timeout(Duration::from_secs(1))
            .map_err(|_| std::io::Error::other("it left its output open"));
        let bytes = bytes
            .and_then(|bytes| bytes)
            .map_err(Error::io("read the answer of", self.name))?;
        if bytes.len() as u64 > most {
            return Err(self.failed(Outcome {
                said: format!("its answer is longer than {most} bytes"),
                ..outcome
            }));
        }
        Ok((outcome, bytes))
    }

    /// Runs the tool and takes any end but exit code 0 for a failure.
    pub fn run_ok<S: AsRef<OsStr>>(&self, arguments: &[S], limit: Duration) -> Result<()> {
        let outcome = self.run(arguments, limit)?;
        if outcome.code == Some(0) {
            Ok(())
        } else {
            Err(self.failed(outcome))
        }
    }

    /// The error that an outcome is.
    pub fn failed(&self, outcome: Outcome) -> Error {
        Error::Tool {
            tool: self.name,
            status: outcome.status,
            said: outcome.said,
        }
    }
}

/// Starts a tool whose whole output, but for what goes to `answer`, goes to one pipe, of which a thread keeps the
/// end.
fn spawn<S: AsRef<OsStr>>(
    path: &Path,
    arguments: &[S],
    answer: Option<PipeWriter>,
) -> std::io::Result<(Child, Receiver<Vec<u8>>)> {
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", DIRECTORIES.join(":"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(match answer {
            Some(answer) => answer,
            None => writer.try_clone()?,
        })
        .stderr(writer);
    die_with_us(&mut command);
    let child = command.spawn()?;
    // The command holds the writing end; the reader sees the end only when all writers are gone.
    drop(command);
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || sender.send(tail(reader)));
    Ok((child, receiver))
}

/// Makes a program end with this process, or with the thread that starts it.
#[expect(unsafe_code, reason = "pre_exec")]
pub(crate) fn die_with_us(command: &mut Command) {
    let die_with_us = || {
        let signal = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal).map_err(Into::into)
    };
    // SAFETY: between fork and exec only one system call is made, nothing is allocated or locked.
    unsafe { command.pre_exec(die_with_us) };
}

pub(crate) fn tail(mut reader: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = reader.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..len]);
        let excess = kept.len().saturating_sub(TAIL_MAX);
        kept.drain(..excess);
    }
    kept
}

/// Waits until `limit` is up, then kills. `None`: it was killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    if let Some(status) = wait_until(child, Instant::now() + limit)? {
        return Ok(Some(status));
    }
    child.kill()?;
    wait_until(child, Instant::now() + KILLED_WITHIN)?;
    Ok(None)
}

pub(crate) fn wait_until(
    child: &mut Child,
    deadline: Instant,
) -> std::io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

pub(crate) fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        "it printed nothing".to_owned()
    } else {
        lines.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Tool = Tool {
        name: "sh",
        package: "dash",
    };
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn an_error_has_the_code_and_the_last_words() {
        let error = SH
            .run_ok(&["-c", "echo out; echo err >&2; exit 3"], SOON)
            .unwrap_err();
        assert_eq!(error.to_string(), "sh failed with exit status: 3: out; err");
    }

    #[test]
    fn a_tool_that_hangs_is_killed() {
        let start = Instant::now();
        let error = SH
            .run(&["-c", "sleep 60"], Duration::from_millis(100))
            .unwrap_err();
        assert!(matches!(error, Error::ToolTimeout { .. }));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let tool = Tool {
            name: "no-such-tool",
            package: "no-such-package",
        };
        let text = tool.run_ok(&["x"], SOON).unwrap_err().to_string();
        assert!(
            text.contains("no-such-tool") && text.contains("no-such-package"),
            "{text}"
        );
    }

    #[test]
    fn an_answer_is_taken_apart_from_what_is_said_and_has_a_bound() {
        let (outcome, bytes) = SH
            .ask(&["-c", "echo out; echo err >&2; exit 3"], SOON, 4)
            .unwrap();
        assert_eq!(
            (outcome.code, outcome.said.as_str(), bytes.as_slice()),
            (Some(3), "err", b"out\n".as_slice())
        );
        let error = SH.ask(&["-c", "yes"], SOON, 1000).unwrap_err();
        assert!(error.to_string().contains("longer than 1000"), "{error}");
    }

    #[test]
    fn endless_output_is_cut() {
        let outcome = SH
            .run(&["-c", "yes | head -c 1000000; echo last"], SOON)
            .unwrap();
        assert!(outcome.said.len() <= 3 * TAIL_MAX && outcome.said.ends_with("last"));
    }
}
