//! One of our programs, or a server that it needs, as a child process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::{Sandbox, wait};

pub use rustix::process::Signal;

/// A running process. Dropping it kills it; when the test is failing, its log is printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in the sandbox's `logs/NAME.log` (appended: a process that
    /// is started again continues its log).
    pub fn spawn<S: AsRef<OsStr>>(
        sandbox: &Sandbox,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(&str, &str)],
    ) -> Self {
        let log = sandbox.make_dir("logs").join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap_or_else(|error| panic!("open {}: {error}", log.display()));
        let errors = output.try_clone().expect("duplicate a file descriptor");
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(sandbox.dir())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until `ready` says so. Panics when the process ends first, or takes too long.
    #[track_caller]
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let name = self.name.clone();
        wait::until(&format!("{name} is ready"), || {
            if ready() {
                return Some(());
            }
            if let Some(status) = self.ended() {
                panic!("{name} ended before it was ready: {status}\n{}", self.log());
            }
            None
        });
    }

    /// Its status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child of ours")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait::until(&what, || self.ended())
    }

    /// Ends it as a crash would: no handler of it runs.
    pub fn kill_9(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, as an operator or Kubernetes does, and waits.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        // An error means that it has ended already.
        let _ = rustix::process::kill_process(id, signal);
    }

    /// The most memory it has held, and what it holds now, in bytes (proc_pid_status(5)).
    pub fn memory(&self) -> (u64, u64) {
        (self.status("VmHWM:"), self.status("VmRSS:"))
    }

    /// Seconds of processor that it, and those of its children that it has waited for, have taken.
    pub fn processor(&self) -> f64 {
        processor(&self.id().to_string())
    }

    /// How much of that is its files: code, of which a program that is built for tests has far more than one for users.
    pub fn code(&self) -> u64 {
        self.status("RssFile:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_9();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!(
                "--- the end of {}\n{}\n---",
                self.log.display(),
                tail.join("\n")
            );
        }
    }
}

/// Seconds of processor of a process and of those of its children that it has waited for (`proc_pid_stat(5)`).
pub fn processor(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; the state is field 3, the times are 14 to 17.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(4);
    let ticks: u32 = ticks.filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    // Linux counts in hundredths of a second for programs, whatever it does inside.
    f64::from(ticks) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_guard() {
        let sandbox = Sandbox::new("process");
        let child = Process::spawn(&sandbox, "sleeper", Path::new("/bin/sleep"), ["1000"], &[]);
        let proc_dir = PathBuf::from(format!("/proc/{}", child.id()));
        assert!(proc_dir.exists());
        drop(child);
        assert!(!proc_dir.exists());
    }

    #[test]
    fn a_process_that_ends_early_is_not_waited_for() {
        let sandbox = Sandbox::new("process");
        let mut short = Process::spawn(&sandbox, "short", Path::new("/bin/true"), [""; 0], &[]);
        let wait = std::panic::AssertUnwindSafe(|| short.wait_ready(|| false));
        let panic = std::panic::catch_unwind(wait).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("ended before it was ready"), "{message}");
    }
}
