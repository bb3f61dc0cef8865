//! What is wrong with a volume in use: everything the kernel shows of its mount, its file system, its file and
//! the disk below. Looks and never touches.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags};
use types::ByteSize;

use super::inspect::Attached;
use super::locate::Here;
use crate::device::BlockDevice;
use crate::filesystem;
use crate::loopdev::{FileId, LoopDevice};
use crate::mountinfo::Mount;
use crate::{DeviceNumber, drbd, paths};

/// A disk with less room than this is nearly full: the part that images never take, a 64th and at most 256 MiB.
const ROOM_PART: u64 = 64;
const ROOM_MAX: u64 = 256 << 20;

/// What the options of a mount tell of its file system. `whose` is what it belongs to.
pub(super) fn of_mount(mount: &Mount, whose: &str) -> Option<String> {
    let what = if mount.has_super_option("shutdown") {
        "has shut down after an error"
    } else if mount.has_super_option("emergency_ro")
        || mount.has_super_option("ro") && !mount.has_option("ro")
    {
        // ext4 since Linux 6.15 leaves `ro` alone and says `emergency_ro`.
        "went read-only after an error; check it"
    } else {
        return None;
    };
    Some(format!("{whose} {what}"))
}

/// What the mounted file system itself tells, whose figures are `stat`. May hang as the file system does.
pub(super) fn of_file_system(mount: &Mount, device: &BlockDevice) -> Vec<String> {
    let Ok(fs_type) = mount.fs_type.parse() else {
        return Vec::new();
    };
    let mut all: Vec<String> = filesystem::reported(fs_type, device, &mount.point)
        .into_iter()
        .collect();
    // One that nobody may write to is used at the size that it came with.
    if !mount.is_read_only()
        && let Ok(Some(present)) = filesystem::shortfall(fs_type, device, &mount.point)
        && let Ok(size) = device.size()
    {
        all.push(format!(
            "the file system is smaller than the volume: it has {present} bytes of {}, and could not be grown",
            ByteSize(size)
        ));
    }
    all
}

/// Where the file below is, in the kernel's words.
pub(super) fn file_path(device: &BlockDevice) -> Option<PathBuf> {
    let path = Path::new("/sys/block")
        .join(device.name())
        .join("loop/backing_file");
    let path = std::fs::read_to_string(path).ok()?;
    Some(PathBuf::from(path.trim_end_matches('\n')))
}

/// Whether the file has become larger than its device, which takes over the size when it is told to.
pub(super) fn of_growth(device: &LoopDevice) -> Option<String> {
    let status = device.status().ok()??;
    let file = paths::open_regular(&file_path(device)?, false).ok()?;
    let (length, size) = (file.metadata().ok()?.len(), device.size().ok()?);
    let is_larger = FileId::of(&file).is_ok_and(|id| id == status.file)
        && status.part.is_none()
        && length > size;
    is_larger.then(|| {
        format!("the volume has grown to {length} bytes; attach it again, and its device grows")
    })
}

/// What is wrong with the file below, and with the disk that it lies on.
pub(super) fn of_file(here: &Here, mounts: &[Mount]) -> Vec<String> {
    let device = match &here.device {
        Attached::Loop(device) => device,
        Attached::Drbd(device) => return of_replicas(device),
    };
    let Some(path) = file_path(device) else {
        return Vec::new();
    };
    if let Some(minor) = drbd::minor_of(&path) {
        return of_minor(minor);
    }
    // The kernel's own way to say that a file has no name any more.
    if path.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return vec![
            "the volume's file was deleted while it is in use: its data is lost when it is unstaged".to_owned(),
        ];
    }
    let Ok(Some(status)) = device.status() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    // The path is the kernel's word of another time, and perhaps of a mount namespace that is gone.
    let file = paths::open_regular(&path, false).ok();
    let file = file.filter(|file| FileId::of(file).is_ok_and(|id| id == status.file));
    let start = status.part.map_or(0, |part| part.start);
    if let (Some(Ok(metadata)), Ok(size)) = (file.as_ref().map(File::metadata), device.size())
        && metadata.len() < start.saturating_add(size)
    {
        all.push(format!(
            "the volume's file was truncated to {} bytes while it is in use: the rest is lost",
            metadata.len()
        ));
    }
    let disk = mounts.iter().find(|mount| is_of(mount, status.file.device));
    all.extend(disk.and_then(|mount| of_mount(mount, "the disk below the volume")));
    let stat = match (file, disk) {
        (Some(file), _) => rustix::fs::fstatvfs(file).ok(),
        (None, Some(mount)) => rustix::fs::statvfs(&mount.point).ok(),
        (None, None) => None,
    };
    all.extend(stat.and_then(|stat| of_disk(&stat)));
    all
}

/// What is wrong with the replicas below the device of DRBD.
fn of_replicas(device: &BlockDevice) -> Vec<String> {
    drbd::minor_of(&device.path()).map_or_else(Vec::new, of_minor)
}

fn of_minor(minor: u32) -> Vec<String> {
    let told = drbd::volume_of(minor).and_then(|volume| match volume {
        Some(volume) => drbd::troubles(&volume),
        None => Ok(Vec::new()),
    });
    told.unwrap_or_else(|error| vec![types::report(&error).to_string()])
}

/// Whether files of this device number are those of the mount: each subvolume of a btrfs has a number of its own.
fn is_of(mount: &Mount, number: DeviceNumber) -> bool {
    mount.device == number
        || mount.fs_type == "btrfs"
            && rustix::fs::stat(&mount.point)
                .is_ok_and(|stat| DeviceNumber::from_raw(stat.st_dev) == number)
}

fn of_disk(stat: &StatVfs) -> Option<String> {
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Some("the disk below the volume is read-only".to_owned());
    }
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let (free, all) = (bytes(stat.f_bavail), bytes(stat.f_blocks));
    (free < (all / ROOM_PART).min(ROOM_MAX)).then(|| {
        format!(
            "the disk below the volume is nearly full: {free} bytes are free of {all}; writes to the volume fail \
             when there are none, so make room on the disk"
        )
    })
}
