//! FAT12, FAT16 and FAT32 (`vfat`), and the test that distinguishes a FAT boot sector from an MBR.
//!
//! Both end in `55 aa`. What makes a boot sector FAT is a BIOS parameter block that makes sense, as
//! Microsoft's FAT specification 1.03 defines it.

use std::io;

use crate::FsType;
use crate::found::Found;
use crate::window::{Window, le16, le32, text};

/// The parts of a valid BIOS parameter block that the rest needs.
struct Parameters {
    /// Where the root directory starts, in bytes, and how many bytes of it to look at.
    root: (u64, usize),
    serial: u32,
    label: String,
}

/// The largest part of a root directory that is searched for the volume's label.
const ROOT_READ: usize = 64 << 10;
/// A directory entry, in bytes.
const ENTRY: usize = 32;
/// Clusters at most in a FAT32 file system (28 bits, the last values reserved).
const CLUSTERS: u32 = 0x0fff_fff6;

/// Whether the disk starts with a FAT boot sector.
pub(crate) fn is_vfat(window: &Window) -> io::Result<bool> {
    Ok(parameters(window)?.is_some())
}

/// The FAT file system of the disk. Its label is that of the root directory, or of the boot sector.
pub(crate) fn vfat(window: &Window) -> io::Result<Option<Found>> {
    let Some(Parameters {
        root: (offset, len),
        serial,
        mut label,
    }) = parameters(window)?
    else {
        return Ok(None);
    };
    if let Some(entries) = window.bytes(offset, len)? {
        let entries = entries
            .chunks_exact(ENTRY)
            .take_while(|entry| entry[0] != 0);
        // A volume label has the attribute 8 alone; 0xe5 marks a deleted entry.
        let mut labels = entries.filter(|entry| entry[11] & 0x3f == 8 && entry[0] != 0xe5);
        if let Some(entry) = labels.next() {
            label = text(&entry[..11]);
        }
    }
    if label == "NO NAME" {
        label.clear();
    }
    let uuid = match serial {
        0 => String::new(),
        serial => format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff),
    };
    Ok(Some(Found {
        fs_type: FsType::Vfat,
        label,
        uuid,
        refused: None,
    }))
}

fn parameters(window: &Window) -> io::Result<Option<Parameters>> {
    Ok(window.bytes(0, 512)?.and_then(|sector| parse(&sector)))
}

fn parse(sector: &[u8]) -> Option<Parameters> {
    let sector_size = u32::from(le16(sector, 11));
    let cluster_sectors = u32::from(sector[13]);
    let reserved = u32::from(le16(sector, 14));
    let fats = u32::from(sector[16]);
    let root_entries = u32::from(le16(sector, 17));
    let media = sector[21];
    let is_plausible = matches!(sector[0], 0xeb | 0xe9)
        && sector_size.is_power_of_two()
        && (512..=4096).contains(&sector_size)
        && cluster_sectors.is_power_of_two()
        && reserved > 0
        && (1..=2).contains(&fats)
        && (media == 0xf0 || media >= 0xf8);
    if !is_plausible {
        return None;
    }
    let short_fat = u32::from(le16(sector, 22));
    let fat_sectors = if short_fat == 0 {
        le32(sector, 36)
    } else {
        short_fat
    };
    let total = match le16(sector, 19) {
        0 => le32(sector, 32),
        total => total.into(),
    };
    let root_sectors = (root_entries * 32).div_ceil(sector_size);
    let fats_end = fat_sectors.checked_mul(fats)?.checked_add(reserved)?;
    let data_sectors = total.checked_sub(fats_end.checked_add(root_sectors)?)?;
    if fat_sectors == 0 || data_sectors / cluster_sectors > CLUSTERS {
        return None;
    }
    let bytes = |sectors: u32| u64::from(sectors) * u64::from(sector_size);
    let is_fat32 = short_fat == 0;
    // The extended boot record follows the parameters, and FAT32 has 28 bytes more of those.
    let extended = if is_fat32 { 64 } else { 36 };
    let (root, root_len) = if is_fat32 {
        let cluster = le32(sector, 44).checked_sub(2)?;
        let start = u64::from(cluster) * bytes(cluster_sectors) + bytes(fats_end);
        (start, cluster_sectors * sector_size)
    } else {
        (bytes(fats_end), root_entries * 32)
    };
    let is_extended = sector[extended + 2] == 0x29;
    Some(Parameters {
        root: (root, usize::try_from(root_len).ok()?.min(ROOT_READ)),
        serial: if is_extended {
            le32(sector, extended + 3)
        } else {
            0
        },
        label: if is_extended {
            text(&sector[extended + 7..extended + 18])
        } else {
            String::new()
        },
    })
}
