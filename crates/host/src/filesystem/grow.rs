//! Growing a mounted file system to the size of its device, by the kernel's own calls.
//!
//! The same that `resize2fs`, `xfs_growfs` and `btrfs filesystem resize` do to a mounted file system,
//! without their need for a mount table. The file system stays in use and a crash leaves the old size
//! or the new one. The ext file systems want `CAP_SYS_RESOURCE` for that; a process without it grows
//! them before they are mounted, with `resize2fs`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use probe::FsType;
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};
use rustix::thread::CapabilitySet;
use types::ByteSize;

use super::sector::ext_block_size;
use super::{CHECK_LIMIT, E2FSCK, is_ext};
use crate::command::Tool;
use crate::device::BlockDevice;
use crate::{Error, Result};

const RESIZE2FS: Tool = Tool {
    name: "resize2fs",
    package: "e2fsprogs",
};

/// `struct xfs_fsop_geom_v4` of `xfs_fs.h`, the part before and after what is needed as padding.
#[repr(C)]
#[derive(Clone, Copy)]
struct XfsGeometry {
    block_size: u32,
    unused_1: [u32; 6],
    inode_percent_max: u32,
    data_blocks: u64,
    unused_2: [u64; 9],
}

/// `struct xfs_growfs_data` of `xfs_fs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct XfsGrow {
    blocks: u64,
    inode_percent_max: u32,
}

/// `struct btrfs_ioctl_vol_args` of `include/uapi/linux/btrfs.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct BtrfsArguments {
    fd: i64,
    name: [u8; 4088],
}

const XFS_IOC_FSGEOMETRY_V4: Opcode = opcode::read::<XfsGeometry>(b'X', 124);
const XFS_IOC_FSGROWFSDATA: Opcode = opcode::write::<XfsGrow>(b'X', 110);
const EXT4_IOC_RESIZE_FS: Opcode = opcode::write::<u64>(b'f', 16);
const BTRFS_IOC_RESIZE: Opcode = opcode::write::<BtrfsArguments>(0x94, 3);

/// Grows the file system of type `fs_type` that is mounted for writing at `mounted` to fill
/// `device`. Returns whether there was anything to grow. A file system that cannot grow stays as it
/// is.
///
/// # Errors
/// [`Error::TooSmall`] when it could grow, and not to so little.
pub fn grow(fs_type: FsType, device: &BlockDevice, mounted: &Path) -> Result<bool> {
    let grown = match fs_type {
        FsType::Ext2 | FsType::Ext3 | FsType::Ext4 => grow_ext(device, mounted),
        FsType::Xfs => grow_xfs(device, mounted),
        FsType::Btrfs => grow_btrfs(device, mounted),
        _ => Ok(false),
    }?;
    if grown {
        tracing::info!(
            device = %device.path().display(),
            path = %mounted.display(),
            "file system grown"
        );
    }
    Ok(grown)
}

fn open(mounted: &Path) -> Result<File> {
    File::open(mounted).map_err(Error::io("open", mounted))
}

fn superblock<const LEN: usize>(device: &BlockDevice, offset: u64) -> Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    let read = device.file()?.read_exact_at(&mut bytes, offset);
    read.map_err(Error::io("read the superblock of", device.path()))?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> u64 {
    let word = bytes.get(offset..).and_then(<[u8]>::first_chunk::<4>);
    u32::from_le_bytes(*word.expect("offsets are constants inside the superblock")).into()
}

/// Whether the file system is smaller than its device and this process may grow it only while it is
/// not mounted.
pub fn grows_only_unmounted(fs_type: FsType, device: &BlockDevice) -> Result<bool> {
    if !is_ext(fs_type) || may_grow_ext() {
        return Ok(false);
    }
    Ok(ext_target(device)?.is_some())
}

/// Whether [`grow_unmounted`] can grow a file system of this type.
pub fn can_grow_unmounted(fs_type: FsType) -> bool {
    is_ext(fs_type)
}

/// Grows an ext file system that is not mounted and has just been checked, to fill `device`.
pub fn grow_unmounted(device: &BlockDevice) -> Result<()> {
    let path = device.path();
    // resize2fs wants a full check first.
    let outcome = E2FSCK.run(
        &["-f".as_ref(), "-p".as_ref(), path.as_os_str()],
        CHECK_LIMIT,
    )?;
    if !matches!(outcome.code, Some(0..=3)) {
        return Err(Error::NeedsRepair {
            device: path,
            said: outcome.said,
        });
    }
    RESIZE2FS.run_ok(&[path.as_os_str()], CHECK_LIMIT)
}

/// How much of its device a file system may leave unused and still fill it: its last group may be too small.
const UNUSED_MAX: u64 = 16 << 20;

/// The size of the file system of type `fs_type` that is mounted at `mounted`, when it is smaller than `device`:
/// what a growth that did not succeed leaves.
pub fn shortfall(
    fs_type: FsType,
    device: &BlockDevice,
    mounted: &Path,
) -> Result<Option<ByteSize>> {
    let size = match fs_type {
        fs_type if is_ext(fs_type) => ext_size(&superblock(device, 1024)?),
        FsType::Xfs => {
            let geometry = xfs_geometry(&open(mounted)?, mounted)?;
            Some(
                geometry
                    .data_blocks
                    .saturating_mul(geometry.block_size.into()),
            )
        }
        FsType::Btrfs => Some(btrfs_device(device)?.1),
        _ => {
            let stat = rustix::fs::statvfs(mounted).map_err(Error::io("measure", mounted))?;
            Some(stat.f_blocks.saturating_mul(stat.f_frsize))
        }
    };
    let device_size = device.size()?;
    Ok(size
        .filter(|size| size.saturating_add(UNUSED_MAX) < device_size)
        .map(ByteSize))
}

/// Whether this process has `CAP_SYS_RESOURCE`.
fn may_grow_ext() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// How many blocks an ext file system has by its superblock, and how many bytes each.
fn ext_blocks(superblock: &[u8; 1024]) -> Option<(u64, u64)> {
    /// `INCOMPAT_64BIT` of the ext4 superblock: the count of blocks has an upper half.
    const IS_64_BIT: u64 = 0x80;
    let log = u32::try_from(u32_at(superblock, 24)).unwrap_or(u32::MAX);
    let block_size = ext_block_size(log)?;
    let mut blocks = u32_at(superblock, 4);
    if u32_at(superblock, 96) & IS_64_BIT != 0 {
        blocks |= u32_at(superblock, 0x150) << 32;
    }
    Some((blocks, block_size.into()))
}

fn ext_size(superblock: &[u8; 1024]) -> Option<u64> {
    let (blocks, block_size) = ext_blocks(superblock)?;
    blocks.checked_mul(block_size)
}

/// How many blocks the ext file system on `device` should have, if that is more than it has.
fn ext_target(device: &BlockDevice) -> Result<Option<u64>> {
    let superblock: [u8; 1024] = superblock(device, 1024)?;
    let Some((present, block_size)) = ext_blocks(&superblock) else {
        return Ok(None);
    };
    let blocks = device.size()? / block_size;
    // A last block group that has no room for its own tables and 50 blocks is not made.
    let (group, first) = (u32_at(&superblock, 32).max(1), u32_at(&superblock, 20));
    let (inodes, inode_size) = (u32_at(&superblock, 40), u32_at(&superblock, 88) & 0xffff);
    let rest = blocks.saturating_sub(first) % group;
    let is_useless = rest < 2 + inodes.saturating_mul(inode_size).div_ceil(block_size) + 50;
    if is_useless && present == blocks - rest {
        return Ok(None);
    }
    Ok((present < blocks).then_some(blocks))
}

#[expect(unsafe_code, reason = "ioctl")]
fn grow_ext(device: &BlockDevice, mounted: &Path) -> Result<bool> {
    let Some(blocks) = ext_target(device)? else {
        return Ok(false);
    };
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64.
    unsafe {
        ioctl(
            open(mounted)?,
            Setter::<EXT4_IOC_RESIZE_FS, u64>::new(blocks),
        )
    }
    .map_err(Error::io("grow the ext file system at", mounted))?;
    Ok(true)
}

#[expect(unsafe_code, reason = "ioctl")]
fn xfs_geometry(directory: &File, mounted: &Path) -> Result<XfsGeometry> {
    // SAFETY: XFS_IOC_FSGEOMETRY_V4 writes one XfsGeometry, whose size is part of its number.
    let geometry = unsafe {
        ioctl(
            directory,
            Getter::<XFS_IOC_FSGEOMETRY_V4, XfsGeometry>::new(),
        )
    };
    geometry.map_err(Error::io("measure the XFS at", mounted))
}

#[expect(unsafe_code, reason = "ioctl")]
fn grow_xfs(device: &BlockDevice, mounted: &Path) -> Result<bool> {
    let directory = open(mounted)?;
    let geometry = xfs_geometry(&directory, mounted)?;
    let blocks = device.size()? / u64::from(geometry.block_size.max(512));
    if geometry.data_blocks >= blocks {
        return Ok(false);
    }
    let wanted = XfsGrow {
        blocks,
        inode_percent_max: geometry.inode_percent_max,
    };
    // SAFETY: XFS_IOC_FSGROWFSDATA reads one XfsGrow, whose size is part of its number.
    match unsafe {
        ioctl(
            &directory,
            Setter::<XFS_IOC_FSGROWFSDATA, XfsGrow>::new(wanted),
        )
    } {
        Ok(()) => Ok(true),
        // What is left is too little for another allocation group.
        Err(Errno::INVAL) if blocks - geometry.data_blocks < 64 => Ok(false),
        Err(errno) => Err(Error::io("grow the XFS at", mounted)(errno)),
    }
}

/// The id and the size in bytes of the one device of a btrfs, by its first superblock.
pub(super) fn btrfs_device(device: &BlockDevice) -> Result<(u64, u64)> {
    const SUPERBLOCK: u64 = 64 << 10;
    const DEVICE_ITEM: usize = 0xc9;
    let superblock: [u8; 512] = superblock(device, SUPERBLOCK)?;
    let u64_at = |offset| u32_at(&superblock, offset) | u32_at(&superblock, offset + 4) << 32;
    Ok((u64_at(DEVICE_ITEM), u64_at(DEVICE_ITEM + 8)))
}

#[expect(unsafe_code, reason = "ioctl")]
fn grow_btrfs(device: &BlockDevice, mounted: &Path) -> Result<bool> {
    /// btrfs uses whole sectors of this size at most.
    const UNIT: u64 = 64 << 10;
    /// The kernel resizes no btrfs to less than this (`btrfs_ioctl_resize`), though it mounts smaller ones.
    const LEAST: ByteSize = ByteSize(256 << 20);
    let (id, present) = btrfs_device(device)?;
    let size = ByteSize(device.size()?);
    if present.saturating_add(UNIT) > size.bytes() {
        return Ok(false);
    }
    if size < LEAST {
        return Err(Error::TooSmall {
            fs_type: FsType::Btrfs,
            size,
            min: LEAST,
        });
    }
    let mut arguments = BtrfsArguments {
        fd: 0,
        name: [0; 4088],
    };
    let text = format!("{id}:max");
    arguments.name[..text.len()].copy_from_slice(text.as_bytes());
    // SAFETY: BTRFS_IOC_RESIZE reads one BtrfsArguments, whose name ends with a NUL.
    unsafe {
        ioctl(
            open(mounted)?,
            Setter::<BTRFS_IOC_RESIZE, BtrfsArguments>::new(arguments),
        )
    }
    .map_err(Error::io("grow the btrfs at", mounted))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_calls_are_those_of_the_kernel() {
        // As `xfs_io`, `resize2fs` and `btrfs` pass them on x86-64 and arm64.
        assert_eq!(XFS_IOC_FSGEOMETRY_V4, 0x8070_587c);
        assert_eq!(XFS_IOC_FSGROWFSDATA, 0x4010_586e);
        assert_eq!(EXT4_IOC_RESIZE_FS, 0x4008_6610);
        assert_eq!(BTRFS_IOC_RESIZE, 0x5000_9403);
    }
}
