//! Entries of L1 and L2 tables, and the L2 tables that were read last.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::header::Header;
use super::units::{GuestOffset, HostOffset};
use crate::{Error, Result};

/// Where one unit (a cluster or a subcluster) of the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It reads as zeros: unallocated, or said to be zero.
    Zero,
    /// At this offset of the file.
    Data(HostOffset),
    /// Part of the compressed cluster whose bytes start here. `len` is an upper bound of theirs.
    Compressed { at: HostOffset, len: u32 },
}

/// Bits 9 to 55: the offset in an entry of either table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 63: the reference count is one. For writers only.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit 62: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bit 0: the cluster reads as zeros (from version 3, without subclusters).
const ZERO: u64 = 1;

/// An L2 table in the machine's byte order: one word an entry, or two with subclusters.
pub(super) type L2Table = Arc<[u64]>;

/// Where the L2 table of an L1 entry is; `None` when there is none.
pub(super) fn l2_offset(header: &Header, entry: u64) -> Result<Option<HostOffset>> {
    let offset = entry & OFFSET;
    if entry & !(OFFSET | COPIED) != 0 || !offset.is_multiple_of(header.geometry.cluster_size()) {
        return Err(Error::Damaged {
            what: "an L1 entry is not valid",
            value: entry,
        });
    }
    Ok((offset != 0).then_some(HostOffset(offset)))
}

/// Where the unit at `guest` is, by its L2 table.
pub(super) fn place(header: &Header, table: &[u64], guest: GuestOffset) -> Result<Place> {
    let geometry = header.geometry;
    let index = guest.0 >> geometry.cluster_bits & ((1 << geometry.l2_bits()) - 1);
    let index = usize::try_from(index).expect("an L2 table has at most 2^18 entries");
    if !geometry.has_subclusters {
        let entry = table[index];
        return match (entry & ZERO, header.version) {
            (_, _) if entry & COMPRESSED != 0 => Ok(compressed(header, entry)),
            (ZERO, 2) => Err(Error::Damaged {
                what: "a zero cluster in version 2",
                value: entry,
            }),
            (ZERO, _) => data(header, entry & !ZERO).map(|_| Place::Zero),
            _ => data(header, entry),
        };
    }
    let (entry, bitmap) = (table[2 * index], table[2 * index + 1]);
    if entry & COMPRESSED != 0 {
        return Ok(compressed(header, entry));
    }
    let place = data(header, entry)?;
    let (allocated, zero) = (bitmap & 0xffff_ffff, bitmap >> 32);
    if allocated & zero != 0 || (place == Place::Zero && allocated != 0) {
        return Err(Error::Damaged {
            what: "a subcluster bitmap is not valid",
            value: bitmap,
        });
    }
    let unit = geometry.in_cluster(guest) >> geometry.unit_bits();
    Ok(match place {
        Place::Data(cluster) if allocated >> unit & 1 == 1 => {
            Place::Data(cluster.plus(unit << geometry.unit_bits()))
        }
        _ => Place::Zero,
    })
}

/// An entry that is not compressed: a cluster of the file, or none.
fn data(header: &Header, entry: u64) -> Result<Place> {
    let offset = entry & OFFSET;
    if entry & !(OFFSET | COPIED) != 0 || !offset.is_multiple_of(header.geometry.cluster_size()) {
        return Err(Error::Damaged {
            what: "an L2 entry is not valid",
            value: entry,
        });
    }
    Ok(if offset == 0 {
        Place::Zero
    } else {
        Place::Data(HostOffset(offset))
    })
}

/// A compressed entry: the offset to the byte, and how many 512-byte sectors follow its own.
fn compressed(header: &Header, entry: u64) -> Place {
    let sector_bits = header.geometry.cluster_bits - 8;
    let offset_bits = 62 - sector_bits;
    let offset = entry & ((1 << offset_bits) - 1);
    let sectors = (entry >> offset_bits & ((1 << sector_bits) - 1)) + 1;
    let len = sectors * 512 - (offset & 511);
    Place::Compressed {
        at: HostOffset(offset),
        len: u32::try_from(len).expect("two clusters of 2 MiB at most"),
    }
}

/// How much of L2 tables stays in memory, in bytes: what 64 GiB with 64 KiB clusters need.
const CACHE_BYTES: u64 = 8 << 20;
/// Tables at most: for small clusters, the search must stay cheap.
const CACHE_TABLES: u64 = 256;

/// The L2 tables that were used last.
#[derive(Debug)]
pub(super) struct L2Cache {
    tables: Mutex<Tables>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Tables {
    /// Each table with the time of its last use.
    by_offset: HashMap<HostOffset, (u64, L2Table)>,
    time: u64,
}

impl L2Cache {
    pub(super) fn new(header: &Header) -> Self {
        let capacity = (CACHE_BYTES / header.geometry.cluster_size()).clamp(4, CACHE_TABLES);
        Self {
            tables: Mutex::default(),
            capacity: usize::try_from(capacity).expect("at most 256"),
        }
    }

    /// The table at `offset`, from memory or from `file`.
    pub(super) fn get(&self, file: &File, header: &Header, offset: HostOffset) -> Result<L2Table> {
        if let Some(table) = self.lookup(offset) {
            return Ok(table);
        }
        // The lock is not held while the disk is read: another thread may read the same table,
        // which costs less than waiting for each other.
        let table = read_words(file, header.geometry.cluster_size(), offset)?;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.by_offset.len() >= self.capacity {
            let oldest = tables.by_offset.iter().min_by_key(|(_, (time, _))| *time);
            if let Some(oldest) = oldest.map(|(offset, _)| *offset) {
                tables.by_offset.remove(&oldest);
            }
        }
        let time = tables.time;
        tables.by_offset.insert(offset, (time, Arc::clone(&table)));
        Ok(table)
    }

    fn lookup(&self, offset: HostOffset) -> Option<L2Table> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.time += 1;
        let now = tables.time;
        let (time, table) = tables.by_offset.get_mut(&offset)?;
        *time = now;
        Some(Arc::clone(table))
    }
}

/// `len` bytes of `file` as big-endian words. The caller has bounded `len`.
pub(super) fn read_words(file: &File, len: u64, offset: HostOffset) -> Result<Arc<[u64]>> {
    let mut bytes = vec![0; usize::try_from(len).expect("bounded by the caller")];
    file.read_exact_at(&mut bytes, offset.0)
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Damaged {
                what: "a table lies beyond the end of the file",
                value: offset.0,
            },
            _ => Error::Io {
                operation: "read a table of the qcow2 image",
                source,
            },
        })?;
    let word = |chunk: &[u8]| u64::from_be_bytes(chunk.try_into().expect("chunks of eight"));
    Ok(bytes.chunks_exact(8).map(word).collect())
}
