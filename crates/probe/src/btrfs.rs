//! btrfs: its superblock, and which devices that names.
//!
//! A mount of a btrfs uses every device of the same file system that the kernel has seen, and
//! writes to them. So a btrfs that is not entirely on its own device is never mounted.

use std::io;

use crate::FsType;
use crate::crc::crc32c;
use crate::found::{Found, bits, cut};
use crate::window::{Window, le16, le32, le64, text, uuid};

const SUPERBLOCK: u64 = 64 << 10;
const METADATA_UUID: u64 = 0x400;

/// What every kernel since 5.15 mounts: mixed_backref to metadata_uuid, except for zstd, raid1c34 and zoned,
/// which have names here, and extent_tree_v2.
const INCOMPAT_PLAIN: u64 = 0x3ff | METADATA_UUID;
const INCOMPAT_NAMES: &[(u64, &str)] = &[
    (0x800, "raid1c34"),
    (0x1000, "zoned"),
    (0x2000, "extent-tree-v2"),
    (0x4000, "raid-stripe-tree"),
    (0x1_0000, "simple-quotas"),
];
const RO_PLAIN: u64 = 0x7;
const RO_NAMES: &[(u64, &str)] = &[(0x8, "block-group-tree")];

/// Flags of a superblock that no volume is mounted with.
const FLAGS: &[(u64, &str)] = &[
    (
        1 << 32,
        "it is a seed, which other file systems grow out of; make it without (btrfstune -S 0)",
    ),
    (
        1 << 33 | 1 << 34,
        "it is a dump of metadata without any data (btrfs-image); restore it first",
    ),
    (
        1 << 35 | 1 << 36,
        "a change of its UUID was interrupted; finish it with btrfstune",
    ),
    (
        1 << 37 | 1 << 38 | 1 << 39 | 1 << 40,
        "a conversion of it was interrupted; finish it with btrfstune",
    ),
];

/// The system chunk array: its place in the superblock and its length.
const CHUNKS: usize = 0x32b;
const CHUNKS_MAX: usize = 2048;
/// A key, a chunk without its stripes, a stripe.
const KEY: usize = 17;
const CHUNK: usize = 48;
const STRIPE: usize = 32;

/// The first superblock, with its checksum where that is the usual CRC-32C.
pub(crate) fn find(window: &Window) -> io::Result<Option<Found>> {
    let Some(block) = window.bytes(SUPERBLOCK, 4096)? else {
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
        refused: refused(&block, window.size()),
    }))
}

fn refused(block: &[u8], size: u64) -> Option<String> {
    let devices = le64(block, 0x88);
    if devices != 1 {
        return Some(format!(
            "it has {devices} devices, and a volume is one; make it on one device"
        ));
    }
    let flags = le64(block, 0x38);
    if let Some((_, why)) = FLAGS.iter().find(|(flag, _)| flags & flag != 0) {
        return Some((*why).to_owned());
    }
    // dev_item: the device that this superblock stands on.
    let device = &block[0xc9..0xc9 + 98];
    let id = le64(device, 0);
    // Its file system is the one of the superblock, or the one that a changed UUID hides.
    let has_other_uuid = le64(block, 0xbc) & METADATA_UUID != 0;
    let owner = if has_other_uuid {
        &block[0x23b..0x24b]
    } else {
        &block[0x20..0x30]
    };
    if id == 0 || &device[82..98] != owner || names_others(block, id, &device[66..82]) {
        return Some("it uses more devices than its own; create it on one device".to_owned());
    }
    let bytes = le64(device, 8);
    (bytes > size).then(|| cut(bytes, size))
}

/// Whether the chunks that the superblock lists lie on another device than this one. What cannot be read
/// names nobody: the kernel refuses it.
fn names_others(block: &[u8], id: u64, device_uuid: &[u8]) -> bool {
    let length = usize::try_from(le32(block, 0xa0)).unwrap_or(usize::MAX);
    let mut rest = &block[CHUNKS..CHUNKS + length.min(CHUNKS_MAX)];
    while let Some(chunk) = rest.get(KEY..).filter(|chunk| chunk.len() >= CHUNK) {
        let stripes = usize::from(le16(chunk, 44));
        let end = CHUNK + stripes * STRIPE;
        let Some(stripes) = chunk.get(CHUNK..end) else {
            return false;
        };
        let mut stripes = stripes.chunks_exact(STRIPE);
        if stripes.any(|stripe| le64(stripe, 0) != id || &stripe[16..32] != device_uuid) {
            return true;
        }
        rest = &chunk[end..];
    }
    false
}

/// The features that some kernel may lack, for an error of one that refused to mount it.
pub(crate) fn features(window: &Window) -> io::Result<Vec<String>> {
    let Some(block) = window.bytes(SUPERBLOCK, 4096)? else {
        return Ok(Vec::new());
    };
    let mut all = bits(
        "incompatible",
        le64(&block, 0xbc) & !INCOMPAT_PLAIN,
        INCOMPAT_NAMES,
    );
    all.extend(bits(
        "read-only compatible",
        le64(&block, 0xb4) & !RO_PLAIN,
        RO_NAMES,
    ));
    let sector = le32(&block, 0x90);
    if sector != 4096 {
        all.push(format!("sectors of {sector} bytes"));
    }
    Ok(all)
}
