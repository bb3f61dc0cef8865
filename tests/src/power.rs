//! Power cuts: a disk whose writes and flushes are all recorded, and the same disk after any number
//! of them.
//!
//! ```text
//! file system — … (see `export`) — blklogwrites — disk file
//!                                      └─ log file
//! ```
//! The log has dm-log-writes' format (kernel: Documentation/admin-guide/device-mapper/
//! log-writes.rst): a super block in sector 0, then for each entry one sector that describes it and
//! the data. All integers are little endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::command::run;
use crate::export::{Export, make_file};
use crate::{FileSystem, Sandbox};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// A mounted disk whose writes are recorded.
#[derive(Debug)]
pub struct RecordedDisk {
    export: Export,
    base: PathBuf,
    log: PathBuf,
}

impl RecordedDisk {
    /// Makes a disk of `size` bytes, lets `prepare` fill it while nothing is recorded, then mounts
    /// it with the recorder below.
    pub fn new(
        sandbox: &Sandbox,
        file_system: FileSystem,
        size: u64,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let (base, data) = (sandbox.path("power.base"), sandbox.path("power.img"));
        let log = sandbox.path("power.log");
        let mount_point = sandbox.make_dir("power");
        make_file(&base, size);
        file_system.make_in(&base);
        run(
            "mount",
            [
                "-o".as_ref(),
                "loop".as_ref(),
                base.as_os_str(),
                mount_point.as_os_str(),
            ],
        );
        prepare(&mount_point);
        run("umount", [&mount_point]);
        copy_sparse(&base, &data);
        // The log must hold all that is written; it is sparse.
        make_file(&log, 8 << 30);
        let recorder = serde_json::json!({
            "driver": "blklogwrites",
            "node-name": "top",
            "file": "disk",
            "log": { "driver": "raw", "file": { "driver": "file", "filename": log } },
            "log-super-update-interval": 1,
        });
        let export = Export::mount(sandbox, "power", &data, &recorder);
        Self { export, base, log }
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        self.export.dir()
    }

    /// How many entries the log holds now: what a mark in time is.
    pub fn position(&self) -> usize {
        let count = File::open(&self.log)
            .and_then(|log| super_block(&log))
            .map(|(count, _)| count);
        count.unwrap_or(0)
    }

    /// Unmounts, ends the recorder and reads the log.
    pub fn finish(self) -> Recording {
        self.export.end();
        let entries = read_log(&self.log).expect("read the log of writes");
        Recording {
            base: self.base,
            log: self.log,
            entries,
        }
    }
}

/// One entry of the log.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    offset: u64,
    length: u64,
    flags: u64,
    /// Where its bytes are in the log; none for flushes, discards and marks.
    bytes_at: Option<u64>,
}

impl Entry {
    /// Whether everything written before is durable once this is done.
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }
}

/// The whole history of a disk.
#[derive(Debug)]
pub struct Recording {
    base: PathBuf,
    log: PathBuf,
    /// In the order in which the disk saw them.
    pub entries: Vec<Entry>,
}

/// How the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Every write that the disk has seen is on it.
    Clean,
    /// Of the writes after the last flush, each is on it or not, and the last may be torn: as this
    /// seed has it.
    Dropped(u64),
}

impl Recording {
    /// Makes the disk as it is when the power goes after the first `count` entries.
    pub fn replay(&self, count: usize, cut: Cut, target: &Path) -> io::Result<()> {
        copy_sparse(&self.base, target);
        let log = File::open(&self.log)?;
        let disk = File::options().write(true).open(target)?;
        let entries = &self.entries[..count.min(self.entries.len())];
        let durable = entries
            .iter()
            .rposition(Entry::is_flush)
            .map_or(0, |at| at + 1);
        let mut seed = if let Cut::Dropped(seed) = cut {
            seed
        } else {
            0
        };
        for (at, entry) in entries.iter().enumerate() {
            let Some(bytes_at) = entry.bytes_at else {
                continue;
            };
            let uncertain = cut != Cut::Clean && at >= durable && entry.flags & FUA == 0;
            if uncertain && coin(&mut seed) {
                continue;
            }
            let mut length = entry.length;
            if uncertain && at + 1 == entries.len() && coin(&mut seed) {
                length = (length / 2).next_multiple_of(512).min(length);
            }
            let mut bytes = vec![0; usize::try_from(length).expect("a write fits in memory")];
            log.read_exact_at(&mut bytes, bytes_at)?;
            disk.write_all_at(&bytes, entry.offset)?;
        }
        Ok(())
    }
}

/// One of two, reproducibly (splitmix64, Steele et al. 2014).
fn coin(seed: &mut u64) -> bool {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) & 1 == 1
}

/// Number of entries, and bytes of a sector.
fn super_block(log: &File) -> io::Result<(usize, u64)> {
    let mut block = [0; 28];
    log.read_exact_at(&mut block, 0)?;
    let field = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"));
    if field(0) != MAGIC {
        return Err(io::Error::other("no log of writes"));
    }
    let sector = u32::from_le_bytes(block[24..28].try_into().expect("four bytes"));
    Ok((usize::try_from(field(16)).unwrap_or(0), u64::from(sector)))
}

fn read_log(path: &Path) -> io::Result<Vec<Entry>> {
    let log = File::open(path)?;
    let (count, sector) = super_block(&log)?;
    let mut at = sector;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let mut block = [0; 32];
        log.read_exact_at(&mut block, at)?;
        let field =
            |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"));
        let (offset, length, flags) = (field(0) * sector, field(8) * sector, field(16));
        at += sector;
        let has_bytes = flags & (DISCARD | MARK) == 0 && length > 0;
        entries.push(Entry {
            offset,
            length,
            flags,
            bytes_at: has_bytes.then_some(at),
        });
        if has_bytes {
            at += length;
        }
    }
    Ok(entries)
}

fn copy_sparse(from: &Path, to: &Path) {
    run(
        "cp",
        [
            "--sparse=always".as_ref(),
            "--reflink=auto".as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ],
    );
}
