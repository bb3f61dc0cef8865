//! The extents of files: how many there are, where the data is, and moving it without filling holes.
//!
//! The cost of cloning a file depends on its number of extents, so few and large ones are worth the
//! work (docs/architecture.md).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::{Error, Result, fiemap};

/// How many extents `file` has. `None` when its file system does not tell. Its dirty pages are
/// written first.
pub fn count(file: &File) -> Result<Option<u32>> {
    count_in(file, 0..u64::MAX)
}

/// The same for a part of the file.
///
/// # Errors
/// What the kernel says, but for a file system that does not tell: that is `None`.
pub fn count_in(file: &File, range: Range<u64>) -> Result<Option<u32>> {
    fiemap::count(file, &range)
}

/// The bytes that `file` takes on its disk.
pub fn allocated(file: &File) -> Result<u64> {
    Ok(file
        .metadata()
        .map_err(Error::io("inspect the file"))?
        .blocks()
        * 512)
}

/// The ranges of a regular file that are no holes, from its start on.
#[derive(Debug)]
pub struct DataRanges<'a> {
    file: &'a File,
    size: u64,
    offset: u64,
}

/// The data of `file`, as far as it is long now. The file's position moves.
pub fn data_ranges(file: &File) -> Result<DataRanges<'_>> {
    let size = file
        .metadata()
        .map_err(Error::io("inspect the file"))?
        .len();
    Ok(DataRanges {
        file,
        size,
        offset: 0,
    })
}

impl DataRanges<'_> {
    /// The same, without what is before an offset.
    #[must_use]
    pub fn from(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }
}

impl Iterator for DataRanges<'_> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        match probe::next_data(self.file, self.size, self.offset) {
            Ok(range) => {
                let range = range?;
                self.offset = range.end;
                Some(Ok(range))
            }
            Err(source) => {
                // An iterator that goes on failing would hold its caller for ever.
                self.offset = self.size;
                Some(Err(Error::Io {
                    operation: "find the data of the file",
                    source,
                }))
            }
        }
    }
}

/// Makes `target` a clone of `source` that shares its extents (`FICLONE`). `false` when the file
/// system cannot: nothing is ever copied here.
pub fn reflink(source: &File, target: &File) -> Result<bool> {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
            Ok(false)
        }
        Err(errno) => Err(Error::Io {
            operation: "clone the file",
            source: errno.into(),
        }),
    }
}

/// Makes `at..at + range.len()` of `target` share the extents of `range` of `source`
/// (`FICLONERANGE`, ioctl_ficlonerange(2)). `false` when the file system cannot, or when the offsets do
/// not fit its blocks: nothing is ever copied here.
pub fn reflink_range(source: &File, range: Range<u64>, target: &File, at: u64) -> Result<bool> {
    let mut words = FileCloneRange {
        source: source.as_raw_fd().into(),
        source_offset: range.start,
        length: range.end - range.start,
        target_offset: at,
    };
    loop {
        return match clone_range(target, &mut words) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
                Ok(false)
            }
            Err(errno) => Err(Error::Io {
                operation: "clone a part of the file",
                source: errno.into(),
            }),
        };
    }
}

/// The kernel's `struct file_clone_range`.
#[repr(C)]
struct FileCloneRange {
    source: i64,
    source_offset: u64,
    length: u64,
    target_offset: u64,
}

#[expect(
    unsafe_code,
    reason = "FICLONERANGE has no safe wrapper among our dependencies"
)]
fn clone_range(target: &File, words: &mut FileCloneRange) -> rustix::io::Result<()> {
    use rustix::ioctl::{Updater, ioctl, opcode};
    const FICLONERANGE: rustix::ioctl::Opcode = opcode::write::<FileCloneRange>(0x94, 13);
    // SAFETY: the opcode takes a `struct file_clone_range`, which `FileCloneRange` lays out as the
    // kernel does (linux/fs.h); the kernel only reads it, and its descriptor is open for the call.
    unsafe { ioctl(target, Updater::<FICLONERANGE, FileCloneRange>::new(words)) }
}

/// Copies at most this much in one call of the kernel, so that progress is told and a caller that
/// has had enough is heard.
const STEP: u64 = 64 << 20;
/// The buffer where the kernel cannot copy by itself.
const BUFFER: u64 = 1 << 20;

/// Copies the data of `source` to `target`, which becomes as long and has the same holes. `progress`
/// is told the bytes of data copied so far, and says whether to go on. Returns their sum. Nothing is
/// synced.
pub fn copy_sparse(
    source: &File,
    target: &File,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<u64> {
    const PREPARE: &str = "prepare the copy of the file";
    let size = source
        .metadata()
        .map_err(Error::io("inspect the file to copy"))?
        .len();
    // Emptied first: what the target held must not show through the holes.
    target.set_len(0).map_err(Error::io(PREPARE))?;
    target.set_len(size).map_err(Error::io(PREPARE))?;
    let mut copied = 0;
    let mut kernel_copies = true;
    for range in data_ranges(source)? {
        let mut range = range?;
        while !range.is_empty() {
            let len = STEP.min(range.end - range.start);
            let mut count = None;
            if kernel_copies {
                count = copy_in_kernel(source, target, range.start, len)?;
                kernel_copies = count.is_some();
            }
            let count = match count {
                Some(count) => count,
                None => copy_by_hand(source, target, range.start, len.min(BUFFER))?,
            };
            range.start += count;
            copied += count;
            if !progress(copied) {
                return Err(Error::Cancelled);
            }
        }
    }
    Ok(copied)
}

/// One `copy_file_range`; `None` when these two files need another way.
fn copy_in_kernel(source: &File, target: &File, offset: u64, len: u64) -> Result<Option<u64>> {
    let (mut from, mut to) = (offset, offset);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let error = |source| {
        Err(Error::Io {
            operation: "copy the file",
            source,
        })
    };
    loop {
        let copied =
            rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), len);
        return match copied {
            Ok(0) => error(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(count as u64)),
            Err(Errno::INTR) => continue,
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(None),
            Err(errno) => error(errno.into()),
        };
    }
}

fn copy_by_hand(source: &File, target: &File, offset: u64, len: u64) -> Result<u64> {
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(0)];
    source
        .read_exact_at(&mut buffer, offset)
        .map_err(Error::io("read the file to copy"))?;
    target
        .write_all_at(&buffer, offset)
        .map_err(Error::io("write the copy of the file"))?;
    Ok(len)
}

/// Makes `range` of `file` a hole, which reads as zeros. `false` when the file system cannot; the
/// file's length stays.
pub fn punch_hole(file: &File, range: Range<u64>) -> Result<bool> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, range, "punch a hole into the file")
}

/// Gives `range` of `file` its space, in as few pieces as the file system can, and lengthens the file
/// to the range's end. It reads as zeros. `false` when the file system cannot.
pub fn preallocate(file: &File, range: Range<u64>) -> Result<bool> {
    fallocate(
        file,
        FallocateFlags::empty(),
        range,
        "give the file its space",
    )
}

fn fallocate(
    file: &File,
    flags: FallocateFlags,
    range: Range<u64>,
    operation: &'static str,
) -> Result<bool> {
    if range.is_empty() {
        return Ok(true);
    }
    loop {
        return match rustix::fs::fallocate(file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(errno) => Err(Error::Io {
                operation,
                source: errno.into(),
            }),
        };
    }
}
