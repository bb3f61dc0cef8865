//! Mounting: a device with a file system, a bind mount, and taking both away.
//!
//! A mount is made detached and complete, with all its flags, and only then attached to its place,
//! which is an open file: there is no moment at which it is seen writable, with `suid`, or elsewhere.
//! A process killed before that leaves nothing.

mod attributes;
mod btrfs;
mod flags;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use probe::FsType;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

pub use flags::{MountOptions, check_flags};

use crate::paths::{Occupant, Place};
use crate::{Error, Result};

/// How many messages of the kernel an error repeats.
const MESSAGES_MAX: usize = 4;
/// How long a mount may be busy before that is an error.
const BUSY_WITHIN: Duration = Duration::from_secs(1);

/// Whether this node mounts file systems of this type at all, and whether it can write to them.
///
/// The list is short on purpose: every file system driver parses what may be hostile bytes in the
/// kernel.
pub fn is_supported(fs_type: FsType) -> bool {
    is_writable(fs_type) || matches!(fs_type, FsType::Squashfs | FsType::Erofs | FsType::Iso9660)
}

/// Whether this node mounts file systems of this type for writing.
pub fn is_writable(fs_type: FsType) -> bool {
    matches!(
        fs_type,
        FsType::Ext2 | FsType::Ext3 | FsType::Ext4 | FsType::Xfs | FsType::Btrfs | FsType::Vfat
    )
}

/// Mounts `device` as `fs_type` on the directory at `place`.
pub fn mount_device(
    device: &Path,
    fs_type: FsType,
    options: &MountOptions,
    place: &Place,
) -> Result<()> {
    let failed = |context: Option<&OwnedFd>, errno: Errno| Error::Mount {
        device: device.to_owned(),
        fs_type,
        path: place.path().to_owned(),
        said: said(context, device, fs_type, errno),
        source: errno.into(),
    };
    if fs_type == FsType::Btrfs && !btrfs::is_alone(device) {
        return Err(Error::OtherDevices(device.to_owned()));
    }
    let context = rustix::mount::fsopen(fs_type.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| failed(None, errno))?;
    let configure = || {
        rustix::mount::fsconfig_set_string(&context, "source", device)?;
        for (name, value) in &options.parameters {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(&context, *name, value)?,
                None => rustix::mount::fsconfig_set_flag(&context, *name)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes)
    };
    let mount = configure().map_err(|errno| failed(Some(&context), errno))?;
    attach(&mount, place, Occupant::Directory)
}

/// Lets what `source` is the root of be seen at `place` too: a directory on a directory, or a
/// device's node on a file.
pub fn bind(source: &OwnedFd, place: &Place, on: Occupant, read_only: bool) -> Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(source, "", flags)
        .map_err(Error::io("make a bind mount for", place.path()))?;
    if read_only {
        attributes::set(&mount, MountAttrFlags::MOUNT_ATTR_RDONLY)
            .map_err(Error::io("make the bind mount read-only for", place.path()))?;
    }
    attach(&mount, place, on)
}

fn attach(mount: &OwnedFd, place: &Place, on: Occupant) -> Result<()> {
    let target = place.open_occupant(on)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", &target, "", flags)
        .map_err(Error::io("mount at", place.path()))
}

/// How a mount is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Only when nobody uses it.
    Plain,
    /// From the tree at once, from the kernel when its last user is gone. For dead mounts of ours:
    /// a live one could still be written to behind our back.
    Lazy,
}

/// Unmounts what is mounted at `place` last. Nothing mounted there is success.
pub fn unmount(place: &Place, how: Unmount) -> Result<()> {
    let lazy = match how {
        Unmount::Plain => UnmountFlags::empty(),
        Unmount::Lazy => UnmountFlags::DETACH,
    };
    let deadline = Instant::now() + BUSY_WITHIN;
    loop {
        match rustix::mount::unmount(place.pinned_path(), UnmountFlags::NOFOLLOW | lazy) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            // A child that another thread has just forked holds copies of our open files until it
            // executes its tool.
            Err(Errno::BUSY) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(errno) => {
                return Err(Error::Unmount {
                    path: place.path().to_owned(),
                    source: errno.into(),
                });
            }
        }
    }
}

/// What the kernel wrote about a mount that it refused, and what we know about it.
fn said(context: Option<&OwnedFd>, device: &Path, fs_type: FsType, errno: Errno) -> String {
    let mut text = String::new();
    let mut buffer = [0u8; 1024];
    for _ in 0..MESSAGES_MAX {
        // Each read gives one message: a letter for its level, a space, the text.
        let Some(Ok(len)) = context.map(|context| rustix::io::read(context, &mut buffer)) else {
            break;
        };
        let message = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
        text.push_str(": ");
        text.push_str(message.get(2..).unwrap_or_default().trim());
    }
    if let Some(hint) = hint(device, fs_type, errno) {
        text.push_str(": ");
        text.push_str(&hint);
    }
    text
}

/// What we know about a mount that the kernel refused.
fn hint(device: &Path, fs_type: FsType, errno: Errno) -> Option<String> {
    let known = match (fs_type, errno) {
        (FsType::Btrfs, Errno::EXIST) => {
            "another btrfs with the same UUID is mounted on this node; Linux 6.7 or newer can mount both"
        }
        (FsType::Btrfs, Errno::NOENT) => {
            "it names a device that does not exist; use it as a raw block volume"
        }
        (_, Errno::NODEV) => "the kernel of this node has no such file system; load its module",
        (_, Errno::ROFS | Errno::ACCESS) => {
            "its journal must be replayed and the device is read-only; mount it once for writing, \
             or with the flag norecovery (XFS) or noload (ext4)"
        }
        (_, Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOPKG | Errno::ADV) => {
            return Some(lacking(device, fs_type));
        }
        _ => return None,
    };
    Some(known.to_owned())
}

/// Which features of a file system the kernel may lack. It tells only its own log what it wants.
fn lacking(device: &Path, fs_type: FsType) -> String {
    let features = probe::FileDisk::open(device)
        .and_then(|disk| probe::features(&disk, fs_type))
        .unwrap_or_default();
    if features.is_empty() {
        return "the kernel log of this node (dmesg) says why".to_owned();
    }
    format!(
        "it has {}, which the kernel of this node may lack; use a node with a newer kernel, or \
         build the image without it (the kernel log of this node says more)",
        features.join(", ")
    )
}
