//! The memory for sending: batches that all sends share, and one additional batch for each, so that
//! a receiver that accepts no data blocks no other.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Batches that are shared: with its own, what a single send needs to keep its workers busy.
const SHARED: usize = 4;

/// The batches that all sends of a process share. Clones are the same.
#[derive(Debug, Clone)]
pub struct Batches(Arc<Semaphore>);

impl Default for Batches {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARED)))
    }
}

impl Batches {
    /// What one send may use.
    pub(super) fn share(&self) -> Share {
        Share {
            shared: self.0.clone(),
            own: Arc::new(Semaphore::new(1)),
        }
    }
}

/// The batches of one send.
#[derive(Debug)]
pub(super) struct Share {
    shared: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// Bytes, and their place among the batches.
struct Batch {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Batch {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Share {
    /// A batch that `fill` fills, once there is a place for it: its place is free when the last part of
    /// it was dropped. Blocking.
    pub(super) fn batch<E>(
        &self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let place = self.place();
        let mut bytes = vec![0; length];
        fill(&mut bytes)?;
        let batch = Batch {
            bytes,
            _place: place,
        };
        Ok(Bytes::from_owner(batch))
    }

    fn place(&self) -> OwnedSemaphorePermit {
        let places = || [self.shared.clone(), self.own.clone()];
        let free = places()
            .into_iter()
            .find_map(|place| place.try_acquire_owned().ok());
        free.unwrap_or_else(|| {
            let [shared, own] = places().map(Semaphore::acquire_owned);
            let first = async {
                tokio::select! {
                    place = shared => place,
                    place = own => place,
                }
            };
            let place = Handle::current().block_on(first);
            place.expect("the semaphores are never closed")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::time::Duration;

    fn batch(share: &Share) -> Bytes {
        let filled = share.batch(4096, |bytes| {
            bytes.fill(7);
            Ok::<_, Infallible>(())
        });
        let Ok(bytes) = filled;
        bytes
    }

    #[tokio::test]
    async fn a_send_that_holds_all_batches_leaves_one_to_each_other() {
        let batches = Batches::default();
        let (greedy, modest) = (batches.share(), batches.share());
        let held: Vec<Bytes> = (0..=SHARED).map(|_| batch(&greedy)).collect();
        let mine = batch(&modest);
        let mut waiting = tokio::task::spawn_blocking(move || batch(&modest));
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, &mut waiting).await.is_err());
        // A part of a batch is all of its memory.
        let part = mine.slice(..10);
        drop(mine);
        assert!(tokio::time::timeout(soon, &mut waiting).await.is_err());
        drop(part);
        assert_eq!(waiting.await.unwrap().len(), 4096);
        drop(held);
    }
}
