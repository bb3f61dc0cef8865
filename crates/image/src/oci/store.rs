//! The files of an image: in a directory, or in a tar archive that is not unpacked.
//!
//! A name leads only to a regular file inside: in a directory the kernel resolves it beneath
//! (openat2(2), RESOLVE_BENEATH), in an archive links are followed by name among its own entries.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::{Error, MANIFEST_LIMIT};
use crate::layer::tar::{Entry, Kind, Tar, TarError};

/// The most entries of an archive; an image of 127 layers has some five hundred.
const ENTRIES_MAX: usize = 1 << 16;
/// The longest name that is kept (PATH_MAX).
const NAME_MAX: usize = 4096;
/// How many links a name may lead through.
const LINKS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(OwnedFd),
    Archive {
        file: Arc<File>,
        entries: BTreeMap<String, Stored>,
    },
}

#[derive(Debug, Clone)]
enum Stored {
    File { offset: u64, size: u64 },
    Link(String),
}

/// A part of a file as a reader of its own.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    pub(super) left: u64,
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if n == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(&mut buf[..n], self.at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Opens `relative` below the directory `root`: symbolic links may lead on inside of it, never out.
pub fn open_beneath(root: &Path, relative: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = openat2(
        CWD,
        root,
        flags | OFlags::DIRECTORY,
        Mode::empty(),
        ResolveFlags::empty(),
    )?;
    beneath(directory, relative)
}

fn beneath(directory: impl AsFd, relative: &Path) -> io::Result<File> {
    // Without waiting, or a fifo would hold us for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(directory, relative, flags, Mode::empty(), resolve)?.into())
}

impl Store {
    pub(super) fn directory(file: File, path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        let is_directory = file.metadata().map(|metadata| metadata.is_dir());
        match is_directory {
            Ok(true) => Ok(Self {
                path,
                place: Place::Directory(file.into()),
            }),
            Ok(false) => {
                let source = io::ErrorKind::NotADirectory.into();
                Err(Error::Io {
                    operation: "open the layout",
                    path,
                    source,
                })
            }
            Err(source) => Err(Error::Io {
                operation: "open the layout",
                path,
                source,
            }),
        }
    }

    /// Reads the names in a tar archive; what they name stays where it is.
    pub(super) fn archive(mut file: File, path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        let failed = |source| Error::Io {
            operation: "read",
            path: path.clone(),
            source,
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::Archive {
                path,
                why: "it is not a regular file",
            });
        }
        let mut head = [0; 4];
        let read = file.read_at(&mut head, 0).map_err(failed)?;
        let head = &head[..read];
        if head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(Error::Archive {
                path,
                why: "it is compressed; unpack it first (gunzip, zstd -d)",
            });
        }
        file.rewind().map_err(failed)?;
        let clone = file.try_clone().map_err(failed)?;
        let entries = names(clone, metadata.len()).map_err(|error| match error {
            TarError::Read(source) => failed(source),
            TarError::Invalid(why) => Error::Archive {
                path: path.clone(),
                why,
            },
        })?;
        Ok(Self {
            path,
            place: Place::Archive {
                file: Arc::new(file),
                entries,
            },
        })
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        match &self.place {
            Place::Directory(directory) => beneath(directory, name.as_ref()).is_ok(),
            Place::Archive { entries, .. } => entries.contains_key(name),
        }
    }

    /// Opens a file by its name inside.
    pub(super) fn open(&self, name: &str) -> Result<Section, Error> {
        let missing = || Error::Missing {
            path: self.path.clone(),
            part: name.to_owned(),
        };
        match &self.place {
            Place::Directory(directory) => {
                let failed = |source: io::Error| match source.kind() {
                    io::ErrorKind::NotFound => missing(),
                    _ => Error::Io {
                        operation: "open",
                        path: self.path.join(name),
                        source,
                    },
                };
                let file = beneath(directory, name.as_ref()).map_err(failed)?;
                let metadata = file.metadata().map_err(failed)?;
                if !metadata.is_file() {
                    return Err(missing());
                }
                Ok(Section {
                    file: Arc::new(file),
                    at: 0,
                    left: metadata.len(),
                })
            }
            Place::Archive { file, entries } => {
                let (offset, size) = resolve(entries, name).ok_or_else(missing)?;
                Ok(Section {
                    file: Arc::clone(file),
                    at: offset,
                    left: size,
                })
            }
        }
    }

    /// Reads a whole document.
    pub(super) fn read(&self, name: &str, what: &'static str) -> Result<Vec<u8>, Error> {
        let mut section = self.open(name)?;
        let size = section.left;
        if size > MANIFEST_LIMIT {
            return Err(Error::TooLarge {
                what,
                size,
                limit: MANIFEST_LIMIT,
            });
        }
        let mut bytes = Vec::new();
        let path = || self.path.join(name);
        let failed = |source| Error::Io {
            operation: "read",
            path: path(),
            source,
        };
        section.read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

/// Where the file lies that a name leads to.
fn resolve(entries: &BTreeMap<String, Stored>, name: &str) -> Option<(u64, u64)> {
    let mut name = normal(name.as_bytes(), "")?;
    for _ in 0..=LINKS_MAX {
        match entries.get(&name)? {
            Stored::File { offset, size } => return Some((*offset, *size)),
            Stored::Link(target) => name.clone_from(target),
        }
    }
    None
}

/// All names of an archive; of several equal ones the last counts, as when it is unpacked.
fn names(file: File, size: u64) -> Result<BTreeMap<String, Stored>, TarError> {
    let mut tar = Tar::new(BufReader::with_capacity(64 << 10, file));
    let mut entries = BTreeMap::new();
    while let Some(entry) = tar.next()? {
        let Some(name) = normal(&entry.path, "") else {
            continue;
        };
        let Some(stored) = stored(&entry, &name) else {
            continue;
        };
        if let Stored::File {
            offset,
            size: stored,
        } = stored
            && offset.checked_add(stored).is_none_or(|end| end > size)
        {
            return Err(TarError::Invalid("it ends in the middle of a file"));
        }
        entries.insert(name, stored);
        if entries.len() > ENTRIES_MAX {
            return Err(TarError::Invalid("it has more entries than any image"));
        }
    }
    Ok(entries)
}

fn stored(entry: &Entry, name: &str) -> Option<Stored> {
    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
    match entry.kind {
        Kind::File if entry.sparse.is_none() => Some(Stored::File {
            offset: entry.offset,
            size: entry.stored,
        }),
        Kind::Symlink => normal(&entry.link, directory).map(Stored::Link),
        Kind::HardLink => normal(&entry.link, "").map(Stored::Link),
        _ => None,
    }
}

/// A path as the key of an entry: relative to `directory`, without `.` and `..`; `None` when it
/// leads out of the archive or cannot be one of ours.
fn normal(path: &[u8], directory: &str) -> Option<String> {
    let path = std::str::from_utf8(path)
        .ok()
        .filter(|path| path.len() <= NAME_MAX)?;
    let mut parts: Vec<&str> = directory
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    if path.starts_with('/') {
        parts.clear();
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
