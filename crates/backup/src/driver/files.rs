//! The system calls on a store's directory, blocking.
//!
//! Every path is resolved below the directory by the kernel (`openat2`, no links), as others write
//! there too. A write goes to a file beside its destination, is synced, and is renamed over it; then the
//! directories are synced: after a power cut the key has its old bytes or its new ones.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chunks::direct::begins_at_a_page;
use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Entry, Meta, Object};
use crate::{Error, Result, layout};

/// Most entries of one directory that a listing takes.
const ENTRIES_MAX: usize = 4_000_000;
/// How often a write makes the directories again that a removal takes away under it.
const ATTEMPTS: u32 = 16;
/// What direct writes are multiples of, in memory and in the file, wherever the disk is.
const PAGE: usize = 4096;
/// Bytes from which on a direct write is worth its two calls.
const DIRECT_MIN: usize = 256 << 10;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// How a file is written. Its bytes are durable before it has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// Over the one that is there, and the name is durable too.
    Replace,
    /// The same, if there is none.
    New,
    /// Over the one that is there; the name is durable once its folder is settled.
    Lazily,
}

/// The directory of a store.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) root: PathBuf,
    /// Of the address, where it must be a mount point.
    pub(super) mounted: Option<String>,
}

impl Files {
    /// The directory, if it is what it must be now.
    fn root(&self) -> Result<OwnedFd> {
        let at = || self.root.clone();
        let root = rustix::fs::open(&self.root, DIRECTORY, Mode::empty());
        let root = match (root, &self.mounted) {
            (Ok(root), _) => root,
            (Err(Errno::NOENT | Errno::NOTDIR), None) => {
                return Err(Error::NoDirectory { path: at() });
            }
            (Err(Errno::NOENT | Errno::NOTDIR), Some(address)) => {
                let address = address.clone();
                return Err(Error::NotMounted {
                    address,
                    point: at(),
                });
            }
            (Err(error), _) => return Err(self.failed("open", "", error)),
        };
        let Some(address) = &self.mounted else {
            return Ok(root);
        };
        let device = |stat: Stat| stat.st_dev;
        let inside = rustix::fs::fstat(&root).map(device);
        let outside = rustix::fs::statat(&root, "..", AtFlags::empty()).map(device);
        match (inside, outside) {
            (Ok(inside), Ok(outside)) if inside != outside => Ok(root),
            (Ok(_), Ok(_)) => Err(Error::NotMounted {
                address: address.clone(),
                point: at(),
            }),
            (Err(error), _) | (_, Err(error)) => Err(self.failed("open", "", error)),
        }
    }

    /// Opens what is at `key`, following no link.
    fn at(root: &OwnedFd, key: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let key = if key.is_empty() { "." } else { key };
        loop {
            match rustix::fs::openat2(root, key, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Something was renamed meanwhile.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    pub(super) fn get(&self, key: &str, most: u64) -> Result<Object> {
        let (file, meta) = self.open(key)?;
        let limit = |size| Error::TooLarge {
            key: key.to_owned(),
            size,
            limit: most,
        };
        if meta.size > most {
            return Err(limit(meta.size));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.size).unwrap_or_default());
        let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| self.io("read", key, error))?;
        let size = bytes.len() as u64;
        if size > most {
            return Err(limit(size));
        }
        Ok(Object {
            bytes: bytes.into(),
            meta: Meta { size, ..meta },
        })
    }

    pub(super) fn open(&self, key: &str) -> Result<(File, Meta)> {
        let root = self.root()?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = Self::at(&root, key, flags).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => Error::NoObject {
                key: key.to_owned(),
            },
            error => self.failed("open", key, error),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(|error| self.failed("open", key, error))?;
        let meta = meta(&stat).ok_or_else(|| self.failed("open", key, Errno::ISDIR))?;
        Ok((file.into(), meta))
    }

    pub(super) fn head(&self, key: &str) -> Result<Option<Meta>> {
        let root = self.root()?;
        let stat = Self::at(&root, key, OFlags::PATH).and_then(rustix::fs::fstat);
        match stat {
            Ok(stat) => Ok(meta(&stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.failed("look at", key, error)),
        }
    }

    /// Reads at most `most` bytes of an open file; empty: its end.
    pub(super) fn read(&self, file: &mut File, key: &str, most: usize) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity(most);
        file.take(most as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| self.io("read", key, error))?;
        Ok(bytes.into())
    }

    /// Writes a file. `false`: it is there, and is not to be replaced.
    pub(super) fn put(&self, key: &str, bytes: Bytes, how: Put) -> Result<bool> {
        let root = self.root()?;
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        let mut attempt = 0;
        let (made, file, tmp) = loop {
            attempt += 1;
            let made = Self::make_folder(&root, folder).and_then(|made| {
                let (file, tmp) = create(made.last().unwrap_or(&root), name)?;
                Ok((made, file, tmp))
            });
            match made {
                Ok(made) => break made,
                // Another program has just removed the directory, which was empty.
                Err(Errno::NOENT) if attempt < ATTEMPTS => {}
                Err(error) => return Err(self.failed("write", key, error)),
            }
        };
        let put = fill(file.into(), bytes);
        let put = put.and_then(|()| give_name(made.last().unwrap_or(&root), &tmp, name, how));
        if !matches!(put, Ok(true)) || how == Put::New {
            // What is left of it counts for nothing.
            let _ = rustix::fs::unlinkat(made.last().unwrap_or(&root), &tmp, AtFlags::empty());
        }
        let put = put.map_err(|error| self.failed("write", key, error))?;
        if !put || how == Put::Lazily {
            return Ok(put);
        }
        // From the file upwards: a directory that was there before costs next to nothing here.
        let above = std::iter::once(&root).chain(&made).rev();
        for folder in above {
            sync(folder).map_err(|error| self.failed("sync", key, error))?;
        }
        Ok(true)
    }

    /// Makes the names in some folders durable, and those of the folders.
    pub(super) fn settle(&self, folders: &[String]) -> Result<()> {
        let root = self.root()?;
        let mut names: BTreeSet<&str> = folders.iter().map(String::as_str).collect();
        // From the files upwards: the longest names first, and of those above each but once.
        while let Some(deepest) = names.iter().map(|name| name.matches('/').count()).max() {
            let level: Vec<&str> = names
                .extract_if(.., |name| name.matches('/').count() == deepest)
                .collect();
            for folder in level {
                Self::at(&root, folder, DIRECTORY)
                    .and_then(|opened| sync(&opened))
                    .map_err(|error| self.failed("sync", folder, error))?;
                names.extend(folder.rsplit_once('/').map(|(above, _)| above));
            }
        }
        sync(&root).map_err(|error| self.failed("sync", "", error))
    }

    /// The directories on the way to `folder`, made where they are missing.
    fn make_folder(root: &OwnedFd, folder: &str) -> Result<Vec<OwnedFd>, Errno> {
        let mut folders = Vec::new();
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            let above = folders.last().unwrap_or(root);
            let open = || Self::at(above, name, DIRECTORY);
            let opened = match open() {
                Err(Errno::NOENT) => match rustix::fs::mkdirat(above, name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => open(),
                    Err(error) => Err(error),
                },
                other => other,
            };
            folders.push(opened?);
        }
        Ok(folders)
    }

    /// Removes a file, and the directories that are empty then.
    pub(super) fn delete(&self, key: &str) -> Result<()> {
        let root = self.root()?;
        let failed = |error| self.failed("remove", key, error);
        let mut below = key;
        let mut is_file = true;
        while let Some((folder, name)) = below.rsplit_once('/') {
            let parent = match Self::at(&root, folder, DIRECTORY) {
                Ok(parent) => parent,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    (below, is_file) = (folder, false);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let flags = if is_file {
                AtFlags::empty()
            } else {
                AtFlags::REMOVEDIR
            };
            match rustix::fs::unlinkat(&parent, name, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) if is_file => return Err(failed(error)),
                // Not empty, or not ours to remove: both are fine.
                Err(_) => break,
            }
            // A block that comes back after a power cut is collected again; a cfg would name blocks.
            if is_file && layout::block_of(key).is_none() {
                sync(&parent).map_err(failed)?;
            }
            (below, is_file) = (folder, false);
            if below == layout::ROOT {
                break;
            }
        }
        Ok(())
    }

    /// The files and the names of the directories in a folder. A folder that is missing is empty.
    pub(super) fn list(&self, folder: &str) -> Result<(Vec<Entry>, Vec<String>)> {
        let root = self.root()?;
        let failed = |error| self.failed("list", folder, error);
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        let opened = match Self::at(&root, folder, DIRECTORY) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok((files, folders)),
            Err(error) => return Err(failed(error)),
        };
        for entry in rustix::fs::Dir::read_from(&opened).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed meanwhile.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                folders.push(name.to_owned());
            } else if let Some(meta) = meta(&stat) {
                let key = format!("{folder}/{name}");
                files.push(Entry { key, meta });
            }
            if files.len() + folders.len() > ENTRIES_MAX {
                return Err(Error::TooLarge {
                    key: folder.to_owned(),
                    size: (files.len() + folders.len()) as u64,
                    limit: ENTRIES_MAX as u64,
                });
            }
        }
        Ok((files, folders))
    }

    fn failed(&self, operation: &'static str, key: &str, error: Errno) -> Error {
        self.io(operation, key, error.into())
    }

    fn io(&self, operation: &'static str, key: &str, source: io::Error) -> Error {
        // What a file server that is away looks like.
        let away = [
            Errno::IO,
            Errno::STALE,
            Errno::NOTCONN,
            Errno::HOSTDOWN,
            Errno::TIMEDOUT,
        ];
        let errno = Errno::from_io_error(&source);
        if errno.is_some_and(|errno| away.contains(&errno)) {
            return Error::Unavailable {
                operation,
                key: if key.is_empty() {
                    self.root.display().to_string()
                } else {
                    key.to_owned()
                },
                why: source.to_string(),
            };
        }
        let path = if key.is_empty() {
            self.root.clone()
        } else {
            self.root.join(Path::new(key))
        };
        Error::File {
            operation,
            path,
            source,
        }
    }
}

/// Makes the file that becomes `name`, as other writers of the store name it: no such name is taken for
/// anything that is whole.
fn create(folder: &OwnedFd, name: &str) -> Result<(OwnedFd, String), Errno> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut nanoseconds = now.unwrap_or_default().as_nanos();
    loop {
        let tmp = format!("{name}.tmp.{nanoseconds}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::openat(folder, &tmp, flags | OFlags::CLOEXEC, mode) {
            Ok(file) => return Ok((file, tmp)),
            Err(Errno::EXIST) => nanoseconds += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Writes a file's bytes and makes them durable. Their memory is given back before the long wait for the disk.
fn fill(mut file: File, bytes: Bytes) -> Result<(), Errno> {
    let written = write_past_cache(&file, &bytes)
        .and_then(|written| file.write_all(&bytes[written..]))
        .and_then(|()| {
            drop(bytes);
            file.sync_all()
        });
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Gives a written file its name. `false`: it is taken, and is not to be replaced.
fn give_name(folder: &OwnedFd, tmp: &str, name: &str, how: Put) -> Result<bool, Errno> {
    if how != Put::New {
        return rustix::fs::renameat(folder, tmp, folder, name).map(|()| true);
    }
    match rustix::fs::linkat(folder, tmp, folder, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes what of `bytes` is whole pages past the kernel's cache, where the file system and the place of the bytes in
/// memory allow that, and says how many those are: nobody reads a block soon, and a copy of it costs more than
/// its checksum. The file's position is behind them.
fn write_past_cache(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
    let whole = bytes.len() - bytes.len() % PAGE;
    if whole < DIRECT_MIN || !begins_at_a_page(bytes) {
        return Ok(0);
    }
    let flags = rustix::fs::fcntl_getfl(file)?;
    if rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT).is_err() {
        return Ok(0);
    }
    let mut written = 0;
    while written < whole {
        match file.write(&bytes[written..whole]) {
            // A file system may end a write anywhere, and refuse the next one there.
            Ok(some) if some > 0 && some.is_multiple_of(PAGE) => written += some,
            Ok(some) => {
                written += some;
                break;
            }
            // An error of the disk comes again when the rest is written, and one of alignment does not.
            Err(_) => break,
        }
    }
    rustix::fs::fcntl_setfl(file, flags)?;
    Ok(written)
}

/// Makes the names in a directory last.
fn sync(folder: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::fsync(folder) {
        // A share whose protocol has no such call: its server does this by itself.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

/// `None`: not a regular file.
fn meta(stat: &Stat) -> Option<Meta> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    Some(Meta {
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        modified: Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH),
    })
}
