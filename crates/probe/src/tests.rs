//! What needs no tool: blank disks, errors, hostile bytes. Agreement with `blkid` is in
//! `tests/blkid.rs`.

use std::cell::Cell;
use std::ops::Range;

use super::*;

/// A disk in memory that may have one hole and may fail.
struct Memory {
    bytes: Vec<u8>,
    hole: Range<u64>,
    bad_sector: Option<u64>,
    read: Cell<u64>,
}

fn memory(bytes: Vec<u8>) -> Memory {
    Memory {
        bytes,
        hole: 0..0,
        bad_sector: None,
        read: Cell::new(0),
    }
}

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        if self
            .bad_sector
            .is_some_and(|bad| (offset..end).contains(&bad))
        {
            return Err(io::Error::other("medium error"));
        }
        self.read.set(self.read.get() + buf.len() as u64);
        let start = usize::try_from(offset).unwrap();
        let slice = self
            .bytes
            .get(start..start + buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(slice);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let next = if offset < self.hole.start {
            offset..self.hole.start
        } else {
            offset.max(self.hole.end)..self.size()
        };
        Ok((!next.is_empty()).then_some(next))
    }
}

#[test]
fn zeros_of_any_size_are_blank_and_one_bit_is_not() {
    for size in [
        1,
        511,
        512,
        4096,
        69_632,
        (1 << 20) - 1,
        (1 << 20) + 1,
        5 << 20,
    ] {
        assert_eq!(
            probe(&memory(vec![0; size])).unwrap(),
            Content::Blank,
            "{size}"
        );
        for place in [0, size / 2, size - 1] {
            let mut bytes = vec![0; size];
            bytes[place] = 1;
            assert_eq!(
                probe(&memory(bytes)).unwrap(),
                Content::Unknown,
                "{size} {place}"
            );
        }
    }
}

#[test]
fn a_disk_of_no_bytes_is_not_blank() {
    assert_eq!(probe(&memory(Vec::new())).unwrap(), Content::Unknown);
}

#[test]
fn a_read_error_is_never_blank() {
    let mut disk = memory(vec![0; 8 << 20]);
    for bad in [0, 70_000, 5 << 20, (8 << 20) - 1] {
        disk.bad_sector = Some(bad);
        assert!(probe(&disk).is_err(), "bad sector {bad}");
    }
}

#[test]
fn holes_are_not_read() {
    let mut disk = memory(vec![0; 64 << 20]);
    disk.hole = 1 << 20..63 << 20;
    assert_eq!(probe(&disk).unwrap(), Content::Blank);
    assert!(disk.read.get() < 4 << 20, "{} bytes read", disk.read.get());
}

#[test]
fn names_are_read_back() {
    for fs_type in FsType::ALL {
        assert_eq!(fs_type.to_string().parse(), Ok(*fs_type));
    }
    let error = "ext5".parse::<FsType>().unwrap_err().to_string();
    assert_eq!(
        error,
        "file system type \"ext5\" is not known; use for example ext4, xfs or btrfs"
    );
}

#[test]
fn a_loop_of_extended_records_ends() {
    let mut bytes = vec![0; 1 << 20];
    // Sector 0: an extended partition at sector 8; its record points at itself.
    for (sector, start) in [(0, 8u32), (8, 0)] {
        let at = sector * 512;
        bytes[at + 446 + 4] = 5;
        bytes[at + 446 + 8..at + 446 + 12].copy_from_slice(&start.to_le_bytes());
        bytes[at + 510..at + 512].copy_from_slice(&[0x55, 0xaa]);
    }
    let disk = memory(bytes);
    assert_eq!(
        probe(&disk).unwrap(),
        Content::PartitionTable { table: "dos" }
    );
    assert_eq!(partitions(&disk).unwrap().len(), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    /// Magics are put where they belong and everything around them is noise.
    #[test]
    fn hostile_superblocks_never_panic(
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 4096),
        size in 0usize..200_000,
        picks in proptest::collection::vec(0usize..8, 0..4),
    ) {
        let magics: [(usize, &[u8]); 8] = [
            (0, b"XFSB"), (1080, b"\x53\xef"), (65_600, b"_BHRfS_M"), (0, b"\xeb\x3c\x90"),
            (510, b"\x55\xaa"), (512, b"EFI PART\0\0\x01\0\x5c\0\0\0"), (32_769, b"CD001"),
            (0, b"hsqs"),
        ];
        let mut bytes: Vec<u8> = noise.iter().copied().cycle().take(size).collect();
        for pick in picks {
            let (at, magic) = magics[pick];
            if let Some(place) = bytes.get_mut(at..at + magic.len()) {
                place.copy_from_slice(magic);
            }
        }
        let disk = memory(bytes);
        let content = probe(&disk).unwrap();
        proptest::prop_assert!(content != Content::Blank || disk.bytes.iter().all(|b| *b == 0));
        partitions(&disk).unwrap();
    }
}

/// An ISO 9660 image that starts from a disk too has a table of partitions over itself.
#[test]
fn row_182_a_hybrid_iso_image_is_iso9660() {
    let mut bytes = vec![0; 1 << 20];
    bytes[32768..32774].copy_from_slice(b"\x01CD001");
    bytes[32808..32814].copy_from_slice(b"DEBIAN");
    bytes[34816..34822].copy_from_slice(b"\xffCD001");
    let is_iso = |bytes: &[u8]| {
        let content = probe(&memory(bytes.to_vec())).unwrap();
        matches!(content, Content::FileSystem { fs_type: FsType::Iso9660, ref label, .. } if label == "DEBIAN")
    };
    assert!(is_iso(&bytes));
    // An MBR with one active partition of type 0x17 over all of it.
    let entry = [0x80, 0, 1, 0, 0x17, 0x3f, 0x20, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    bytes[446..462].copy_from_slice(&entry);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert!(is_iso(&bytes));
    assert_eq!(partitions(&memory(bytes.clone())).unwrap().len(), 1);
    // A file system of disks beside the table stays ambiguous.
    bytes[..4].copy_from_slice(b"hsqs");
    assert!(!is_iso(&bytes));
}
