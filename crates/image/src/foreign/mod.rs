//! Formats of other hypervisors, read only to be made raw: VMDK, VDI and VHDX.
//!
//! They are read when somebody says that an image is in one of them, never because its bytes look so
//! ([`crate::Format::detect`] knows none of them). Every byte is hostile. The rules:
//! * One file is read, the one that was given: an image with a parent, or with extents in other files,
//!   is refused, and their names are not even read.
//! * Nothing is allocated before it is bounded, whatever a field claims; tables are read a page at a
//!   time.
//! * What is not as the format says is an error, never zeros; a log that waits to be replayed too.
//!
//! | file | holds |
//! |---|---|
//! | `file.rs` | bounded reads of the image's file and of tables in it |
//! | `vmdk.rs` | VMware's monolithicSparse and streamOptimized |
//! | `descriptor.rs` | the text inside a VMDK |
//! | `vdi.rs` | VirtualBox's dynamic and static images |
//! | `vhdx.rs` | Hyper-V's dynamic and fixed images |
//! | `regions.rs` | where things are in a VHDX |

mod descriptor;
mod file;
mod regions;
mod vdi;
mod vhdx;
mod vmdk;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::str::FromStr;

use probe::Disk;

use crate::format::UnknownFormat;
use crate::{Error, Limits, Result};

/// A format that images can come in, and are not stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Foreign {
    /// VMware's, as one file.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Hyper-V's.
    Vhdx,
}

impl Foreign {
    /// The name in requests and on the command line, which is `qemu-img`'s too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
        }
    }

    fn damaged(self, what: &'static str, value: u64) -> Error {
        let format = self;
        Error::ForeignDamaged {
            format,
            what,
            value,
        }
    }

    fn refused(self, why: &'static str) -> Error {
        Error::ForeignRefused { format: self, why }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Foreign {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownFormat> {
        [Self::Vmdk, Self::Vdi, Self::Vhdx]
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| UnknownFormat::of(text))
    }
}

/// What a piece of the guest's disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Zeros.
    Zero,
    /// Bytes at this offset of the file.
    Data(u64),
    /// A compressed grain at this offset of the file.
    Packed(u64),
}

/// A piece of the guest's disk from the offset asked for.
#[derive(Debug, Clone, Copy)]
struct Run {
    place: Place,
    /// At least one byte, and none behind the disk's end.
    len: u64,
}

/// A format's own part: where what is.
trait Blocks: fmt::Debug + Send + Sync {
    fn format(&self) -> Foreign;

    /// Bytes of the guest's disk.
    fn size(&self) -> u64;

    /// The run at `offset`, which lies before the disk's end.
    fn run(&self, offset: u64) -> Result<Run>;

    fn file(&self) -> &file::Source;

    /// Fills `buf` from the compressed grain at `at` that holds the guest's `offset`.
    fn unpack(&self, at: u64, _buf: &mut [u8], _offset: u64) -> Result<()> {
        Err(self.format().damaged("nothing here is compressed", at))
    }
}

/// An open image in one of these formats. It is read only, and may be read by many threads.
#[derive(Debug)]
pub struct ForeignImage(Box<dyn Blocks>);

impl ForeignImage {
    /// Opens `file` as an image of `format`, with the default [`Limits`].
    pub fn open(file: File, format: Foreign) -> Result<Self> {
        Self::open_with(file, format, Limits::default())
    }

    /// Opens `file` as an image of `format`, refusing it when it is beyond `limits`.
    pub fn open_with(file: File, format: Foreign, limits: Limits) -> Result<Self> {
        let file = file::Source::new(file, format)?;
        let blocks: Box<dyn Blocks> = match format {
            Foreign::Vmdk => Box::new(vmdk::Vmdk::open(file)?),
            Foreign::Vdi => Box::new(vdi::Vdi::open(file)?),
            Foreign::Vhdx => Box::new(vhdx::Vhdx::open(file)?),
        };
        let (size, max) = (types::ByteSize(blocks.size()), limits.virtual_size_max);
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        Ok(Self(blocks))
    }

    fn read(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.0.size()) {
            return Err(Error::Io {
                operation: "read the image",
                source: io::ErrorKind::UnexpectedEof.into(),
            });
        }
        while !buf.is_empty() {
            let run = self.0.run(offset)?;
            let len = usize::try_from(run.len)
                .unwrap_or(usize::MAX)
                .min(buf.len());
            let (part, rest) = buf.split_at_mut(len);
            match run.place {
                Place::Zero => part.fill(0),
                Place::Data(at) => self.0.file().read(part, at)?,
                Place::Packed(at) => self.0.unpack(at, part, offset)?,
            }
            buf = rest;
            offset += len as u64;
        }
        Ok(())
    }
}

/// A range of data is told in pieces of about this many bytes.
const ANSWER: u64 = 64 << 20;

impl Disk for ForeignImage {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read(buf, offset).map_err(Into::into)
    }

    /// By the tables: holes cost no read of the image's data.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.0.size();
        let mut start = offset;
        let mut end = loop {
            if start >= size {
                return Ok(None);
            }
            let run = self.0.run(start)?;
            if run.place != Place::Zero {
                break start + run.len;
            }
            start += run.len;
        };
        while end < size && end - start < ANSWER {
            match self.0.run(end) {
                Ok(run) if run.place != Place::Zero => end += run.len,
                // A hole, or a damaged entry: that is an error when its turn comes.
                _ => break,
            }
        }
        Ok(Some(start..end))
    }
}
