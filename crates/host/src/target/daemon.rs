//! tgtd as a child: started without a door, ended in order.
//!
//! This is the first process of the pod. tgtd ignores SIGTERM, so somebody has to tell it that it is to end: cut the
//! connections when what they had under way is done, remove the targets, and only then leave. Volumes are files: whatever
//! was acknowledged before is in them, and with a flush on the disk. If tgtd ends by itself this process does too, and
//! the pod is started again: a tgtd that knows nothing and has no door, until the node service has put its targets.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use types::report;

use super::control::Control;
use super::relay;
use crate::command::{self, Tool};
use crate::{Error, Result};

const TGTD: Tool = Tool {
    name: "tgtd",
    package: "tgt",
};
/// How long tgtd may take to answer first. It has answered after milliseconds.
const STARTS_WITHIN: Duration = Duration::from_mins(1);
/// How long an end in order may take; after it, tgtd is killed. A pod has 30 seconds.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// What tgtd makes its own socket's name of, and adds its number.
const OWN: &str = "tgtd";

/// A tgtd that runs.
#[derive(Debug)]
pub struct Daemon {
    tgtd: Child,
    control: Control,
    /// All that is left behind: removed in the end.
    files: [PathBuf; 3],
}

impl Daemon {
    /// Starts tgtd, which dies with the calling thread, and listens at `socket` for those who tell it what to serve:
    /// root and the user of this process. Its directory is for this user alone ([`prepare`]).
    ///
    /// # Errors
    /// [`Error::ToolMissing`], [`Error::TargetEnded`], [`Error::TargetSilent`], or an I/O error.
    pub fn start(socket: &Path) -> Result<Self> {
        let tool = TGTD.find()?;
        let directory = socket.parent().unwrap_or(Path::new("/"));
        check_private(directory)?;
        let own = directory.join(format!("{OWN}.0"));
        let files = [
            socket.to_owned(),
            own.clone(),
            directory.join(format!("{OWN}.0.lock")),
        ];
        // Of an earlier one; nobody listens there. tgtd's lock file stays: it is what tells a second tgtd.
        for left in [socket, &own] {
            remove_file(left)?;
        }
        let mut command = Command::new(&tool);
        command
            // In the foreground, with its log where ours is. A door must be given, or it opens two for the
            // whole world; this one, of loopback, is closed again before there is any target behind it.
            .args(["-f", "-C", "0", "--iscsi", "portal=127.0.0.1:0"])
            .env_clear()
            .env("TGT_IPC_SOCKET", directory.join(OWN))
            .stdin(Stdio::null());
        command::die_with_us(&mut command);
        let tgtd = command.spawn().map_err(Error::io("start", &tool))?;
        let mut daemon = Self {
            tgtd,
            control: Control::new(&own),
            files,
        };
        daemon.shut_the_door()?;
        relay::start(socket, own)?;
        Ok(daemon)
    }

    /// Waits for its first answer, and closes what it opened by itself.
    fn shut_the_door(&mut self) -> Result<()> {
        let until = Instant::now() + STARTS_WITHIN;
        let doors = loop {
            if let Some(status) = self.ended()? {
                return Err(Error::TargetEnded { status });
            }
            match self.control.portals() {
                Ok(doors) => break doors,
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        doors
            .into_iter()
            .try_for_each(|door| self.control.close_portal(door))
    }

    /// How tgtd ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.tgtd
            .try_wait()
            .map_err(Error::io("wait for", TGTD.name))
    }

    /// Ends tgtd: first the connections, then the targets, then itself. What does not end in time is killed.
    ///
    /// # Errors
    /// An I/O error of the kernel's only.
    pub fn stop(mut self) -> Result<()> {
        if let Err(error) = self.end_in_order() {
            tracing::warn!("tgtd is killed: {}", report(&error));
        } else {
            let until = Instant::now() + ENDS_WITHIN;
            let ended = command::wait_until(&mut self.tgtd, until);
            if ended.map_err(Error::io("wait for", TGTD.name))?.is_some() {
                tracing::info!("tgtd ended in order");
            }
        }
        Ok(())
    }

    fn end_in_order(&self) -> Result<()> {
        self.control.set_ready(false)?;
        for portal in self.control.portals()? {
            self.control.close_portal(portal)?;
        }
        for (tid, _) in self.control.names()? {
            self.control.disconnect(tid, |_| true)?;
            self.control.remove_target(tid)?;
        }
        self.control.end()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Errors: it has ended already, or the file is not there.
        let _ = self.tgtd.kill();
        let _ = self.tgtd.wait();
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

/// Whether the tgtd behind `socket` answers.
///
/// # Errors
/// [`Error::TargetSilent`].
pub fn answers(socket: &Path) -> Result<()> {
    Control::new(socket).is_ready().map(drop)
}

/// Makes the directory of the socket, for one user alone. Needs root, or to be that user.
///
/// # Errors
/// An I/O error.
pub fn prepare(socket: &Path, uid: u32, gid: u32) -> Result<()> {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(Error::io("make the directory", directory))?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))
        .map_err(Error::io("close", directory))?;
    chown(directory, Some(uid), Some(gid)).map_err(Error::io("give away", directory))
}

/// Whoever can enter the directory speaks with tgtd, and whoever can write there takes its place.
fn check_private(directory: &Path) -> Result<()> {
    let seen = fs::metadata(directory).map_err(Error::io("look at", directory))?;
    let ours = seen.uid() == rustix::process::geteuid().as_raw();
    if ours && seen.mode() & 0o7777 == 0o700 {
        return Ok(());
    }
    Err(Error::InvalidPath {
        path: types::shown(&directory.display().to_string()),
        why: "the directory of the socket is to be for this user alone (mode 0700)",
    })
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
