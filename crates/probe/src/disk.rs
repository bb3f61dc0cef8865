//! The trait that disks are read through, and its form for files and block devices.
//!
//! A disk is a row of bytes of a known size with cheap random reads. It may know where its holes are.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

pub trait Disk {
    /// The size in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`. Fails when that is not wholly inside the disk.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// The next range at or after `offset` that may hold non-zero bytes, or `None` when only zeros
    /// follow. The default knows of no hole.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok((offset < self.size()).then(|| offset..self.size()))
    }
}

/// A disk in a regular file (which may be sparse) or a block device (which has no holes).
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: u64,
    /// Whether `SEEK_DATA` means anything: block devices answer it with `EINVAL`.
    is_regular: bool,
}

impl FileDisk {
    /// Opens `path` for reading.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?)
    }

    /// Takes an open file or block device. Its size is read once, now.
    pub fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let is_regular = metadata.is_file();
        let size = if is_regular {
            metadata.len()
        } else if metadata.file_type().is_block_device() {
            rustix::fs::seek(&file, SeekFrom::End(0))?
        } else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a regular file nor a block device",
            ));
        };
        Ok(Self {
            file,
            size,
            is_regular,
        })
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Ranges are those of the file system below: it may call written zeros data, never the reverse.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if !self.is_regular {
            return Ok((offset < self.size).then_some(offset..self.size));
        }
        next_data(&self.file, self.size, offset)
    }
}

/// The next range at or after `offset` of a regular file of `size` bytes that is no hole.
pub fn next_data(file: &File, size: u64, offset: u64) -> io::Result<Option<Range<u64>>> {
    if offset >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // File systems without SEEK_DATA have no holes to tell of.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(offset..size)),
        Err(errno) => return Err(errno.into()),
    };
    if start >= size {
        return Ok(None);
    }
    let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
        Ok(end) => end.clamp(start + 1, size),
        Err(Errno::NXIO) => size,
        Err(errno) => return Err(errno.into()),
    };
    Ok(Some(start..end))
}

/// A part of another disk, as a disk.
#[derive(Debug)]
pub struct Part<D> {
    disk: D,
    start: u64,
    size: u64,
}

impl<D: Disk> Part<D> {
    /// The bytes of `range`, which lies inside `disk`.
    pub fn new(disk: D, range: Range<u64>) -> io::Result<Self> {
        let Some(size) = range
            .end
            .checked_sub(range.start)
            .filter(|_| range.end <= disk.size())
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let start = range.start;
        Ok(Self { disk, start, size })
    }
}

impl<D: Disk> Disk for Part<D> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.disk.read_exact_at(buf, self.start + offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if offset >= self.size {
            return Ok(None);
        }
        let found = self.disk.next_data(self.start + offset)?;
        Ok(found.and_then(|range| {
            let begin = range.start.max(self.start) - self.start;
            let end = range.end.saturating_sub(self.start).min(self.size);
            (begin < end).then_some(begin..end)
        }))
    }
}
