//! The few operations that make a change on disk last: the only place that renames or syncs.
//!
//! A change is durable when the file is synced *and* the directory that names it is synced
//! (fsync(2)); a rename is atomic but not durable until its directory is synced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};

use crate::error::{IoContext, Result};

/// Makes the names in `dir` durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .context("sync the directory", dir)
}

/// Makes the names in the directory of `path` durable.
pub fn sync_parent(path: &Path) -> Result<()> {
    sync_dir(
        path.parent()
            .expect("a path of the layout is below the disk's directory"),
    )
}

/// Creates `dir` (mode 0700) if it is not there, durably. Tells whether it was made.
pub fn create_dir(dir: &Path) -> Result<bool> {
    let made = create_work_dir(dir)?;
    if made {
        sync_parent(dir)?;
    }
    Ok(made)
}

/// Creates `dir` (mode 0700) if it is not there. Its name need not last: it is renamed before it
/// counts.
pub fn create_work_dir(dir: &Path) -> Result<bool> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).context("create the directory", dir),
    }
}

/// Creates a file of our own, empty, readable by the owner alone.
pub fn create_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .context("create", path)
}

/// A file that no directory knows, on the file system of `dir`: whatever ends this process, it is gone.
/// `flags` are added to those of open(2).
pub fn nameless(dir: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Gives a [`nameless`] file its name, which nothing may have yet. The caller syncs the file, and its directory
/// at its numbered step. By `/proc`, as open(2) says of `O_TMPFILE`: by the descriptor alone it needs a privilege.
pub fn name(file: &File, path: &Path) -> Result<()> {
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW).context("name", path)
}

/// Replaces the content of `path` as one step: readers see the old or the new, also after a power
/// cut. `path` with `.tmp` appended is the work file; a leftover of it is void.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = Path::new(&tmp);
    remove_file(tmp)?;
    if let Err(error) = write_new(tmp, content).and_then(|()| rename(tmp, path)) {
        // The old content stands; the work file would only confuse.
        let _ = fs::remove_file(tmp);
        return Err(error);
    }
    sync_parent(path)
}

/// Writes a new file and syncs its content; the caller syncs its directory at its numbered step.
pub fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = create_file(path)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .context("write", path)
}

/// Renames without syncing; the caller syncs the directory at its numbered step.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).context("rename", from)
}

/// The same, telling whether there was anything to rename.
pub fn rename_if_there(from: &Path, to: &Path) -> Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("rename", from),
    }
}

/// Removes a file if it is there.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

/// What is in a directory of the disk. One that somebody removed holds nothing: it is made again when
/// something is put into it.
pub fn list(dir: &Path) -> Result<Vec<fs::DirEntry>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context("list", dir)?,
    };
    entries.map(|entry| entry.context("list", dir)).collect()
}

/// Removes the work files that a crash left in a directory of ours: all that end in `.tmp`.
pub fn remove_work_files(dir: &Path) -> Result<()> {
    for entry in list(dir)? {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "tmp") {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes a directory of ours with the files in it, if it is there. Never follows a link.
pub fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", dir),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_leaves_only_the_new_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume.cfg");
        replace(&path, b"one").unwrap();
        File::create(dir.path().join("volume.cfg.tmp")).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn creating_a_directory_twice_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert!(create_dir(&path).unwrap());
        assert!(!create_dir(&path).unwrap());
    }
}
