//! An image that a client brings in pieces: what has come outlives the process, and a power cut.
//!
//! ```text
//! backing.upload.cfg   what was asked for, and how many bytes are surely there
//! backing.upload       the bytes, as long as the whole will be
//! ```
//!
//! The record is written before the file is made, and anew after every sync, which comes after [`SYNC`] bytes or
//! [`SYNC_TIME`]: a start goes on from there, and what lies behind it in the file is void. Bytes are hashed as they
//! come; what came before a restart is read once more, at the end.

mod record;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA512};
use tracing::warn;
use types::{Cancel, ImageId, Sha512, crash_point, report};

pub use self::record::UploadRecord;
use super::durable;
use super::health::{Reservation, leave_reserve};
use super::images::ImageStore;
use super::ingest::{CACHED, hold};
use super::layout::ImagePaths;
use super::padding::{self, Padded};
use super::received::Received;
use crate::error::{Error, IoContext, Result};
use crate::manifest::still_wanted;
use chunks::direct::{Direct, PageBuffer};
use chunks::holes::{data_runs, next_data};
use chunks::{CHUNK, Chunk, Manifest, chunk_len};

/// Bytes between two syncs: what a client sends again after a crash, at the most. Each costs three syncs, of the bytes,
/// of the record and of its directory: every 16 MiB, these were a fifth of the time of an upload.
const SYNC: u64 = 64 << 20;
/// Time after which the next piece is synced however little has come: over a slow line no minute is lost.
const SYNC_TIME: Duration = Duration::from_secs(1);

/// Removes what was left of an upload that is an image now, or nothing.
pub(super) fn remove_leftover(paths: &ImagePaths) -> Result<()> {
    durable::remove_file(&paths.upload_record)?;
    durable::remove_file(&paths.upload)
}

/// An upload that takes pieces. Dropping it leaves what has come, for the next start.
#[derive(Debug)]
pub struct Upload {
    file: File,
    path: PathBuf,
    paths: ImagePaths,
    record: UploadRecord,
    /// Bytes that have come: where the next piece belongs.
    offset: u64,
    /// What is known of them; `None`: they came before this process, and nobody has read them.
    running: Option<Running>,
    /// When bytes were synced last, or the upload was begun.
    synced_at: Instant,
    /// A piece was written in part: what is behind the offset is void.
    torn: bool,
    direct: Direct,
    reservation: Option<Reservation>,
}

/// The digests of all bytes so far.
struct Running {
    /// `None`: it is left for later.
    sum: Option<Context>,
    /// Those that are complete.
    chunks: Vec<Chunk>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("chunks", &self.chunks.len())
            .finish_non_exhaustive()
    }
}

impl Running {
    fn new() -> Self {
        let (sum, chunks) = (Some(Context::new(&SHA512)), Vec::new());
        Self { sum, chunks }
    }
}

impl ImageStore {
    /// Begins an upload, or goes on with the one that was left by an earlier process if it is of the same
    /// request. A new one is promised room for all of it.
    ///
    /// # Errors
    /// [`Error::NoSpace`] for a new one that does not fit.
    pub fn upload(&self, id: &ImageId, asked: &UploadRecord) -> Result<Upload> {
        let paths = self.enter(id)?;
        let left = UploadRecord::read(&paths)?.filter(|left| left.is_of(asked));
        let goes_on = left.is_some();
        let mut record = left.unwrap_or_else(|| asked.clone());
        let missing = record.size - record.synced;
        let reservation = match self.disk().reserve(missing) {
            Ok(reservation) => Some(reservation),
            // What has come is not given up for what others have put on the disk meanwhile.
            Err(_) if goes_on => None,
            Err(error) => return Err(error),
        };
        if !goes_on {
            remove_leftover(&paths)?;
            record.synced = 0;
            record.write(&paths)?;
        }
        crash_point!("store.upload.described");
        let path = paths.upload.clone();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .context("open", &path)?;
        hold(&file, &path)?;
        let there = file.metadata().context("inspect", &path)?.size();
        if there < record.synced {
            // Somebody else wrote to it.
            record.synced = 0;
        }
        let mut upload = Upload {
            file,
            path,
            paths,
            offset: record.synced,
            running: (record.synced == 0).then(Running::new),
            record,
            synced_at: Instant::now(),
            torn: true,
            direct: Direct::default(),
            reservation,
        };
        upload.trim()?;
        let file = &upload.file;
        file.sync_all().context("sync", &upload.path)?;
        durable::sync_dir(&upload.paths.dir)?;
        crash_point!("store.upload.begun");
        Ok(upload)
    }
}

impl Upload {
    /// Leaves the SHA-512 for later (see [`Ingest::without_checksum`](super::ingest::Ingest::without_checksum)).
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        if let Some(running) = &mut self.running {
            running.sum = None;
        }
        self
    }

    /// Bytes that have come: where the next piece belongs.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the whole.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Makes what is behind the offset zeros, which are not stored.
    fn trim(&mut self) -> Result<()> {
        if self.torn {
            let (offset, size) = (self.offset, self.record.size);
            let set = self.file.set_len(offset);
            set.and_then(|()| self.file.set_len(size))
                .context("set the length of", &self.path)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Appends a piece. After an error none of it is there, and the same piece can be appended again.
    ///
    /// # Errors
    /// [`Error::NotOfImage`] for more bytes than the whole has.
    pub fn append(&mut self, piece: &[u8]) -> Result<()> {
        let end = self.offset + piece.len() as u64;
        if end > self.record.size {
            let (size, offset) = (self.record.size, self.offset);
            return Err(Error::NotOfImage(format!(
                "{} bytes at offset {offset}; it has {size} bytes",
                piece.len()
            )));
        }
        self.trim()?;
        leave_reserve(&self.file, &self.path)?;
        self.torn = true;
        self.write(piece).context("write", &self.path)?;
        crash_point!("store.upload.written");
        let fresh = match self.running {
            Some(_) => self.complete(piece).context("read", &self.path)?,
            None => Vec::new(),
        };
        let sync = end - self.record.synced >= SYNC
            || self.synced_at.elapsed() >= SYNC_TIME
            || end == self.record.size;
        if sync {
            self.file.sync_data().context("sync", &self.path)?;
            crash_point!("store.upload.synced");
        }
        if let Some(running) = &mut self.running {
            if let Some(sum) = &mut running.sum {
                sum.update(piece);
            }
            running.chunks.extend(fresh);
        }
        self.offset = end;
        self.torn = false;
        if let Some(reservation) = &mut self.reservation {
            reservation.took(piece.len() as u64);
        }
        if sync {
            self.note_synced();
        }
        Ok(())
    }

    /// Writes what is not zeros of a piece; whole chunks go past the cache where much has come.
    fn write(&self, piece: &[u8]) -> io::Result<()> {
        // Where a chunk lies as direct writes want it. Between two pieces an upload has no memory.
        let mut page = PageBuffer::with_capacity(CHUNK);
        for run in data_runs(piece, self.offset) {
            let (mut at, mut rest) = (self.offset + run.start as u64, &piece[run]);
            while !rest.is_empty() {
                let left = CHUNK - usize::try_from(at % CHUNK as u64).expect("less than a chunk");
                let (now, then) = rest.split_at(rest.len().min(left));
                if now.len() == CHUNK && at >= CACHED {
                    page.replace(now);
                    self.direct.write_chunk(&self.file, &self.path, &page, at)?;
                } else {
                    self.file.write_all_at(now, at)?;
                }
                at += now.len() as u64;
                rest = then;
            }
        }
        Ok(())
    }

    /// Writes down how many bytes are surely there. Where that fails a crash costs more of them.
    fn note_synced(&mut self) {
        self.synced_at = Instant::now();
        let mut record = self.record.clone();
        record.synced = self.offset;
        match record.write(&self.paths) {
            Ok(()) => self.record = record,
            Err(error) => {
                warn!(error = %report(&error), "how far the upload is cannot be written down");
            }
        }
        crash_point!("store.upload.noted");
    }

    /// The chunks that a piece, which is in the file, completes.
    fn complete(&self, piece: &[u8]) -> io::Result<Vec<Chunk>> {
        let (mut at, mut rest) = (self.offset, piece);
        let mut complete = Vec::new();
        while !rest.is_empty() {
            let index = usize::try_from(at / CHUNK as u64).expect("at most 2^22 chunks");
            let start = usize::try_from(at % CHUNK as u64).expect("less than a chunk");
            let length = chunk_len(self.record.size, index);
            let (now, then) = rest.split_at(rest.len().min(length - start));
            if start + now.len() == length {
                complete.push(if start == 0 {
                    Chunk::of(now)
                } else {
                    let mut whole = vec![0; length];
                    self.file.read_exact_at(&mut whole, at - start as u64)?;
                    Chunk::of(&whole)
                });
            }
            at += now.len() as u64;
            rest = then;
        }
        Ok(complete)
    }

    /// Lets go of the upload in an orderly end: what has come is synced, for the next start. Where that fails, what was
    /// synced before is there.
    pub fn leave(mut self) {
        if self.offset == self.record.synced {
            return;
        }
        match self.file.sync_data() {
            Ok(()) => self.note_synced(),
            Err(error) => {
                warn!(%error, path = %self.path.display(), "what came last is not synced");
            }
        }
    }

    /// Ends the upload when all bytes have come, and gives what the store can seal.
    ///
    /// # Errors
    /// [`Error::Incomplete`] before that.
    pub fn finish(self, cancel: &Cancel) -> Result<Received> {
        let size = self.record.size;
        if self.offset < size {
            let missing = size - self.offset;
            return Err(Error::Incomplete { missing, size });
        }
        crash_point!("store.upload.complete");
        let Self {
            file,
            path,
            running,
            ..
        } = self;
        let Running { sum, chunks } = match running {
            Some(running) => running,
            None => read_again(&file, size, cancel).context("read", &path)??,
        };
        let checksum = sum
            .as_ref()
            .map(|sum| Sha512::from_digest(&sum.clone().finish()));
        let padded = if padding::missing(size) > 0 {
            let index = chunks.len() - 1;
            let mut last = vec![0; chunk_len(size, index)];
            file.read_exact_at(&mut last, index as u64 * CHUNK as u64)
                .context("read", &path)?;
            Padded::of(sum, size, last)
        } else {
            None
        };
        crash_point!("store.upload.hashed");
        Ok(Received {
            file,
            path,
            manifest: Manifest {
                size,
                checksum,
                chunks,
            },
            padded,
            unproven: checksum.is_none(),
            armed: true,
        })
    }
}

/// Reads all of an upload: some of it came before this process.
fn read_again(file: &File, size: u64, cancel: &Cancel) -> io::Result<Result<Running>> {
    let mut running = Running::new();
    let (mut at, mut data) = (0, 0);
    let mut buffer = vec![0; CHUNK];
    while at < size {
        if let Err(cancelled) = still_wanted(cancel) {
            return Ok(Err(cancelled));
        }
        let length = chunk_len(size, running.chunks.len());
        let bytes = &mut buffer[..length];
        if data <= at {
            data = next_data(file, at, size)?;
        }
        if data >= at + length as u64 {
            bytes.fill(0);
        } else {
            file.read_exact_at(bytes, at)?;
        }
        if let Some(sum) = &mut running.sum {
            sum.update(bytes);
        }
        running.chunks.push(Chunk::of(bytes));
        at += length as u64;
    }
    Ok(Ok(running))
}

#[cfg(test)]
mod tests;
