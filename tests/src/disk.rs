//! A disk for a manager: a file with a real file system, mounted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::run;
use crate::{Sandbox, leftovers};

/// What to make the disk with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// With reflink: volumes are clones.
    Xfs,
    /// Without: volumes are sparse copies.
    Ext4,
    /// With reflink.
    Btrfs,
}

impl FileSystem {
    /// As the kernel spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
            Self::Btrfs => "btrfs",
        }
    }

    /// Makes it in a file or on a device.
    pub fn make_in(self, target: &Path) {
        let target = target.as_os_str();
        match self {
            Self::Xfs => run("mkfs.xfs", ["-q".as_ref(), "-f".as_ref(), target]),
            // Without blocks reserved for root, who the tests are: full means full. In blocks of 4 KiB, as
            // on every real disk; mkfs would give one this small 1 KiB.
            Self::Ext4 => run("mkfs.ext4", ["-qFm0".as_ref(), "-b4096".as_ref(), target]),
            Self::Btrfs => run("mkfs.btrfs", ["-q".as_ref(), "-f".as_ref(), target]),
        };
    }
}

/// A mounted file system in a file. The sandbox unmounts it.
#[derive(Debug)]
pub struct Disk {
    mount_point: PathBuf,
    image: PathBuf,
}

impl Disk {
    /// Makes a file of `size` bytes below the sandbox, a file system in it, and mounts it.
    pub fn new(sandbox: &Sandbox, name: &str, file_system: FileSystem, size: u64) -> Self {
        let image = sandbox.path(format!("{name}.img"));
        fs::File::create(&image)
            .and_then(|file| file.set_len(size))
            .unwrap_or_else(|error| panic!("make {}: {error}", image.display()));
        file_system.make_in(&image);
        Self::mount(sandbox, name, image)
    }

    /// Mounts a file that holds a file system already.
    pub fn mount(sandbox: &Sandbox, name: &str, image: PathBuf) -> Self {
        let mount_point = sandbox.make_dir(name);
        let disk = Self { mount_point, image };
        disk.attach();
        disk
    }

    /// Mounts it (again), by a loop device of direct I/O that goes away with the mount.
    pub fn attach(&self) {
        let find = ["--find", "--show", "--direct-io=on"].map(AsRef::as_ref);
        let device = run("losetup", find.into_iter().chain([self.image.as_os_str()]));
        let device = device.trim_end();
        run("mount", [device.as_ref(), self.mount_point.as_os_str()]);
        // On a mounted device this only marks it: it detaches with the last mount.
        run("losetup", ["--detach", device]);
    }

    /// Unmounts it, with what stands on it.
    #[track_caller]
    pub fn detach(&self) {
        leftovers::end(&self.mount_point);
        assert!(
            leftovers::mounts_below(&self.mount_point).is_empty(),
            "the disk is still in use"
        );
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.mount_point
    }

    /// The file that it lives in.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Bytes in use by files, as the file system counts them.
    pub fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.mount_point).expect("statvfs of a mounted disk");
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    /// Bytes that an ordinary user can still write.
    pub fn available(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.mount_point).expect("statvfs of a mounted disk");
        stat.f_bavail * stat.f_frsize
    }
}
