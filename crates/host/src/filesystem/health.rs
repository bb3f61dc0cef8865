//! What the kernel reports about a mounted file system's health. Looks and never touches.

use std::fs::File;
use std::path::Path;

use probe::FsType;
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

use super::grow::btrfs_device;
use super::is_ext;
use crate::device::BlockDevice;

/// `struct xfs_fsop_geom` of `xfs_fs.h`, the parts before and after what is needed as padding.
#[repr(C)]
#[derive(Clone, Copy)]
struct XfsHealth {
    unused_1: [u64; 14],
    sick: u32,
    checked: u32,
    unused_2: [u64; 17],
}

/// `struct btrfs_ioctl_get_dev_stats` of `include/uapi/linux/btrfs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct BtrfsStats {
    device: u64,
    count: u64,
    flags: u64,
    values: [u64; 5],
    unused: [u64; 121],
}

const XFS_IOC_FSGEOMETRY: Opcode = opcode::read::<XfsHealth>(b'X', 126);
const BTRFS_IOC_GET_DEV_STATS: Opcode = opcode::read_write::<BtrfsStats>(0x94, 52);

/// What the file system of type `fs_type` on `device` that is mounted at `mounted` reports of itself, in words.
/// A kernel that does not tell has nothing to report.
pub(crate) fn reported(fs_type: FsType, device: &BlockDevice, mounted: &Path) -> Option<String> {
    match fs_type {
        fs_type if is_ext(fs_type) => ext_errors(device.name()),
        FsType::Xfs => xfs_sick(mounted).ok().flatten(),
        FsType::Btrfs => {
            let (id, _) = btrfs_device(device).ok()?;
            btrfs_errors(id, mounted).ok().flatten()
        }
        _ => None,
    }
}

/// The errors that ext4 counts in its superblock, until e2fsck clears them.
fn ext_errors(name: &str) -> Option<String> {
    let directory = Path::new("/sys/fs/ext4").join(name);
    let read = |file: &str| {
        let text = std::fs::read_to_string(directory.join(file)).ok()?;
        Some(text.trim().to_owned())
    };
    let count: u64 = read("errors_count")?.parse().ok()?;
    if count == 0 {
        return None;
    }
    let place = read("last_error_func").unwrap_or_default();
    Some(format!(
        "the file system has found {count} errors in itself, the last in {place}; it is checked when it is \
         staged next"
    ))
}

#[expect(unsafe_code, reason = "ioctl")]
fn xfs_sick(mounted: &Path) -> std::io::Result<Option<String>> {
    let directory = File::open(mounted)?;
    // SAFETY: XFS_IOC_FSGEOMETRY writes one structure, whose size is part of its number.
    let geometry = unsafe { ioctl(&directory, Getter::<XFS_IOC_FSGEOMETRY, XfsHealth>::new()) }?;
    Ok((geometry.sick != 0).then(|| {
        let sick = geometry.sick;
        format!("the file system has found damage in its metadata ({sick:#x}); run xfs_repair on the volume")
    }))
}

#[expect(unsafe_code, reason = "ioctl")]
fn btrfs_errors(device: u64, mounted: &Path) -> std::io::Result<Option<String>> {
    let directory = File::open(mounted)?;
    let mut stats = BtrfsStats {
        device,
        count: 5,
        flags: 0,
        values: [0; 5],
        unused: [0; 121],
    };
    // SAFETY: BTRFS_IOC_GET_DEV_STATS reads and writes one structure, whose size is part of its number.
    unsafe {
        ioctl(
            &directory,
            Updater::<BTRFS_IOC_GET_DEV_STATS, BtrfsStats>::new(&mut stats),
        )
    }
    .map_err(|errno: Errno| std::io::Error::from(errno))?;
    let [writes, reads, flushes, corrupt, stale] = stats.values;
    Ok((stats.values != [0; 5]).then(|| {
        format!(
            "the file system counts errors: {writes} writes, {reads} reads and {flushes} flushes failed, \
             {corrupt} blocks were corrupt and {stale} stale; run btrfs scrub in it"
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_calls_are_those_of_the_kernel() {
        // As `xfs_io` and `btrfs` pass them on x86-64 and arm64.
        assert_eq!(XFS_IOC_FSGEOMETRY, 0x8100_587e);
        assert_eq!(BTRFS_IOC_GET_DEV_STATS, 0xc408_9434);
    }
}
