//! The owner of a disk: the user of the manager, who then needs no privilege.
//!
//! Only the names of the layout change their owner: other files in the directory, as on a disk of
//! Longhorn's, keep theirs.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, openat};
use rustix::io::Errno;

use super::layout::Layout;
use crate::error::{IoContext as _, Result};

/// Deeper than anything that this program makes: `backing-images/<name>/<file>`.
const DEPTH_MAX: u32 = 8;

/// A user and a group of this machine, as numbers: `65532:65532`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl FromStr for Owner {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse().ok().filter(|number| *number != u32::MAX);
        text.split_once(':')
            .and_then(|(uid, gid)| {
                let (uid, gid) = (number(uid)?, number(gid)?);
                Some(Self { uid, gid })
            })
            .ok_or("write UID:GID, two numbers")
    }
}

/// Gives the disk at `root`, with all that is on it, to `owner`. Links are given, never followed. What
/// has its owner already stays untouched, so that a call after a crash, or each start, is cheap.
pub fn give(root: &Path, owner: Owner) -> Result<()> {
    let layout = Layout::new(root);
    for path in [
        layout.disk_config(),
        layout.lock(),
        layout.known_disks(),
        layout.images(),
        layout.volumes(),
        layout.work(),
        root.to_owned(),
    ] {
        give_one(&path, owner, if path == root { 0 } else { DEPTH_MAX })?;
    }
    Ok(())
}

/// Gives one entry of a directory, and what is in it down to a depth.
/// Gives a directory that is not of the disk, and nothing in it, to `owner`.
pub fn give_directory(path: &Path, owner: Owner) -> Result<()> {
    give_one(path, owner, 0)
}

fn give_one(path: &Path, owner: Owner, depth: u32) -> Result<()> {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes());
    name.map_err(std::io::Error::from)
        .and_then(|name| Ok(give_entry(CWD, &name, owner, depth)?))
        .context("give to its owner", path)
}

fn give_entry(parent: BorrowedFd<'_>, name: &CStr, owner: Owner, depth: u32) -> Result<(), Errno> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        // A disk has not each of its directories from the first day.
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && depth > 0 {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(parent, name, flags, Mode::empty())?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                give_entry(directory.as_fd(), name, owner, depth - 1)?;
            }
        }
    }
    if (stat.st_uid, stat.st_gid) == (owner.uid, owner.gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    chownat(
        parent,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn an_owner_is_two_numbers() {
        let owner = Owner { uid: 1, gid: 2 };
        assert_eq!("1:2".parse(), Ok(owner));
        for wrong in ["", "1", "1:", "root:root", "1:-1", "1:4294967295", "1:2:3"] {
            assert!(wrong.parse::<Owner>().is_err(), "{wrong}");
        }
    }

    /// Row 86: all that a disk holds is the manager's, and nothing else is.
    #[test]
    fn row_86_what_is_of_the_disk_is_given_and_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let (disk, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = disk.path();
        super::super::Disk::init(root, None).unwrap();
        let layout = Layout::new(root);
        let image = layout.images().join("i-1");
        fs::create_dir_all(&image).unwrap();
        for file in [
            image.join("backing"),
            root.join("engine"),
            elsewhere.path().join("f"),
        ] {
            super::super::durable::replace(&file, b"x").unwrap();
        }
        std::os::unix::fs::symlink(elsewhere.path(), image.join("link")).unwrap();
        let owner = "12345:54321".parse().unwrap();
        for _ in 0..2 {
            give(root, owner).unwrap();
        }
        let ids = |path: &Path| {
            let stat = fs::symlink_metadata(path).unwrap();
            (stat.uid(), stat.gid())
        };
        let given = [
            root.to_owned(),
            layout.disk_config(),
            layout.images(),
            image.join("backing"),
            image.join("link"),
        ];
        for path in given {
            assert_eq!(ids(&path), (12345, 54321), "{}", path.display());
        }
        for path in [root.join("engine"), elsewhere.path().join("f")] {
            assert_eq!(ids(&path), (0, 0), "{}", path.display());
        }
        assert_eq!(ids(elsewhere.path()), (0, 0));
    }
}
