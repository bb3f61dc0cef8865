//! File systems that volumes are not made of, but that images may hold.

use std::io;

use crate::FsType;
use crate::found::Found;
use crate::window::{Window, le16, le32, le64, text, uuid};

/// Where a UUID and a label stand, as offsets from the start of the disk; 0 where there is none.
struct Places {
    uuid: u64,
    label: (u64, usize),
}

const NONE: Places = Places {
    uuid: 0,
    label: (0, 0),
};

/// A signature that is enough by itself: at least four bytes at one place.
struct Signature {
    fs_type: FsType,
    offset: u64,
    magic: &'static [u8],
    places: Places,
}

const fn plain(fs_type: FsType, offset: u64, magic: &'static [u8]) -> Signature {
    Signature {
        fs_type,
        offset,
        magic,
        places: NONE,
    }
}

const fn named(
    (fs_type, offset, magic): (FsType, u64, &'static [u8]),
    uuid: u64,
    label: (u64, usize),
) -> Signature {
    Signature {
        fs_type,
        offset,
        magic,
        places: Places { uuid, label },
    }
}

const SIGNATURES: &[Signature] = &[
    plain(FsType::Exfat, 3, b"EXFAT   "),
    plain(FsType::Ntfs, 3, b"NTFS    "),
    plain(FsType::Squashfs3, 0, b"sqsh"),
    named(
        (FsType::Erofs, 1024, &0xe0f5_e1e2u32.to_le_bytes()),
        1024 + 48,
        (1024 + 64, 16),
    ),
    named(
        (FsType::F2fs, 1024, &0xf2f5_2010u32.to_le_bytes()),
        1024 + 108,
        (0, 0),
    ),
    named(
        (
            FsType::Bcachefs,
            4096 + 24,
            b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
        ),
        4096 + 56,
        (4096 + 72, 32),
    ),
    named((FsType::Jfs, 32 << 10, b"JFS1"), (32 << 10) + 136, (0, 0)),
    plain(FsType::Reiser4, 64 << 10, b"ReIsEr4"),
    named(
        (FsType::Reiserfs, (64 << 10) + 52, b"ReIsEr2Fs"),
        (64 << 10) + 84,
        ((64 << 10) + 100, 16),
    ),
    named(
        (FsType::Reiserfs, (64 << 10) + 52, b"ReIsEr3Fs"),
        (64 << 10) + 84,
        ((64 << 10) + 100, 16),
    ),
    plain(FsType::Reiserfs, (64 << 10) + 52, b"ReIsErFs"),
    plain(FsType::Reiserfs, (8 << 10) + 52, b"ReIsErFs"),
    plain(
        FsType::Gfs2,
        64 << 10,
        &[0x01, 0x16, 0x19, 0x70, 0, 0, 0, 1],
    ),
    plain(FsType::Ocfs2, 1024, b"OCFSV2"),
    plain(FsType::Ocfs2, 2048, b"OCFSV2"),
    plain(FsType::Ocfs2, 4096, b"OCFSV2"),
    plain(FsType::Ocfs2, 8192, b"OCFSV2"),
    named(
        (FsType::Cramfs, 0, &0x28cd_3d45u32.to_le_bytes()),
        0,
        (48, 16),
    ),
    named(
        (FsType::Cramfs, 0, &0x28cd_3d45u32.to_be_bytes()),
        0,
        (48, 16),
    ),
    plain(FsType::Romfs, 0, b"-rom1fs-"),
    plain(FsType::Hfsplus, 1024, b"H+\0\x04"),
    plain(FsType::Hfsplus, 1024, b"HX\0\x05"),
    plain(
        FsType::Ufs,
        (8 << 10) + 0x55c,
        &0x0001_1954u32.to_le_bytes(),
    ),
    plain(
        FsType::Ufs,
        (64 << 10) + 0x55c,
        &0x1954_0119u32.to_le_bytes(),
    ),
    plain(FsType::Apfs, 32, b"NXSB"),
];

/// Every file system whose signature stands in the table, and Squashfs 4.
pub(crate) fn plain_signatures(window: &Window) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    for Signature {
        fs_type,
        offset,
        magic,
        places,
    } in SIGNATURES
    {
        if !window.has(*offset, magic)? {
            continue;
        }
        let mut found = Found {
            fs_type: *fs_type,
            label: String::new(),
            uuid: String::new(),
            refused: None,
        };
        if places.uuid != 0
            && let Some(bytes) = window.bytes(places.uuid, 16)?
        {
            found.uuid = uuid(&bytes);
        }
        if places.label.1 != 0
            && let Some(bytes) = window.bytes(places.label.0, places.label.1)?
        {
            found.label = text(&bytes);
        }
        if *fs_type == FsType::Erofs {
            found.refused = erofs_devices(window)?;
        }
        all.push(found);
    }
    all.extend(squashfs(window)?);
    for found in &mut all {
        numbered(window, found)?;
    }
    Ok(all)
}

/// EROFS: `feature_incompat` and `extra_devices` of the superblock, which begins at 1024.
fn erofs_devices(window: &Window) -> io::Result<Option<String>> {
    const DEVICE_TABLE: u32 = 0x8;
    let Some(block) = window.bytes(1024, 128)? else {
        return Ok(None);
    };
    let more = le16(&block, 86);
    Ok((le32(&block, 80) & DEVICE_TABLE != 0 && more > 0).then(|| {
        format!(
            "its data is on {more} more devices; create it without them (mkfs.erofs \
                 --blobdev)"
        )
    }))
}

/// Little-endian Squashfs: version 4 is today's, older ones need another driver.
fn squashfs(window: &Window) -> io::Result<Option<Found>> {
    let Some(block) = window.bytes(0, 96)? else {
        return Ok(None);
    };
    if !block.starts_with(b"hsqs") {
        return Ok(None);
    }
    let fs_type = if le16(&block, 28) >= 4 {
        FsType::Squashfs
    } else {
        FsType::Squashfs3
    };
    Ok(Some(Found {
        fs_type,
        label: String::new(),
        uuid: String::new(),
        refused: None,
    }))
}

/// The serial numbers that stand for a UUID in Microsoft's file systems.
fn numbered(window: &Window, found: &mut Found) -> io::Result<()> {
    let Some(sector) = window.bytes(0, 512)? else {
        return Ok(());
    };
    match found.fs_type {
        FsType::Ntfs => found.uuid = format!("{:016X}", le64(&sector, 0x48)),
        FsType::Exfat => {
            let serial = le32(&sector, 100);
            found.uuid = format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff);
        }
        _ => {}
    }
    Ok(())
}

/// Volume descriptors of ECMA-119 and ECMA-167 start here, 2 KiB each.
const DESCRIPTORS: u64 = 32 << 10;
const DESCRIPTOR: u64 = 2048;

/// UDF or ISO 9660. A bridge disc is both, and says UDF, as `blkid` does.
pub(crate) fn optical(window: &Window) -> io::Result<Option<Found>> {
    let mut iso = None;
    for index in 0..16 {
        let Some(block) = window.bytes(DESCRIPTORS + index * DESCRIPTOR, 2048)? else {
            break;
        };
        match &block[1..6] {
            b"CD001" => {
                if block[0] == 1 && iso.is_none() {
                    iso = Some(iso9660(&block));
                }
            }
            b"NSR02" | b"NSR03" => {
                let fs_type = FsType::Udf;
                return Ok(Some(Found {
                    fs_type,
                    label: String::new(),
                    uuid: String::new(),
                    refused: None,
                }));
            }
            b"BEA01" | b"BOOT2" | b"CDW02" | b"TEA01" => {}
            _ => break,
        }
    }
    Ok(iso)
}

fn iso9660(block: &[u8]) -> Found {
    let label = text(&block[40..72]);
    // The time of the last change, or of the making, stands for a UUID: YYYYMMDDHHMMSScc in digits.
    let stamps = [&block[830..846], &block[813..829]];
    let stamp = stamps.into_iter().find(|stamp| {
        stamp.iter().all(u8::is_ascii_digit) && stamp.iter().any(|digit| *digit != b'0')
    });
    let uuid = stamp.map_or_else(String::new, |stamp| {
        let stamp = String::from_utf8_lossy(stamp);
        let pairs = (4..16).step_by(2).map(|at| &stamp[at..at + 2]);
        std::iter::once(&stamp[..4])
            .chain(pairs)
            .collect::<Vec<_>>()
            .join("-")
    });
    Found {
        fs_type: FsType::Iso9660,
        label,
        uuid,
        refused: None,
    }
}
