//! Whether the kernel considers a btrfs to have a single device.
//!
//! At mount, Linux before 6.7 combines all scanned devices with one UUID (udev scans each new
//! device), whatever number the superblock states. The superblock is untrusted; this asks the
//! kernel itself before the mount.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::ioctl::{Opcode, opcode};

/// `struct btrfs_ioctl_vol_args` of `include/uapi/linux/btrfs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Device {
    fd: i64,
    name: [u8; 4088],
}

const BTRFS_IOC_FORGET_DEV: Opcode = opcode::write::<Device>(0x94, 5);
const BTRFS_IOC_DEVICES_READY: Opcode = opcode::read::<Device>(0x94, 39);

/// Whether the kernel knows as many devices of the btrfs on `device` as that has by its superblock. Where it
/// cannot be asked (no node `/dev/btrfs-control`), nobody could tell it of others either.
pub(super) fn is_alone(device: &Path) -> bool {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/btrfs-control");
    let Ok(control) = control else {
        return true;
    };
    // What it takes for no btrfs the mount will refuse; 1 says that the numbers differ.
    let is_alone =
        ask(&control, BTRFS_IOC_DEVICES_READY, device).map_or(true, |answer| answer == 0);
    if !is_alone {
        // The question made it known; nobody is to find it when the device is somebody else's.
        let _ = ask(&control, BTRFS_IOC_FORGET_DEV, device);
    }
    is_alone
}

#[expect(
    unsafe_code,
    reason = "an ioctl whose result is its return value has no safe wrapper"
)]
fn ask(control: &File, what: Opcode, device: &Path) -> io::Result<i32> {
    let mut argument = Device {
        fd: 0,
        name: [0; 4088],
    };
    let name = device.as_os_str().as_bytes();
    let place = argument.name[..4087].get_mut(..name.len());
    place
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(name);
    // SAFETY: both calls read one Device, whose name ends with a NUL.
    match unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            libc::Ioctl::from(what),
            &raw const argument,
        )
    } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_calls_are_those_of_the_kernel() {
        // As `btrfs` passes them on x86-64 and arm64.
        assert_eq!(BTRFS_IOC_FORGET_DEV, 0x5000_9405);
        assert_eq!(BTRFS_IOC_DEVICES_READY, 0x9000_9427);
    }
}
