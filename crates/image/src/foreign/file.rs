//! The file of an image in a foreign format: bounded reads, and tables read a page at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::Foreign;
use crate::{Error, Result};

/// What is read of a table at a time.
const PAGE: u64 = 64 << 10;

/// The image's file.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    size: u64,
    format: Foreign,
}

impl Source {
    pub(super) fn new(file: File, format: Foreign) -> Result<Self> {
        let meta = file.metadata().map_err(Error::io("look at the image"))?;
        let size = meta.len();
        Ok(Self { file, size, format })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buf` from `offset`. What the file does not have is an error, never zeros.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                return self
                    .format
                    .damaged("something lies beyond the end of the file", offset);
            }
            Error::Io {
                operation: "read the image",
                source,
            }
        })
    }

    /// `len` bytes at `offset`; `len` was bounded by the caller.
    pub(super) fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        if offset
            .checked_add(len as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(self
                .format
                .damaged("something lies beyond the end of the file", offset));
        }
        let mut bytes = vec![0; len];
        self.read(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Whether `len` bytes at `offset` are in the file.
    pub(super) fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.size)
    }
}

/// A table of little-endian integers in the file, of which the page read last is kept.
#[derive(Debug)]
pub(super) struct Table {
    offset: u64,
    entries: u64,
    page: Mutex<Option<(u64, Arc<[u8]>)>>,
}

impl Table {
    /// A table of `entries` integers of `width` bytes at `offset`; all of it must be in the file.
    pub(super) fn new(file: &Source, offset: u64, entries: u64, width: u64) -> Result<Self> {
        let len = entries.checked_mul(width);
        if len.is_none_or(|len| !file.holds(offset, len)) {
            return Err(file
                .format
                .damaged("its table lies behind the file's end", offset));
        }
        Ok(Self {
            offset,
            entries,
            page: Mutex::default(),
        })
    }

    pub(super) fn word(&self, file: &Source, index: u64) -> Result<u32> {
        Ok(u32::from_le_bytes(self.entry(file, index)?))
    }

    pub(super) fn long(&self, file: &Source, index: u64) -> Result<u64> {
        Ok(u64::from_le_bytes(self.entry(file, index)?))
    }

    fn entry<const N: usize>(&self, file: &Source, index: u64) -> Result<[u8; N]> {
        if index >= self.entries {
            return Err(file
                .format
                .damaged("an offset lies behind its table", index));
        }
        let at = index * N as u64;
        let start = at - at % PAGE;
        let mut kept = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        let page = match &*kept {
            Some((of, page)) if *of == start => Arc::clone(page),
            _ => {
                let len = (self.entries * N as u64 - start).min(PAGE);
                let len = usize::try_from(len).expect("a page");
                let page: Arc<[u8]> = file.bytes(self.offset + start, len)?.into();
                *kept = Some((start, Arc::clone(&page)));
                page
            }
        };
        drop(kept);
        let within = usize::try_from(at - start).expect("less than a page");
        Ok(field(&page, within))
    }
}

/// The `N` bytes at `offset` of a structure that was read whole.
///
/// # Panics
/// When the structure has less: its length is a constant of the caller.
pub(super) fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    *bytes[offset..]
        .first_chunk()
        .expect("the structure is as long as its format says")
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(field(bytes, offset))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(field(bytes, offset))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(field(bytes, offset))
}
