//! What the beginning of a disk image tells, before the rest of it is there.
//!
//! The format, the virtual size and what the disk holds stand at the start of nearly every image. What is
//! not known yet reads as zeros here, and nothing is concluded from those: only what was found is told.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use probe::{Content, Disk};
use rustix::fs::MemfdFlags;

use crate::{Error, Format, Image, Result, refuse_no_disk};

pub use probe::Partition;

/// Bytes of an image that are worth having.
pub const BEGINNING: usize = 4 << 20;
/// Signatures are looked for in so many bytes of the disk.
const NEAR: u64 = 2 << 20;
/// The disk is read in pieces of this size, each of which is known or not.
const PIECE: usize = 4096;
/// The length of a file whose length is not known: nothing that is believed lies behind it.
const SIZE_UNKNOWN: u64 = 4 << 40;

/// What was found.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub format: Format,
    /// Bytes of the disk that a guest sees; 0: not known.
    pub virtual_size: u64,
    /// What it holds; `None`: the beginning does not show it.
    pub content: Option<Content>,
    /// What a partition table says, as far as it is there.
    pub partitions: Vec<Partition>,
    /// What is not known, and why; for people.
    pub notes: Vec<String>,
}

impl Beginning {
    /// Looks at the first bytes of an image of `size` bytes (`None`: not known).
    ///
    /// # Errors
    /// What importing the image would say: it is no disk image, or none that is taken.
    pub fn of(head: &[u8], size: Option<u64>) -> Result<Self> {
        let file = in_memory(head).map_err(Error::io("keep the beginning of the image"))?;
        let known = head.len() as u64;
        refuse_no_disk(&file)?;
        let format = Format::detect(&file)?;
        let length = size.unwrap_or(SIZE_UNKNOWN).max(known);
        file.set_len(length)
            .map_err(Error::io("keep the beginning of the image"))?;
        let image = Image::open(file, format)?;
        let virtual_size = match (format, size) {
            (Format::Raw, None) => 0,
            (Format::Raw, Some(size)) => size.next_multiple_of(types::SECTOR),
            (Format::Qcow2, _) => image.size(),
        };
        let mut beginning = Self {
            format,
            virtual_size,
            content: None,
            partitions: Vec::new(),
            notes: Vec::new(),
        };
        let disk = Known {
            whole: known == length,
            size: virtual_size.max(image.size()),
            image,
            first: known,
            missed_near: Cell::new(false),
            missed: Cell::new(false),
        };
        beginning.look(&disk);
        Ok(beginning)
    }

    fn look(&mut self, disk: &Known) {
        match probe::probe(disk) {
            Err(error) => self.notes.push(format!(
                "what the disk holds is not known: it cannot be read ({error})"
            )),
            Ok(Content::Blank) if !disk.whole => {
                self.notes
                    .push("what the disk holds is not known: its beginning is empty".to_owned());
            }
            Ok(Content::Unknown) if disk.missed_near.get() => {
                self.notes.push(
                    "what the disk holds is not known: it does not stand at the beginning of the image"
                        .to_owned(),
                );
            }
            Ok(content) => self.content = Some(content),
        }
        if !matches!(self.content, Some(Content::PartitionTable { .. })) {
            return;
        }
        disk.missed.set(false);
        match probe::partitions(disk) {
            Ok(partitions) => self.partitions = partitions,
            Err(error) => self
                .notes
                .push(format!("the partition table cannot be read: {error}")),
        }
        if disk.missed.get() {
            self.notes
                .push("only the beginning of the partition table is known".to_owned());
        }
    }
}

/// A file that lies in memory alone.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let file: File = rustix::fs::memfd_create("beginning", MemfdFlags::CLOEXEC)?.into();
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

/// A disk of whose image only the first bytes are known.
struct Known {
    image: Image,
    /// Bytes of the image, from the first on.
    first: u64,
    whole: bool,
    /// Bytes of the disk.
    size: u64,
    /// Something was asked for that is not known: near the start, or anywhere.
    missed_near: Cell<bool>,
    missed: Cell<bool>,
}

impl Disk for Known {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for piece in buf.chunks_mut(PIECE) {
            let range = at..at + piece.len() as u64;
            at = range.end;
            if self.whole || self.image.is_told_by(self.first, range.clone())? {
                let there = self.image.size().saturating_sub(range.start);
                let there = usize::try_from(there)
                    .unwrap_or(usize::MAX)
                    .min(piece.len());
                let (bytes, padding) = piece.split_at_mut(there);
                self.image.read_exact_at(bytes, range.start)?;
                padding.fill(0);
            } else {
                piece.fill(0);
                self.missed.set(true);
                if range.start < NEAR {
                    self.missed_near.set(true);
                }
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if self.whole {
            return self.image.next_data(offset);
        }
        let end = self.size.min(NEAR);
        Ok((offset < end).then_some(offset..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// The superblock of an ext4 file system, as far as it is looked at.
    fn ext4(blocks: u32) -> Vec<u8> {
        let mut disk = vec![0; 8 * MIB];
        let superblock = &mut disk[1024..2048];
        superblock[4..8].copy_from_slice(&blocks.to_le_bytes());
        superblock[0x18..0x1c].copy_from_slice(&2_u32.to_le_bytes());
        superblock[0x38..0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
        superblock[0x4c..0x50].copy_from_slice(&1_u32.to_le_bytes());
        superblock[0x60..0x64].copy_from_slice(&0x42_u32.to_le_bytes());
        superblock[0x78..0x7c].copy_from_slice(b"site");
        disk
    }

    #[test]
    fn the_beginning_of_a_raw_image_tells_its_file_system() {
        let disk = ext4(2048);
        for size in [Some(8 << 20), None] {
            let told = Beginning::of(&disk[..BEGINNING], size).unwrap();
            assert_eq!(told.format, Format::Raw);
            assert_eq!(told.virtual_size, size.unwrap_or(0));
            let Some(Content::FileSystem { label, refused, .. }) = &told.content else {
                panic!("{told:?}");
            };
            assert_eq!((label.as_str(), refused), ("site", &None));
        }
        // Blocks that the image does not have.
        let told = Beginning::of(&disk[..BEGINNING], Some(6 << 20)).unwrap();
        let Some(Content::FileSystem { refused, .. }) = &told.content else {
            panic!("{told:?}");
        };
        assert!(refused.is_some());
    }

    #[test]
    fn nothing_is_concluded_from_what_is_not_known() {
        let told = Beginning::of(&vec![0; BEGINNING], Some(1 << 30)).unwrap();
        assert_eq!(told.content, None);
        assert!(told.notes[0].contains("empty"), "{told:?}");
        let whole = Beginning::of(&vec![0; MIB], Some(MIB as u64)).unwrap();
        assert_eq!(whole.content, Some(Content::Blank));
        let mut data = vec![0; BEGINNING];
        data[5] = 1;
        let told = Beginning::of(&data, Some(1 << 30)).unwrap();
        assert_eq!(told.content, Some(Content::Unknown));
    }

    #[test]
    fn a_qcow2_image_whose_tables_lie_behind_the_beginning_tells_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, path) = (dir.path().join("raw"), dir.path().join("qcow2"));
        File::create_new(&raw)
            .unwrap()
            .write_all_at(&ext4(2048), 0)
            .unwrap();
        let mut out = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let disk = probe::FileDisk::open(&raw).unwrap();
        let options = crate::qcow2::CreateOptions::default();
        crate::qcow2::create(&disk, &mut out, &options).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let told = Beginning::of(&bytes, Some(bytes.len() as u64)).unwrap();
        assert_eq!((told.format, told.virtual_size), (Format::Qcow2, 8 << 20));
        assert!(matches!(told.content, Some(Content::FileSystem { .. })));
        let told = Beginning::of(&bytes[..65_536], Some(bytes.len() as u64)).unwrap();
        assert_eq!(told.virtual_size, 8 << 20);
        assert_eq!(told.content, None, "{told:?}");
    }

    #[test]
    fn what_is_refused_at_import_is_refused_here() {
        for head in [&b"PK\x03\x04archive"[..], b"<html>", b"KDMV"] {
            let mut bytes = head.to_vec();
            bytes.resize(4096, 1);
            Beginning::of(&bytes, Some(1 << 30)).unwrap_err();
        }
    }
}
