//! The system calls of the loop driver (`include/uapi/linux/loop.h`), and nothing else.

use std::fs::File;
use std::os::fd::AsRawFd;

use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LOOP_CLR_FD, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LOOP_GET_STATUS64,
    LOOP_SET_CAPACITY, LOOP_SET_STATUS64, loop_config, loop_info64,
};
use rustix::io::Errno;
use rustix::ioctl::{Getter, IntegerSetter, NoArg, Setter, ioctl};

/// A `loop_info64` of zeros.
pub(super) const fn empty_info() -> loop_info64 {
    loop_info64 {
        lo_device: 0,
        lo_inode: 0,
        lo_rdevice: 0,
        lo_offset: 0,
        lo_sizelimit: 0,
        lo_number: 0,
        lo_encrypt_type: 0,
        lo_encrypt_key_size: 0,
        lo_flags: 0,
        lo_file_name: [0; 64],
        lo_crypt_name: [0; 64],
        lo_encrypt_key: [0; 32],
        lo_init: [0; 2],
    }
}

/// The number of a loop device that is not in use; another process may take it first.
#[expect(
    unsafe_code,
    reason = "an ioctl whose result is its return value has no safe wrapper"
)]
pub(super) fn get_free(control: &File) -> Result<u32, Errno> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), libc::Ioctl::from(LOOP_CTL_GET_FREE)) };
    u32::try_from(number)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Attaches `backing` to `device`.
#[expect(unsafe_code, reason = "ioctl")]
pub(super) fn configure(
    device: &File,
    backing: &File,
    block_size: u32,
    info: loop_info64,
) -> Result<(), Errno> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let config = loop_config {
        fd,
        block_size,
        info,
        __reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one loop_config.
    unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, loop_config>::new(config)) }
}

/// What the device is attached to; `ENXIO` when to nothing.
#[expect(unsafe_code, reason = "ioctl")]
pub(super) fn status(device: &File) -> Result<loop_info64, Errno> {
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64.
    unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, loop_info64>::new()) }
}

/// Detaches, now or when the last user has closed the device.
#[expect(unsafe_code, reason = "ioctl")]
pub(super) fn clear(device: &File) -> Result<(), Errno> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    unsafe { ioctl(device, IntegerSetter::<LOOP_CLR_FD>::new_usize(0)) }
}

/// Takes back that the device is detached when its last user has closed it.
#[expect(unsafe_code, reason = "ioctl")]
pub(super) fn stay(device: &File) -> Result<(), Errno> {
    let mut info = status(device)?;
    info.lo_flags &= !(LO_FLAGS_AUTOCLEAR as u32);
    // SAFETY: LOOP_SET_STATUS64 reads one loop_info64.
    unsafe { ioctl(device, Setter::<LOOP_SET_STATUS64, loop_info64>::new(info)) }
}

/// Takes over the present size of the file.
#[expect(unsafe_code, reason = "ioctl")]
pub(super) fn set_capacity(device: &File) -> Result<(), Errno> {
    // SAFETY: LOOP_SET_CAPACITY takes no argument.
    unsafe { ioctl(device, NoArg::<LOOP_SET_CAPACITY>::new()) }
}
