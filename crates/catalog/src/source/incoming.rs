//! An image that is on its way into the store: where chunks are put, and what is given to peers meanwhile.

use std::sync::Arc;

use futures_util::FutureExt;
use store::Assembly;
use sync::bits::Bits;
use sync::buffers::Buffer;
use sync::files::ImageFiles;
use sync::offer::Offer;
use sync::target::{Part, Put, PutError};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::offer::StoredOffer;

/// An assembly that peers fill and empty.
#[derive(Debug)]
pub(super) struct IncomingImage {
    assembly: Arc<Assembly>,
    /// It outlives the assembly, whose files it reads by descriptors of its own: until the image is ready
    /// it is given to peers from here.
    offer: Arc<StoredOffer>,
}

impl IncomingImage {
    /// An assembly with a known manifest, and the files that it makes.
    pub(super) fn new(assembly: Assembly, files: ImageFiles, ended: CancellationToken) -> Self {
        let offer = StoredOffer::partial(files, assembly.missing(), ended);
        Self {
            assembly: Arc::new(assembly),
            offer: Arc::new(offer),
        }
    }

    /// Where the bytes are put together.
    pub(super) fn assembly(&self) -> &Arc<Assembly> {
        &self.assembly
    }
}

impl Part for IncomingImage {
    type Error = Error;

    fn offer(&self) -> Arc<dyn Offer> {
        self.offer.clone()
    }

    fn missing(&self) -> Bits {
        self.offer.missing()
    }

    fn put(self: Arc<Self>, index: u32, bytes: Buffer) -> Put<Error> {
        let put = move || {
            match self.assembly.put_chunk(index, &bytes) {
                Ok(()) => {}
                // The second: it came before, from another peer, and was right.
                Err(store::Error::ChunkMismatch { .. } | store::Error::NotOfImage(_)) => {
                    return Err(PutError::Damaged);
                }
                Err(error) => return Err(PutError::Failed(error.into())),
            }
            self.offer.add(index);
            Ok(())
        };
        let task = tokio::task::spawn_blocking(put);
        async {
            task.await
                .map_err(|error| PutError::Failed(Error::Task(error)))?
        }
        .boxed()
    }
}
