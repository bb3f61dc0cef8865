//! What the threads that bring an assembly's bytes share: one chunk at a time, each under its lock.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{MutexGuard, PoisonError};

use super::coverage::Coverage;
use super::{Phase, Piece, STRIPES, Shared, State, TOLD_AFTER};
use crate::error::{Error, IoContext, Result};
use crate::health::Reservation;
use crate::ingest::start_write_back;
use chunks::holes::{data_runs, punch};
use chunks::{CHUNK, Chunk, chunk_len, is_zero};

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reservation(&self) -> MutexGuard<'_, Option<Reservation>> {
        self.reservation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// So much of the promised room is in use now.
    pub(super) fn took(&self, bytes: u64) {
        if let Some(reservation) = self.reservation().as_mut() {
            reservation.took(bytes);
        }
    }

    pub(super) fn still_open(&self, state: &State) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled(
                "the image is being deleted or the manager stops",
            ));
        }
        match state.phase {
            Phase::Open => Ok(()),
            Phase::Finishing => Err(Error::Cancelled("the image was finished before")),
            Phase::Ended => Err(Error::Cancelled("an earlier write of the image failed")),
        }
    }

    pub(super) fn begin_finish(&self) -> Result<()> {
        let mut state = self.state();
        self.still_open(&state)?;
        if state.chunks.iter().any(Option::is_none) {
            let (missing, size) = (self.size - state.received, self.size);
            return Err(Error::Incomplete { missing, size });
        }
        state.phase = Phase::Finishing;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Calls the hash off when it is too far behind to be waited for, and a manifest tells the sum.
    pub(super) fn give_up_when_far(&self) {
        let mut state = self.state();
        if self.known.is_some() && state.chunks.len() - state.hashed > TOLD_AFTER {
            state.given_up = true;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Takes a piece of one chunk.
    pub(super) fn put(&self, index: usize, start: usize, piece: Piece<'_>) -> Result<()> {
        let _stripe = self.stripes[index % STRIPES]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let whole = chunk_len(self.size, index);
        let mut covered = {
            let mut state = self.state();
            self.still_open(&state)?;
            match state.chunks[index] {
                Some(_) => Coverage::full(whole),
                None => state.partials.take(index),
            }
        };
        let was_full = covered.is_full(whole);
        let before = covered.clone();
        let put = self.put_bytes(index, start, piece, &mut covered);
        let chunk = put.and_then(|digested| {
            let complete = !was_full && covered.is_full(whole);
            if complete && digested.is_some() {
                Ok(digested)
            } else if complete {
                self.digest(index, start, piece).map(Some)
            } else {
                Ok(None)
            }
        });
        let mut state = self.state();
        match chunk {
            Ok(Some(chunk)) => {
                state.received += (whole - before.len()) as u64;
                state.chunks[index] = Some(chunk);
                drop(state);
                self.changed.notify_all();
                if let Chunk::Data(_) = chunk {
                    self.took(whole as u64);
                    start_write_back(&self.file, index as u64 * CHUNK as u64, whole as u64);
                }
                Ok(())
            }
            Ok(None) if was_full => Ok(()),
            Ok(None) => {
                state.received += (covered.len() - before.len()) as u64;
                state.partials.put(index, covered)
            }
            Err(error @ Error::ChunkMismatch { .. }) => {
                state.received -= before.len() as u64;
                Err(error)
            }
            Err(error) => {
                if let Error::Io { .. } = error {
                    state.phase = Phase::Ended;
                } else if !was_full {
                    state.partials.put(index, before)?;
                }
                Err(error)
            }
        }
    }

    /// Writes what has not come before, and compares what has. Gives the digest of a chunk that came
    /// whole: it was looked at already.
    fn put_bytes(
        &self,
        index: usize,
        start: usize,
        piece: Piece<'_>,
        covered: &mut Coverage,
    ) -> Result<Option<Chunk>> {
        let end = start + piece.len();
        let mut digested = None;
        for (range, again) in covered.split(start..end) {
            let bytes = match piece {
                Piece::Bytes(bytes) => Some(&bytes[range.start - start..range.end - start]),
                Piece::Zeros(_) => None,
            };
            if again {
                let there = self.read(index, range.clone())?;
                let same = bytes.map_or_else(|| is_zero(&there), |bytes| bytes == there);
                if !same {
                    return Err(Error::NotOfImage(format!(
                        "bytes of chunk {index} arrived twice and differ"
                    )));
                }
            } else if let Some(bytes) = bytes.filter(|bytes| !is_zero(bytes)) {
                // Whole chunks are looked at before they are written.
                if range.len() == chunk_len(self.size, index) {
                    let chunk = Chunk::of(bytes);
                    self.expected(index, chunk)?;
                    digested = Some(chunk);
                }
                let at = index as u64 * CHUNK as u64 + range.start as u64;
                self.write_data(bytes, at).context("write", &self.path)?;
            }
        }
        covered.add(start..end)?;
        Ok(digested)
    }

    /// Writes what of the bytes is no hole. Room that was taken for a hole is given back.
    fn write_data(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut before = 0;
        let give_back = |hole: Range<usize>| {
            if self.preallocated && !hole.is_empty() {
                return punch(&self.file, at + hole.start as u64, hole.len() as u64);
            }
            Ok(())
        };
        for run in data_runs(bytes, at) {
            give_back(before..run.start)?;
            before = run.end;
            self.write(&bytes[run.clone()], at + run.start as u64)?;
        }
        give_back(before..bytes.len())
    }

    /// Past the kernel's cache when chunks come faster than the SHA-512 is computed, which reads them from
    /// there.
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.state().given_up {
            self.direct.write_chunk(&self.file, &self.path, bytes, at)
        } else {
            self.file.write_all_at(bytes, at)
        }
    }

    /// The digest of a chunk whose last piece has just come.
    fn digest(&self, index: usize, start: usize, piece: Piece<'_>) -> Result<Chunk> {
        let whole = chunk_len(self.size, index);
        let chunk = match piece {
            Piece::Bytes(bytes) if start == 0 && bytes.len() == whole => Chunk::of(bytes),
            Piece::Zeros(length) if length == whole => Chunk::Hole,
            _ => Chunk::of(&self.read(index, 0..whole)?),
        };
        let checked = self.expected(index, chunk);
        if checked.is_err() {
            punch(&self.file, index as u64 * CHUNK as u64, whole as u64)
                .context("clear a part of", &self.path)?;
        }
        checked.map(|()| chunk)
    }

    fn expected(&self, index: usize, chunk: Chunk) -> Result<()> {
        match &self.known {
            Some(known) if known.chunks[index] != chunk => Err(Error::ChunkMismatch {
                index: u32::try_from(index).expect("at most 2^22 chunks"),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn read(&self, index: usize, range: Range<usize>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; range.len()];
        let at = index as u64 * CHUNK as u64 + range.start as u64;
        self.file
            .read_exact_at(&mut bytes, at)
            .context("read", &self.path)?;
        Ok(bytes)
    }
}
