//! Runs cryptsetup: the host's where its namespaces can be entered, else the one on the path.
//!
//! Longhorn's control plane mounts the host's `/proc` at `/host/proc` into the pods of data sources, so that
//! they use the host's cryptsetup: it fits the host's kernel, and talks to the host's udev, which waits for
//! it by semaphores of the host's IPC namespace. The file of an image has another path there, or none. So it
//! is handed over as a descriptor.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use store::IoContext;

use crate::error::{Error, Result};

/// Argon2 may be told to take long; nothing takes this long.
const PATIENCE: Duration = Duration::from_mins(5);
const CRYPTSETUP: &str = "cryptsetup";
/// Namespaces of the host's first process, where the pod was given the host's `/proc`.
const HOST: &str = "/host/proc/1/ns";

/// A command line of cryptsetup.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// The verb and its options.
    pub(super) arguments: &'a [&'a str],
    /// The container, if the verb takes one.
    pub(super) file: Option<&'a File>,
    pub(super) more: &'a [&'a str],
}

/// The mount and the IPC namespace of a process.
#[derive(Debug)]
struct Namespaces {
    mount: File,
    ipc: File,
}

impl Namespaces {
    /// Those in a directory like `/proc/1/ns`; `None` when it is not there or may not be looked into.
    fn of(dir: &Path) -> Option<Self> {
        Some(Self {
            mount: File::open(dir.join("mnt")).ok()?,
            ipc: File::open(dir.join("ipc")).ok()?,
        })
    }

    /// Moves the calling thread, the only one of a child that has not executed yet, into them.
    fn enter(&self) -> std::io::Result<()> {
        let ipc = Some(LinkNameSpaceType::InterProcessCommunication);
        move_into_link_name_space(self.ipc.as_fd(), ipc)?;
        move_into_link_name_space(self.mount.as_fd(), Some(LinkNameSpaceType::Mount))?;
        Ok(())
    }
}

/// Runs cryptsetup to its end, with `input` on its standard input.
pub(super) fn run(line: &Line<'_>, input: &[u8]) -> Result<()> {
    run_in(Namespaces::of(Path::new(HOST)), line, input)
}

fn run_in(host: Option<Namespaces>, line: &Line<'_>, input: &[u8]) -> Result<()> {
    let mut command = Command::new(CRYPTSETUP);
    command.args(line.arguments).arg("--");
    // The child has the same descriptor under the same number.
    let file = line.file.map(File::as_raw_fd);
    if let Some(number) = file {
        command.arg(OsString::from(format!("/proc/self/fd/{number}")));
    }
    command.args(line.more);
    prepare(&mut command, host, file);
    to_its_end(command, input)
}

/// What the child does before it becomes cryptsetup.
#[expect(
    unsafe_code,
    reason = "namespaces are entered, and descriptors kept, between fork and exec"
)]
fn prepare(command: &mut Command, host: Option<Namespaces>, file: Option<i32>) {
    let before = move || {
        if let Some(number) = file {
            // SAFETY: the caller of `run` keeps the file open until the child has ended.
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl_setfd(file, FdFlags::empty())?;
        }
        host.as_ref().map_or(Ok(()), Namespaces::enter)
    };
    // SAFETY: system calls alone, on descriptors that were opened before; nothing allocates or locks.
    unsafe { command.pre_exec(before) };
}

/// Runs a command to its end and turns what it says into an error.
fn to_its_end(mut command: Command, input: &[u8]) -> Result<()> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C");
    let mut child = command.spawn().context("run", CRYPTSETUP.as_ref())?;
    let mut pipe = child.stdin.take().expect("it was asked for");
    // A child that ended early says why on its standard error.
    let _ = pipe.write_all(input);
    drop(pipe);
    let status = wait(&mut child)?;
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(mut errors) = child.stderr.take() {
        let mut bytes = Vec::new();
        let _ = errors.by_ref().take(400).read_to_end(&mut bytes);
        words = String::from_utf8_lossy(&bytes).trim().replace('\n', "; ");
    }
    Err(Error::CannotEncrypt(match status {
        Some(status) => format!("cryptsetup ended with {status}: {words}"),
        None => format!(
            "cryptsetup did not end within {} seconds",
            PATIENCE.as_secs()
        ),
    }))
}

fn wait(child: &mut Child) -> Result<Option<std::process::ExitStatus>> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().context("wait for", CRYPTSETUP.as_ref())? {
            return Ok(Some(status));
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use e2e::{Need, Process, Sandbox, needs, wait};

    use super::*;

    /// The host is a process in a mount namespace of its own, whose cryptsetup says which file it got.
    #[test]
    fn the_hosts_cryptsetup_gets_the_file_where_the_host_can_be_entered() {
        needs!(Need::Root, Need::Tool("unshare"));
        let sandbox = Sandbox::new("cryptsetup");
        let script = "#!/bin/sh\nread key\neval file=\\${$#}\n\
                      echo \"host $1 $key $(cat $file)\" >&2\nexit 3\n";
        sandbox.write("sbin/cryptsetup", script);
        let sbin = sandbox.path("sbin").display().to_string();
        let setup =
            "chmod +x $0/cryptsetup && mount --bind $0 /usr/sbin && echo up && exec sleep 600";
        let arguments = ["-mi", "--propagation", "private", "sh", "-c", setup, &sbin];
        let unshare = Path::new("/usr/bin/unshare");
        let host = Process::spawn(&sandbox, "host", unshare, arguments, &[]);
        wait::until("the host is up", || host.log().contains("up").then_some(()));
        let file = File::create(sandbox.path("container")).unwrap();
        file.write_all_at(b"bytes", 0).unwrap();
        let file = File::open(sandbox.path("container")).unwrap();
        let line = Line {
            arguments: &["luksDump"],
            file: Some(&file),
            more: &[],
        };
        let namespaces = Namespaces::of(Path::new(&format!("/proc/{}/ns", host.id())));
        let error = run_in(namespaces, &line, b"hush\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("host luksDump hush bytes"), "{error}");
        // No host is no error: then it is the one on the path, if there is one.
        assert!(Namespaces::of(Path::new("/host/proc/0/ns")).is_none());
    }
}
