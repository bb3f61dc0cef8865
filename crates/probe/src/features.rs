//! File system features that some kernels lack: used only in error texts, never for a decision. A
//! kernel newer than this program may support more.

use std::io;

use crate::window::Window;
use crate::{Disk, FsType, btrfs, ext, xfs};

/// The features of the file system of this type on `disk` that some kernel since 5.15 may lack, by name.
/// A bit without a name here is given as a number.
pub fn features(disk: &dyn Disk, fs_type: FsType) -> io::Result<Vec<String>> {
    let window = Window::new(disk)?;
    match fs_type {
        FsType::Ext2 | FsType::Ext3 | FsType::Ext4 => ext::features(&window),
        FsType::Xfs => xfs::features(&window),
        FsType::Btrfs => btrfs::features(&window),
        _ => Ok(Vec::new()),
    }
}
