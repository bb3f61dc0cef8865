//! The memory that all syncs of a manager share: a fixed number of chunk buffers that go round.
//!
//! A receiver without a buffer waits; meanwhile the bytes stay in the sender's kernel. So eight
//! copies need the memory of one. The contents of a buffer are page-aligned, so that they can
//! bypass the page cache.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use chunks::direct::PageBuffer;

#[derive(Debug, Clone)]
pub struct Buffers {
    free: Arc<Mutex<Vec<PageBuffer>>>,
    permits: Arc<Semaphore>,
    capacity: usize,
}

/// A buffer in use; dropping it gives it back.
#[derive(Debug)]
pub struct Buffer {
    bytes: PageBuffer,
    home: Arc<Mutex<Vec<PageBuffer>>>,
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// `count` buffers for `capacity` bytes; each takes memory from its first use on.
    pub fn new(count: usize, capacity: usize) -> Self {
        Self {
            free: Arc::default(),
            permits: Arc::new(Semaphore::new(count)),
            capacity,
        }
    }

    /// An empty buffer, as soon as there is one. Waiting is fair and may be given up at any time.
    pub async fn get(&self) -> Buffer {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let free = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut bytes = free.unwrap_or_else(|| PageBuffer::with_capacity(self.capacity));
        bytes.clear();
        Buffer {
            bytes,
            home: Arc::clone(&self.free),
            _permit: permit,
        }
    }
}

impl Deref for Buffer {
    type Target = PageBuffer;

    fn deref(&self) -> &PageBuffer {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut PageBuffer {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        home.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_that_many() {
        let buffers = Buffers::new(2, 100);
        let mut first = buffers.get().await;
        first.end().extend([1; 100]);
        let place = first.as_ptr();
        let second = buffers.get().await;
        let third = tokio::time::timeout(Duration::from_secs(1), buffers.get());
        assert!(third.await.is_err());
        drop(first);
        let again = buffers.get().await;
        assert!(again.is_empty() && again.as_ptr() == place, "used again");
        drop((second, again));
    }
}
