//! Work files without a name: maps of blocks, which do not fit in memory, as records of 40 bytes.
//!
//! A work file is gone with the process that made it, however that ends. Reads and writes of it stay in
//! the kernel's page cache but for the largest volumes, so they are made where they are needed, a few
//! KiB at a time, also between two steps of async code.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::{BlockChecksum, Error, Result};

/// Offset (8 bytes, the least first) and checksum.
const RECORD: usize = 40;
/// Bytes that are written in memory rather than to a work file.
const IN_MEMORY: u64 = 4 << 20;
/// Records that are read at a time: 40 KiB.
const BATCH: usize = 1024;

/// A file without a name in `directory`, open for reading and writing.
pub(crate) fn unnamed(directory: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // Not every file system makes files without a name.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => unlinked(directory),
        Err(error) => Err(failed("make a work file in", directory)(error.into())),
    }
}

fn unlinked(directory: &Path) -> Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(".backup-spool-{}-{next}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("create", &path))?;
    std::fs::remove_file(&path).map_err(failed("unlink", &path))?;
    Ok(file)
}

/// An I/O error of a work file in `directory`.
pub(crate) fn failed(
    operation: &'static str,
    directory: &Path,
) -> impl Fn(io::Error) -> Error + Send + use<> {
    let path = directory.to_owned();
    move |source| Error::File {
        operation,
        path: path.clone(),
        source,
    }
}

/// What `write` writes, at most `expected` bytes or so. More than a few MiB are not held in memory: they
/// are a work file, of which the kernel keeps in memory what it likes.
pub(crate) fn written(
    directory: &Path,
    expected: u64,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> Result<Bytes> {
    let failed = failed("write a work file in", directory);
    if expected <= IN_MEMORY {
        let mut bytes = Vec::new();
        write(&mut bytes).map_err(failed)?;
        return Ok(bytes.into());
    }
    let mut file = BufWriter::new(unnamed(directory)?);
    let mapped = write(&mut file).and_then(|()| Mapped::new(&file.into_inner()?));
    mapped.map(Bytes::from_owner).map_err(failed)
}

/// A work file in the address space. Nobody else can open the file, so nobody changes or cuts it.
struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is only read, and belongs to whoever has the value.
#[expect(unsafe_code, reason = "a pointer is not Send by itself")]
unsafe impl Send for Mapped {}

impl Mapped {
    #[expect(unsafe_code, reason = "a file is mapped")]
    fn new(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let flags = (ProtFlags::READ, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap(std::ptr::null_mut(), length, flags.0, flags.1, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("no address"))?;
        Ok(Self { start, length })
    }
}

impl AsRef<[u8]> for Mapped {
    #[expect(unsafe_code, reason = "a file is mapped")]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self` lives, and never written to.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapped {
    #[expect(unsafe_code, reason = "a file is mapped")]
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nobody borrows it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// A map that is being written.
#[derive(Debug)]
pub(crate) struct MapWriter {
    file: BufWriter<File>,
    directory: PathBuf,
    len: u64,
    last: Option<u64>,
}

impl MapWriter {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(RECORD * BATCH, unnamed(directory)?),
            directory: directory.to_owned(),
            len: 0,
            last: None,
        })
    }

    /// Adds a block. Offsets must ascend.
    pub(crate) fn push(&mut self, offset: u64, checksum: BlockChecksum) -> Result<()> {
        debug_assert!(self.last < Some(offset), "offsets ascend");
        self.last = Some(offset);
        self.len += 1;
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&offset.to_le_bytes());
        record[8..].copy_from_slice(&checksum.0);
        let written = self.file.write_all(&record);
        written.map_err(failed("write a work file in", &self.directory))
    }

    /// Adds a block whose offset does not matter.
    pub(crate) fn push_next(&mut self, checksum: BlockChecksum) -> Result<()> {
        self.push(self.len, checksum)
    }

    pub(crate) fn finish(mut self) -> Result<Map> {
        let failed = failed("write a work file in", &self.directory);
        self.file.flush().map_err(&failed)?;
        let file = self
            .file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        Ok(Map {
            file: Arc::new(file),
            directory: self.directory,
            len: self.len,
            last: self.last,
        })
    }
}

/// The blocks of a backup, by ascending offset. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    file: Arc<File>,
    directory: PathBuf,
    len: u64,
    last: Option<u64>,
}

impl Map {
    /// How many blocks there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The offset of the last block.
    pub(crate) fn last(&self) -> Option<u64> {
        self.last
    }

    /// The blocks, as the codecs of configuration files take them.
    pub(crate) fn records(&self) -> Records {
        Records {
            map: self.clone(),
            batch: Vec::new(),
            at: 0,
            read: 0,
        }
    }

    /// The blocks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<(u64, BlockChecksum)>> + Send + use<> {
        let failed = failed("read a work file in", &self.directory);
        self.records().map(move |record| record.map_err(&failed))
    }
}

/// Reads a [`Map`].
#[derive(Debug)]
pub(crate) struct Records {
    map: Map,
    batch: Vec<u8>,
    /// Bytes of the batch that were given.
    at: usize,
    /// Records that were read.
    read: u64,
}

impl Iterator for Records {
    type Item = io::Result<(u64, BlockChecksum)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.batch.len() {
            let left = self.map.len - self.read;
            if left == 0 {
                return None;
            }
            let records = usize::try_from(left).map_or(BATCH, |left| left.min(BATCH));
            self.batch.resize(records * RECORD, 0);
            self.at = 0;
            let offset = self.read * RECORD as u64;
            if let Err(error) = self.map.file.read_exact_at(&mut self.batch, offset) {
                // The rest cannot be read either.
                self.read = self.map.len;
                self.batch.clear();
                return Some(Err(error));
            }
            self.read += records as u64;
        }
        let (record, _) = self.batch[self.at..].split_first_chunk::<RECORD>()?;
        self.at += RECORD;
        let (offset, checksum) = record.split_first_chunk::<8>()?;
        let checksum = checksum.try_into().ok()?;
        Some(Ok((u64::from_le_bytes(*offset), BlockChecksum(checksum))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(of: u64) -> BlockChecksum {
        BlockChecksum::of(&of.to_le_bytes())
    }

    #[test]
    fn a_map_gives_back_what_was_put_into_it_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        for count in [0, 1, 1023, 1024, 1025, 5000] {
            let mut writer = MapWriter::new(directory.path()).unwrap();
            for n in 0..count {
                writer.push(n * 3, checksum(n)).unwrap();
            }
            let map = writer.finish().unwrap();
            assert_eq!(map.len(), count);
            let read: Vec<_> = map.iter().map(Result::unwrap).collect();
            let expected: Vec<_> = (0..count).map(|n| (n * 3, checksum(n))).collect();
            assert!(read == expected, "{count}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_written_reads_the_same_in_memory_and_mapped() {
        let directory = tempfile::tempdir().unwrap();
        for expected in [0, IN_MEMORY + 1] {
            let bytes = written(directory.path(), expected, |to| {
                (0..100_000).try_for_each(|n: u32| to.write_all(&n.to_le_bytes()))
            });
            let bytes = bytes.unwrap();
            let copy = bytes.slice(400_000 - 4..);
            drop(bytes);
            assert_eq!(copy[..], 99_999_u32.to_le_bytes());
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_no_file_can_be_without_a_name_it_is_unlinked_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = unlinked(directory.path()).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
