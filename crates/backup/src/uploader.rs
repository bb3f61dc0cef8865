//! Blocks on their way up: read, hashed, packed, compared with what is there, and put.
//!
//! Whether a block needs to be uploaded is decided in this order:
//!
//! 1. zeros, where what is not mapped means zeros: it is left out;
//! 2. the parent has a block of that checksum: it is in the store, and no question is asked;
//! 3. this backup has already put it: the same;
//! 4. the store has an object of that name **with the size that this block packs to**: it is used.
//!    Another size means that it was cut short, or packed by another program: it is put again, which
//!    is right in both cases, for an object is replaced as a whole;
//! 5. it is put.
//!
//! A full backup skips 2 and 4: it puts every block once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::buffers::Buffers;
use crate::checksum_set::ChecksumSet;
use crate::contents::Source;
use crate::driver::Driver;
use crate::layout::Pool;
use crate::{BlockChecksum, Compression, Error, Result, block};

/// Checksums of blocks put by this backup that are remembered: 4 MiB. Forgetting one costs a question.
const RECENT: usize = 1 << 16;

/// Folders of a pool: the first two bytes of the checksums.
const FOLDERS: usize = 1 << 16;

/// Packed blocks in memory for each thread.
const PACKED: usize = 2;

/// What all blocks of a backup have in common.
#[derive(Debug)]
pub(crate) struct Uploader {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) pool: Pool,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) compression: Compression,
    /// The parent's blocks.
    pub(crate) known: ChecksumSet,
    /// Every block is put, also those that the store has.
    pub(crate) full: bool,
    /// What is not mapped does not mean zeros: blocks of zeros are stored.
    pub(crate) keep_zeros: bool,
    pub(crate) tally: Tally,
}

/// What was done, and what bounds it.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Batches of blocks in memory.
    permits: Semaphore,
    recent: Mutex<HashSet<BlockChecksum>>,
    buffers: Arc<Buffers>,
    /// A bit for each folder that blocks were put into.
    folders: Mutex<Vec<u64>>,
    uploaded: AtomicU64,
    reuploaded: AtomicU64,
    blocks: AtomicU64,
}

impl Tally {
    /// For at most `threads` batches in memory.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            permits: Semaphore::new(threads),
            recent: Mutex::default(),
            buffers: Arc::new(Buffers::new(PACKED * threads)),
            folders: Mutex::new(vec![0; FOLDERS / 64]),
            uploaded: AtomicU64::new(0),
            reuploaded: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
        }
    }

    /// Bytes as stored of new blocks.
    pub(crate) fn uploaded(&self) -> u64 {
        self.uploaded.load(Ordering::Relaxed)
    }

    /// Bytes as stored of blocks that were there.
    pub(crate) fn reuploaded(&self) -> u64 {
        self.reuploaded.load(Ordering::Relaxed)
    }

    /// How many new blocks there are.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    fn put(&self, checksum: &BlockChecksum) {
        let folder = usize::from(u16::from_be_bytes([checksum.0[0], checksum.0[1]]));
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders[folder / 64] |= 1 << (folder % 64);
    }

    /// The folders that blocks were put into.
    fn folders(&self, pool: &Pool) -> Vec<String> {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        (0..=u16::MAX)
            .filter(|folder| {
                let folder = usize::from(*folder);
                folders[folder / 64] & (1 << (folder % 64)) != 0
            })
            .map(|folder| pool.folder(folder.to_be_bytes()))
            .collect()
    }

    /// Whether nobody of this backup has put the block, or is about to. A task that then fails to fails
    /// the whole backup.
    fn claim(&self, checksum: &BlockChecksum) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT {
            recent.clear();
        }
        recent.insert(*checksum)
    }
}

/// Where the bytes of a block are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    /// Bytes of the source.
    pub(crate) length: usize,
    /// Bytes of the block: zeros follow.
    pub(crate) padded: usize,
}

/// A block after its bytes were looked at.
enum Looked {
    Zeros,
    There(BlockChecksum),
    New(BlockChecksum, Vec<u8>),
}

/// How many blocks are best looked at together: several are hashed faster than one, but the memory for
/// `threads` such batches is bounded.
pub(crate) fn batch(block: u64, threads: usize) -> usize {
    // For each thread a batch, and two packed blocks: 16 MiB and three blocks per thread are allowed.
    let spare = (16 << 20) / (block * threads as u64);
    usize::try_from(spare).map_or(block::LANES, |spare| (1 + spare).min(block::LANES))
}

impl Uploader {
    /// Begins to bring the blocks at some places into the store, in a task that ends when its answer is not wanted any
    /// more: see [`Self::upload`].
    pub(crate) fn start(
        self: Arc<Self>,
        places: Vec<Place>,
    ) -> impl Future<Output = Result<Vec<Option<BlockChecksum>>>> + Send + use<> {
        let task = AbortOnDropHandle::new(tokio::spawn(self.upload(places)));
        async move { task.await.map_err(|_| Error::Task)? }
    }

    /// The blocks at some places, in the store when this answers; `None`: it is left out.
    async fn upload(self: Arc<Self>, places: Vec<Place>) -> Result<Vec<Option<BlockChecksum>>> {
        let batch = self.tally.permits.acquire().await;
        let batch = batch.map_err(|_| Error::Task)?;
        let this = Arc::clone(&self);
        let looked = tokio::task::spawn_blocking(move || this.look(&places));
        let looked = looked.await.map_err(|_| Error::Task)??;
        let mut blocks = Vec::with_capacity(looked.len());
        let mut puts = Vec::new();
        for looked in looked {
            blocks.push(match looked {
                Looked::Zeros => None,
                Looked::There(checksum) => Some(checksum),
                Looked::New(checksum, bytes) => {
                    let packed = Arc::clone(&self).pack(bytes).await?;
                    let putting = Arc::clone(&self).put(checksum, packed);
                    puts.push(AbortOnDropHandle::new(tokio::spawn(putting)));
                    Some(checksum)
                }
            });
        }
        // The next batch is looked at while the packed blocks of this one go up.
        drop(batch);
        for put in puts {
            put.await.map_err(|_| Error::Task)??;
        }
        Ok(blocks)
    }

    async fn pack(self: Arc<Self>, bytes: Vec<u8>) -> Result<Bytes> {
        let place = self.tally.buffers.place().await?;
        let pack = move || {
            let packed = self.tally.buffers.pack(&bytes, self.compression, place);
            self.tally.buffers.give(bytes);
            packed
        };
        tokio::task::spawn_blocking(pack)
            .await
            .map_err(|_| Error::Task)
    }

    /// Sees to it that what was put stays: to be awaited before anything names the blocks.
    pub(crate) async fn settle(&self) -> Result<()> {
        let folders = self.tally.folders(&self.pool);
        self.driver.settle(folders).await
    }

    fn look(&self, places: &[Place]) -> Result<Vec<Looked>> {
        let mut read = Vec::with_capacity(places.len());
        for place in places {
            let mut bytes = self.tally.buffers.block(place.padded);
            let (data, behind) = bytes.split_at_mut(place.length);
            behind.fill(0);
            self.source
                .read_exact_at(data, place.offset)
                .map_err(|source| Error::Source {
                    offset: place.offset,
                    source,
                })?;
            let skip = !self.keep_zeros && is_zeros(&bytes);
            read.push(if skip {
                self.tally.buffers.give(bytes);
                Vec::new()
            } else {
                bytes
            });
        }
        let hashed: Vec<&[u8]> = read
            .iter()
            .map(Vec::as_slice)
            .filter(|b| !b.is_empty())
            .collect();
        let mut checksums = BlockChecksum::of_all(&hashed).into_iter();
        let looked = read.into_iter().map(|bytes| {
            let Some(checksum) = (!bytes.is_empty()).then(|| checksums.next()).flatten() else {
                return Ok(Looked::Zeros);
            };
            let there = !self.full && self.known.contains(&checksum)?;
            if there || !self.tally.claim(&checksum) {
                self.tally.buffers.give(bytes);
                return Ok(Looked::There(checksum));
            }
            Ok(Looked::New(checksum, bytes))
        });
        looked.collect()
    }

    async fn put(self: Arc<Self>, checksum: BlockChecksum, packed: Bytes) -> Result<()> {
        let key = self.pool.block(&checksum);
        let size = packed.len() as u64;
        let there = self.driver.head(&key).await?;
        let whole = there.is_some_and(|meta| meta.size == size);
        if whole && !self.full {
            return Ok(());
        }
        self.driver.put_lazily(&key, packed).await?;
        self.tally.put(&checksum);
        types::crash_point!("backup.upload.block");
        if there.is_some() {
            self.tally.reuploaded.fetch_add(size, Ordering::Relaxed);
        } else {
            self.tally.uploaded.fetch_add(size, Ordering::Relaxed);
            self.tally.blocks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Whether there is no other byte: a block against itself, one byte on.
fn is_zeros(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [first, rest @ ..] => *first == 0 && rest == &bytes[..bytes.len() - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fit_the_memory_that_is_allowed() {
        for block in [4 << 10, 2 << 20, 16 << 20, 64 << 20] {
            for threads in [1, 2, 8, 64] {
                let batch = batch(block, threads) as u64;
                assert!((1..=4).contains(&batch));
                let bytes = (batch + PACKED as u64) * block * threads as u64;
                assert!(
                    bytes <= (16 << 20) + 3 * block * threads as u64,
                    "{block} {threads}"
                );
            }
        }
        assert_eq!(batch(2 << 20, 2), block::LANES);
    }

    #[test]
    fn one_bit_anywhere_is_no_block_of_zeros() {
        let mut bytes = vec![0; 4096];
        assert!(is_zeros(&bytes) && is_zeros(&[]) && is_zeros(&[0]));
        for at in [0, 1, 2047, 4095] {
            bytes[at] = 0x80;
            assert!(!is_zeros(&bytes), "{at}");
            bytes[at] = 0;
        }
    }
}
