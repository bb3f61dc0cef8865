//! What is no file system: encryption, RAID and LVM members, caches, swap.

use std::io;

use crate::ext;
use crate::window::{Window, be16, le32, le64};

/// A RAID member or an encrypted disk. One such signature decides, whatever else the disk shows.
pub(crate) fn raid_or_crypto(window: &Window) -> io::Result<Option<&'static str>> {
    if is_linux_raid(window)? {
        return Ok(Some("linux_raid_member"));
    }
    let size = window.size();
    if let Some(offset) = size.checked_sub(1024)
        && window.has(offset, b"Intel Raid ISM Cfg Sig. ")?
    {
        return Ok(Some("isw_raid_member"));
    }
    if let Some(offset) = size.checked_sub(512)
        && window.has(offset, &[0xde, 0x11, 0xde, 0x11])?
    {
        return Ok(Some("ddf_raid_member"));
    }
    for sector in 0..4 {
        let label = sector * 512;
        if window.has(label, b"LABELONE")? && window.has(label + 24, b"LVM2 001")? {
            return Ok(Some("LVM2_member"));
        }
    }
    if is_luks(window)? {
        return Ok(Some("crypto_LUKS"));
    }
    if window.has(3, b"-FVE-FS-")? {
        return Ok(Some("BitLocker"));
    }
    Ok(None)
}

/// The magic of md's superblocks, in the byte order of the machine that made them.
const MD_MAGIC: u32 = 0xa92b_4efc;

/// md: version 1.1 at the start, 1.2 at 4 KiB, 1.0 and 0.90 near the end.
fn is_linux_raid(window: &Window) -> io::Result<bool> {
    let sectors = window.size() / 512;
    let last = sectors.checked_sub(16).map(|sector| (sector & !7) * 512);
    for offset in [Some(0), Some(4096), last].into_iter().flatten() {
        let Some(block) = window.bytes(offset, 256)? else {
            continue;
        };
        // The superblock says where it stands: a copy inside a file is none.
        let is_here = le64(&block, 144) == offset / 512;
        if le32(&block, 0) == MD_MAGIC && le32(&block, 4) == 1 && is_here {
            return Ok(true);
        }
    }
    let Some(offset) = (window.size() & !0xffff).checked_sub(0x1_0000) else {
        return Ok(false);
    };
    Ok(window.has(offset, &MD_MAGIC.to_le_bytes())?
        || window.has(offset, &MD_MAGIC.to_be_bytes())?)
}

/// LUKS 1 and 2, and the second header of LUKS 2, which stands at one of these places.
fn is_luks(window: &Window) -> io::Result<bool> {
    if let Some(header) = window.bytes(0, 8)?
        && header.starts_with(b"LUKS\xba\xbe")
        && (1..=2).contains(&be16(&header, 6))
    {
        return Ok(true);
    }
    for shift in 14..=22 {
        if window.has(1 << shift, b"SKUL\xba\xbe\0\x02")? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Signatures that are enough by themselves: name, offset, magic.
const SIGNATURES: &[(&str, u64, &[u8])] = &[
    (
        "bcache",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    ),
    ("DM_snapshot_cow", 0, b"SnAp"),
    ("DM_integrity", 0, b"integrt\0"),
    ("DM_verity_hash", 0, b"verity\0\0"),
    ("vdo", 0, b"dmvdo001"),
    ("stratis", 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("ceph_bluestore", 0, b"bluestore block device"),
    ("VMFS_volume_member", 1 << 20, &0xc001_d00du32.to_le_bytes()),
    ("VMFS", 2 << 20, &0x2fab_f15eu32.to_le_bytes()),
    ("oracleasm", 32, b"ORCLDISK"),
    ("ubi", 0, b"UBI#"),
];

/// Everything else that is no file system.
pub(crate) fn others(window: &Window) -> io::Result<Vec<&'static str>> {
    let mut all = Vec::new();
    for (what, offset, magic) in SIGNATURES {
        if window.has(*offset, magic)? {
            all.push(*what);
        }
    }
    all.extend(swap(window)?);
    if ext::is_journal(window)? {
        all.push("jbd");
    }
    if is_zfs(window)? {
        all.push("zfs_member");
    }
    Ok(all)
}

/// Swap, or a suspended system in it. The magic ends the first page, whose size is the machine's.
fn swap(window: &Window) -> io::Result<Option<&'static str>> {
    for page in [4096, 8192, 16384, 32768, 65536] {
        let is_new = window.has(page - 10, b"SWAPSPACE2")? && has_swap_header(window)?;
        if is_new || window.has(page - 10, b"SWAP-SPACE")? {
            return Ok(Some("swap"));
        }
        if window.has(page - 10, b"S1SUSPEND\0")? || window.has(page - 10, b"S2SUSPEND\0")? {
            return Ok(Some("swsuspend"));
        }
    }
    Ok(None)
}

/// Swap's own header: version 1 and at least one page. Without it the magic is what `mkfs` left.
fn has_swap_header(window: &Window) -> io::Result<bool> {
    let Some(header) = window.bytes(1024, 8)? else {
        return Ok(false);
    };
    Ok(le32(&header, 0) == 1 && le32(&header, 4) > 0)
}

/// A ZFS label: 256 KiB, whose second half is a ring of uberblocks. Two stand at each end.
const ZFS_LABEL: u64 = 256 << 10;
/// An uberblock slot is at least this long.
const ZFS_SLOT: usize = 1024;
/// `blkid` believes in ZFS when it sees four uberblocks.
const ZFS_UBERBLOCKS: usize = 4;

fn is_zfs(window: &Window) -> io::Result<bool> {
    let size = window.size();
    if size < 64 << 20 {
        // The smallest vdev that zpool takes.
        return Ok(false);
    }
    let end = size & !(ZFS_LABEL - 1);
    let mut count = 0;
    for label in [0, ZFS_LABEL, end - 2 * ZFS_LABEL, end - ZFS_LABEL] {
        let Some(ring) = window.bytes(label + ZFS_LABEL / 2, 128 << 10)? else {
            continue;
        };
        let magics = ring.chunks_exact(ZFS_SLOT).map(|slot| le64(slot, 0));
        count += magics
            .filter(|magic| [*magic, magic.swap_bytes()].contains(&0x00ba_b10c))
            .count();
    }
    Ok(count >= ZFS_UBERBLOCKS)
}
