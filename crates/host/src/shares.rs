//! Shares of a network (NFS, CIFS), where backups are kept: mounted by the tool of the node, looked at, and taken
//! away.
//!
//! A server that is gone can hold up any call on its share for minutes, or for ever. So each such call is made by a
//! process of its own with a deadline, and for one share there is no more than one of them: one that cannot even be
//! killed holds up its share, and nothing else. Nothing here knows what is on a share.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use crate::command::{self, DIRECTORIES, Tool};
use crate::{Error, Result, bounded, mountinfo};

/// Mounts shares by the programs `mount.nfs4` and `mount.cifs`.
const MOUNT: Tool = Tool {
    name: "mount",
    package: "mount",
};
/// Options of each mount: the server may be anybody's.
const ALWAYS: &str = "nosuid,nodev,noexec";
/// What this program is started as to look at a share, and to take one away.
pub const COMMAND: &str = "share";
/// The words after [`COMMAND`]; the next one is the path.
const LOOK: &str = "look";
const DETACH: &str = "detach";
/// How long one attempt may take: a name is resolved, and a connection is made.
const MOUNT_WITHIN: Duration = Duration::from_secs(20);
/// How long a share may take to tell its size and its first name.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// How long a killed process is waited for.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// A share, and where it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The device argument of mount(8): `host:/export`, `//host/share`.
    pub source: String,
    /// `nfs4` or `cifs`.
    pub fs_type: String,
    /// Texts for `-o`, tried in this order. Without a secret: other processes can read them.
    pub attempts: Vec<String>,
    /// Where it is mounted. Its directory is made.
    pub point: PathBuf,
}

/// What is at the place of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing is mounted there.
    NotMounted,
    /// It answers.
    Alive,
    /// It is mounted and does not answer; why, for people.
    Dead(String),
}

/// Does what is to be done about one share.
#[derive(Debug)]
pub struct Mounter {
    mount: PathBuf,
    /// This program, which knows [`COMMAND`].
    own: PathBuf,
    within: Duration,
    look_within: Duration,
    /// The last process, which could not be killed.
    stuck: Option<Child>,
}

impl Mounter {
    /// One that uses mount(8) of this node.
    ///
    /// # Errors
    /// [`Error::ToolMissing`].
    pub fn new() -> Result<Self> {
        // Right also when the program on the disk was replaced meanwhile.
        Ok(Self::with(MOUNT.find()?, "/proc/self/exe".into()))
    }

    fn with(mount: PathBuf, own: PathBuf) -> Self {
        Self {
            mount,
            own,
            within: MOUNT_WITHIN,
            look_within: LOOK_WITHIN,
            stuck: None,
        }
    }

    /// Looks at what is at `point`, the last component of which is no link.
    pub fn look(&mut self, point: &Path) -> Result<State> {
        let mounts = mountinfo::read()?;
        if mountinfo::at(&mounts, point).is_none() {
            return Ok(State::NotMounted);
        }
        let own = self.own.clone();
        let arguments = [COMMAND.as_ref(), LOOK.as_ref(), point.as_os_str()];
        Ok(match self.run(&own, &arguments, self.look_within)? {
            Ok(()) => State::Alive,
            Err(said) => State::Dead(said),
        })
    }

    /// Mounts a share, in the first way that works. `credentials`: a file for the option of this name.
    ///
    /// # Errors
    /// [`Error::Share`] with what the last attempt said.
    pub fn mount(&mut self, share: &Share, credentials: Option<&Path>) -> Result<()> {
        let failed = |said| Error::Share {
            share: share.source.clone(),
            point: share.point.clone(),
            said,
        };
        let point = share.point.clone();
        let made = bounded::run(&share.point, self.look_within, move || {
            fs::create_dir_all(&point)
        });
        made?.map_err(Error::io("make the directory", &share.point))?;
        let mut last = "there is no way to mount it".to_owned();
        for attempt in &share.attempts {
            let mut options = OsString::from(attempt);
            options.push(if attempt.is_empty() { "" } else { "," });
            options.push(ALWAYS);
            if let Some(file) = credentials {
                options.push(",credentials=");
                options.push(file);
            }
            let arguments: [&OsStr; 7] = [
                "-t".as_ref(),
                share.fs_type.as_ref(),
                "-o".as_ref(),
                &options,
                "--".as_ref(),
                share.source.as_ref(),
                share.point.as_ref(),
            ];
            let mount = self.mount.clone();
            match self.run(&mount, &arguments, self.within)? {
                Ok(()) => return Ok(()),
                Err(said) => last = said,
            }
        }
        Err(failed(last))
    }

    /// Takes away what is mounted at `point`, from the tree at once.
    pub fn detach(&mut self, point: &Path) -> Result<()> {
        let own = self.own.clone();
        let arguments = [COMMAND.as_ref(), DETACH.as_ref(), point.as_os_str()];
        let done = self.run(&own, &arguments, self.look_within)?;
        done.map_err(|said| Error::Share {
            share: "a share that does not answer".to_owned(),
            point: point.to_owned(),
            said,
        })
    }

    /// Runs a program and says what it said if it failed.
    ///
    /// # Errors
    /// It was not started.
    fn run(
        &mut self,
        program: &Path,
        arguments: &[&OsStr],
        limit: Duration,
    ) -> Result<std::result::Result<(), String>> {
        if let Some(stuck) = &mut self.stuck {
            let ended = stuck.try_wait().map_err(Error::io("wait for", program))?;
            if ended.is_none() {
                let why = "an earlier process still hangs in the kernel because of it".to_owned();
                return Ok(Err(why));
            }
            self.stuck = None;
        }
        let (reader, writer) = std::io::pipe().map_err(Error::io("make a pipe for", program))?;
        let other = writer.try_clone();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", DIRECTORIES.join(":"))
            .env("LC_ALL", "C")
            // With the programs that it starts: mount.nfs4 does the work, and is what hangs.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(other.map_err(Error::io("make a pipe for", program))?)
            .stderr(writer);
        command::die_with_us(&mut command);
        let mut child = command.spawn().map_err(Error::io("run", program))?;
        drop(command);
        let (sender, output) = sync_channel(1);
        std::thread::spawn(move || sender.send(command::tail(reader)));
        let wait = |child: &mut Child, limit| {
            let ended = command::wait_until(child, Instant::now() + limit);
            ended.map_err(Error::io("wait for", program))
        };
        let Some(status) = wait(&mut child, limit)? else {
            let group = Pid::from_child(&child);
            // One that has just ended needs no end.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            if wait(&mut child, KILLED_WITHIN)?.is_none() {
                self.stuck = Some(child);
            }
            return Ok(Err(format!("no answer within {limit:?}")));
        };
        if status.success() {
            return Ok(Ok(()));
        }
        let said = output
            .recv_timeout(Duration::from_secs(1))
            .unwrap_or_default();
        Ok(Err(format!("{status}: {}", command::one_line(&said))))
    }
}

/// Does what [`COMMAND`] asks of this program: the words after it.
///
/// # Errors
/// The share does not answer, or cannot be taken away. Or it takes as long as it takes.
pub fn command(words: &[OsString]) -> Result<()> {
    let [verb, path] = words else {
        return Err(unknown());
    };
    let path = Path::new(path);
    match verb.to_str() {
        Some(LOOK) => look_at(path),
        Some(DETACH) => {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            rustix::mount::unmount(path, flags).map_err(Error::io("unmount", path))
        }
        _ => Err(unknown()),
    }
}

fn unknown() -> Error {
    Error::InvalidPath {
        path: COMMAND.to_owned(),
        why: "this program calls itself with these words; they are not for people",
    }
}

/// Asks the server something that no cache answers, and something that needs the right to read.
fn look_at(path: &Path) -> Result<()> {
    rustix::fs::statfs(path).map_err(Error::io("ask for the size of", path))?;
    let mut names = fs::read_dir(path).map_err(Error::io("list", path))?;
    let first = names.next().transpose();
    first.map_err(Error::io("list", path))?;
    Ok(())
}

#[cfg(test)]
mod tests;
