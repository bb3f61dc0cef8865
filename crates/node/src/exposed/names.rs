//! The names of devices: symbolic links in a directory of `/dev`, each made beside its place and renamed, so that a
//! name leads to one device or the other and never to nothing.
//!
//! Other programs have files in the same directory, Longhorn's engine among them: only links to devices of the kind that
//! we attach are ever touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use types::VolumeName;

use crate::error::{Error, Result};

/// The directory of the names. It is made when it is needed: after a boot it is not there.
#[derive(Debug)]
pub(super) struct Names(PathBuf);

/// What is at the place of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Present {
    Nothing,
    /// A link to this device of a kind that is ours.
    Device(PathBuf),
    /// Something of another program.
    Foreign,
}

impl Names {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The path of a volume's name.
    pub(super) fn path(&self, volume: &VolumeName) -> PathBuf {
        self.0.join(volume.as_str())
    }

    pub(super) fn present(&self, volume: &VolumeName) -> Result<Present> {
        let path = self.path(volume);
        present(&path).map_err(Error::io("look at", path))
    }

    /// Fails if another program has the name.
    pub(super) fn refuse_foreign(&self, volume: &VolumeName) -> Result<()> {
        match self.present(volume)? {
            Present::Foreign => Err(Error::NameTaken {
                path: self.path(volume),
            }),
            Present::Nothing | Present::Device(_) => Ok(()),
        }
    }

    /// Lets the name of a volume lead to a device.
    pub(super) fn put(&self, volume: &VolumeName, device: &Path) -> Result<()> {
        self.refuse_foreign(volume)?;
        fs::create_dir_all(&self.0).map_err(Error::io("create the directory", self.0.clone()))?;
        // No name of a volume begins with a dot.
        let new = self.0.join(format!(".{volume}.new"));
        let path = self.path(volume);
        let made = match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => std::os::unix::fs::symlink(device, &new),
        };
        let named = made.and_then(|()| {
            types::crash_point!("node.expose.linked");
            fs::rename(&new, &path)
        });
        named.map_err(Error::io("write the name", path))
    }

    /// Takes a name away, wherever it leads; one of another program stays.
    pub(super) fn remove(&self, volume: &VolumeName) -> Result<()> {
        if self.present(volume)? == Present::Foreign {
            return Ok(());
        }
        let path = self.path(volume);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The volumes whose names lead to devices of a kind that is ours.
    pub(super) fn all(&self) -> Result<Vec<VolumeName>> {
        let failed = || Error::io("list", self.0.clone());
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed())?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed())?.file_name();
            let Some(volume) = name.to_str().and_then(|name| VolumeName::new(name).ok()) else {
                continue;
            };
            if matches!(self.present(&volume)?, Present::Device(_)) {
                all.push(volume);
            }
        }
        Ok(all)
    }
}

fn present(path: &Path) -> io::Result<Present> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Nothing),
        metadata if !metadata.as_ref().is_ok_and(fs::Metadata::is_symlink) => {
            return metadata.map(|_| Present::Foreign);
        }
        _ => {}
    }
    let device = match fs::read_link(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Nothing),
        device => device?,
    };
    let name = device.strip_prefix("/dev").ok().and_then(Path::to_str);
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
    let is_ours = name.is_some_and(|name| {
        let mut kinds = ["loop", "drbd"].into_iter();
        kinds.any(|kind| name.strip_prefix(kind).is_some_and(is_number))
    });
    Ok(if is_ours {
        Present::Device(device)
    } else {
        Present::Foreign
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_links_to_devices_of_our_kind_are_touched() {
        let root = tempfile::tempdir().unwrap();
        let names = Names::new(root.path().join("longhorn"));
        let volume = VolumeName::new("v").unwrap();
        assert_eq!(names.present(&volume).unwrap(), Present::Nothing);
        names.remove(&volume).unwrap();
        assert_eq!(names.all().unwrap(), []);
        for device in ["/dev/loop7", "/dev/drbd1000"] {
            names.put(&volume, Path::new(device)).unwrap();
            let there = Present::Device(device.into());
            assert_eq!(names.present(&volume).unwrap(), there);
        }
        assert_eq!(names.all().unwrap(), std::slice::from_ref(&volume));
        names.remove(&volume).unwrap();
        for (at, other) in [
            "/dev/sda",
            "/dev/loop",
            "/dev/loop1p1",
            "/dev/../x",
            "loop1",
        ]
        .into_iter()
        .enumerate()
        {
            let volume = VolumeName::new(&format!("other-{at}")).unwrap();
            symlink(other, names.path(&volume)).unwrap();
            assert!(matches!(
                names.put(&volume, Path::new("/dev/loop1")),
                Err(Error::NameTaken { .. })
            ));
            names.remove(&volume).unwrap();
            assert_eq!(
                fs::read_link(names.path(&volume)).unwrap(),
                Path::new(other)
            );
        }
        // The device of an engine of Longhorn's is a node of its own.
        let engine = VolumeName::new("engine").unwrap();
        fs::File::create(names.path(&engine)).unwrap();
        assert!(names.put(&engine, Path::new("/dev/loop1")).is_err());
        names.remove(&engine).unwrap();
        assert!(names.path(&engine).exists());
        assert_eq!(names.all().unwrap(), []);
    }
}
