//! Computes the digests of images: the SHA-512, which is the slowest part of all, on a thread of its
//! own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use ring::digest::{Context, SHA512};
use types::Sha512;

use super::reading::Reading;
use crate::error::{Error, IoContext, Result};
use crate::manifest::still_wanted;
use chunks::direct::PageBuffer;
use chunks::holes::next_data;
use chunks::{CHUNK, Chunk, Manifest, chunk_len};

/// Chunks that may wait for the hash thread.
const QUEUE: usize = 4;

/// Computes every digest of a file. Its holes are not read, but they count.
pub(super) fn hash_file(file: &File, path: &Path, reading: Reading<'_>) -> Result<Manifest> {
    let hash = HashThread::start().context("start a thread for", path)?;
    hash_by(Some(hash), file, path, reading)
}

/// The digests of its chunks alone.
pub(super) fn digest_file(file: &File, path: &Path, reading: Reading<'_>) -> Result<Manifest> {
    hash_by(None, file, path, reading)
}

/// All of them, on processors that nobody else needs.
pub(super) fn hash_gently(file: &File, path: &Path, reading: Reading<'_>) -> Result<Manifest> {
    let hash = HashThread::start_gently().context("start a thread for", path)?;
    hash_by(Some(hash), file, path, reading)
}

fn hash_by(
    mut hash: Option<HashThread>,
    file: &File,
    path: &Path,
    reading: Reading<'_>,
) -> Result<Manifest> {
    let mut own = PageBuffer::with_capacity(CHUNK);
    let size = file.metadata().context("inspect", path)?.len();
    let mut chunks = Vec::new();
    let (mut offset, mut data) = (0, 0);
    while offset < size {
        still_wanted(reading.cancel)?;
        let length = chunk_len(size, chunks.len());
        let end = offset + length as u64;
        if data <= offset {
            data = next_data(file, offset, size).context("read", path)?;
        }
        if data >= end && length == CHUNK {
            chunks.push(Chunk::Hole);
            hash.as_ref().map_or(Ok(()), HashThread::zeros)?;
        } else {
            let mut bytes = hash.as_ref().map_or(own, HashThread::buffer);
            // All of it is read over: what is in it already needs no zeros.
            bytes.resize(length);
            file.read_exact_at(&mut bytes, offset)
                .context("read", path)?;
            chunks.push(Chunk::of(&bytes));
            own = match &hash {
                Some(hash) => {
                    hash.data(bytes)?;
                    PageBuffer::with_capacity(0)
                }
                None => bytes,
            };
        }
        offset = end;
        (reading.progress)(offset, size);
    }
    Ok(Manifest {
        size,
        checksum: hash.as_mut().map(HashThread::finish).transpose()?,
        chunks,
    })
}

/// The thread that computes the SHA-512, and the buffers that go round.
#[derive(Debug)]
pub(super) struct HashThread {
    queue: Option<SyncSender<Piece>>,
    used: Receiver<PageBuffer>,
    thread: Option<JoinHandle<Context>>,
}

enum Piece {
    Data(PageBuffer),
    ZeroChunk,
}

impl HashThread {
    pub(super) fn start() -> std::io::Result<Self> {
        Self::start_with(|| {})
    }

    /// One that gives way to everybody else: `nice 19` (sched(7)), which needs no privilege.
    pub(super) fn start_gently() -> std::io::Result<Self> {
        // Where it is refused, the sum costs others time, and no more.
        Self::start_with(|| {
            let _ = rustix::process::nice(19);
        })
    }

    fn start_with(begin: fn()) -> std::io::Result<Self> {
        let (queue, pieces) = sync_channel(QUEUE);
        let (give_back, used) = sync_channel(QUEUE + 2);
        let run = move || {
            begin();
            let zeros = vec![0; CHUNK];
            let mut sum = Context::new(&SHA512);
            for piece in pieces {
                match piece {
                    Piece::Data(bytes) => {
                        sum.update(&bytes);
                        // A full or closed channel only means that the buffer is not needed.
                        let _ = give_back.try_send(bytes);
                    }
                    Piece::ZeroChunk => sum.update(&zeros),
                }
            }
            sum
        };
        let thread = thread::Builder::new()
            .name("sha512".to_owned())
            .spawn(run)?;
        Ok(Self {
            queue: Some(queue),
            used,
            thread: Some(thread),
        })
    }

    /// An empty buffer of a chunk's capacity.
    pub(super) fn buffer(&self) -> PageBuffer {
        let mut buffer = self
            .used
            .try_recv()
            .unwrap_or_else(|_| PageBuffer::with_capacity(CHUNK));
        buffer.clear();
        buffer
    }

    pub(super) fn data(&self, bytes: PageBuffer) -> Result<()> {
        self.send(Piece::Data(bytes))
    }

    pub(super) fn zeros(&self) -> Result<()> {
        self.send(Piece::ZeroChunk)
    }

    fn send(&self, piece: Piece) -> Result<()> {
        let queue = self.queue.as_ref().expect("the queue is open until finish");
        queue
            .send(piece)
            .map_err(|_| Error::Cancelled("the hash thread ended"))
    }

    pub(super) fn finish(&mut self) -> Result<Sha512> {
        Ok(Sha512::from_digest(&self.finish_open()?.finish()))
    }

    /// The hash of everything that was given, which may go on from there.
    pub(super) fn finish_open(&mut self) -> Result<Context> {
        drop(self.queue.take());
        let thread = self.thread.take().expect("finish is called once");
        thread
            .join()
            .map_err(|_| Error::Cancelled("the hash thread ended"))
    }
}
