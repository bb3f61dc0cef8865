//! What the disk's file system can do, found out by doing it in files without names.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, FallocateFlags, OFlags, SeekFrom, StatxFlags, seek};

use super::Finding;
use store::durable::nameless;

/// Syncs that are timed.
const SYNCS: usize = 10;
/// A sync that takes longer makes every small operation slow: a new volume takes about ten.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// The disk's clock and ours may differ by this much.
const SKEW: Duration = Duration::from_secs(2);

/// File systems, by statfs(2)'s magic, and what is known of them.
const KNOWN: [(u64, &str, &str); 9] = [
    (0x5846_5342, "xfs", ""),
    (0x9123_683e, "btrfs", ""),
    (
        0xef53,
        "ext4",
        "it shares no extents: each volume is a copy of its image; files have 16 TiB at most",
    ),
    (
        0x2fc1_2fc1,
        "zfs",
        "clones and direct I/O depend on its version: see the lines below",
    ),
    (
        0x0102_1994,
        "tmpfs",
        "its contents are lost at the next boot",
    ),
    (
        0x794c_7630,
        "overlay",
        "this is the container's own file system: mount the disk there",
    ),
    (
        0x6969,
        "nfs",
        "locks, syncs and direct I/O depend on the server; use a local disk",
    ),
    (
        0x6573_5546,
        "fuse",
        "locks, syncs and direct I/O depend on its server; use a local disk",
    ),
    (
        0x4d44,
        "vfat",
        "it has no holes and no files above 4 GiB; use XFS",
    ),
];

pub(super) fn examine(dir: &Path) -> Vec<Finding> {
    let mut findings = vec![file_system(dir)];
    let file = match nameless(dir, OFlags::empty()) {
        Ok(file) => file,
        Err(error) => {
            findings.push(Finding::error(
                "write",
                error.to_string(),
                "the daemon must be able to write here: see the mount's options and the owner",
            ));
            return findings;
        }
    };
    findings.extend([
        reflink(dir, &file),
        holes(&file).unwrap_or_else(|error| {
            Finding::warning(
                "holes",
                error.to_string(),
                "images will take their full size",
            )
        }),
        direct(dir),
        sync(&file).unwrap_or_else(|error| {
            Finding::error("sync", error.to_string(), "check the kernel log")
        }),
        clock(&file),
    ]);
    findings
}

fn file_system(dir: &Path) -> Finding {
    const NAME: &str = "file-system";
    let magic = match rustix::fs::statfs(dir) {
        Ok(stat) => u64::try_from(stat.f_type).unwrap_or(0) & 0xffff_ffff,
        Err(error) => return Finding::warning(NAME, error.to_string(), "inspect the mount"),
    };
    match KNOWN.iter().find(|(known, ..)| *known == magic) {
        Some((_, name, "")) => Finding::ok(NAME, *name),
        Some((_, name, limits)) => Finding::warning(NAME, *name, limits),
        None => Finding::warning(
            NAME,
            format!("{magic:#x}"),
            "it is not known; use XFS or btrfs",
        ),
    }
}

/// Whether files can share extents.
fn reflink(dir: &Path, from: &File) -> Finding {
    let cloned = from.write_all_at(&[1; 4096], 0).is_ok()
        && nameless(dir, OFlags::empty())
            .is_ok_and(|to| rustix::fs::ioctl_ficlone(&to, from).is_ok());
    Finding::either(
        "reflink",
        cloned,
        ["yes", "no"],
        "each volume is a copy of its image, in time and in space; use XFS with reflink=1 or btrfs",
    )
}

/// Whether holes can be made, and are told.
fn holes(file: &File) -> io::Result<Finding> {
    const MIB: u64 = 1 << 20;
    const ADVICE: &str = "images will take their full size, and copies of them their full time";
    file.write_all_at(&vec![1; 1 << 20], 0)?;
    file.set_len(3 * MIB)?;
    file.write_all_at(&[1; 4096], 2 * MIB)?;
    file.sync_all()?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let before = file.metadata()?.blocks();
    let punched = rustix::fs::fallocate(file, flags, 0, MIB).is_ok();
    let fewer = punched && file.metadata()?.blocks() < before;
    let data = seek(file, SeekFrom::Data(0)).unwrap_or(0);
    Ok(match (fewer, data) {
        (true, data) if data >= MIB => Finding::ok("holes", "supported and detectable"),
        (true, _) => Finding::warning("holes", "supported, but not detectable (SEEK_DATA)", ADVICE),
        (false, _) => Finding::warning("holes", "not supported (punch hole)", ADVICE),
    })
}

/// The smallest write that goes past the page cache, which is what loop devices of volumes use.
fn direct(dir: &Path) -> Finding {
    const NAME: &str = "direct-io";
    const ADVICE: &str =
        "volumes go through the page cache twice: slower, and they take memory of the node";
    let Ok(file) = nameless(dir, OFlags::DIRECT) else {
        return Finding::warning(NAME, "not supported", ADVICE);
    };
    let told = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    // Zero from kernels before 6.1, which are asked by writing.
    let least = told.map_or(0, |stat| stat.stx_dio_offset_align as usize);
    // Room for a page at a whole page, wherever the buffer begins.
    let buffer = vec![0_u8; 3 * 4096];
    let start = buffer.as_ptr().align_offset(4096);
    for size in [512, 4096] {
        let bytes = buffer.get(start..start + size).unwrap_or_default();
        if size >= least && !bytes.is_empty() && file.write_all_at(bytes, 0).is_ok() {
            let found = if size == 512 {
                "512 bytes at a time".to_owned()
            } else {
                format!(
                    "{size} bytes at a time: by mounted volumes with blocks or sectors of so many"
                )
            };
            return Finding::ok(NAME, found);
        }
    }
    Finding::warning(NAME, "refused", ADVICE)
}

/// How long it takes until bytes are safe.
fn sync(file: &File) -> io::Result<Finding> {
    let mut times = Vec::with_capacity(SYNCS);
    for byte in 0..SYNCS {
        let started = Instant::now();
        file.write_all_at(&[u8::try_from(byte).unwrap_or(0); 4096], 0)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let (median, longest) = (times[SYNCS / 2], times[SYNCS - 1]);
    let found = format!("{median:.1?} (longest of {SYNCS}: {longest:.1?})");
    Ok(if median > SYNC_SLOW {
        let advice = "new images and volumes need about ten of these; check what else writes here";
        Finding::warning("sync", found, advice)
    } else {
        Finding::ok("sync", found)
    })
}

/// Whether the disk's times are this machine's.
fn clock(file: &File) -> Finding {
    let written = file.metadata().and_then(|meta| meta.modified());
    let (Ok(written), now) = (written, SystemTime::now()) else {
        return Finding::warning(
            "clock",
            "the disk keeps no times",
            "use another file system",
        );
    };
    let skew = now
        .duration_since(written)
        .unwrap_or_else(|error| error.duration());
    // The beginning of 2024: a clock before that was never set.
    let unset = now < SystemTime::UNIX_EPOCH + Duration::from_hours(473_352);
    let found = jiff::Timestamp::now().to_string();
    if unset || skew > SKEW {
        let advice = "set the clock: certificates are checked with it, and records carry it";
        return Finding::warning(
            "clock",
            format!("{found}, {skew:.0?} from the disk's"),
            advice,
        );
    }
    Finding::ok("clock", found)
}
