//! A directory that can hang and fail on command, as a mounted server does that is gone: a FUSE file system that
//! shows another directory.
//!
//! A process cannot be killed while the file system has a call of it (the kernel waits for the answer, as of a network
//! file system that is mounted `hard`).

mod mirror;
mod table;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};

use crate::{Sandbox, leftovers, wait};
use mirror::Mirror;

/// How the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Well,
    /// It answers nothing.
    Hangs,
    /// Every answer is EIO, as after the time of a `soft` mount.
    Fails,
    /// Reading works; what writes gets EIO, and half of the bytes may be there.
    FailsWrites,
    /// Reading works; what needs room gets ENOSPC.
    Full,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    health: Health,
    /// How many calls wait for it to get well.
    waiting: usize,
}

/// A mounted one; dropping it ends the mount, whatever waits for it.
#[derive(Debug)]
pub struct StuckDirectory {
    mount_point: PathBuf,
    below: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

impl StuckDirectory {
    /// Mounts one that is well and empty at a directory of the sandbox, and makes the directory.
    pub fn mount(sandbox: &Sandbox, name: &str) -> Self {
        Self::mount_at(sandbox, name, sandbox.make_dir(name))
    }

    /// The same at a directory that is there.
    pub fn mount_at(sandbox: &Sandbox, name: &str, mount_point: PathBuf) -> Self {
        let below = sandbox.make_dir(format!("{name}.below"));
        let state = State {
            health: Health::Well,
            waiting: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let mirror = Mirror::new(below.clone(), Arc::clone(&shared));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("stuck".to_owned())];
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(mirror, &mount_point, &config);
        let session = session.unwrap_or_else(|error| panic!("mount a FUSE file system: {error}"));
        wait::until("the directory is mounted", || {
            leftovers::mounts_below(&mount_point)
                .contains(&mount_point)
                .then_some(())
        });
        Self {
            mount_point,
            below,
            shared,
            session: Some(session),
        }
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.mount_point
    }

    /// The directory that it shows: it never hangs.
    pub fn below(&self) -> &Path {
        &self.below
    }

    /// From now on it is like this.
    pub fn set(&self, health: Health) {
        locked(&self.shared.state).health = health;
        self.shared.changed.notify_all();
    }

    /// Waits until somebody waits for it.
    #[track_caller]
    pub fn wait_for_a_victim(&self) {
        wait::until("somebody waits for the server", || {
            (locked(&self.shared.state).waiting > 0).then_some(())
        });
    }
}

impl Drop for StuckDirectory {
    fn drop(&mut self) {
        self.set(Health::Fails);
        // Whoever still has a file open there keeps it, and the name is free again.
        let detach = rustix::mount::UnmountFlags::DETACH;
        if let Err(error) = rustix::mount::unmount(&self.mount_point, detach) {
            eprintln!("cannot unmount {}: {error}", self.mount_point.display());
        }
        // Its own unmount finds nothing any more.
        drop(self.session.take());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{self, Write};

    use fuser::Errno;

    use super::*;
    use crate::{Need, needs};

    #[test]
    fn it_shows_what_is_below_and_hangs_and_fails_on_command() {
        needs!(Need::Root, Need::Fuse);
        let sandbox = Sandbox::new("stuck");
        let stuck = StuckDirectory::mount(&sandbox, "server");
        let (deep, file) = (stuck.dir().join("a/b"), stuck.dir().join("a/b/c.tmp"));
        fs::create_dir_all(&deep).unwrap();
        File::create(&file)
            .unwrap()
            .write_all(&vec![7; 3 << 20])
            .unwrap();
        File::open(&file).unwrap().sync_all().unwrap();
        fs::rename(&file, deep.join("c")).unwrap();
        assert_eq!(
            fs::read(stuck.below().join("a/b/c")).unwrap(),
            vec![7; 3 << 20]
        );
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
        assert_eq!(fs::read(deep.join("c")).unwrap().len(), 3 << 20);
        stuck.set(Health::Full);
        let full = File::create(deep.join("d")).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        stuck.set(Health::Fails);
        let failed = fs::read(deep.join("c")).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(Errno::EIO.code()));
        stuck.set(Health::Hangs);
        let reading = deep.join("c");
        let reader = std::thread::spawn(move || fs::read(reading).unwrap().len());
        stuck.wait_for_a_victim();
        assert!(!reader.is_finished());
        stuck.set(Health::Well);
        assert_eq!(reader.join().unwrap(), 3 << 20);
        // It goes also while somebody waits.
        stuck.set(Health::Hangs);
        let path = deep.join("c");
        let waiting = std::thread::spawn(move || fs::read(path).is_err());
        stuck.wait_for_a_victim();
        let mount_point = stuck.dir().to_owned();
        drop(stuck);
        assert!(waiting.join().unwrap());
        sandbox.assert_nothing_attached(&mount_point);
    }
}
