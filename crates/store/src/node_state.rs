//! Which disk was at which path of a node: a record beside the disks, which exists even if a disk
//! is missing. Without it, the empty directory under a mount point would look like a new disk.
//!
//! 1. a disk is made, or found
//! 2. its uuid is recorded for its path
//!
//! A crash between the two leaves a disk that the next call finds and records.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use types::{DiskUuid, crash_point};

use super::held::hold;
use super::layout::Layout;
use super::{Disk, durable};
use crate::error::{Error, IoContext, Result};

/// The largest record that is read: a node has a few disks.
const RECORD_MAX: u64 = 64 << 10;

/// The record of a node, in a directory of it.
#[derive(Debug)]
pub struct NodeState {
    record: PathBuf,
    lock: PathBuf,
}

type Disks = BTreeMap<String, DiskUuid>;

impl NodeState {
    /// The record in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            record: dir.join("disks.json"),
            lock: dir.join(".disks.lock"),
        }
    }

    /// Makes a directory a disk as [`Disk::init`] does, unless another one was there before. `gone` are
    /// disks that an operator gives up.
    pub fn init(&self, path: &Path, uuid: Option<DiskUuid>, gone: &[DiskUuid]) -> Result<DiskUuid> {
        let lock = File::create(&self.lock).context("open", &self.lock)?;
        if !hold(&lock, &self.lock)? {
            return Err(Error::NodeStateBusy(self.record.clone()));
        }
        let key = key(path)?;
        let mut disks = self.read()?;
        let before = disks.get(&key).filter(|before| !gone.contains(before));
        let has_config = Layout::new(path).disk_config();
        let is_disk = has_config.try_exists().context("look for", &has_config)?;
        let found = is_disk.then(|| Disk::identity(path)).transpose()?;
        same(path, before, found)?;
        let uuid = Disk::init(path, uuid)?; // 1
        crash_point!("store.node_state.disk_made");
        if disks.get(&key) != Some(&uuid) {
            disks.insert(key, uuid.clone());
            let content = serde_json::to_vec(&disks).expect("a record of disks is plain JSON");
            durable::replace(&self.record, &content)?; // 2
            crash_point!("store.node_state.recorded");
        }
        // The daemon reads it, and is another user.
        fs::set_permissions(&self.record, Permissions::from_mode(0o644))
            .context("let others read", &self.record)?;
        Ok(uuid)
    }

    /// Refuses a path at which another disk was before.
    pub fn check(&self, path: &Path) -> Result<()> {
        let disks = self.read()?;
        let before = disks.get(&key(path)?);
        let found = before.and_then(|_| Disk::identity(path).ok());
        same(path, before, found)
    }

    fn read(&self) -> Result<Disks> {
        let mut text = Vec::new();
        match File::open(&self.record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Disks::new()),
            opened => opened
                .and_then(|file| file.take(RECORD_MAX + 1).read_to_end(&mut text))
                .context("read", &self.record)?,
        };
        serde_json::from_slice(&text).map_err(|source| Error::DamagedRecord {
            path: self.record.clone(),
            source,
        })
    }
}

/// A path as the record spells it: without links, so that one disk has one entry.
fn key(path: &Path) -> Result<String> {
    let real = fs::canonicalize(path).context("open the disk", path)?;
    real.into_os_string()
        .into_string()
        .map_err(|path| Error::InvalidField {
            field: "disk",
            why: format!("{} is not UTF-8", path.display()),
        })
}

fn same(path: &Path, before: Option<&DiskUuid>, found: Option<DiskUuid>) -> Result<()> {
    match before {
        Some(before) if found.as_ref() != Some(before) => Err(Error::OtherDisk {
            path: path.to_owned(),
            before: before.clone(),
            found: found.map_or_else(|| "no disk".to_owned(), |uuid| format!("disk {uuid}")),
        }),
        _ => Ok(()),
    }
}

/// Refuses a directory that is not the root of a file system of its own, as mountinfo tells it
/// (proc_pid_mountinfo(5)): also in a container, where every directory from outside is a mount.
pub fn require_mount(path: &Path) -> Result<()> {
    let real = fs::canonicalize(path).context("open the disk", path)?;
    let file = Path::new("/proc/self/mountinfo");
    let mounts = fs::read_to_string(file).context("read", file)?;
    if is_root_of_file_system(&mounts, &real) {
        Ok(())
    } else {
        Err(Error::NotMounted(path.to_owned()))
    }
}

fn is_root_of_file_system(mounts: &str, path: &Path) -> bool {
    let escaped = path
        .to_string_lossy()
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012");
    // The last one is on top.
    let here = mounts.lines().rev().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut fields = head.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (point == escaped).then_some((root, tail))
    });
    // A subvolume of btrfs is a file system of its own for whoever mounts it.
    here.is_some_and(|(root, tail)| root == "/" || tail.starts_with("btrfs "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(text: &str) -> DiskUuid {
        DiskUuid::new(text).unwrap()
    }

    #[test]
    fn row_158_a_path_that_had_a_disk_takes_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let state = NodeState::new(dir.path());
        state.check(&disk).unwrap();
        let first = state.init(&disk, None, &[]).unwrap();
        assert_eq!(state.init(&disk, None, &[]).unwrap(), first);
        state.check(&disk).unwrap();
        // Not mounted, and then another one.
        fs::rename(&disk, dir.path().join("away")).unwrap();
        fs::create_dir(&disk).unwrap();
        let refused = || {
            for error in [
                state.init(&disk, None, &[]).unwrap_err(),
                state
                    .init(&disk, Some(uuid("mine")), &[uuid("x")])
                    .unwrap_err(),
                state.check(&disk).unwrap_err(),
            ] {
                assert!(matches!(error, Error::OtherDisk { .. }), "{error}");
                let text = error.to_string();
                assert!(
                    text.contains(first.as_str()) && text.contains("--replace"),
                    "{text}"
                );
            }
        };
        refused();
        assert_eq!(
            fs::read_dir(&disk).unwrap().count(),
            0,
            "nothing is written"
        );
        Disk::init(&disk, Some(uuid("other"))).unwrap();
        refused();
        let gone = [first.clone()];
        assert_eq!(state.init(&disk, None, &gone).unwrap(), uuid("other"));
        // The word that gave one disk up gives up no other.
        fs::remove_dir_all(&disk).unwrap();
        fs::create_dir(&disk).unwrap();
        assert!(state.init(&disk, None, &gone).is_err());
        state.init(&disk, None, &[uuid("other")]).unwrap();
    }

    #[test]
    fn row_158_a_record_that_cannot_be_read_allows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let state = NodeState::new(dir.path());
        for damage in ["", "{", "{\"/disk\": \"../x\"}"] {
            durable::replace(&dir.path().join("disks.json"), damage.as_bytes()).unwrap();
            assert!(state.init(&disk, None, &[]).is_err(), "{damage}");
            assert!(state.check(&disk).is_err(), "{damage}");
        }
        assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
    }

    #[test]
    fn row_159_a_directory_is_told_from_a_disk_that_is_mounted_there() {
        let mounts = "\
            25 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 25 8:1 /srv/a /srv/a rw - ext4 /dev/sda1 rw\n\
            31 25 8:16 / /srv/b rw shared:1 - xfs /dev/sdb rw\n\
            32 25 0:33 /@data /srv/c\\040d rw - btrfs /dev/sdc rw\n\
            33 25 8:16 / /srv/e rw - xfs /dev/sdb rw\n\
            34 33 8:1 /x /srv/e rw - ext4 /dev/sda1 rw\n";
        for (path, expected) in [
            ("/", true),
            ("/srv/a", false),
            ("/srv/b", true),
            ("/srv/c d", true),
            ("/srv/e", false),
            ("/srv", false),
        ] {
            let found = is_root_of_file_system(mounts, Path::new(path));
            assert_eq!(found, expected, "{path}");
        }
    }
}
