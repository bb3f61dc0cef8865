//! The disks of this node, and the files of volumes on them.
//!
//! A disk is found by its UUID among the directories given at start, and a file by the name of the
//! volume. No path from outside is ever opened.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, ResolveFlags, flock};
use rustix::io::Errno;
use types::{ByteSize, DiskUuid, VolumeName};

use crate::{Error, Result, bounded};

/// The file that makes a directory a disk.
const DISK_CONFIG: &str = "longhorn-disk.cfg";
/// A disk's file holds one uuid; a larger one is something else.
const DISK_CONFIG_BYTES: u64 = 4096;

/// The disks of this node.
#[derive(Debug, Clone)]
pub struct Disks(Vec<PathBuf>);

/// The file of a volume on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFile {
    pub path: PathBuf,
    pub length: ByteSize,
}

/// A directory that should be a disk.
#[derive(Debug)]
pub struct DiskState {
    pub path: PathBuf,
    /// Its uuid, the size of its file system, and what of that is free for an ordinary process; or why it is no
    /// disk now.
    pub found: Result<(DiskUuid, ByteSize, ByteSize)>,
}

/// How many volumes of a disk are listed.
const VOLUMES_MAX: usize = 10_000;

/// How long a disk may take to say what it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The place of a volume's file below its disk: what the manager reports as a replica's path.
pub fn volume_path(volume: &VolumeName) -> PathBuf {
    ["volumes", volume.as_str(), "volume"].iter().collect()
}

impl Disks {
    /// The disks in these directories. They are looked at each time they are needed: one may be
    /// mounted later than the program starts.
    pub const fn new(directories: Vec<PathBuf>) -> Self {
        Self(directories)
    }

    /// The file of a volume on the disk with this uuid.
    ///
    /// # Errors
    /// `FailedPrecondition` when no directory is that disk; `NotFound` when it has no such volume.
    pub fn find(&self, volume: &VolumeName, disk: &DiskUuid) -> Result<VolumeFile> {
        let directory = self.disk(volume, disk)?;
        let path = directory.join(volume_path(volume));
        let length = regular_file(&directory, volume)?;
        Ok(VolumeFile { path, length })
    }

    /// The file of a volume on the only disk of this node that has one of its name.
    ///
    /// # Errors
    /// `NotFound` when no disk has it; `FailedPrecondition` when several have.
    pub fn find_anywhere(&self, volume: &VolumeName) -> Result<(DiskUuid, VolumeFile)> {
        let mut found: Option<(DiskUuid, VolumeFile)> = None;
        for directory in &self.0 {
            let path = directory.join(volume_path(volume));
            let here =
                disk_uuid(directory).and_then(|disk| Ok((disk, regular_file(directory, volume)?)));
            match here {
                Ok(_) if found.is_some() => {
                    return Err(Error::SeveralDisks {
                        volume: volume.clone(),
                    });
                }
                Ok((disk, length)) => found = Some((disk, VolumeFile { path, length })),
                Err(Error::VolumeMissing { .. }) => {}
                // One bad disk must not hide the others.
                Err(error) => tracing::warn!("{}", types::report(&error)),
            }
        }
        found.ok_or_else(|| Error::VolumeMissing {
            volume: volume.clone(),
            file: volume_path(volume),
        })
    }

    /// Each disk as it is now. One that does not answer within 5 seconds says so.
    pub fn look(&self) -> Vec<DiskState> {
        let look = |directory: &PathBuf| {
            let path = directory.clone();
            let asked = bounded::run(directory, ANSWER_WITHIN, move || {
                let uuid = disk_uuid(&path)?;
                let stat = rustix::fs::statvfs(&path).map_err(Error::io("inspect", &path))?;
                let bytes = |blocks: u64| ByteSize(blocks.saturating_mul(stat.f_frsize));
                Ok((uuid, bytes(stat.f_blocks), bytes(stat.f_bavail)))
            });
            DiskState {
                path: directory.clone(),
                found: asked.and_then(|answer| answer),
            }
        };
        self.0.iter().map(look).collect()
    }

    /// What `look` says of each volume of each disk. A disk that does not answer in time has none now.
    pub(crate) fn each_volume<T: Send + 'static>(
        &self,
        look: fn(&Path) -> Option<T>,
    ) -> Vec<(VolumeName, DiskUuid, T)> {
        let ask = |directory: &PathBuf| {
            let path = directory.clone();
            let asked = bounded::run(directory, ANSWER_WITHIN, move || list(&path, look));
            asked.and_then(|answer| answer).unwrap_or_else(|error| {
                tracing::warn!("{}", types::report(&error));
                Vec::new()
            })
        };
        self.0.iter().flat_map(ask).collect()
    }

    fn disk(&self, volume: &VolumeName, uuid: &DiskUuid) -> Result<PathBuf> {
        for directory in &self.0 {
            match disk_uuid(directory) {
                Ok(found) if found == *uuid => return Ok(directory.clone()),
                Ok(_) => {}
                // One bad disk must not hide the others.
                Err(error) => tracing::warn!("{}", types::report(&error)),
            }
        }
        Err(Error::NoSuchDisk {
            volume: volume.clone(),
            disk: uuid.clone(),
        })
    }

    /// Fails with the first directory that is no disk.
    pub fn check(&self) -> Result<()> {
        self.0
            .iter()
            .try_for_each(|directory| disk_uuid(directory).map(drop))
    }
}

/// The uuid in a disk's own file.
fn disk_uuid(directory: &Path) -> Result<DiskUuid> {
    #[derive(serde::Deserialize)]
    struct DiskConfig {
        #[serde(rename = "diskUUID")]
        disk_uuid: DiskUuid,
    }
    let path = directory.join(DISK_CONFIG);
    let mut text = Vec::new();
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    file.take(DISK_CONFIG_BYTES)
        .read_to_end(&mut text)
        .map_err(Error::io("read", &path))?;
    let config: DiskConfig =
        serde_json::from_slice(&text).map_err(|_| Error::NotADisk { file: path })?;
    Ok(config.disk_uuid)
}

fn list<T>(
    directory: &Path,
    look: fn(&Path) -> Option<T>,
) -> Result<Vec<(VolumeName, DiskUuid, T)>> {
    let uuid = disk_uuid(directory)?;
    let volumes = directory.join("volumes");
    let entries = match std::fs::read_dir(&volumes) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", &volumes))?,
    };
    let named = entries.flatten().filter_map(|entry| {
        // Hidden names are work of the manager, and no names of volumes.
        let volume = VolumeName::new(entry.file_name().to_str()?).ok()?;
        let found = look(&directory.join(volume_path(&volume)))?;
        Some((volume, uuid.clone(), found))
    });
    Ok(named.take(VOLUMES_MAX).collect())
}

/// Opens the directory of a volume's file, which lies at [`volume_path`] below its disk. Nothing on the way from
/// the disk may be a link: it belongs to a manager that has fewer rights than we do. What is in it is then opened
/// relative to this, so that what was looked at is what is used.
pub(crate) fn open_directory(file: &Path) -> rustix::io::Result<OwnedFd> {
    let disk = file.ancestors().nth(3).unwrap_or(Path::new("/"));
    let directory = file.parent().unwrap_or(disk);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(disk, flags, Mode::empty())?;
    let rest = directory.strip_prefix(disk).unwrap_or(directory);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(top, rest, flags, Mode::empty(), resolve)
}

/// How often the lock of a volume's file is asked for, and how long it is waited in between.
const HOLD_TRIES: u32 = 5;
const HOLD_PAUSE: Duration = Duration::from_millis(2);

/// Locks a volume's file, shared, until its last descriptor is closed. A manager who only looks whether the file is held
/// has it for some microseconds; whoever has it longer deletes or copies it.
pub(crate) fn hold(file: &File) -> rustix::io::Result<()> {
    for _ in 1..HOLD_TRIES {
        match flock(file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => thread::sleep(HOLD_PAUSE),
            held => return held,
        }
    }
    flock(file, FlockOperation::NonBlockingLockShared)
}

/// The lock of a volume's directory, for all who attach its file: two records of one volume, beside two staging paths
/// or of the node service, are two locks, and would let two of them attach the file at once; and so would DRBD.
pub(crate) struct DirectoryLock(OwnedFd);

impl DirectoryLock {
    /// # Errors
    /// [`Error::Busy`] when another thread or process has it.
    pub(crate) fn acquire(directory: &OwnedFd, volume: &VolumeName, file: &Path) -> Result<Self> {
        let failed = |errno| Error::io("lock the directory of", file)(errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(directory, c".", flags, Mode::empty()).map_err(failed)?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(opened)),
            Err(Errno::WOULDBLOCK) => Err(Error::Busy(volume.clone())),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// By hand: a child between its fork and its exec has a copy.
impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The length of a volume's file, provided that it is one: the directory belongs to a manager that
/// has fewer rights than we do, so nothing on the way may be a link.
fn regular_file(directory: &Path, volume: &VolumeName) -> Result<ByteSize> {
    let path = directory.join(volume_path(volume));
    let open = || {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = rustix::fs::open(directory, flags, Mode::empty())?;
        let no_links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(below, volume_path(volume), flags, Mode::empty(), no_links)
    };
    let file = match open() {
        Ok(file) => file,
        Err(Errno::NOENT) => {
            return Err(Error::VolumeMissing {
                volume: volume.clone(),
                file: path,
            });
        }
        Err(source) => return Err(Error::io("open", &path)(source)),
    };
    let stat = rustix::fs::fstat(&file).map_err(Error::io("inspect", &path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Occupied {
            path,
            what: "no regular file",
        });
    }
    Ok(ByteSize(u64::try_from(stat.st_size).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn write(path: &Path, bytes: &[u8]) {
        use std::io::Write as _;
        File::create(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn the_disk_is_found_by_its_uuid_and_links_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let volume = VolumeName::new("v").unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        for (directory, uuid) in [(&a, "disk-a"), (&b, "disk-b")] {
            std::fs::create_dir_all(directory.join("volumes/v")).unwrap();
            let text = format!("{{\"diskUUID\":\"{uuid}\"}}");
            write(&directory.join(DISK_CONFIG), text.as_bytes());
        }
        write(&b.join("volumes/v/volume"), &[0; 512]);
        let disks = Disks::new(vec![root.path().join("missing"), a.clone(), b.clone()]);
        let at = |uuid| disks.find(&volume, &DiskUuid::new(uuid).unwrap());
        let found = at("disk-b").unwrap();
        assert_eq!(found.path, b.join("volumes/v/volume"));
        assert_eq!(found.length, ByteSize(512));
        let kind = |uuid| at(uuid).unwrap_err().kind();
        assert_eq!(kind("disk-a"), ErrorKind::NotFound);
        assert_eq!(kind("disk-c"), ErrorKind::FailedPrecondition);
        std::os::unix::fs::symlink("/etc/passwd", a.join("volumes/v/volume")).unwrap();
        assert!(at("disk-a").is_err());
        assert!(disks.check().is_err());
    }
}
