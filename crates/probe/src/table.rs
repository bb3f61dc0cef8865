//! Partition tables: MBR (`dos`) and GPT, and the partitions they list.

use std::io;

use crate::Disk;
use crate::crc::crc32;
use crate::fat;
use crate::window::{Window, le32, le64, uuid};

/// A partition table that was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    /// `dos` or `gpt`.
    pub(crate) name: &'static str,
    /// Whether a file system found beside it is the truth: an MBR without partitions is boot code,
    /// and a second GPT header without a protective MBR is what an old table left at the end.
    pub(crate) is_weak: bool,
}

/// One partition of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// As Linux numbers it: from 1, logical partitions from 5.
    pub number: u32,
    /// Where it starts, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// Its type: `0x83` for `dos`, a GUID for `gpt`.
    pub kind: String,
}

/// The type of the one partition of a protective MBR (UEFI 2.10, 5.2.3).
const PROTECTIVE: u8 = 0xee;
/// Sector sizes that a table may have been made for.
const SECTORS: [u64; 2] = [512, 4096];

/// Which table the disk has.
pub(crate) fn kind(window: &Window) -> io::Result<Option<Table>> {
    let mbr = mbr(window)?;
    let is_protective = mbr.is_some_and(|entries| entries.iter().any(|e| e.kind == PROTECTIVE));
    if let Some(header) = gpt(window)? {
        let is_weak = !is_protective && header.is_backup;
        return Ok(Some(Table {
            name: "gpt",
            is_weak,
        }));
    }
    // A protective MBR whose GPT is lost still says that the disk is partitioned.
    Ok(mbr.map(|entries| Table {
        name: if is_protective { "gpt" } else { "dos" },
        is_weak: entries.iter().all(|entry| entry.kind == 0),
    }))
}

/// The partitions of `disk`, in the order of their numbers; none when it has no table. At most 128
/// of a GPT and 60 logical ones of an MBR are told.
pub fn partitions(disk: &dyn Disk) -> io::Result<Vec<Partition>> {
    let window = Window::new(disk)?;
    match kind(&window)? {
        Some(Table { name: "gpt", .. }) => gpt_partitions(&window),
        Some(_) => mbr_partitions(&window),
        None => Ok(Vec::new()),
    }
}

/// An entry of an MBR, in sectors.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u8,
    start: u64,
    len: u64,
}

/// The four entries of the MBR, when sector 0 is one.
fn mbr(window: &Window) -> io::Result<Option<[Entry; 4]>> {
    let Some(entries) = boot_record(window, 0)? else {
        return Ok(None);
    };
    // The same signature ends the boot sectors of these.
    let is_boot_sector =
        fat::is_vfat(window)? || window.has(3, b"NTFS    ")? || window.has(3, b"EXFAT   ")?;
    Ok((!is_boot_sector).then_some(entries))
}

/// The table of the (extended) boot record at `offset`, when the flags of its entries can be.
fn boot_record(window: &Window, offset: u64) -> io::Result<Option<[Entry; 4]>> {
    let Some(sector) = window.bytes(offset, 512)? else {
        return Ok(None);
    };
    if sector[510..] != [0x55, 0xaa] {
        return Ok(None);
    }
    let raw = |index: usize| &sector[446 + index * 16..462 + index * 16];
    if (0..4).any(|index| !matches!(raw(index)[0], 0 | 0x80)) {
        return Ok(None);
    }
    Ok(Some(std::array::from_fn(|index| {
        let entry = raw(index);
        Entry {
            kind: entry[4],
            start: le32(entry, 8).into(),
            len: le32(entry, 12).into(),
        }
    })))
}

/// Logical partitions at most: Linux stops long before.
const LOGICAL: u32 = 60;

fn mbr_partitions(window: &Window) -> io::Result<Vec<Partition>> {
    let sector = 512;
    let partition = |number, entry: Entry, base: u64| Partition {
        number,
        start: (base + entry.start) * sector,
        len: entry.len * sector,
        kind: format!("{:#04x}", entry.kind),
    };
    let Some(entries) = mbr(window)? else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    let mut extended = None;
    for (number, entry) in (1..).zip(entries).filter(|(_, entry)| entry.kind != 0) {
        all.push(partition(number, entry, 0));
        if is_extended(entry) && extended.is_none() {
            extended = Some(entry.start);
        }
    }
    // Each extended record tells one logical partition and the next record, from the first record.
    let Some(first) = extended else {
        return Ok(all);
    };
    let mut record = first;
    for number in 5..5 + LOGICAL {
        let Some(entries) = boot_record(window, record * sector)? else {
            break;
        };
        if let Some(entry) = entries.iter().find(|e| e.kind != 0 && !is_extended(**e)) {
            all.push(partition(number, *entry, record));
        }
        match entries.iter().find(|e| is_extended(**e)) {
            // Only forwards: a chain that turns back would be a loop.
            Some(next) if first + next.start > record => record = first + next.start,
            _ => break,
        }
    }
    Ok(all)
}

fn is_extended(entry: Entry) -> bool {
    matches!(entry.kind, 0x05 | 0x0f | 0x85)
}

/// A GPT header whose checksum is right.
struct Header {
    sector: u64,
    entries: u64,
    count: u32,
    entry_size: u32,
    is_backup: bool,
}

/// The first header, or the one in the last sector.
fn gpt(window: &Window) -> io::Result<Option<Header>> {
    for sector in SECTORS {
        if let Some(header) = gpt_header(window, sector, 1)? {
            return Ok(Some(header));
        }
    }
    for sector in SECTORS {
        let Some(last) = (window.size() / sector).checked_sub(1) else {
            continue;
        };
        if let Some(header) = gpt_header(window, sector, last)? {
            return Ok(Some(Header {
                is_backup: true,
                ..header
            }));
        }
    }
    Ok(None)
}

fn gpt_header(window: &Window, sector: u64, index: u64) -> io::Result<Option<Header>> {
    let Some(block) = window.bytes(sector * index, 512)? else {
        return Ok(None);
    };
    let len = le32(&block, 12);
    if !block.starts_with(b"EFI PART") || !(92..=512).contains(&len) {
        return Ok(None);
    }
    let mut header = block[..usize::try_from(len).unwrap_or(92)].to_vec();
    header[16..20].fill(0);
    if crc32(&header) != le32(&block, 16) || le64(&block, 24) != index {
        return Ok(None);
    }
    Ok(Some(Header {
        sector,
        entries: le64(&block, 72),
        count: le32(&block, 80),
        entry_size: le32(&block, 84),
        is_backup: false,
    }))
}

/// Entries at most that are read: what every tool makes.
const GPT_ENTRIES: u32 = 128;

fn gpt_partitions(window: &Window) -> io::Result<Vec<Partition>> {
    let Some(header) = gpt(window)? else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    if !(128..=4096).contains(&header.entry_size) {
        return Ok(all);
    }
    for index in 0..header.count.min(GPT_ENTRIES) {
        let place = header
            .entries
            .checked_mul(header.sector)
            .and_then(|start| start.checked_add(u64::from(index) * u64::from(header.entry_size)));
        let Some(place) = place else { break };
        let Some(entry) = window.bytes(place, 128)? else {
            break;
        };
        if entry[..16].iter().all(|byte| *byte == 0) {
            continue;
        }
        let (first, last) = (le64(&entry, 32), le64(&entry, 40));
        let len = last.checked_sub(first).and_then(|n| n.checked_add(1));
        let Some((start, len)) = first
            .checked_mul(header.sector)
            .zip(len.and_then(|n| n.checked_mul(header.sector)))
        else {
            continue;
        };
        all.push(Partition {
            number: index + 1,
            start,
            len,
            kind: guid(&entry[..16]),
        });
    }
    Ok(all)
}

/// A GUID in Microsoft's mixed byte order: the first three fields are little-endian.
fn guid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    uuid(&ORDER.map(|index| bytes[index]))
}
