//! Mount points, opened once so that they cannot be swapped afterwards (as in CVE-2021-25741).
//!
//! A [`Place`] is an open parent directory and a name in it. Everything is done relative to that
//! directory and never follows a symbolic link in the last component. Links in the parent's path are
//! followed, once: kubelet's own directory often is one.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// The longest path taken, in bytes: `PATH_MAX` of Linux with its final NUL.
const PATH_MAX: usize = 4095;

/// What lies at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    Nothing,
    Directory,
    File,
    /// A symbolic link. Never used, never followed, never removed.
    Link,
    /// A device, socket or pipe.
    Special,
}

/// A name in an open directory.
#[derive(Debug)]
pub struct Place {
    parent: OwnedFd,
    name: OsString,
    /// The path without links, as mountinfo shows it.
    path: PathBuf,
}

impl Place {
    /// Opens the parent of `path`.
    ///
    /// # Errors
    /// `InvalidArgument` when the path is not absolute, holds `..`, or has no last component;
    /// `NotFound` when the parent does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let name = check(path)?;
        let parent_path = path
            .parent()
            .expect("a path with a last component has a parent");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat2(
            rustix::fs::CWD,
            parent_path,
            flags,
            Mode::empty(),
            ResolveFlags::NO_MAGICLINKS,
        )
        .map_err(Error::io("open the directory", parent_path))?;
        let canonical = std::fs::read_link(proc_path(&parent))
            .map_err(Error::io("resolve the directory", parent_path))?;
        Ok(Self {
            parent,
            path: canonical.join(&name),
            name,
        })
    }

    /// The path without links, as mountinfo shows it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the place is in.
    pub fn parent(&self) -> &OwnedFd {
        &self.parent
    }

    /// A path that leads here through the open directory, for system calls that take only paths.
    pub(crate) fn pinned_path(&self) -> PathBuf {
        proc_path(&self.parent).join(&self.name)
    }

    /// What lies here. Where something is mounted, that is what is mounted.
    pub fn occupant(&self) -> Result<Occupant> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rustix::fs::statat(&self.parent, &self.name, flags) {
            Ok(stat) => Ok(occupant(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(Occupant::Nothing),
            Err(errno) => Err(Error::io("inspect", &self.path)(errno)),
        }
    }

    /// Whether something may be mounted here. `false` is certain, and costs one system call where the list of
    /// mounts costs a line for each of the node's.
    pub(crate) fn may_be_mounted(&self) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        match rustix::fs::statx(&self.parent, &self.name, flags, StatxFlags::empty()) {
            Ok(stat) => {
                let root = StatxAttributes::MOUNT_ROOT;
                !stat.stx_attributes_mask.contains(root) || stat.stx_attributes.contains(root)
            }
            Err(errno) => errno != Errno::NOENT,
        }
    }

    /// Makes an empty directory to mount on, or takes the one that is there.
    pub fn make_directory(&self) -> Result<()> {
        match rustix::fs::mkdirat(&self.parent, &self.name, Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Error::io("create the directory", &self.path)(errno)),
        }
    }

    /// Makes an empty file to mount a device's node on, or takes the one that is there.
    pub fn make_file(&self) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o640);
        match rustix::fs::openat(&self.parent, &self.name, flags | OFlags::WRONLY, mode) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Error::io("create the file", &self.path)(errno)),
        }
    }

    /// Opens what lies here to be mounted on or bound from. It must be a `wanted`: what lies here
    /// may have changed since it was looked at, and only what was opened counts.
    pub fn open_occupant(&self, wanted: Occupant) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.parent, &self.name, flags, Mode::empty())
            .map_err(Error::io("open", &self.path))?;
        let stat = rustix::fs::fstat(&fd).map_err(Error::io("inspect", &self.path))?;
        let found = occupant(FileType::from_raw_mode(stat.st_mode));
        if found == wanted {
            Ok(fd)
        } else {
            Err(self.occupied(found))
        }
    }

    /// The error that says that `found` is in the way.
    pub fn occupied(&self, found: Occupant) -> Error {
        let what = match found {
            Occupant::Nothing => "missing",
            Occupant::Directory => "a directory",
            Occupant::File => "a file",
            Occupant::Link => "a symbolic link",
            Occupant::Special => "a special file",
        };
        Error::Occupied {
            path: self.path.clone(),
            what,
        }
    }

    /// Whether the directory here has entries. What is not a directory has none.
    pub fn has_entries(&self) -> Result<bool> {
        let fd = self.open_occupant(Occupant::Directory)?;
        let mut entries =
            std::fs::read_dir(proc_path(&fd)).map_err(Error::io("list", &self.path))?;
        Ok(entries.next().is_some())
    }

    /// Removes an empty directory or an empty file; nothing there is success.
    pub fn remove(&self) -> Result<()> {
        let what = match self.occupant()? {
            Occupant::Nothing => return Ok(()),
            Occupant::Directory => AtFlags::REMOVEDIR,
            Occupant::File if self.is_empty_file()? => AtFlags::empty(),
            Occupant::File => return Err(self.in_the_way("a file with content")),
            other => return Err(self.occupied(other)),
        };
        match rustix::fs::unlinkat(&self.parent, &self.name, what) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY) => Err(self.in_the_way("a directory with files in it")),
            Err(errno) => Err(Error::io("remove", &self.path)(errno)),
        }
    }

    fn is_empty_file(&self) -> Result<bool> {
        rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| stat.st_size == 0)
            .map_err(Error::io("inspect", &self.path))
    }

    /// The error for something that lies here and has to go first.
    pub(crate) fn in_the_way(&self, what: &'static str) -> Error {
        Error::Occupied {
            path: self.path.clone(),
            what,
        }
    }
}

fn occupant(file_type: FileType) -> Occupant {
    match file_type {
        FileType::Directory => Occupant::Directory,
        FileType::RegularFile => Occupant::File,
        FileType::Symlink => Occupant::Link,
        _ => Occupant::Special,
    }
}

/// Checks the text of a path, before anybody looks for it, and gives its last component.
///
/// # Errors
/// `InvalidArgument` when the path is not absolute, holds `..`, or has no last component.
pub fn check(path: &Path) -> Result<OsString> {
    let bytes = path.as_os_str().as_bytes();
    let why = if bytes.len() > PATH_MAX {
        "it is longer than 4095 bytes"
    } else if bytes.contains(&0) {
        "it holds a NUL byte"
    } else if !path.is_absolute() {
        "it is not absolute"
    } else if path.components().any(|c| matches!(c, Component::ParentDir)) {
        "it holds '..'"
    } else if let Some(name) = path.file_name() {
        return Ok(name.to_owned());
    } else {
        "it has no last component"
    };
    Err(invalid(path.as_os_str(), why))
}

fn invalid(path: &OsStr, why: &'static str) -> Error {
    Error::InvalidPath {
        path: path.to_string_lossy().chars().take(256).collect(),
        why,
    }
}

/// The path that leads to an open file.
pub(crate) fn proc_path(fd: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// The path that leads to an open file also from the children of this process.
pub(crate) fn process_path(fd: &impl AsRawFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()
}

/// The path of `path`, which must lie below `directory`, without links: the directory's own path may hold some,
/// what is below may not. For a path whose parent is missing, as it is.
///
/// # Errors
/// `InvalidArgument` when it lies elsewhere, or leads elsewhere.
pub fn below(directory: &Path, path: &Path) -> Result<PathBuf> {
    const OUTSIDE: &str = "it is not below the kubelet's directory (--kubelet-dir)";
    let name = check(path)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(Error::io("open the directory", directory))?;
    let real = std::fs::read_link(proc_path(&top))
        .map_err(Error::io("resolve the directory", directory))?;
    let parent = path.parent().unwrap_or(path);
    let Ok(rest) = parent
        .strip_prefix(directory)
        .or_else(|_| parent.strip_prefix(&real))
    else {
        return Err(invalid(path.as_os_str(), OUTSIDE));
    };
    if rest.as_os_str().is_empty() {
        return Ok(real.join(name));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&top, rest, flags, Mode::empty(), resolve) {
        Ok(_) | Err(Errno::NOENT) => Ok(real.join(rest).join(name)),
        Err(Errno::LOOP | Errno::XDEV) => {
            let why = "a symbolic link is part of the path below the kubelet's directory";
            Err(invalid(path.as_os_str(), why))
        }
        Err(errno) => Err(Error::io("open the directory", parent)(errno)),
    }
}

/// A new file of this process alone (0600) in place of a crash's leftover of that name. Of callers that may meet, the
/// one that holds their lock makes it.
///
/// # Errors
/// The leftover cannot be removed, or somebody else makes a file of that name.
pub fn create_anew(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Opens a volume's file: a regular file, its last component no link.
pub(crate) fn open_regular(path: &Path, writable: bool) -> Result<File> {
    check(path)?;
    open_regular_at(rustix::fs::CWD, path, path, writable)
}

/// The same of the file `path` in the open directory that it lies in.
pub(crate) fn open_regular_in(directory: &OwnedFd, path: &Path, writable: bool) -> Result<File> {
    let name = Path::new(path.file_name().unwrap_or_default());
    open_regular_at(directory.as_fd(), name, path, writable)
}

fn open_regular_at(at: BorrowedFd<'_>, name: &Path, path: &Path, writable: bool) -> Result<File> {
    let access = if writable {
        OFlags::RDWR
    } else {
        OFlags::RDONLY
    };
    // NONBLOCK: a pipe in the file's place must not hang us before we see what it is.
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(at, name, flags, Mode::empty())
        .map(File::from)
        .map_err(Error::io("open", path))?;
    let metadata = file.metadata().map_err(Error::io("inspect", path))?;
    if metadata.is_file() {
        return Ok(file);
    }
    Err(Error::io("use", path)(io::Error::new(
        io::ErrorKind::InvalidInput,
        "not a regular file",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Classify, ErrorKind};

    #[test]
    fn paths_that_can_lead_elsewhere_are_refused() {
        let long = format!("/{}", "a".repeat(5000));
        for bad in ["", "a/b", "/", "/a/../b", "/a/..", "..", "/a\0b", &long] {
            let error = Place::open(Path::new(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
            assert!(error.to_string().len() < 400);
        }
    }

    #[test]
    fn row_77_a_link_is_never_followed_and_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::os::unix::fs::symlink("/etc", &target).unwrap();
        let place = Place::open(&target).unwrap();
        assert_eq!(place.occupant().unwrap(), Occupant::Link);
        place.make_directory().unwrap();
        for wanted in [Occupant::Directory, Occupant::File] {
            assert!(matches!(
                place.open_occupant(wanted),
                Err(Error::Occupied { .. })
            ));
        }
        assert!(matches!(place.remove(), Err(Error::Occupied { .. })));
        assert!(target.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn links_in_the_parent_are_resolved_once() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let place = Place::open(&dir.path().join("link/x")).unwrap();
        assert_eq!(place.path(), real.join("x"));
    }

    #[test]
    fn row_150_only_what_lies_below_the_directory_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("data");
        std::fs::create_dir_all(real.join("pods/a/b")).unwrap();
        let kubelet = dir.path().join("kubelet");
        std::os::unix::fs::symlink(&real, &kubelet).unwrap();
        std::os::unix::fs::symlink("/etc", real.join("pods/out")).unwrap();
        std::os::unix::fs::symlink("a", real.join("pods/in")).unwrap();
        for path in ["pods/a/b/mount", "pods/missing/mount", "mount"] {
            assert_eq!(
                below(&kubelet, &kubelet.join(path)).unwrap(),
                real.join(path)
            );
            assert_eq!(below(&kubelet, &real.join(path)).unwrap(), real.join(path));
        }
        let outside = [
            "/etc/mount".into(),
            dir.path().join("mount"),
            dir.path().join("database/pods/mount"),
        ];
        let inside = ["pods/out/mount", "pods/in/mount", "pods/a/../../../mount"];
        for path in outside
            .into_iter()
            .chain(inside.map(|path| kubelet.join(path)))
        {
            let error = below(&kubelet, &path).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::InvalidArgument,
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn only_what_is_empty_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let place = Place::open(&path).unwrap();
        place.remove().unwrap();
        place.make_file().unwrap();
        place.remove().unwrap();
        place.make_directory().unwrap();
        File::create(path.join("precious")).unwrap();
        assert!(place.has_entries().unwrap());
        assert!(matches!(place.remove(), Err(Error::Occupied { .. })));
        assert!(path.join("precious").exists());
    }
}
