//! Accepts the bytes of an image in any order, from several threads at once.
//!
//! Each chunk is hashed when its last byte arrives. With a known manifest, a wrong chunk is
//! rejected immediately, and chunks from before a crash or an interruption are kept. Zeros are not
//! written: missing data is a hole. The SHA-512 follows in its own thread ([`follower`]). Bytes
//! that arrive twice must be the same.
//!
//! ```text
//! without a manifest   backing.tmp                          removed on drop and by a start
//! with one             backing.part, backing.part.chunks    kept until it is complete or too old
//! ```

mod coverage;
mod follower;
mod resume;
mod shared;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use types::Cancel;
use types::{Sha512, crash_point};

use self::coverage::Partials;
use super::durable;
use super::health::{Reservation, leave_reserve};
use super::ingest::hold;
use super::layout::ImagePaths;
use super::received::Received;
use crate::error::{Error, IoContext, Result};
use chunks::direct::Direct;
use chunks::{CHUNK, Chunk, IMAGE_SIZE_MAX, Manifest, chunk_len};

/// Chunks that the SHA-512 may be behind where a manifest tells it: what a slow link brings is hashed on the way, and
/// a fast one needs the processors itself.
const TOLD_AFTER: usize = 32;
/// Locks that chunks share: writers of different chunks seldom meet.
const STRIPES: usize = 64;

/// An image whose bytes come in any order. Shared by reference or `Arc` between those who bring them.
#[derive(Debug)]
pub struct Assembly {
    shared: Arc<Shared>,
    /// Taken by who finishes.
    follower: Mutex<Option<JoinHandle<Result<Option<Sha512>>>>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    path: PathBuf,
    direct: Direct,
    size: u64,
    known: Option<Manifest>,
    /// Whether the bytes that were missing have their room on the disk already.
    preallocated: bool,
    cancel: Cancel,
    /// Held while a chunk is written, so that its digest is that of its last bytes.
    stripes: Vec<Mutex<()>>,
    state: Mutex<State>,
    reservation: Mutex<Option<Reservation>>,
    /// Told when a chunk is complete, was hashed, or nothing more comes.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Those that are complete.
    chunks: Vec<Option<Chunk>>,
    partials: Partials,
    /// Bytes that came, holes included.
    received: u64,
    /// Chunks before this one are in the SHA-512.
    hashed: usize,
    /// The SHA-512 is not computed now: the known manifest's is taken as told.
    given_up: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Complete, and the SHA-512 is awaited.
    Finishing,
    /// Dropped, or a write failed: what the file holds is not known.
    Ended,
}

/// What comes for a part of one chunk.
#[derive(Debug, Clone, Copy)]
enum Piece<'a> {
    Bytes(&'a [u8]),
    Zeros(usize),
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(length) => *length,
        }
    }
}

impl Assembly {
    /// Opens the work file: new, or with `known` the one that is there.
    pub(super) fn open(
        paths: &ImagePaths,
        size: u64,
        known: Option<Manifest>,
        cancel: Cancel,
    ) -> Result<Self> {
        if size == 0 || size > IMAGE_SIZE_MAX {
            return Err(Error::NotAnImage(format!("it has {size} bytes")));
        }
        let count = usize::try_from(size.div_ceil(CHUNK as u64)).expect("at most 2^22 chunks");
        if known
            .as_ref()
            .is_some_and(|known| known.size != size || known.chunks.len() != count)
        {
            return Err(Error::NotOfImage(format!(
                "a manifest of another size than {size} bytes"
            )));
        }
        let (file, path, chunks, preallocated) = if let Some(known) = &known {
            resume::open(paths, known, &cancel)?
        } else {
            durable::remove_file(&paths.backing_tmp)?;
            let file = durable::create_file(&paths.backing_tmp)?;
            hold(&file, &paths.backing_tmp)?;
            file.set_len(size)
                .context("set the length of", &paths.backing_tmp)?;
            (file, paths.backing_tmp.clone(), vec![None; count], false)
        };
        let there =
            |(index, chunk): (usize, &Option<Chunk>)| chunk.map(|_| chunk_len(size, index) as u64);
        let state = State {
            received: chunks.iter().enumerate().filter_map(there).sum(),
            chunks,
            partials: Partials::default(),
            hashed: 0,
            given_up: false,
            phase: Phase::Open,
        };
        let shared = Arc::new(Shared {
            file,
            path,
            direct: Direct::default(),
            size,
            known,
            preallocated,
            cancel,
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            state: Mutex::new(state),
            reservation: Mutex::new(None),
            changed: Condvar::new(),
        });
        let follower =
            follower::start(shared.clone()).context("start a thread for", &shared.path)?;
        Ok(Self {
            shared,
            follower: Mutex::new(Some(follower)),
        })
    }

    /// Whether its bytes have their room on the disk already.
    pub(super) fn is_preallocated(&self) -> bool {
        self.shared.preallocated
    }

    /// Keeps room that was promised to it until its bytes take it.
    pub(super) fn keep(&self, reservation: Reservation) {
        *self.shared.reservation() = Some(reservation);
    }

    /// Whether an earlier attempt left something to go on from.
    pub(super) fn left(paths: &ImagePaths) -> bool {
        paths.part.exists() && paths.part_chunks.exists()
    }

    /// Bytes of the image.
    pub fn size(&self) -> u64 {
        self.shared.size
    }

    /// The manifest that it was begun with.
    pub fn known(&self) -> Option<&Manifest> {
        self.shared.known.as_ref()
    }

    /// Takes bytes for any place. An error of the disk ends the assembly.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut bytes = bytes;
        self.each_chunk(offset, bytes.len() as u64, |index, start, length| {
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            self.shared.put(index, start, Piece::Bytes(piece))
        })
    }

    /// Takes zeros for any place, without writing them.
    pub fn hole(&self, offset: u64, length: u64) -> Result<()> {
        self.each_chunk(offset, length, |index, start, length| {
            self.shared.put(index, start, Piece::Zeros(length))
        })
    }

    /// Takes a whole chunk. [`Error::ChunkMismatch`] when it is not what the manifest says: nothing of
    /// it is kept then.
    pub fn put_chunk(&self, index: u32, bytes: &[u8]) -> Result<()> {
        let offset = u64::from(index) * CHUNK as u64;
        if offset >= self.size() || bytes.len() != chunk_len(self.size(), index as usize) {
            return Err(Error::NotOfImage(format!(
                "{} bytes for chunk {index}",
                bytes.len()
            )));
        }
        self.write_at(offset, bytes)
    }

    fn each_chunk(
        &self,
        offset: u64,
        length: u64,
        mut put: impl FnMut(usize, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.size())
            .ok_or_else(|| {
                let size = self.size();
                Error::NotOfImage(format!(
                    "{length} bytes at offset {offset}; it has {size} bytes"
                ))
            })?;
        self.shared.wait_for_hash()?;
        leave_reserve(&self.shared.file, &self.shared.path)?;
        let mut at = offset;
        while at < end {
            let index = usize::try_from(at / CHUNK as u64).expect("at most 2^22 chunks");
            let start = usize::try_from(at % CHUNK as u64).expect("less than a chunk");
            let room = chunk_len(self.size(), index) - start;
            let now = usize::try_from(end - at).map_or(room, |left| left.min(room));
            put(index, start, now)?;
            at += now as u64;
        }
        Ok(())
    }

    /// Chunks that are not complete.
    pub fn missing(&self) -> Vec<u32> {
        (0..)
            .zip(&self.shared.state().chunks)
            .filter(|(_, chunk)| chunk.is_none())
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether a chunk is complete, and with a known manifest verified.
    pub fn has(&self, index: u32) -> bool {
        matches!(
            self.shared.state().chunks.get(index as usize),
            Some(Some(_))
        )
    }

    /// The bytes of a complete chunk, for others who want the image.
    pub fn read_chunk(&self, index: u32) -> Result<Vec<u8>> {
        if !self.has(index) {
            return Err(Error::NotOfImage(format!(
                "chunk {index} has not arrived yet"
            )));
        }
        self.shared
            .read(index as usize, 0..chunk_len(self.size(), index as usize))
    }

    /// Bytes that came, holes included: the size, once all did.
    pub fn received(&self) -> u64 {
        self.shared.state().received
    }

    /// Ends the work when all bytes are there, and gives what the store can seal. Waits for the
    /// SHA-512, which must be the one of a known manifest; but when it fell more than [`TOLD_AFTER`] behind
    /// (a fast link, or holes, bring chunks faster than anybody can hash them), the known one is taken as
    /// told: each chunk is proven to be the manifest's by then, and the sum is computed after the image is
    /// ready.
    pub fn finish(&self) -> Result<Received> {
        let shared = &self.shared;
        shared.begin_finish()?;
        let follower = self
            .follower
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let follower = follower.ok_or(Error::Cancelled("the image was finished before"))?;
        shared.give_up_when_far();
        let followed = follower
            .join()
            .map_err(|_| Error::Cancelled("the hash thread ended"))??;
        let told = shared.known.as_ref().and_then(|known| known.checksum);
        let checksum = followed
            .or(told)
            .ok_or(Error::Cancelled("the hash thread ended"))?;
        if let Some(told) = told.filter(|told| *told != checksum) {
            // No chunk can be blamed: the manifest contradicts itself.
            durable::remove_file(&shared.path)?;
            return Err(Error::Checksum {
                expected: Box::new(told),
                actual: Box::new(checksum),
            });
        }
        crash_point!("store.assembly.received");
        let chunks = std::mem::take(&mut shared.state().chunks);
        Ok(Received {
            file: shared.file.try_clone().context("keep open", &shared.path)?,
            path: shared.path.clone(),
            manifest: Manifest {
                size: shared.size,
                checksum: Some(checksum),
                chunks: chunks.into_iter().flatten().collect(),
            },
            padded: None,
            unproven: followed.is_none(),
            armed: true,
        })
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        let unfinished = {
            let mut state = self.shared.state();
            let unfinished = state.phase != Phase::Finishing;
            state.phase = Phase::Ended;
            unfinished
        };
        self.shared.changed.notify_all();
        // It has the file open, and with it the lock that the next attempt needs.
        let follower = self
            .follower
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let _ = follower.map(JoinHandle::join);
        if unfinished && self.shared.known.is_none() {
            // What cannot be removed now is a leftover that the next start removes.
            let _ = durable::remove_file(&self.shared.path);
        }
    }
}

#[cfg(test)]
mod tests;
