//! One disk: its identity, its lock and its free space.
//!
//! A directory is a disk if it contains `longhorn-disk.cfg`. Only `disk init` (or Longhorn) writes
//! that file, so an empty mount point whose disk is not mounted is never mistaken for a disk. One
//! process serves a disk: it holds an exclusive flock(2) on a file of it, which also applies to a
//! second mount of the same file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use tracing::warn;
use types::{Classify, DiskUuid, ErrorKind, report};

use super::counters::Counters;
use super::durable;
use super::held::hold;
use super::layout::Layout;
use super::roster::Roster;
use super::space::{Space, floor};
use super::spares::Spares;
use crate::error::{Error, IoContext, Result};

/// The content of `longhorn-disk.cfg`, in Longhorn's spelling.
#[derive(Debug, Serialize, Deserialize)]
struct DiskConfig {
    #[serde(rename = "diskUUID")]
    disk_uuid: DiskUuid,
}

/// A disk that this process serves. The lock is given back on drop.
#[derive(Debug)]
pub struct Disk {
    layout: Layout,
    uuid: DiskUuid,
    /// The root directory as it was opened: what is mounted there later must be the same.
    root: File,
    /// Holds the flock; none in a process that only works on work files.
    lock: Option<File>,
    reflink: bool,
    file_system: &'static str,
    counters: Counters,
    roster: Roster,
    spares: Spares,
}

/// How often the lock is asked for while another manager holds it.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// The largest `longhorn-disk.cfg` that is read: the real one has about 60 bytes.
const DISK_CONFIG_MAX: u64 = 4096;

impl Disk {
    /// Makes the directory a disk and tells its uuid. A directory that is one already keeps its uuid,
    /// and another `uuid` for it is refused.
    pub fn init(path: &Path, uuid: Option<DiskUuid>) -> Result<DiskUuid> {
        let layout = Layout::new(path);
        let config = layout.disk_config();
        if config.try_exists().context("look for", &config)? {
            let found = read_config(&layout)?;
            return match uuid {
                Some(uuid) if uuid != found => Err(Error::InvalidField {
                    field: "uuid",
                    why: format!("{} is already a disk with uuid {found}", path.display()),
                }),
                _ => Ok(found),
            };
        }
        let uuid = match uuid {
            Some(uuid) => uuid,
            None => DiskUuid::new(&super::random_uuid()).expect("a uuid is a valid name"),
        };
        let content = serde_json::to_vec(&DiskConfig {
            disk_uuid: uuid.clone(),
        })
        .expect("a disk configuration is plain JSON");
        durable::replace(&config, &content)?;
        Ok(uuid)
    }

    /// The uuid of the disk at `path`, without locking or changing anything.
    pub fn identity(path: &Path) -> Result<DiskUuid> {
        read_config(&Layout::new(path))
    }

    /// Opens and locks the disk at `path`, and makes its directories.
    pub fn open(path: &Path) -> Result<Self> {
        let mut disk = Self::open_unlocked(path)?;
        let layout = &disk.layout;
        let lock_path = layout.lock();
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock_path)
            .context("open", &lock_path)?;
        if !hold(&lock, &lock_path)? {
            let path = layout.root().to_owned();
            let holder = holder(&lock_path);
            return Err(Error::DiskLocked { path, holder });
        }
        say_who(&lock);
        disk.lock = Some(lock);
        durable::create_dir(&layout.images())?;
        durable::create_dir(&layout.volumes())?;
        // What an earlier process renamed and was killed before it synced is made durable before it
        // is reported as done.
        rustix::fs::syncfs(&disk.root).context("sync the disk", layout.root())?;
        disk.reflink = match probe_reflink(layout) {
            // A full disk must start, or nothing on it could be deleted. A clone that cannot be made
            // is a copy.
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                warn!(error = %report(&error), "the disk is full");
                true
            }
            other => other?,
        };
        Ok(disk)
    }

    /// The same, waiting for as long as `patience` for another manager to end: when managers are replaced,
    /// the old and the new one overlap.
    pub fn open_within(path: &Path, patience: Duration) -> Result<Self> {
        let give_up = Instant::now() + patience;
        let mut waiting = false;
        loop {
            match Self::open(path) {
                Err(Error::DiskLocked { path, holder }) if Instant::now() < give_up => {
                    if !std::mem::replace(&mut waiting, true) {
                        warn!(disk = %path.display(), holder, ?patience,
                            "another manager serves the disk: waiting for its end");
                    }
                    std::thread::sleep(LOCK_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    /// Opens the disk at `path` for work files alone: beside the process that serves it, whose lock
    /// is not asked for.
    pub fn open_for_work(path: &Path) -> Result<Self> {
        let disk = Self::open_unlocked(path)?;
        durable::create_dir(&disk.layout.work())?;
        Ok(disk)
    }

    fn open_unlocked(path: &Path) -> Result<Self> {
        let real = fs::canonicalize(path).context("open the disk", path)?;
        let layout = Layout::called(&real, path);
        let uuid = read_config(&layout)?;
        let root = File::open(&real).context("open the disk", &real)?;
        let file_system = file_system_name(&root);
        Ok(Self {
            uuid,
            root,
            lock: None,
            reflink: false,
            file_system,
            counters: Counters::default(),
            roster: Roster::load(&layout),
            spares: Spares::default(),
            layout,
        })
    }

    /// Every path on this disk.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What happened on it.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The other disks that it knows of.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A disk for a test, in a directory that goes with what comes first.
    #[cfg(test)]
    pub(crate) fn temporary() -> (tempfile::TempDir, std::sync::Arc<Self>) {
        let dir = tempfile::tempdir().unwrap();
        Self::init(dir.path(), None).unwrap();
        let disk = std::sync::Arc::new(Self::open(dir.path()).unwrap());
        (dir, disk)
    }

    /// The spare clones of images.
    pub fn spares(&self) -> &Spares {
        &self.spares
    }

    /// The uuid in `longhorn-disk.cfg`.
    pub fn uuid(&self) -> &DiskUuid {
        &self.uuid
    }

    /// Whether files can share extents here (FICLONE), found by doing it once; unknown, and so `false`,
    /// in a process that only works on work files.
    pub fn reflink(&self) -> bool {
        self.reflink
    }

    /// The file system's name, for people.
    pub fn file_system(&self) -> &'static str {
        self.file_system
    }

    /// Refuses when the path of the disk leads elsewhere by now: the disk was unmounted under us, or
    /// another one mounted over it. Called before anything is written.
    pub fn check(&self) -> Result<()> {
        let path = self.layout.root();
        let opened = self.root.metadata().context("inspect the disk", path)?;
        let now = fs::metadata(path).context("inspect the disk", path)?;
        if (opened.dev(), opened.ino()) != (now.dev(), now.ino())
            || read_config(&self.layout)? != self.uuid
        {
            return Err(Error::DiskReplaced(path.to_owned()));
        }
        Ok(())
    }

    /// How much room there is.
    pub fn space(&self) -> Result<Space> {
        let stat = statvfs(self.layout.root()).context("inspect the disk", self.layout.root())?;
        Ok(Space {
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    /// What the images take, as the file system counts it.
    pub fn images_size(&self) -> Result<u64> {
        let dir = self.layout.images();
        let mut sum = 0_u64;
        for image in fs::read_dir(&dir).context("list", &dir)?.flatten() {
            // One that is deleted meanwhile takes nothing.
            let files = fs::read_dir(image.path()).into_iter().flatten().flatten();
            let blocks = files
                .flat_map(|file| file.metadata())
                .map(|meta| meta.blocks());
            sum = sum.saturating_add(blocks.sum::<u64>().saturating_mul(types::SECTOR));
        }
        Ok(sum)
    }

    /// Refuses to start what cannot fit, with what stays free for volumes and records.
    pub fn require_space(&self, needed: u64) -> Result<()> {
        let promised = self.counters.reserved_bytes.load(Ordering::Relaxed);
        let space = self.space()?;
        let available = space
            .available
            .saturating_sub(promised)
            .saturating_sub(floor(space.size));
        if needed > available {
            return Err(Error::NoSpace { available, needed });
        }
        Ok(())
    }
}

/// Says in the lock file who holds it, for whoever waits. A full disk takes no words: they are only words.
fn say_who(lock: &File) {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let text = format!("process {} on {host}\n", std::process::id());
    let _ = lock.set_len(0);
    let _ = rustix::io::pwrite(lock, text.as_bytes(), 0);
}

/// Who holds the lock file at `path`, as far as that is said there.
fn holder(path: &Path) -> String {
    let mut text = String::new();
    let said = File::open(path).and_then(|file| file.take(256).read_to_string(&mut text));
    match said {
        Ok(1..) => text.trim().escape_debug().to_string(),
        Ok(0) | Err(_) => "an older version".to_owned(),
    }
}

fn read_config(layout: &Layout) -> Result<DiskUuid> {
    let not_a_disk = |source| Error::NotADisk {
        path: layout.root().to_owned(),
        source,
    };
    let path = layout.disk_config();
    let meta = fs::symlink_metadata(&path).map_err(not_a_disk)?;
    if !meta.is_file() || meta.len() > DISK_CONFIG_MAX {
        return Err(not_a_disk(io::Error::other(
            "longhorn-disk.cfg is not a small regular file",
        )));
    }
    let content = fs::read(&path).map_err(not_a_disk)?;
    let config: DiskConfig =
        serde_json::from_slice(&content).map_err(|error| not_a_disk(error.into()))?;
    Ok(config.disk_uuid)
}

/// Clones a small file to see whether the file system can. Being told "not supported" is an answer;
/// other errors mean that the disk cannot be used.
fn probe_reflink(layout: &Layout) -> Result<bool> {
    let paths = [".reflink-probe.1", ".reflink-probe.2"].map(|name| layout.images().join(name));
    let [from, to] = &paths;
    let remove = || paths.iter().try_for_each(|path| durable::remove_file(path));
    remove()?;
    let probe = || {
        let source = durable::create_file(from)?;
        rustix::io::pwrite(&source, &[1; 4096], 0).context("write", from)?;
        let target = durable::create_file(to)?;
        Ok(rustix::fs::ioctl_ficlone(&target, &source).is_ok())
    };
    let cloned = probe();
    remove()?;
    cloned
}

/// Names from statfs(2)'s magic numbers, for the file systems that people put disks on.
fn file_system_name(root: &File) -> &'static str {
    match rustix::fs::fstatfs(root).map(|stat| stat.f_type) {
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0xef53) => "ext4",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x794c_7630) => "overlay",
        Ok(0x6969) => "nfs",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 65: an empty mount point is not a disk, and nothing is written into it.
    #[test]
    fn row_65_a_directory_without_configuration_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Disk::open(dir.path()),
            Err(Error::NotADisk { .. })
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// Row 66: one manager at a time.
    #[test]
    fn row_66_the_second_manager_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Disk::init(dir.path(), None).unwrap();
        let first = Disk::open(dir.path()).unwrap();
        let error = Disk::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::DiskLocked { .. }));
        let who = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&who), "{error}");
        drop(first);
        // A child that another test starts at this moment has the lock as well, until it executes.
        let again = (0..100).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Disk::open(dir.path()).ok()
        });
        assert!(again.is_some(), "the lock outlives its disk");
    }

    /// Row 65: another disk under the same path is noticed before the next write.
    #[test]
    fn row_65_a_replaced_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::create_dir(&path).unwrap();
        Disk::init(&path, None).unwrap();
        let disk = Disk::open(&path).unwrap();
        disk.check().unwrap();
        fs::rename(&path, dir.path().join("old")).unwrap();
        fs::create_dir(&path).unwrap();
        Disk::init(&path, None).unwrap();
        assert!(matches!(disk.check(), Err(Error::DiskReplaced(_))));
    }

    #[test]
    fn a_disk_keeps_its_uuid() {
        let dir = tempfile::tempdir().unwrap();
        let uuid = Disk::init(dir.path(), None).unwrap();
        assert_eq!(Disk::init(dir.path(), None).unwrap(), uuid);
        assert!(Disk::init(dir.path(), Some(DiskUuid::new("other").unwrap())).is_err());
    }
}
