//! The kernel's map of a file's extents (`FS_IOC_FIEMAP`, linux/fiemap.h), in bounded pieces. What the
//! extents mean for anybody it must not know.

use std::fs::File;
use std::ops::Range;

use rustix::io::Errno;

use crate::{Error, Result};

/// Extents that one call asks for: 112 KiB of them.
const EXTENTS: u32 = 2000;

/// `FIEMAP_FLAG_SYNC`: write the file first, so that data without a place yet is counted.
const SYNC: u32 = 1;

/// The kernel's `struct fiemap` without room for extents: then it only counts them.
#[repr(C)]
#[derive(Debug, Default)]
struct Header {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// The kernel's `struct fiemap_extent`. All in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it is in the file.
    pub(crate) logical: u64,
    /// Where it is on the disk; of an encoded one, where its encoded form begins.
    pub(crate) physical: u64,
    /// What it is long in the file.
    pub(crate) length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

/// What an extent says of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Zeros, though it has its place.
    Zeros,
    /// The bytes at its place on the disk, one by one.
    Bytes,
    /// The bytes at its place in another form, compressed for example.
    Encoded,
    /// What its place on the disk does not tell: it has none yet, is part of an inode, or is unknown.
    Untold,
}

impl Extent {
    const LAST: u32 = 0x1;
    const ENCODED: u32 = 0x8;
    const UNWRITTEN: u32 = 0x800;
    /// Merged from smaller ones, shared with other files.
    const HARMLESS: u32 = Self::LAST | 0x1000 | 0x2000;

    pub(crate) const fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }

    pub(crate) const fn holds(&self) -> Holds {
        match self.flags & !Self::HARMLESS {
            0 => Holds::Bytes,
            Self::ENCODED => Holds::Encoded,
            Self::UNWRITTEN => Holds::Zeros,
            // Also flags that are not known here.
            _ => Holds::Untold,
        }
    }

    const fn is_last(&self) -> bool {
        self.flags & Self::LAST != 0
    }

    #[cfg(test)]
    pub(crate) fn of(logical: u64, physical: u64, length: u64, holds: Holds) -> Self {
        let flags = match holds {
            Holds::Zeros => Self::UNWRITTEN,
            Holds::Bytes => 0x2000,
            Holds::Encoded => Self::ENCODED,
            Holds::Untold => 0x2 | 0x4,
        };
        Self {
            logical,
            physical,
            length,
            flags,
            ..Self::default()
        }
    }
}

#[repr(C)]
#[derive(Debug)]
struct Request {
    header: Header,
    extents: [Extent; EXTENTS as usize],
}

/// Room for the answer to one call.
#[derive(Debug)]
pub(crate) struct Map(Box<Request>);

impl Map {
    #[expect(clippy::large_stack_arrays, reason = "for a moment, and never more")]
    pub(crate) fn new() -> Self {
        Self(Box::new(Request {
            header: Header::default(),
            extents: [Extent::default(); EXTENTS as usize],
        }))
    }

    /// The extents of `file` in `range`, which is not empty, from its start on, and up to where they are
    /// told: the range's end, unless there are too many for one call. `sync`: its dirty pages are written
    /// first. `None`: the file system does not tell.
    pub(crate) fn read(
        &mut self,
        file: &File,
        range: &Range<u64>,
        sync: bool,
    ) -> Result<Option<(&[Extent], u64)>> {
        self.0.header = Header {
            start: range.start,
            length: range.end - range.start,
            flags: if sync { SYNC } else { 0 },
            extent_count: EXTENTS,
            ..Header::default()
        };
        if !told(fiemap(file, &mut *self.0), "list the file's extents")? {
            return Ok(None);
        }
        let count = self.0.header.mapped_extents.min(EXTENTS);
        let extents = &self.0.extents[..count as usize];
        let mut end = range.end;
        if let (true, Some(last)) = (count == EXTENTS, extents.last())
            && !last.is_last()
        {
            end = end.min(last.end());
        }
        // What is out of order, or does not get on, is no map.
        let mut before = 0;
        for extent in extents {
            if extent.logical < before || extent.length == 0 {
                return Ok(None);
            }
            before = extent.end();
        }
        Ok((end > range.start).then_some((extents, end)))
    }
}

/// How many extents `file` has in `range`, its dirty pages written first. `None`: the file system does not
/// tell.
pub(crate) fn count(file: &File, range: &Range<u64>) -> Result<Option<u32>> {
    let mut header = Header {
        start: range.start,
        length: range.end - range.start,
        flags: SYNC,
        ..Header::default()
    };
    let told = told(fiemap(file, &mut header), "count the file's extents")?;
    Ok(told.then_some(header.mapped_extents))
}

fn told(done: rustix::io::Result<()>, operation: &'static str) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(Error::Io {
            operation,
            source: errno.into(),
        }),
    }
}

/// What the kernel takes: a header, and behind it room for as many extents as the header says.
trait Question {}
impl Question for Header {}
impl Question for Request {}

#[expect(
    unsafe_code,
    reason = "FS_IOC_FIEMAP has no safe wrapper among our dependencies"
)]
fn fiemap<Q: Question>(file: &File, question: &mut Q) -> rustix::io::Result<()> {
    use rustix::ioctl::{Updater, ioctl, opcode};
    const FS_IOC_FIEMAP: rustix::ioctl::Opcode = opcode::read_write::<Header>(b'f', 11);
    // SAFETY: the opcode takes a `struct fiemap`, which `Header` lays out as the kernel does
    // (linux/fiemap.h). The kernel writes no more than `extent_count` extents behind it, which is 0 for
    // a `Header` alone and the length of the array for a `Request`.
    unsafe { ioctl(file, Updater::<FS_IOC_FIEMAP, Q>::new(question)) }
}
