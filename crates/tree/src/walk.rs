//! Walks a directory of any depth by file descriptors, so that no path exceeds the limit of the
//! kernel. It owns the open directories, and must not know which properties of a file are kept.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use crate::error::{Error, Result, io};
use crate::node::NodeId;

/// How many directories are open at once; those above are opened again through `..`.
const OPEN: usize = 64;
/// The longest piece of a path that is given to the kernel at once (`PATH_MAX` is 4096).
const PIECE: usize = 3072;

/// A directory whose entries are being visited.
pub(super) struct Level {
    pub(super) id: NodeId,
    directory: Option<OwnedFd>,
    /// Device and inode, to know it again.
    inode: (u64, u64),
    names: std::vec::IntoIter<Vec<u8>>,
}

/// A file that was found.
pub(super) struct Entry {
    /// A short way to it, as long as its directory is open.
    pub(super) at: PathBuf,
    pub(super) stat: Stat,
    /// Directories and regular files are open: that proves that they can be read, and what else is
    /// asked of them needs no path.
    pub(super) opened: Option<OwnedFd>,
}

/// The short way to an open directory.
fn place(directory: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", directory.as_raw_fd()).into()
}

impl Entry {
    /// The directory `root`, or that to which this symbolic link points.
    pub(super) fn root(root: &Path) -> Result<Self> {
        let directory = open_directory(CWD, root, OFlags::empty()).map_err(io("open", root))?;
        let stat = rustix::fs::fstat(&directory)
            .map_err(|error| io("read the attributes of", root)(error.into()))?;
        Ok(Self {
            at: place(&directory),
            stat,
            opened: Some(directory),
        })
    }

    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Its descriptor, if it is a directory.
    pub(super) fn into_directory(self) -> Option<OwnedFd> {
        let directory = self.file_type() == FileType::Directory;
        self.opened.filter(|_| directory)
    }
}

impl Level {
    /// Reads the names of a directory.
    pub(super) fn new(id: NodeId, directory: OwnedFd, path: impl Fn() -> PathBuf) -> Result<Self> {
        let failed = |error| io("list", path())(error);
        let at = place(&directory);
        let stat = rustix::fs::fstat(&directory).map_err(|error| failed(error.into()))?;
        let mut names = Vec::new();
        for entry in at.read_dir().map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name().into_vec());
        }
        names.sort_unstable();
        Ok(Self {
            id,
            directory: Some(directory),
            inode: (stat.st_dev, stat.st_ino),
            names: names.into_iter(),
        })
    }

    /// The next name in it.
    pub(super) fn next_name(&mut self) -> Option<Vec<u8>> {
        self.names.next()
    }

    /// The file of that name.
    pub(super) fn entry(&self, name: &[u8], path: impl Fn() -> PathBuf) -> Result<Entry> {
        let short = Path::new(std::ffi::OsStr::from_bytes(name));
        match &self.directory {
            Some(directory) => find(directory, short, place(directory).join(short), path),
            None => find(CWD, &path(), path(), &path),
        }
    }
}

/// The file that `from` has under `name`; whatever takes its place meanwhile is neither followed nor
/// waited for.
fn find(from: impl AsFd, name: &Path, at: PathBuf, path: impl Fn() -> PathBuf) -> Result<Entry> {
    let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| io("read the attributes of", path())(error.into()))?;
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Some(OFlags::DIRECTORY),
        FileType::RegularFile => Some(OFlags::NONBLOCK),
        _ => None,
    };
    let open = |flags: OFlags| {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&from, name, flags, Mode::empty())
            .map_err(|error| io("open", path())(error.into()))
    };
    let opened = flags.map(open).transpose()?;
    Ok(Entry { at, stat, opened })
}

/// Goes into a directory; the highest of those that are open is closed when they are many.
pub(super) fn descend(levels: &mut Vec<Level>, level: Level) {
    if let Some(index) = levels.len().checked_sub(OPEN) {
        levels[index].directory = None;
    }
    levels.push(level);
}

/// Leaves the last directory for that above it, and opens this again if it was closed.
pub(super) fn ascend(levels: &mut Vec<Level>, path: impl Fn(NodeId) -> PathBuf) -> Result<()> {
    let (Some(left), Some(above)) = (levels.pop(), levels.last_mut()) else {
        return Ok(());
    };
    let (Some(left), None) = (left.directory, &above.directory) else {
        return Ok(());
    };
    let failed = |error: std::io::Error| io("open", path(above.id))(error);
    let directory = open_directory(&left, Path::new(".."), OFlags::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&directory).map_err(|error| failed(error.into()))?;
    if (stat.st_dev, stat.st_ino) != above.inode {
        return Err(Error::Changed {
            path: path(above.id),
        });
    }
    above.directory = Some(directory);
    Ok(())
}

/// Opens a file for reading, however long its path is.
pub(super) fn open(path: &Path) -> Result<File> {
    let failed = |error: rustix::io::Errno| io("open", path)(error.into());
    let mut rest = path.as_os_str().as_bytes();
    let mut directory: Option<OwnedFd> = None;
    while rest.len() > PIECE {
        let Some(slash) = rest[..PIECE].iter().rposition(|byte| *byte == b'/') else {
            break;
        };
        let (piece, after) = rest.split_at(slash + 1);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let piece = Path::new(std::ffi::OsStr::from_bytes(piece));
        let next = match &directory {
            Some(directory) => rustix::fs::openat(directory, piece, flags, Mode::empty()),
            None => rustix::fs::openat(CWD, piece, flags, Mode::empty()),
        };
        (directory, rest) = (Some(next.map_err(failed)?), after);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let last = Path::new(std::ffi::OsStr::from_bytes(rest));
    let file = match &directory {
        Some(directory) => rustix::fs::openat(directory, last, flags, Mode::empty()),
        None => rustix::fs::openat(CWD, last, flags, Mode::empty()),
    };
    Ok(file.map_err(failed)?.into())
}

fn open_directory(from: impl AsFd, path: &Path, flags: OFlags) -> std::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(from, path, flags, Mode::empty())?)
}
