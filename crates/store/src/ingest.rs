//! Ingests an image in one pass: its bytes are written and hashed as they arrive, and holes are
//! kept.
//!
//! The caller's thread cuts the stream into chunks, digests and writes them; a second thread computes
//! the SHA-512, which is the slowest part of all (docs/architecture.md, "Ingest"), unless it is left for
//! later. Memory is bounded by the few chunks that may wait for it. Dropping an [`Ingest`] removes its file: bytes become an image only through
//! [`Ingest::finish`] and then `ImageStore::seal`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use types::Cancel;
use types::{Sha512, crash_point};

use super::disk::Disk;
use super::durable;
use super::hash::HashThread;
use super::health::{Reservation, leave_reserve};
use super::held;
use super::padding::{self, Padded};
use super::received::Received;
use crate::error::{Error, IoContext, Result};
use chunks::direct::{Direct, PageBuffer, begins_at_a_page};
use chunks::holes::data_runs;
use chunks::{CHUNK, Chunk, IMAGE_SIZE_MAX, Manifest};

/// Write-back is started after this many bytes, so that the final sync finds little to do.
const WRITE_BACK: u64 = 16 << 20;
/// Bytes that go through the kernel's cache: a small image is often read as soon as it is there, a large one
/// is written past it.
pub(super) const CACHED: u64 = 64 << 20;
/// The file is made longer by so much before anything is written there: behind the end of a file XFS gives
/// room ahead of the writer, which would fill the holes.
const AHEAD: u64 = 64 << 20;

/// An image on its way in.
#[derive(Debug)]
pub struct Ingest {
    file: File,
    direct: Direct,
    path: PathBuf,
    /// The chunk being filled.
    chunk: PageBuffer,
    offset: u64,
    /// Of the file: see [`AHEAD`].
    length: u64,
    /// Where write-back was last started.
    written_back: u64,
    chunks: Vec<Chunk>,
    /// `None`: the SHA-512 is computed when the image is ready.
    hash: Option<HashThread>,
    cancel: Cancel,
    disk: Option<Arc<Disk>>,
    reservation: Option<Reservation>,
    /// Unset once the file belongs to a [`Received`].
    armed: bool,
}

impl Ingest {
    /// Creates the work file at `path`. A leftover of an earlier attempt is void and removed.
    pub fn create(path: PathBuf, cancel: Cancel) -> Result<Self> {
        durable::remove_file(&path)?;
        let file = durable::create_file(&path)?;
        hold(&file, &path)?;
        let hash = HashThread::start().context("start a thread for", &path)?;
        Ok(Self {
            file,
            direct: Direct::default(),
            path,
            chunk: hash.buffer(),
            offset: 0,
            length: 0,
            written_back: 0,
            chunks: Vec::new(),
            hash: Some(hash),
            cancel,
            disk: None,
            reservation: None,
            armed: true,
        })
    }

    /// Bytes taken in so far.
    pub fn size(&self) -> u64 {
        self.offset + self.chunk.len() as u64
    }

    /// Appends bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            // Whole chunks go from where they are, unless the other thread is to have them.
            if self.hash.is_none()
                && self.chunk.is_empty()
                && begins_at_a_page(bytes)
                && let Some((chunk, rest)) = bytes.split_at_checked(CHUNK)
            {
                self.take(chunk)?;
                bytes = rest;
                continue;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.end().extend_from_slice(now);
            bytes = rest;
            if self.chunk.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub fn hole(&mut self, mut length: u64) -> Result<()> {
        while length > 0 {
            let now = length.min((CHUNK - self.chunk.len()) as u64);
            if now == CHUNK as u64 {
                self.put(Chunk::Hole, CHUNK)?;
                self.hash.as_ref().map_or(Ok(()), HashThread::zeros)?;
            } else {
                let filled = self.chunk.len() + usize::try_from(now).expect("less than a chunk");
                self.chunk.resize(filled);
                if self.chunk.len() == CHUNK {
                    self.flush()?;
                }
            }
            length -= now;
        }
        Ok(())
    }

    /// Sends the chunk that was filled on its three ways: digest, disk, checksum.
    fn flush(&mut self) -> Result<()> {
        let mut filled = std::mem::take(&mut self.chunk);
        self.take(&filled)?;
        if let Some(hash) = &self.hash {
            self.chunk = hash.buffer();
            hash.data(filled)
        } else {
            filled.clear();
            self.chunk = filled;
            Ok(())
        }
    }

    /// Takes in the bytes of the next chunk: digest and disk.
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let chunk = Chunk::of(bytes);
        if let Chunk::Data(_) = chunk {
            leave_reserve(&self.file, &self.path)?;
            self.write_chunk(bytes).context("write", &self.path)?;
        }
        self.put(chunk, bytes.len())
    }

    /// Writes what of a chunk is no hole.
    fn write_chunk(&mut self, chunk: &[u8]) -> io::Result<()> {
        let end = self.offset + chunk.len() as u64;
        if end > self.length {
            self.length = end.next_multiple_of(AHEAD);
            self.file.set_len(self.length)?;
        }
        for run in data_runs(chunk, self.offset) {
            let (bytes, at) = (&chunk[run.clone()], self.offset + run.start as u64);
            if self.offset < CACHED || bytes.len() < chunk.len() {
                self.file.write_all_at(bytes, at)?;
            } else {
                self.direct.write_chunk(&self.file, &self.path, bytes, at)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, chunk: Chunk, length: usize) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled(
                "the image is being deleted or the manager stops",
            ));
        }
        self.chunks.push(chunk);
        self.offset += length as u64;
        if let Some(reservation) = &mut self.reservation {
            reservation.took(length as u64);
        }
        if self.offset > IMAGE_SIZE_MAX {
            return Err(Error::NotAnImage(format!(
                "it is larger than {IMAGE_SIZE_MAX} bytes"
            )));
        }
        if self.offset - self.written_back >= WRITE_BACK {
            start_write_back(
                &self.file,
                self.written_back,
                self.offset - self.written_back,
            );
            self.written_back = self.offset;
        }
        Ok(())
    }

    /// Says that at least so many bytes will be written, holes not counted: they are promised to this
    /// image, or it is refused before the first of them comes.
    pub fn expect(&mut self, bytes: u64) -> Result<()> {
        if let Some(disk) = &self.disk {
            self.reservation = Some(disk.reserve(bytes)?);
        }
        Ok(())
    }

    /// Leaves the SHA-512 for later: it takes longer than all else, and nobody waits for it. The digests of the
    /// chunks tell these bytes from all others meanwhile.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.hash = None;
        self
    }

    /// The disk that promises room to it.
    pub(super) fn on(mut self, disk: Arc<Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Ends the stream: gives the file its length and computes the checksum, unless it is left for later.
    pub fn finish(mut self) -> Result<Received> {
        let size = self.size();
        // An odd size ends in a chunk that is not full.
        let last = (padding::missing(size) > 0).then(|| self.chunk.to_vec());
        if !self.chunk.is_empty() {
            self.flush()?;
        }
        self.file
            .set_len(size)
            .context("set the length of", &self.path)?;
        let sum = self
            .hash
            .as_mut()
            .map(HashThread::finish_open)
            .transpose()?;
        let checksum = sum
            .as_ref()
            .map(|sum| Sha512::from_digest(&sum.clone().finish()));
        let padded = last.and_then(|last| Padded::of(sum, size, last));
        crash_point!("store.ingest.received");
        self.armed = false;
        Ok(Received {
            file: self.file.try_clone().context("keep open", &self.path)?,
            path: self.path.clone(),
            manifest: Manifest {
                size,
                checksum,
                chunks: std::mem::take(&mut self.chunks),
            },
            padded,
            unproven: checksum.is_none(),
            armed: true,
        })
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.armed {
            // What cannot be removed now is a leftover that the next start removes.
            let _ = durable::remove_file(&self.path);
        }
    }
}

/// Locks a work file, so that it is told from one that nobody fills any more.
pub(super) fn hold(file: &File, path: &Path) -> Result<()> {
    if held::hold(file, path)? {
        Ok(())
    } else {
        Err(Error::WorkFileBusy(path.to_owned()))
    }
}

/// Asks the kernel to start writing a range; it is a hint, so its failure means nothing.
#[expect(
    unsafe_code,
    reason = "sync_file_range has no safe wrapper among our dependencies"
)]
pub(super) fn start_write_back(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return;
    };
    // SAFETY: the descriptor is open for the whole call and no memory is passed.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::reading::Reading;
    use super::*;
    use crate::manifest::ManifestFile as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn ingest(dir: &tempfile::TempDir) -> Ingest {
        Ingest::create(dir.path().join("backing.tmp"), Cancel::never()).unwrap()
    }

    #[test]
    fn whole_chunks_go_from_where_they_are_and_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = PageBuffer::with_capacity(4 * CHUNK);
        bytes.resize(3 * CHUNK + 4097);
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(at % 251).unwrap();
        }
        bytes[CHUNK..2 * CHUNK].fill(0);
        bytes[2 * CHUNK + 4096..][..8192].fill(0);
        let take = |pieces: &[usize]| {
            let mut ingest = ingest(&dir).without_checksum();
            let mut rest = &bytes[..];
            for piece in pieces {
                let (now, then) = rest.split_at(*piece);
                ingest.write(now).unwrap();
                rest = then;
            }
            ingest.write(rest).unwrap();
            assert_eq!(ingest.size(), bytes.len() as u64);
            let received = ingest.finish().unwrap();
            assert!(std::fs::read(&received.path).unwrap() == *bytes);
            let metadata = received.file.metadata().unwrap();
            (received.manifest.chunks.clone(), metadata.blocks())
        };
        let by_copies = take(&[5, CHUNK, CHUNK - 5, 17]);
        assert_eq!(take(&[]), by_copies);
        assert_eq!(
            take(&[CHUNK, 4096]),
            by_copies,
            "behind a chunk that is begun"
        );
        assert_eq!(by_copies.0[1], Chunk::Hole);
    }

    #[test]
    fn what_goes_in_is_on_disk_with_its_checksum_and_holes() {
        // Lengths around the chunk: empty, tiny, one less, exact, one more, a tail.
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 513] {
            let dir = tempfile::tempdir().unwrap();
            let bytes: Vec<u8> = (0..size)
                .map(|i| u8::try_from(i % 251).unwrap() + 1)
                .collect();
            let mut ingest = ingest(&dir);
            for piece in bytes.chunks(70_001) {
                ingest.write(piece).unwrap();
            }
            ingest.hole(5 * CHUNK as u64 + 3).unwrap();
            let received = ingest.finish().unwrap();
            let mut expected = bytes;
            expected.resize(size + 5 * CHUNK + 3, 0);
            assert_eq!(
                received.manifest.checksum,
                Some(Sha512::of(&expected)),
                "{size}"
            );
            assert_eq!(std::fs::read(&received.path).unwrap(), expected, "{size}");
            assert_eq!(
                received
                    .manifest
                    .verify(
                        &received.file,
                        &received.path,
                        Reading::silent(&Cancel::never())
                    )
                    .unwrap(),
                None
            );
            let blocks = received.file.metadata().unwrap().blocks() * 512;
            assert!(
                blocks <= (size + 2 * CHUNK) as u64,
                "{blocks} bytes on disk for {size}"
            );
        }
    }

    #[test]
    fn a_large_image_is_written_past_the_cache_and_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let size = usize::try_from(CACHED).unwrap() + 3 * CHUNK + 17;
        let pattern: Vec<u8> = (1..=253).collect();
        let mut bytes: Vec<u8> = pattern.into_iter().cycle().take(size).collect();
        let mut ingest = ingest(&dir);
        for piece in bytes.chunks(700_001) {
            ingest.write(piece).unwrap();
        }
        ingest.hole(2 * CHUNK as u64).unwrap();
        ingest.write(&[9; 1000]).unwrap();
        assert!(ingest.direct.was_asked());
        let received = ingest.finish().unwrap();
        bytes.resize(size + 2 * CHUNK, 0);
        bytes.extend([9; 1000]);
        assert_eq!(received.manifest.checksum, Some(Sha512::of(&bytes)));
        assert!(std::fs::read(&received.path).unwrap() == bytes);
    }

    #[test]
    fn a_dropped_ingest_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = ingest(&dir);
        first.write(&[1; 5000]).unwrap();
        drop(first);
        drop(ingest(&dir).finish().unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn cancelling_ends_the_next_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ended);
        let cancel = Cancel::when(move || asked.load(Ordering::Relaxed));
        let mut ingest = Ingest::create(dir.path().join("x"), cancel).unwrap();
        ingest.write(&vec![1; CHUNK]).unwrap();
        ended.store(true, Ordering::Relaxed);
        assert!(matches!(
            ingest.write(&vec![1; CHUNK]),
            Err(Error::Cancelled(_))
        ));
    }
}
