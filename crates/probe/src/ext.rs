//! ext2, ext3 and ext4: how to distinguish them, and what their superblock requires of a node.

use std::io;

use crate::FsType;
use crate::found::{Found, bits, cut};
use crate::window::{Window, le16, le32, text, uuid};

const SUPERBLOCK: u64 = 1024;

/// `s_feature_compat` (Linux `fs/ext4/ext4.h`).
const HAS_JOURNAL: u32 = 0x4;
/// `s_feature_incompat`.
const RECOVER: u32 = 0x4;
const JOURNAL_DEVICE: u32 = 0x8;
const BLOCKS_64: u32 = 0x80;
const MMP: u32 = 0x100;
/// sparse_super, large_file, btree_dir: all that ext2 and ext3 know.
const RO_OLD: u32 = 0x1 | 0x2 | 0x4;
/// filetype, meta_bg: all that ext2 knows; ext3 knows `recover` too.
const INCOMPAT_OLD: u32 = 0x2 | 0x10;

/// What every kernel since 5.15 mounts, whatever it was built with: not worth a word. filetype, recover,
/// meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data.
const INCOMPAT_PLAIN: u32 =
    0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000;
const INCOMPAT_NAMES: &[(u64, &str)] = &[
    (0x1, "compression"),
    (0x1000, "dirdata"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];
/// sparse_super to extra_isize, bigalloc, metadata_csum, orphan_present.
const RO_PLAIN: u32 = 0x7f | 0x200 | 0x400 | 0x1_0000;
const RO_NAMES: &[(u64, &str)] = &[
    (0x80, "snapshot"),
    (0x100, "quota"),
    (0x800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
];

/// The longest wait that a mount may ask for by its block of multi-mount protection, in seconds.
/// `mke2fs` asks for 5.
const MMP_SECONDS_MAX: u16 = 60;
/// `EXT4_MMP_MAGIC`.
const MMP_MAGIC: u32 = 0x004d_4d50;

/// Whether this is an ext journal on a device of its own (`jbd`).
pub(crate) fn is_journal(window: &Window) -> io::Result<bool> {
    Ok(superblock(window)?.is_some_and(|block| le32(&block, 0x60) & JOURNAL_DEVICE != 0))
}

/// The superblock, also when its checksum is wrong: that is `e2fsck`'s to judge, and it is ext still.
fn superblock(window: &Window) -> io::Result<Option<Vec<u8>>> {
    let Some(block) = window.bytes(SUPERBLOCK, 1024)? else {
        return Ok(None);
    };
    if le16(&block, 0x38) != 0xef53 {
        return Ok(None);
    }
    Ok(Some(block.into_owned()))
}

/// The three are told apart by their features, as `blkid` does: a magic number they have in common.
pub(crate) fn find(window: &Window) -> io::Result<Option<Found>> {
    let Some(block) = superblock(window)? else {
        return Ok(None);
    };
    let has_journal = le32(&block, 0x5c) & HAS_JOURNAL != 0;
    let incompatible = le32(&block, 0x60);
    let read_only = le32(&block, 0x64);
    if incompatible & JOURNAL_DEVICE != 0 {
        return Ok(None);
    }
    let is_old = |known: u32| incompatible & !known == 0 && read_only & !RO_OLD == 0;
    let fs_type = if !is_old(INCOMPAT_OLD | RECOVER) {
        FsType::Ext4
    } else if has_journal {
        FsType::Ext3
    } else if is_old(INCOMPAT_OLD) {
        FsType::Ext2
    } else {
        // A journal to replay and no journal: no driver takes it, and blkid names none.
        return Ok(None);
    };
    Ok(Some(Found {
        fs_type,
        label: text(&block[0x78..0x88]),
        uuid: uuid(&block[0x68..0x78]),
        refused: refused(window, &block)?,
    }))
}

fn refused(window: &Window, block: &[u8]) -> io::Result<Option<String>> {
    // s_journal_inum, s_journal_dev: the kernel opens a device of that number, whosever it is.
    let (journal_inode, journal_device) = (le32(block, 0xe0), le32(block, 0xe4));
    let has_journal = le32(block, 0x5c) & HAS_JOURNAL != 0;
    if journal_device != 0 || has_journal && journal_inode == 0 {
        return Ok(Some(
            "its journal is on another device; give it an internal one (tune2fs -O \
             ^has_journal, then tune2fs -j)"
                .to_owned(),
        ));
    }
    // s_mount_opts: the kernel obeys them before those of the mount, and any may stand there.
    let options = text(&block[0x200..0x240]);
    if !options.is_empty() {
        let options: String = options.chars().map(printable).collect();
        return Ok(Some(format!(
            "its superblock brings mount options of its own ({options}); clear them (tune2fs -E \
             mount_opts=) and ask for mount flags instead"
        )));
    }
    if let Some(seconds) = mmp_seconds(window, block)?.filter(|asked| *asked > MMP_SECONDS_MAX) {
        return Ok(Some(format!(
            "its multi-mount protection delays a mount for {seconds} seconds; turn it off \
             (tune2fs -O ^mmp)"
        )));
    }
    let bytes = size(block);
    Ok(bytes
        .filter(|bytes| *bytes > window.size())
        .map(|bytes| cut(bytes, window.size())))
}

/// A character of a text that somebody else wrote.
fn printable(character: char) -> char {
    if character.is_ascii_graphic() {
        character
    } else {
        '?'
    }
}

/// The bytes that the file system has by its superblock; `None` when that is no size.
fn size(block: &[u8]) -> Option<u64> {
    let high = if le32(block, 0x60) & BLOCKS_64 == 0 {
        0
    } else {
        le32(block, 0x150)
    };
    let blocks = u64::from(high) << 32 | u64::from(le32(block, 0x4));
    blocks.checked_mul(block_size(block)?)
}

fn block_size(block: &[u8]) -> Option<u64> {
    let log = le32(block, 0x18);
    (log <= 6).then(|| 1024 << log)
}

/// The interval by which a mount waits for another node's sign of life: of the superblock, or of the
/// block of the protection itself, whichever is longer.
fn mmp_seconds(window: &Window, block: &[u8]) -> io::Result<Option<u16>> {
    if le32(block, 0x60) & MMP == 0 {
        return Ok(None);
    }
    let own = le16(block, 0x166);
    // s_mmp_block, 64 bits.
    let number = u64::from(le32(block, 0x16c)) << 32 | u64::from(le32(block, 0x168));
    let at = block_size(block).and_then(|size| size.checked_mul(number));
    let there = at.map(|at| window.bytes(at, 1024)).transpose()?.flatten();
    // mmp_check_interval follows two numbers, a time, a node's name and a device's.
    let there = there.filter(|there| le32(there, 0) == MMP_MAGIC);
    Ok(Some(there.map_or(own, |there| own.max(le16(&there, 112)))))
}

/// The features that some kernel may lack, for an error of one that refused to mount it.
pub(crate) fn features(window: &Window) -> io::Result<Vec<String>> {
    let Some(block) = superblock(window)? else {
        return Ok(Vec::new());
    };
    let mut all = bits(
        "incompatible",
        u64::from(le32(&block, 0x60) & !INCOMPAT_PLAIN),
        INCOMPAT_NAMES,
    );
    all.extend(bits(
        "read-only compatible",
        u64::from(le32(&block, 0x64) & !RO_PLAIN),
        RO_NAMES,
    ));
    if block_size(&block).is_some_and(|size| size > 4096) {
        all.push("blocks of more than 4 KiB".to_owned());
    }
    Ok(all)
}

/// Bytes that an ext file system can grow to: the descriptors of its groups must fit in a group, which
/// is what resize2fs wants, and its blocks must have numbers. `None`: there is none.
pub(crate) fn grows_to(window: &Window) -> io::Result<Option<u64>> {
    let Some(block) = superblock(window)? else {
        return Ok(None);
    };
    let log = le32(&block, 0x18);
    let per_group = u64::from(le32(&block, 0x20));
    if log > 6 || per_group == 0 || per_group > 8 << (10 + log) {
        // No such file system is mounted, let alone grown.
        return Ok(None);
    }
    let size = 1024_u64 << log;
    let first = u64::from(le32(&block, 0x14));
    let is_64bit = le32(&block, 0x60) & BLOCKS_64 != 0;
    let descriptor = if is_64bit {
        u64::from(le16(&block, 0xfe)).clamp(32, 1024)
    } else {
        32
    };
    let blocks = per_group
        .saturating_sub(first)
        .saturating_mul(size / descriptor)
        .saturating_mul(per_group);
    let numbers = if is_64bit {
        1 << 48
    } else {
        u64::from(u32::MAX)
    };
    Ok(Some(blocks.min(numbers).saturating_mul(size)))
}
