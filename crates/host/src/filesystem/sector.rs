//! How large the sectors of a file system's device may be.
//!
//! A disk that shares extents (XFS with reflinks) supports direct I/O only in whole blocks, so its
//! files need loop devices whose sectors are one block. The contents of a file were created for a
//! certain sector size, and the kernel refuses to mount them on larger sectors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use probe::FsType;

use super::is_ext;
use crate::loopdev::SECTOR;

/// The largest sectors, in bytes, on which the file system of type `fs_type` that begins at the byte
/// `start` of `file` can be mounted: [`SECTOR`] where that is not known.
///
/// The kernel's checks: `ext4_load_super` (the block is at least a sector), `xfs_fs_fill_super` by way of
/// `xfs_setsize_buftarg` (`sb_sectsize` is), `btrfs_validate_super` (`sectorsize` is, and is at least 4 KiB).
pub(crate) fn sector_max(fs_type: FsType, file: &File, start: u64) -> io::Result<u32> {
    let read = |at: u64| -> io::Result<[u8; 4]> {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, start + at)?;
        Ok(bytes)
    };
    let found = match fs_type {
        // s_log_block_size of ext4_super_block, which begins at 1024.
        ext if is_ext(ext) => {
            ext_block_size(u32::from_le_bytes(read(1024 + 24)?)).unwrap_or(SECTOR)
        }
        // sb_sectsize of xfs_dsb.
        FsType::Xfs => {
            let [.., high, low] = read(100)?;
            u16::from_be_bytes([high, low]).into()
        }
        // sectorsize of btrfs_super_block, which begins at 64 KiB.
        FsType::Btrfs => u32::from_le_bytes(read((64 << 10) + 0x90)?),
        _ => SECTOR,
    };
    Ok(if found.is_power_of_two() {
        found.max(SECTOR)
    } else {
        SECTOR
    })
}

/// The bytes of a block, of which `s_log_block_size` of an ext superblock has the logarithm: 1 to 64 KiB.
pub(super) fn ext_block_size(log: u32) -> Option<u32> {
    (log <= 6).then(|| 1024 << log)
}
