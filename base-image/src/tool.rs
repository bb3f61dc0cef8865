//! Runs the programs that make file systems: explicit arguments, no shell, bounded time and output.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Error, Result, io};

/// How much of a program's output is kept for the error, in bytes.
const MAX_OUTPUT: u64 = 16 << 10;
/// Where administrators' programs are, which the PATH of plain users often lacks.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// The Debian package that has it.
    pub(super) package: &'static str,
    /// How long it may take.
    pub(super) limit: Duration,
}

impl Tool {
    /// Runs the program to its end with an environment of nothing but `environment`, so that the
    /// user's does not change the result.
    pub(super) fn run(&self, arguments: &[&OsStr], environment: &[(&str, OsString)]) -> Result<()> {
        let (status, output) = self.outcome(self.command(arguments, environment), true)?;
        if status.success() {
            return Ok(());
        }
        Err(self.failed(&status.to_string(), &output))
    }

    /// Like [`run`](Self::run), for a checker that may change the file system, and then ends with 1.
    pub(super) fn run_changing(
        &self,
        arguments: &[&OsStr],
        environment: &[(&str, OsString)],
    ) -> Result<()> {
        let (status, output) = self.outcome(self.command(arguments, environment), true)?;
        if matches!(status.code(), Some(0 | 1)) {
            return Ok(());
        }
        Err(self.failed(&status.to_string(), &output))
    }

    /// Runs a program that executes a script in `directory`, and tells of a failed command only on
    /// standard error, after a line with its version.
    pub(super) fn run_script(
        &self,
        directory: &Path,
        arguments: &[&OsStr],
        environment: &[(&str, OsString)],
    ) -> Result<()> {
        let mut command = self.command(arguments, environment);
        command.current_dir(directory);
        let (status, output) = self.outcome(command, false)?;
        let version = output.find('\n').unwrap_or(output.len());
        let (version, said) = output.split_at(version);
        if status.success() && version.starts_with(self.name) && said.trim().is_empty() {
            return Ok(());
        }
        Err(self.failed(&status.to_string(), &output))
    }

    fn failed(&self, status: &str, output: &str) -> Error {
        Error::ToolFailed {
            tool: self.name,
            status: status.to_owned(),
            output: output.trim().replace('\n', "; "),
        }
    }

    fn command(&self, arguments: &[&OsStr], environment: &[(&str, OsString)]) -> Command {
        let mut command = Command::new(self.name);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// How the program ended, and the beginning of what it said: on standard error, and on standard output
    /// too if `both`, where programs that check tell their findings.
    fn outcome(
        &self,
        mut command: Command,
        both: bool,
    ) -> Result<(std::process::ExitStatus, String)> {
        let (mut said, out) = std::io::pipe().map_err(io("open a pipe to", self.name))?;
        if both {
            let err = out.try_clone().map_err(io("open a pipe to", self.name))?;
            command.stdout(err);
        }
        command.stderr(out);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::ToolMissing {
                    tool: self.name,
                    package: self.package,
                });
            }
            Err(e) => return Err(io("start", self.name)(e)),
        };
        // Only the program holds the other end from here on.
        drop(command);
        // Reads all of it, so that the program never waits for us, and keeps the beginning.
        let reader = thread::spawn(move || {
            let mut kept = Vec::new();
            // A broken pipe only means that the text ends here.
            let _ = said.by_ref().take(MAX_OUTPUT).read_to_end(&mut kept);
            let _ = std::io::copy(&mut said, &mut std::io::sink());
            kept
        });
        let status = self.wait(&mut child);
        let output = reader.join().unwrap_or_default();
        Ok((status?, String::from_utf8_lossy(&output).into_owned()))
    }

    fn wait(&self, child: &mut Child) -> Result<std::process::ExitStatus> {
        let deadline = Instant::now() + self.limit;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = child.try_wait().map_err(io("wait for", self.name))? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                // Both fail only when it has just ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                let status = format!("not done after {} seconds", self.limit.as_secs());
                return Err(Error::ToolFailed {
                    tool: self.name,
                    status,
                    output: String::new(),
                });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &'static str, limit: Duration) -> Tool {
        Tool {
            name,
            package: "e2fsprogs",
            limit,
        }
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let error = tool("mkfs.no-such", Duration::from_secs(1))
            .run(&[], &[])
            .unwrap_err();
        assert!(
            error.to_string().contains("install the package e2fsprogs"),
            "{error}"
        );
    }

    #[test]
    fn a_tool_that_fails_or_does_not_end_is_told_with_what_it_said() {
        let long = tool("sleep", Duration::from_millis(100));
        let error = long.run(&[OsStr::new("60")], &[]).unwrap_err();
        assert!(error.to_string().contains("not done after"), "{error}");
        let error = tool("ls", Duration::from_mins(1)).run(&[OsStr::new("/no/such")], &[]);
        assert!(error.unwrap_err().to_string().contains("/no/such"));
    }
}
