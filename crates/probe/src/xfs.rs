//! XFS: its superblock, and what it requires of a node.

use std::io;
use std::ops::RangeInclusive;

use crate::FsType;
use crate::found::{Found, bits, cut};
use crate::window::{Window, be16, be32, be64, text, uuid};

/// `sb_features_incompat` (Linux `fs/xfs/libxfs/xfs_format.h`).
const NEEDS_REPAIR: u32 = 0x10;
const ZONED: u32 = 0x200;
/// What every kernel since 5.15 mounts: ftype, sparse inodes, meta_uuid, bigtime, and needsrepair, which
/// none does and which is said otherwise.
const INCOMPAT_PLAIN: u32 = 0x1f;
const INCOMPAT_NAMES: &[(u64, &str)] = &[
    (0x20, "nrext64"),
    (0x40, "exchange"),
    (0x80, "parent"),
    (0x100, "metadir"),
    (0x200, "zoned"),
    (0x400, "zone-gaps"),
];
/// finobt, rmapbt, reflink, inobtcount.
const RO_PLAIN: u32 = 0xf;

/// The magic, and a block, sector and inode size that can be (`xfs_validate_sb_common`).
pub(crate) fn find(window: &Window) -> io::Result<Option<Found>> {
    let Some(block) = window.bytes(0, 512)? else {
        return Ok(None);
    };
    if !block.starts_with(b"XFSB") {
        return Ok(None);
    }
    let is_power =
        |size: u32, log: u8, range: RangeInclusive<u8>| range.contains(&log) && size == 1 << log;
    let is_valid = is_power(be32(&block, 4), block[120], 9..=16)
        && is_power(be16(&block, 102).into(), block[121], 9..=15)
        && is_power(be16(&block, 104).into(), block[122], 8..=11)
        && be32(&block, 88) > 0;
    Ok(is_valid.then(|| Found {
        fs_type: FsType::Xfs,
        label: text(&block[108..120]),
        uuid: uuid(&block[32..48]),
        refused: refused(&block, window.size()),
    }))
}

/// Whether the superblock is of version 5, which alone has words of features.
fn has_features(block: &[u8]) -> bool {
    be16(block, 100) & 0xf == 5
}

fn refused(block: &[u8], size: u64) -> Option<String> {
    let incompatible = if has_features(block) {
        be32(block, 216)
    } else {
        0
    };
    // sb_logstart
    if be64(block, 48) == 0 {
        return Some("its log is on another device; create it with an internal log".to_owned());
    }
    // sb_rblocks, and sb_rtstart of a realtime section inside the same device
    let is_inside = incompatible & ZONED != 0 && be64(block, 288) != 0;
    if be64(block, 16) != 0 && !is_inside {
        return Some("a part of it is on a realtime device; create it without one".to_owned());
    }
    if block[126] != 0 {
        return Some("mkfs.xfs did not finish it; create it again".to_owned());
    }
    if incompatible & NEEDS_REPAIR != 0 {
        return Some("it is marked as needing repair; run xfs_repair on it".to_owned());
    }
    let bytes = be64(block, 8).checked_mul(be32(block, 4).into());
    bytes
        .filter(|bytes| *bytes > size)
        .map(|bytes| cut(bytes, size))
}

/// The features that some kernel may lack, for an error of one that refused to mount it.
pub(crate) fn features(window: &Window) -> io::Result<Vec<String>> {
    let Some(block) = window.bytes(0, 512)? else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    if has_features(&block) {
        all.extend(bits(
            "incompatible",
            u64::from(be32(&block, 216) & !INCOMPAT_PLAIN),
            INCOMPAT_NAMES,
        ));
        all.extend(bits(
            "read-only compatible",
            u64::from(be32(&block, 212) & !RO_PLAIN),
            &[],
        ));
        all.extend(bits(
            "log incompatible",
            u64::from(be32(&block, 220)),
            &[(1, "xattr log")],
        ));
    } else {
        all.push("the format of version 4 (crc=0)".to_owned());
    }
    if be32(&block, 4) > 4096 {
        all.push("blocks of more than 4 KiB".to_owned());
    }
    Ok(all)
}
