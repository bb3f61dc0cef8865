//! The record beside a staging path: the request, and the lock of the volume.
//!
//! The file is `<parent of the staging path>/<volume>.longhorn.json`, outside of the mount, in a
//! directory that the kubelet gives every volume and removes after unstage, when the record is
//! gone. The file itself is locked (flock), so that two processes never work on one volume at once.
//! An empty or unreadable record serves only as a lock.
//!
//! Replacing the record keeps the lock: the new file is locked before it is renamed over the old
//! one. A process that then gets the lock of the old file detects that the file is no longer at the
//! path.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use types::VolumeName;

use super::{Access, StageRequest};
use crate::paths::{Place, create_anew, proc_path};
use crate::{Error, Result};

/// The version of the record that this program writes.
const VERSION: u32 = 1;
/// The longest record read, in bytes: two paths of 4 KiB and CSI's 4 KiB of mount flags, escaped.
const SIZE_MAX: u64 = 64 << 10;
/// How often the record may be replaced under us before we say that it is busy.
const ATTEMPTS_MAX: u32 = 16;
/// What follows the name of the volume in the name of the record.
pub(super) const SUFFIX: &str = ".longhorn.json";

/// What was asked for when the volume was staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    version: u32,
    pub(super) volume: VolumeName,
    pub(super) file: PathBuf,
    pub(super) staging_path: PathBuf,
    pub(super) kind: Kind,
    pub(super) read_only: bool,
    #[serde(default)]
    pub(super) flags: Vec<String>,
}

/// The kind of access that a volume is staged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Mount,
    Block,
}

impl Kind {
    pub(super) fn of(access: &Access) -> Self {
        match access {
            Access::Mount { .. } => Self::Mount,
            Access::Block => Self::Block,
        }
    }

    /// In words, for an error.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Mount => "as a mounted file system",
            Self::Block => "as a block device",
        }
    }
}

impl Record {
    /// The record of a request.
    pub(super) fn new(request: &StageRequest) -> Self {
        let mut flags = match &request.access {
            Access::Mount { flags, .. } => flags.clone(),
            Access::Block => Vec::new(),
        };
        flags.sort();
        flags.dedup();
        Self {
            version: VERSION,
            volume: request.volume.name.clone(),
            file: request.volume.file.clone(),
            staging_path: request.staging_path.clone(),
            kind: Kind::of(&request.access),
            read_only: request.read_only || flags.iter().any(|flag| flag == "ro"),
            flags,
        }
    }
}

/// The locked record of a volume. Dropping it unlocks.
#[derive(Debug)]
pub(super) struct RecordLock {
    /// The directory that the record lies in, as an open file.
    directory: PathBuf,
    path: PathBuf,
    shown: PathBuf,
    file: File,
    /// What it held when it was locked or last stored.
    record: Option<Record>,
}

impl RecordLock {
    /// Locks the record of `volume` beside the staging path, and creates it empty if it is missing.
    ///
    /// # Errors
    /// [`Error::Busy`] when another thread or process has it.
    pub(super) fn acquire(staging: &Place, volume: &VolumeName) -> Result<Self> {
        // Relative to the open directory: a path may lead elsewhere by the time it is used.
        let directory = proc_path(staging.parent());
        let name = format!("{volume}{SUFFIX}");
        let path = directory.join(&name);
        let shown = staging.path().with_file_name(&name);
        for _ in 0..ATTEMPTS_MAX {
            let file = open(&path).map_err(Error::io("open the record", &shown))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(errno) => return Err(Error::io("lock the record", &shown)(errno)),
            }
            if is_at(&file, &path).map_err(Error::io("inspect the record", &shown))? {
                let record = read(&file, &shown, volume)?;
                return Ok(Self {
                    directory,
                    path,
                    shown,
                    file,
                    record,
                });
            }
        }
        Err(Error::Busy(volume.clone()))
    }

    /// What the record says; `None` when it says nothing.
    pub(super) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    pub(super) fn store(&mut self, record: Record) -> Result<()> {
        if self.record.as_ref() == Some(&record) {
            return Ok(());
        }
        self.file = self
            .replace(&record)
            .map_err(Error::io("write the record", &self.shown))?;
        self.record = Some(record);
        Ok(())
    }

    fn replace(&self, record: &Record) -> io::Result<File> {
        let new = self.path.with_extension("json.new");
        let mut file = create_anew(&new)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        self.sync_directory()?;
        Ok(file)
    }

    /// Removes the record, and with it the lock.
    pub(super) fn remove(self) -> Result<()> {
        let failed = |error| Error::io("remove the record", &self.shown)(error);
        for path in [self.path.with_extension("json.new"), self.path.clone()] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        self.sync_directory().map_err(failed)
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

/// Unlocks by hand: closing is not enough while a child of another thread, between its fork and its
/// exec, holds a copy of the file.
impl Drop for RecordLock {
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_follow = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
}

/// Whether `file` is still what lies at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, there) = (file.metadata()?, std::fs::symlink_metadata(path));
    match there {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read(file: &File, shown: &Path, volume: &VolumeName) -> Result<Option<Record>> {
    let mut bytes = Vec::new();
    file.take(SIZE_MAX)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read the record", shown))?;
    let record = parse(&bytes).filter(|record| record.volume == *volume);
    if record.is_none() && !bytes.is_empty() {
        // The kernel's state is the truth; the record only adds to it.
        tracing::warn!(path = %shown.display(), "record is not readable and is passed over");
    }
    Ok(record)
}

fn parse(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice::<Record>(bytes)
        .ok()
        .filter(|record| record.version == VERSION)
}

/// The record of `volume` beside `staging_path`, read without its lock.
pub(super) fn peek(staging_path: &Path, volume: &VolumeName) -> Option<Record> {
    let file = File::open(staging_path.with_file_name(format!("{volume}{SUFFIX}"))).ok()?;
    let mut bytes = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staging::NodeVolume;
    use types::ByteSize;

    fn request(directory: &Path) -> StageRequest {
        StageRequest {
            volume: NodeVolume {
                name: VolumeName::new("pvc-1").unwrap(),
                file: "/disk/volumes/pvc-1/volume".into(),
                size: ByteSize(1 << 20),
                has_source: false,
                part: None,
            },
            staging_path: directory.join("globalmount"),
            access: Access::Block,
            read_only: false,
            mkfs_options: String::new(),
            check: crate::staging::Check::default(),
        }
    }

    #[test]
    fn one_volume_has_one_worker() {
        let directory = tempfile::tempdir().unwrap();
        let request = request(directory.path());
        let place = Place::open(&request.staging_path).unwrap();
        let name = &request.volume.name;
        let mut lock = RecordLock::acquire(&place, name).unwrap();
        assert!(matches!(
            RecordLock::acquire(&place, name),
            Err(Error::Busy(_))
        ));
        // Replacing the record does not let anybody in.
        lock.store(Record::new(&request)).unwrap();
        assert!(matches!(
            RecordLock::acquire(&place, name),
            Err(Error::Busy(_))
        ));
        drop(lock);
        let lock = RecordLock::acquire(&place, name).unwrap();
        assert_eq!(lock.record(), Some(&Record::new(&request)));
        assert_eq!(peek(&request.staging_path, name).as_ref(), lock.record());
        lock.remove().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_broken_record_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let request = request(directory.path());
        let place = Place::open(&request.staging_path).unwrap();
        let path = directory.path().join("pvc-1.longhorn.json");
        for text in ["", "{", "{}", "[1]", r#"{"version":9,"volume":"pvc-1"}"#] {
            File::create(&path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            let lock = RecordLock::acquire(&place, &request.volume.name).unwrap();
            assert_eq!(lock.record(), None, "{text}");
        }
    }
}
