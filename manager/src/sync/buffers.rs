//! The memory that all syncs of a manager share: a fixed number of chunk buffers that go round.
//!
//! Who wants to receive waits for a buffer; meanwhile the bytes stay in the sender's kernel. So the
//! memory of eight syncs is that of one. What a buffer holds begins at a page, so that it can be written past
//! the kernel's cache.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The buffers.
#[derive(Debug, Clone)]
pub struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    permits: Arc<Semaphore>,
    capacity: usize,
}

/// Where what a buffer holds is aligned to, in bytes: what direct I/O wants everywhere.
const PAGE: usize = 4096;

/// A buffer in use; dropping it gives it back.
#[derive(Debug)]
pub struct Buffer {
    /// What it holds, behind so many bytes that it begins at a page.
    bytes: Vec<u8>,
    start: usize,
    home: Arc<Mutex<Vec<Vec<u8>>>>,
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
        let mut bytes = free.unwrap_or_default();
        bytes.clear();
        bytes.reserve_exact(PAGE + self.capacity);
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        bytes.resize(start, 0);
        Buffer {
            bytes,
            start,
            home: Arc::clone(&self.free),
            _permit: permit,
        }
    }
}

impl Buffer {
    /// For appending to what it holds.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Holds this, and nothing else.
    pub fn replace(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.start);
        self.bytes.extend_from_slice(bytes);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
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
        assert_eq!(*first, [1; 100]);
        let place = first.as_ptr();
        assert_eq!(place.align_offset(PAGE), 0);
        first.replace(&[2; 100]);
        assert_eq!(*first, [2; 100]);
        let second = buffers.get().await;
        let third = tokio::time::timeout(Duration::from_secs(1), buffers.get());
        assert!(third.await.is_err());
        drop(first);
        let again = buffers.get().await;
        assert!(again.is_empty() && again.as_ptr() == place, "used again");
        drop((second, again));
    }
}
