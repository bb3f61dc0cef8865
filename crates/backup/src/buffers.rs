//! The memory of blocks on their way up, which is used again: what is given back to the allocator is made of new
//! pages each time, and that costs as much as packing.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chunks::direct::PageBuffer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Compression, Error, Result, block};

/// Buffers that nobody uses. As many as were in use at one time.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Packed blocks that may be in memory.
    places: Arc<Semaphore>,
    blocks: Mutex<Vec<Vec<u8>>>,
    packed: Mutex<Vec<PageBuffer>>,
}

impl Buffers {
    /// For at most so many packed blocks in memory.
    pub(crate) fn new(packed: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(packed)),
            blocks: Mutex::default(),
            packed: Mutex::default(),
        }
    }

    /// Waits for room for one packed block.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.map_err(|_| Error::Task)
    }

    /// A buffer of that length, whatever is in it.
    pub(crate) fn block(&self, length: usize) -> Vec<u8> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let block = blocks.pop().filter(|block| block.len() == length);
        block.unwrap_or_else(|| vec![0; length])
    }

    /// Takes one back.
    pub(crate) fn give(&self, block: Vec<u8>) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.push(block);
    }

    /// A block as it is stored. It begins at a page, for drivers that write past the kernel's cache, and its
    /// memory comes back when it is dropped.
    pub(crate) fn pack(
        self: &Arc<Self>,
        bytes: &[u8],
        compression: Compression,
        place: OwnedSemaphorePermit,
    ) -> Bytes {
        let spare = self
            .packed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let room = block::packed_max(bytes.len());
        let mut buffer = spare.unwrap_or_else(|| PageBuffer::with_capacity(room));
        buffer.clear();
        block::encode_onto(buffer.end(), bytes, compression);
        let buffers = Arc::clone(self);
        Bytes::from_owner(Packed {
            buffer,
            buffers,
            _place: place,
        })
    }
}

#[derive(Debug)]
struct Packed {
    buffer: PageBuffer,
    buffers: Arc<Buffers>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Packed {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let packed = self.buffers.packed.lock();
        packed.unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
