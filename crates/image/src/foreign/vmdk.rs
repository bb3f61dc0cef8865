//! VMDK, VMware's format, where it is one file: a directory of tables of grains, which may be
//! compressed.

use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress, Status};

use super::file::{Source, Table, u16_at, u32_at, u64_at};
use super::{Blocks, Foreign, Place, Run, descriptor};
use crate::Result;

const VMDK: Foreign = Foreign::Vmdk;
const SECTOR: u64 = 512;
const HEADER: usize = 512;
/// In the header of a stream: the directory's place is in the footer.
const AT_END: u64 = u64::MAX;
/// Entries of a table of grains; QEMU and VMware know no other number.
const TABLE: u64 = 512;
/// Sectors of a grain: 4 KiB, less than which VMware does not take, to 1 MiB.
const GRAIN: std::ops::RangeInclusive<u64> = 8..=2048;
/// A descriptor has about 1 KiB; VMware leaves 10.
const DESCRIPTOR_MAX: u64 = 64 << 10;
/// The largest directory that is believed: that of 64 TiB in grains of 16 KiB.
const DIRECTORY_MAX: u64 = 8 << 20;
/// A compressed grain may be larger than its bytes by what deflate adds.
const OVERHEAD: usize = 64 << 10;

const FLAG_ZERO_GRAIN: u32 = 1 << 2;
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;
const DEFLATE: u16 = 1;

#[derive(Debug)]
pub(super) struct Vmdk {
    file: Source,
    size: u64,
    /// Bytes of a grain.
    grain: u64,
    directory: Table,
    /// The table of grains read last, by its offset.
    table: Mutex<Option<(u64, Arc<Table>)>>,
    zero_grains: bool,
    packed: Option<Mutex<Grain>>,
}

/// The compressed grain that was read last, so that small reads in a row unpack it once.
#[derive(Debug)]
struct Grain {
    at: u64,
    bytes: Vec<u8>,
    inflate: Decompress,
}

impl Vmdk {
    pub(super) fn open(file: Source) -> Result<Self> {
        let mut header = file.bytes(0, HEADER)?;
        if header.starts_with(b"# Disk DescriptorFile") {
            return Err(VMDK.refused(
                "is a descriptor alone: its data is in other files, which are not read; convert it \
                 first, for example with 'qemu-img convert -O qcow2'",
            ));
        }
        if !header.starts_with(b"KDMV") {
            return Err(VMDK.refused("does not start as a sparse VMDK image does"));
        }
        let (text, text_len) = (u64_at(&header, 28), u64_at(&header, 36));
        check_descriptor(&file, text, text_len)?;
        if u64_at(&header, 56) == AT_END {
            header = footer(&file)?;
        }
        let word = |offset| u32_at(&header, offset);
        let long = |offset| u64_at(&header, offset);
        if !(1..=3).contains(&word(4)) {
            return Err(VMDK.refused("has a version other than 1, 2 and 3"));
        }
        let (capacity, grain) = (long(12), long(20));
        if !grain.is_power_of_two() || !GRAIN.contains(&grain) {
            return Err(VMDK.refused("has grains of an unusual size"));
        }
        if u64::from(word(44)) != TABLE {
            return Err(VMDK.refused("has tables of an unusual size"));
        }
        let size = capacity.checked_mul(SECTOR).filter(|size| *size > 0);
        let Some(size) = size else {
            return Err(VMDK.damaged("its size", capacity));
        };
        let entries = capacity.div_ceil(grain * TABLE);
        let directory = long(56).checked_mul(SECTOR).filter(|at| *at > 0);
        let Some(directory) = directory.filter(|_| entries <= DIRECTORY_MAX / 4) else {
            return Err(VMDK.damaged("its directory", long(56)));
        };
        let directory = Table::new(&file, directory, entries, 4)?;
        let packed = match (u16_at(&header, 77), word(8)) {
            (0, flags) if flags & FLAG_COMPRESSED == 0 => None,
            (DEFLATE, flags) if flags & FLAG_MARKERS != 0 => Some(Mutex::new(Grain {
                at: 0,
                bytes: Vec::new(),
                inflate: Decompress::new(true),
            })),
            _ => return Err(VMDK.refused("is compressed in an unknown way")),
        };
        Ok(Self {
            file,
            size,
            grain: grain * SECTOR,
            directory,
            table: Mutex::default(),
            zero_grains: word(8) & FLAG_ZERO_GRAIN != 0,
            packed,
        })
    }

    /// The table of grains at `offset`.
    fn table(&self, offset: u64) -> Result<Arc<Table>> {
        let mut kept = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, table)) = &*kept
            && *of == offset
        {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(Table::new(&self.file, offset, TABLE, 4)?);
        *kept = Some((offset, Arc::clone(&table)));
        Ok(table)
    }
}

/// Reads the text in the image and refuses an image that is only a part.
fn check_descriptor(file: &Source, sector: u64, sectors: u64) -> Result<()> {
    if sector == 0 {
        return Err(VMDK.refused("is one part of an image in several files: it has no descriptor"));
    }
    let place = sector.checked_mul(SECTOR).zip(sectors.checked_mul(SECTOR));
    let Some((offset, len)) = place.filter(|(_, len)| *len <= DESCRIPTOR_MAX) else {
        return Err(VMDK.damaged("its descriptor's place", sector));
    };
    let len = usize::try_from(len).expect("some KiB");
    descriptor::check(&file.bytes(offset, len)?)
}

/// The header at the end of a stream: a marker, the header, a marker.
fn footer(file: &Source) -> Result<Vec<u8>> {
    const LEN: usize = 3 * HEADER;
    const FOOTER: u32 = 3;
    let at = file.size().checked_sub(LEN as u64);
    let damaged = || VMDK.damaged("its footer is not one", file.size());
    let bytes = file.bytes(at.ok_or_else(damaged)?, LEN)?;
    let (first, rest) = bytes.split_at(HEADER);
    let (header, last) = rest.split_at(HEADER);
    let marks = u32_at(first, 8) == 0 && u32_at(first, 12) == FOOTER;
    let ends = u64_at(last, 0) == 0 && u32_at(last, 8) == 0 && u32_at(last, 12) == 0;
    if !marks || !ends || !header.starts_with(b"KDMV") || u64_at(header, 56) == AT_END {
        return Err(damaged());
    }
    Ok(header.to_vec())
}

impl Blocks for Vmdk {
    fn format(&self) -> Foreign {
        VMDK
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &Source {
        &self.file
    }

    fn run(&self, offset: u64) -> Result<Run> {
        let span = self.grain * TABLE;
        let table = self.directory.word(&self.file, offset / span)?;
        if table == 0 {
            let len = (span - offset % span).min(self.size - offset);
            let place = Place::Zero;
            return Ok(Run { place, len });
        }
        let table = self.table(u64::from(table) * SECTOR)?;
        let entry = table.word(&self.file, offset % span / self.grain)?;
        let within = offset % self.grain;
        let len = (self.grain - within).min(self.size - offset);
        let at = u64::from(entry) * SECTOR;
        let place = match entry {
            0 => Place::Zero,
            1 if self.zero_grains => Place::Zero,
            _ if self.packed.is_some() => Place::Packed(at),
            _ if self.file.holds(at, within + len) => Place::Data(at + within),
            _ => return Err(VMDK.damaged("a grain lies behind the file's end", at)),
        };
        Ok(Run { place, len })
    }

    fn unpack(&self, at: u64, buf: &mut [u8], offset: u64) -> Result<()> {
        let Some(kept) = &self.packed else {
            return Err(VMDK.damaged("nothing here is compressed", at));
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.at != at || kept.bytes.is_empty() {
            kept.at = 0;
            kept.bytes.clear();
            self.inflate(at, offset, &mut kept)?;
            kept.at = at;
        }
        let start = usize::try_from(offset % self.grain).expect("less than a grain");
        let bytes = kept.bytes.get(start..start + buf.len());
        let bytes = bytes.ok_or_else(|| VMDK.damaged("a compressed grain is too short", at))?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl Vmdk {
    /// Unpacks the grain at `at`, whose marker must name the place of the guest's `offset`.
    fn inflate(&self, at: u64, offset: u64, grain: &mut Grain) -> Result<()> {
        const MARKER: usize = 12;
        let marker = self.file.bytes(at, MARKER)?;
        let place = (offset - offset % self.grain) / SECTOR;
        if u64_at(&marker, 0) != place {
            return Err(VMDK.damaged("a compressed grain says that it is another one", at));
        }
        let capacity = usize::try_from(self.grain).expect("1 MiB at most");
        let len = usize::try_from(u32_at(&marker, 8)).unwrap_or(usize::MAX);
        if len == 0 || len > capacity + OVERHEAD {
            return Err(VMDK.damaged("a compressed grain has an impossible size", len as u64));
        }
        let packed = self.file.bytes(at + MARKER as u64, len)?;
        grain.bytes.reserve(capacity);
        grain.inflate.reset(true);
        let done = grain
            .inflate
            .decompress_vec(&packed, &mut grain.bytes, FlushDecompress::Finish);
        let fits = grain.bytes.len() <= capacity;
        if !matches!(done, Ok(Status::StreamEnd)) || !fits {
            grain.bytes.clear();
            return Err(VMDK.damaged("a compressed grain cannot be unpacked", at));
        }
        Ok(())
    }
}
