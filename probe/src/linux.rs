//! ext2, ext3, ext4, XFS and btrfs: the file systems that volumes are made of.

use std::io;

use crate::crc::crc32c;
use crate::window::{Window, be16, be32, le16, le32, text, uuid};
use crate::{Found, FsType};

/// Feature bits of an ext superblock (Linux `fs/ext4/ext4.h`).
mod ext_feature {
    pub(super) const COMPAT_HAS_JOURNAL: u32 = 0x4;
    pub(super) const INCOMPAT_RECOVER: u32 = 0x4;
    pub(super) const INCOMPAT_JOURNAL_DEVICE: u32 = 0x8;
    /// sparse_super, large_file, btree_dir: all that ext2 and ext3 know.
    pub(super) const RO_OLD: u32 = 0x1 | 0x2 | 0x4;
    /// filetype, meta_bg: all that ext2 knows; ext3 knows `recover` too.
    pub(super) const INCOMPAT_OLD: u32 = 0x2 | 0x10;
}

const EXT_SUPERBLOCK: u64 = 1024;

/// Whether this is an ext journal on a device of its own (`jbd`).
pub(crate) fn is_ext_journal(window: &Window) -> io::Result<bool> {
    Ok(ext_superblock(window)?
        .is_some_and(|block| le32(&block, 0x60) & ext_feature::INCOMPAT_JOURNAL_DEVICE != 0))
}

/// The superblock, also when its checksum is wrong: that is `e2fsck`'s to judge, and it is ext still.
fn ext_superblock(window: &Window) -> io::Result<Option<Vec<u8>>> {
    let Some(block) = window.bytes(EXT_SUPERBLOCK, 1024)? else {
        return Ok(None);
    };
    if le16(&block, 0x38) != 0xef53 {
        return Ok(None);
    }
    Ok(Some(block.into_owned()))
}

/// The three are told apart by their features, as `blkid` does: a magic number they have in common.
pub(crate) fn ext(window: &Window) -> io::Result<Option<Found>> {
    use ext_feature as feature;
    let Some(block) = ext_superblock(window)? else {
        return Ok(None);
    };
    let has_journal = le32(&block, 0x5c) & feature::COMPAT_HAS_JOURNAL != 0;
    let incompatible = le32(&block, 0x60);
    let read_only = le32(&block, 0x64);
    if incompatible & feature::INCOMPAT_JOURNAL_DEVICE != 0 {
        return Ok(None);
    }
    let is_old = |incompatible_known: u32| {
        incompatible & !incompatible_known == 0 && read_only & !feature::RO_OLD == 0
    };
    let fs_type = if !is_old(feature::INCOMPAT_OLD | feature::INCOMPAT_RECOVER) {
        FsType::Ext4
    } else if has_journal {
        FsType::Ext3
    } else if is_old(feature::INCOMPAT_OLD) {
        FsType::Ext2
    } else {
        // A journal to replay and no journal: no driver takes it, and blkid names none.
        return Ok(None);
    };
    Ok(Some(Found {
        fs_type,
        label: text(&block[0x78..0x88]),
        uuid: uuid(&block[0x68..0x78]),
    }))
}

/// XFS: the magic, and a block, sector and inode size that can be (`xfs_validate_sb_common`).
pub(crate) fn xfs(window: &Window) -> io::Result<Option<Found>> {
    let Some(block) = window.bytes(0, 264)? else {
        return Ok(None);
    };
    if !block.starts_with(b"XFSB") {
        return Ok(None);
    }
    let is_power = |size: u32, log: u8, range: std::ops::RangeInclusive<u8>| {
        range.contains(&log) && size == 1 << log
    };
    let groups = be32(&block, 88);
    let is_valid = is_power(be32(&block, 4), block[120], 9..=16)
        && is_power(be16(&block, 102).into(), block[121], 9..=15)
        && is_power(be16(&block, 104).into(), block[122], 8..=11)
        && groups > 0;
    let found = Found {
        fs_type: FsType::Xfs,
        label: text(&block[108..120]),
        uuid: uuid(&block[32..48]),
    };
    Ok(is_valid.then_some(found))
}

/// btrfs: the first superblock, with its checksum where that is the usual CRC-32C.
pub(crate) fn btrfs(window: &Window) -> io::Result<Option<Found>> {
    let Some(block) = window.bytes(64 << 10, 4096)? else {
        return Ok(None);
    };
    if block[0x40..0x48] != *b"_BHRfS_M" {
        return Ok(None);
    }
    let is_crc32c = le16(&block, 0xc4) == 0;
    if is_crc32c && !crc32c(!0, &block[0x20..]) != le32(&block, 0) {
        return Ok(None);
    }
    Ok(Some(Found {
        fs_type: FsType::Btrfs,
        label: text(&block[0x12b..0x22b]),
        uuid: uuid(&block[0x20..0x30]),
    }))
}
