//! `mount_setattr(2)`, which the library of system calls does not have.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

/// Sets flags of the mount that `mount` is the root of, and leaves the others as they are.
#[expect(
    unsafe_code,
    reason = "mount_setattr has no safe wrapper among our dependencies"
)]
pub(super) fn set(mount: &OwnedFd, flags: MountAttrFlags) -> Result<(), Errno> {
    /// `struct mount_attr` of `include/uapi/linux/mount.h`.
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr {
        set: flags.bits().into(),
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is an empty C string and the kernel reads one MountAttr of the given size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
