//! Where things are in a VHDX: headers, the table of regions, the table of metadata.

use super::Foreign;
use super::file::{Source, field, u16_at, u32_at, u64_at};
use crate::Result;

const VHDX: Foreign = Foreign::Vhdx;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The two headers, of which the valid one with the higher number counts.
const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
const HEADER: usize = 4 << 10;
/// The first table of regions; the second is its copy.
const REGIONS: u64 = 192 * KIB;
const REGIONS_LEN: usize = 64 << 10;
/// The most entries that fit into either table.
const ENTRIES_MAX: u32 = 2047;
const ENTRY: usize = 32;
const METADATA_LEN: usize = 64 << 10;

/// A GUID as it is stored: the first three groups little-endian.
type Guid = [u8; 16];

/// A GUID from its text's five groups.
const fn guid(first: u32, second: u16, third: u16, fourth: u16, node: u64) -> Guid {
    let mut guid = [0; 16];
    let (head, tail) = guid.split_at_mut(8);
    let (number, halves) = head.split_at_mut(4);
    number.copy_from_slice(&first.to_le_bytes());
    let (low, high) = halves.split_at_mut(2);
    low.copy_from_slice(&second.to_le_bytes());
    high.copy_from_slice(&third.to_le_bytes());
    // The rest is big-endian: 16 bits and 48.
    let rest = (fourth as u64) << 48 | node;
    tail.copy_from_slice(&rest.to_be_bytes());
    guid
}

const BAT: Guid = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64, 0x115e_9bfd_4a08);
const METADATA: Guid = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe, 0x575f_050f_886e);
const FILE_PARAMETERS: Guid = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6, 0x33f0_aa44_e76b);
const DISK_SIZE: Guid = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211, 0x5dbe_d83b_f4b8);
const DISK_ID: Guid = guid(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef, 0xc309_e000_c746);
const LOGICAL_SECTOR: Guid = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47, 0xf233_a8fa_ab5f);
const PHYSICAL_SECTOR: Guid = guid(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9, 0xe988_5251_c556);

/// A part of the file that a table names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// What the metadata say of the disk.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) block: u64,
    pub(super) size: u64,
    pub(super) logical_sector: u64,
}

/// Refuses a file that does not start as a VHDX, and one whose log waits to be replayed.
pub(super) fn check_headers(file: &Source) -> Result<()> {
    if file.bytes(0, 8)? != b"vhdxfile" {
        return Err(VHDX.refused("does not start as a VHDX image does"));
    }
    let mut current: Option<Vec<u8>> = None;
    for offset in HEADERS {
        let header = file.bytes(offset, HEADER)?;
        let known = header.starts_with(b"head") && u16_at(&header, 66) == 1;
        if !known || !has_its_sum(&header) {
            continue;
        }
        let number = |header: &[u8]| u64_at(header, 8);
        if current
            .as_ref()
            .is_none_or(|kept| number(kept) < number(&header))
        {
            current = Some(header);
        }
    }
    let Some(header) = current else {
        return Err(VHDX.damaged("neither of its headers is valid", HEADERS[0]));
    };
    if field::<16>(&header, 48) != [0; 16] {
        return Err(VHDX.refused(
            "was not closed: changes in its log wait to be applied; open and close it where it comes \
             from",
        ));
    }
    Ok(())
}

/// The region of the block table, and that of the metadata.
pub(super) fn regions(file: &Source) -> Result<(Region, Region)> {
    let table = file.bytes(REGIONS, REGIONS_LEN)?;
    if !table.starts_with(b"regi") || !has_its_sum(&table) {
        return Err(VHDX.damaged("its table of regions is not valid", REGIONS));
    }
    let count = u32_at(&table, 8);
    if count > ENTRIES_MAX {
        return Err(VHDX.damaged("its table of regions has too many entries", count.into()));
    }
    let (mut bat, mut metadata) = (None, None);
    for entry in table[16..].chunks_exact(ENTRY).take(count as usize) {
        let region = Region {
            offset: u64_at(entry, 16),
            len: u32_at(entry, 24).into(),
        };
        let place = match field(entry, 0) {
            BAT => &mut bat,
            METADATA => &mut metadata,
            _ if u32_at(entry, 28) & 1 == 0 => continue,
            _ => return Err(VHDX.refused("needs a region that is not known")),
        };
        let aligned = region.offset >= MIB && region.offset.is_multiple_of(MIB);
        if place.is_some() || !aligned || !file.holds(region.offset, region.len) {
            return Err(VHDX.damaged("a region is not where one can be", region.offset));
        }
        *place = Some(region);
    }
    let (Some(bat), Some(metadata)) = (bat, metadata) else {
        return Err(VHDX.damaged("its table of regions lacks one", count.into()));
    };
    let apart =
        bat.offset + bat.len <= metadata.offset || metadata.offset + metadata.len <= bat.offset;
    if !apart {
        return Err(VHDX.damaged("its regions overlap", bat.offset));
    }
    Ok((bat, metadata))
}

/// Reads the metadata that a reader must know, and refuses what it does not.
pub(super) fn shape(file: &Source, region: Region) -> Result<Shape> {
    if region.len < METADATA_LEN as u64 {
        return Err(VHDX.damaged("its metadata are too short", region.len));
    }
    let table = file.bytes(region.offset, METADATA_LEN)?;
    if !table.starts_with(b"metadata") {
        return Err(VHDX.damaged("its metadata do not start as they must", region.offset));
    }
    let count = u16_at(&table, 10);
    if u32::from(count) > ENTRIES_MAX {
        return Err(VHDX.damaged("its metadata have too many entries", count.into()));
    }
    let (mut parameters, mut size, mut sector) = (None, None, None);
    for entry in table[32..].chunks_exact(ENTRY).take(count.into()) {
        let (offset, len) = (u64::from(u32_at(entry, 16)), u64::from(u32_at(entry, 20)));
        let item = |width: usize| {
            let fits = offset.checked_add(len).is_some_and(|end| end <= region.len);
            if offset < METADATA_LEN as u64 || !fits || len < width as u64 {
                return Err(VHDX.damaged("a metadata item is not where one can be", offset));
            }
            file.bytes(region.offset + offset, width)
        };
        let place = match field(entry, 0) {
            FILE_PARAMETERS => {
                let bytes = item(8)?;
                if u32_at(&bytes, 4) & 2 != 0 {
                    return Err(VHDX.refused("is a difference to another image, which is not read"));
                }
                (&mut parameters, u32_at(&bytes, 0).into())
            }
            DISK_SIZE => (&mut size, u64_at(&item(8)?, 0)),
            LOGICAL_SECTOR => (&mut sector, u32_at(&item(4)?, 0).into()),
            DISK_ID | PHYSICAL_SECTOR => continue,
            // Bit 2: who does not know the item must not read the image.
            _ if u32_at(entry, 24) & 4 == 0 => continue,
            _ => return Err(VHDX.refused("needs metadata that are not known")),
        };
        if place.0.replace(place.1).is_some() {
            return Err(VHDX.damaged("a metadata item is there twice", offset));
        }
    }
    let (Some(block), Some(size), Some(logical_sector)) = (parameters, size, sector) else {
        return Err(VHDX.damaged("its metadata lack an item", count.into()));
    };
    let shape = Shape {
        block,
        size,
        logical_sector,
    };
    if !block.is_power_of_two() || !(MIB..=256 * MIB).contains(&block) {
        return Err(VHDX.damaged("its block size", block));
    }
    if !matches!(logical_sector, 512 | 4096) {
        return Err(VHDX.damaged("its sector size", logical_sector));
    }
    if size == 0 || !size.is_multiple_of(logical_sector) {
        return Err(VHDX.damaged("its size", size));
    }
    Ok(shape)
}

/// Whether the CRC-32C at offset 4 is that of the structure with zeros in its place.
fn has_its_sum(bytes: &[u8]) -> bool {
    let sum = crc32c(&bytes[..4], !0);
    let sum = crc32c(&[0; 4], sum);
    !crc32c(&bytes[8..], sum) == u32_at(bytes, 4)
}

/// Castagnoli's polynomial, reflected, a bit at a time: there are 70 KiB to sum, once.
fn crc32c(bytes: &[u8], start: u32) -> u32 {
    bytes.iter().fold(start, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            sum >> 1 ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}
