//! The memory that all syncs of a manager share: a fixed number of chunk buffers that go round.
//!
//! Who wants to receive waits for a buffer; meanwhile the bytes stay in the sender's kernel. So the
//! memory of eight syncs is that of one.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The buffers.
#[derive(Debug, Clone)]
pub struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    permits: Arc<Semaphore>,
}

/// A buffer in use; dropping it gives it back.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Mutex<Vec<Vec<u8>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// `count` buffers; each takes memory from its first use on.
    pub fn new(count: usize) -> Self {
        Self {
            free: Arc::default(),
            permits: Arc::new(Semaphore::new(count)),
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
        Buffer {
            bytes,
            home: Arc::clone(&self.free),
            _permit: permit,
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
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
        let buffers = Buffers::new(2);
        let mut first = buffers.get().await;
        first.resize(100, 1);
        let second = buffers.get().await;
        let third = tokio::time::timeout(Duration::from_secs(1), buffers.get());
        assert!(third.await.is_err());
        drop(first);
        let again = buffers.get().await;
        assert!(
            again.is_empty() && again.capacity() >= 100,
            "it is used again"
        );
        drop((second, again));
    }
}
