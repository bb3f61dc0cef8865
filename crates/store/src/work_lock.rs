//! Who works on which work file: a lock per file, because data sources are processes of their own on a
//! disk that a manager serves.
//!
//! The lock is flock(2) on `tmp/<name>-<uuid>.lock`. It is taken before the first byte and kept
//! until the work file is deleted or handed over, or its process ends in any way. Its file has no
//! meaning without the lock, so a leftover is harmless, and the next process removes it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::durable;
use super::held::hold;
use crate::error::{Error, IoContext, Result};

/// The locks that this process holds, by the path of the lock file.
#[derive(Debug, Default)]
pub(super) struct WorkLocks {
    held: Mutex<BTreeMap<PathBuf, File>>,
}

impl WorkLocks {
    fn held(&self) -> MutexGuard<'_, BTreeMap<PathBuf, File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock, or finds that this process has it. `of` is the work file, for the error.
    pub(super) fn take(&self, lock: &Path, of: &Path) -> Result<()> {
        let mut held = self.held();
        if !held.contains_key(lock) {
            let file = try_lock(lock)?.ok_or_else(|| Error::WorkFileBusy(of.to_owned()))?;
            held.insert(lock.to_owned(), file);
        }
        Ok(())
    }

    /// Gives the lock back if this process has it.
    pub(super) fn give_back(&self, lock: &Path) -> Result<()> {
        let Some(file) = self.held().remove(lock) else {
            return Ok(());
        };
        // Removed while it is held: who opened it meanwhile finds that it is not the one at its path.
        let removed = durable::remove_file(lock);
        drop(file);
        removed
    }
}

/// Opens and locks; `None` when somebody else has the lock.
pub(super) fn try_lock(path: &Path) -> Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .context("open", path)?;
        if !hold(&file, path)? {
            return Ok(None);
        }
        // Its last holder may have removed it between the opening and the locking.
        let opened = file.metadata().context("inspect", path)?.ino();
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.ino() == opened => return Ok(Some(file)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("inspect", path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_for_one_until_it_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, of) = (dir.path().join("x.lock"), dir.path().join("x"));
        let (one, other) = (WorkLocks::default(), WorkLocks::default());
        one.take(&lock, &of).unwrap();
        one.take(&lock, &of).unwrap();
        let refused = other.take(&lock, &of).unwrap_err();
        assert!(
            refused.to_string().contains("already being created"),
            "{refused}"
        );
        one.give_back(&lock).unwrap();
        assert!(!lock.exists());
        other.take(&lock, &of).unwrap();
        drop(other);
        one.take(&lock, &of).unwrap();
    }
}
