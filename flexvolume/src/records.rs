//! State for later calls: `unmount` gets only a directory, and the machine may have rebooted since
//! `mount`.
//!
//! ```text
//! <state>/targets/<hash of the directory>.json   the record of one mounted directory
//! <state>/targets/<volume>.owed                  of one that is gone and whose publication is not given back
//! <state>/volumes/<volume>/mount                 where the volume is staged; its own record beside it
//! <state>/locks/…                                held only while a call works
//! ```
//!
//! A record is written (temporary file, fsync, rename, fsync of the directory) before the first
//! step of its mount and removed after the last step of its unmount, so that a killed process
//! leaves a record of all its leftovers. It is outside the directory of the pod, where the kubelet
//! takes every name for a volume.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use host::paths::create_anew;
use serde::{Deserialize, Serialize};
use types::{NodeId, VolumeName};

use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::options::{Options, Pod, Share};
use crate::target::Target;

/// The version of the record that this program writes.
const VERSION: u32 = 1;
/// The longest record read, in bytes: a path of 4 KiB, escaped, and a few names.
const RECORD_BYTES_MAX: u64 = 64 << 10;
const SUFFIX: &str = ".json";
/// What the name of a debt's record ends in.
const DEBT: &str = ".owed";
/// Debts that one call pays: the kubelet waits for it.
const DEBTS_PAID: usize = 8;

/// What the kubelet mounted the directory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Pod,
    /// All pods of the node (`mountdevice`).
    Device,
}

/// The record of one mounted directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    version: u32,
    pub(crate) target: PathBuf,
    pub(crate) volume: VolumeName,
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) pod: Pod,
    pub(crate) read_only: bool,
    #[serde(default)]
    pub(crate) share: Share,
    /// The node that the last unmount takes the publication back from; `None`: `detach` does that.
    #[serde(default)]
    pub(crate) published_to: Option<NodeId>,
}

impl Record {
    /// The record of a mount that is about to happen.
    pub(crate) fn new(target: &Target, kind: Kind, options: &Options) -> Self {
        Self {
            version: VERSION,
            target: target.path().to_owned(),
            volume: options.volume.clone(),
            kind,
            pod: options.pod.clone(),
            read_only: options.read_only,
            share: options.share,
            published_to: None,
        }
    }

    /// A record made up for a mount that has none.
    pub(crate) fn found(target: &Target, kind: Kind, volume: VolumeName) -> Self {
        Self {
            version: VERSION,
            target: target.path().to_owned(),
            volume,
            kind,
            pod: Pod::default(),
            read_only: false,
            share: Share::None,
            published_to: None,
        }
    }

    /// Whether a mount of one is what the other asks for.
    pub(crate) fn is_same_use(&self, other: &Self) -> bool {
        let of = |record: &Self| {
            let Self {
                volume,
                kind,
                read_only,
                share,
                ..
            } = record;
            (volume.clone(), *kind, *read_only, *share)
        };
        of(self) == of(other)
    }

    /// Its volume and how it is there, for an error.
    pub(crate) fn describe(&self) -> String {
        let how = if self.read_only {
            "read-only"
        } else {
            "for writing"
        };
        format!("{} {how}", self.volume)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct State(PathBuf);

impl State {
    /// Makes what is missing of it.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        for name in ["targets", "volumes", "locks"] {
            make_dirs(&directory.join(name))?;
        }
        Ok(Self(directory.to_owned()))
    }

    /// Where the volume is staged.
    pub(crate) fn staging_path(&self, volume: &VolumeName) -> PathBuf {
        self.volume_dir(volume).join("mount")
    }

    fn volume_dir(&self, volume: &VolumeName) -> PathBuf {
        self.0.join("volumes").join(volume.as_str())
    }

    /// Makes the directory that the volume is staged in.
    pub(crate) fn make_volume_dir(&self, volume: &VolumeName) -> Result<()> {
        make_dirs(&self.volume_dir(volume))
    }

    /// Removes it and what of ours is in it, empty as it must be by now.
    pub(crate) fn remove_volume_dir(&self, volume: &VolumeName) -> Result<()> {
        for path in [self.staging_path(volume), self.volume_dir(volume)] {
            match fs::remove_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The lock of a target.
    pub(crate) fn target_lock(&self, target: &Target) -> PathBuf {
        self.0.join("locks").join(format!("target-{}", target.id()))
    }

    /// The lock of a volume.
    pub(crate) fn volume_lock(&self, volume: &VolumeName) -> PathBuf {
        self.0.join("locks").join(format!("volume-{volume}"))
    }

    /// Removes the files of locks that nobody holds: what killed processes left.
    pub(crate) fn sweep_locks(&self) -> Result<()> {
        let directory = self.0.join("locks");
        let entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
        for entry in entries.flatten() {
            // Held for a moment; whoever wants it tries again.
            drop(Lock::try_acquire(&entry.path())?);
        }
        Ok(())
    }

    fn record_path(&self, target: &Target) -> PathBuf {
        self.0
            .join("targets")
            .join(format!("{}{SUFFIX}", target.id()))
    }

    /// The record of a target. One that cannot be understood is none: the kernel knows as well what
    /// is mounted there.
    pub(crate) fn load(&self, target: &Target) -> Result<Option<Record>> {
        let path = self.record_path(target);
        Ok(read(&path)?.filter(|record| record.target == target.path()))
    }

    /// Stores a record durably.
    pub(crate) fn store(&self, target: &Target, record: &Record) -> Result<()> {
        let path = self.record_path(target);
        let new = path.with_extension("json.new");
        let write = || {
            let mut file = create_anew(&new)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync_parent(&path)
        };
        write().map_err(Error::io("write the record", &path))
    }

    /// Removes the record of a target.
    pub(crate) fn remove(&self, target: &Target) -> Result<()> {
        let path = self.record_path(target);
        match fs::remove_file(&path).and_then(|()| sync_parent(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove the record", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn debt_path(&self, volume: &VolumeName) -> PathBuf {
        self.0.join("targets").join(format!("{volume}{DEBT}"))
    }

    /// Makes the record of what is gone from this node one of a debt: by a rename where there is one, which
    /// needs no room.
    pub(crate) fn owe(&self, record: &Record) -> Result<()> {
        let target = Target::new(&record.target)?;
        let debt = self.debt_path(&record.volume);
        if !self.record_path(&target).exists() {
            self.store(&target, record)?;
        }
        fs::rename(self.record_path(&target), &debt)
            .and_then(|()| sync_parent(&debt))
            .map_err(Error::io("rename the record to", &debt))
    }

    /// Whether the volume's publication is to be given back.
    pub(crate) fn owes(&self, volume: &VolumeName) -> bool {
        self.debt_path(volume).exists()
    }

    /// Some of the records of debts.
    pub(crate) fn debts(&self) -> Result<Vec<Record>> {
        let directory = self.0.join("targets");
        let entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
        let is_debt = |path: &PathBuf| path.to_string_lossy().ends_with(DEBT);
        let paths = entries.flatten().map(|entry| entry.path()).filter(is_debt);
        let mut found = Vec::new();
        for path in paths.take(DEBTS_PAID) {
            found.extend(read(&path)?);
        }
        Ok(found)
    }

    /// Removes the record of a debt: it is paid, or the volume is in use again.
    pub(crate) fn forgive(&self, volume: &VolumeName) -> Result<()> {
        let path = self.debt_path(volume);
        match fs::remove_file(&path).and_then(|()| sync_parent(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove the record", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The records of the volume at other targets, mounted or not.
    pub(crate) fn others(&self, record: &Record) -> Result<Vec<Record>> {
        let directory = self.0.join("targets");
        let entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("list", &directory))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            found.extend(read(&path)?);
        }
        found.retain(|other| other.volume == record.volume && other.target != record.target);
        Ok(found)
    }
}

/// Reads a record; `None` for none, and for what is none.
fn read(path: &Path) -> Result<Option<Record>> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read the record", path)(error)),
    }
    match serde_json::from_slice::<Record>(&bytes) {
        Ok(record) if record.version <= VERSION => Ok(Some(record)),
        Ok(record) => Err(Error::io("understand the record", path)(io::Error::other(
            format!(
                "it is of version {} and this program knows {VERSION}: install the newer one again",
                record.version
            ),
        ))),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a damaged record is passed over");
            Ok(None)
        }
    }
}

fn make_dirs(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .map_err(Error::io("create the directory", path))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &str, volume: &str) -> (Target, Record) {
        let target = Target::new(Path::new(target)).unwrap();
        let volume = VolumeName::new(volume).unwrap();
        let record = Record::found(&target, Kind::Pod, volume);
        (target, record)
    }

    #[test]
    fn a_record_is_found_again_by_its_target_and_by_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let (a, at_a) = record("/pods/a/v", "v");
        let (b, at_b) = record("/pods/b/v", "v");
        let (c, at_c) = record("/pods/c/w", "w");
        for (target, record) in [(&a, &at_a), (&b, &at_b), (&c, &at_c)] {
            state.store(target, record).unwrap();
            state.store(target, record).unwrap();
        }
        assert_eq!(state.load(&a).unwrap(), Some(at_a.clone()));
        assert_eq!(state.others(&at_a).unwrap(), vec![at_b]);
        state.remove(&b).unwrap();
        state.remove(&b).unwrap();
        assert_eq!(state.others(&at_a).unwrap(), Vec::new());
    }

    #[test]
    fn a_damaged_record_is_none_and_a_newer_one_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let (target, known) = record("/pods/a/v", "v");
        let write = |bytes: &[u8]| {
            File::create(state.record_path(&target))
                .unwrap()
                .write_all(bytes)
                .unwrap();
        };
        for damaged in [&b""[..], b"{", b"{}", b"\xff\xff", b"[]"] {
            write(damaged);
            assert_eq!(state.load(&target).unwrap(), None);
        }
        let newer = Record {
            version: VERSION + 1,
            ..known
        };
        write(&serde_json::to_vec(&newer).unwrap());
        assert!(state.load(&target).is_err());
    }

    #[test]
    fn a_debt_is_remembered_until_it_is_paid() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let (target, record) = record("/pods/a/v", "v");
        state.store(&target, &record).unwrap();
        for _ in 0..2 {
            state.owe(&record).unwrap();
            assert_eq!(state.load(&target).unwrap(), None);
            assert!(state.owes(&record.volume));
            assert_eq!(state.debts().unwrap(), vec![record.clone()]);
        }
        state.forgive(&record.volume).unwrap();
        state.forgive(&record.volume).unwrap();
        assert_eq!(state.debts().unwrap(), Vec::new());
    }
}
