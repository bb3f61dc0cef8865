//! What a server of images needs from whatever keeps them.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use trust::Caller;
use types::ImageId;

use super::bits::Bits;
use super::protocol::{Geometry, Seal};

/// An image of which at least some chunks can be sent.
pub trait Offer: fmt::Debug + Send + Sync + 'static {
    fn geometry(&self) -> Geometry;

    /// Which image it is, exactly.
    fn seal(&self) -> Seal;

    /// A part of its manifest's wire form, exactly as long as asked.
    fn manifest(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>>;

    /// Chunks that can be sent; `None`: all of them.
    fn have(&self) -> Option<Bits>;

    /// Whether that chunk can be sent.
    fn has(&self, index: u32) -> bool {
        self.have().is_none_or(|have| have.contains(index))
    }

    /// Bytes of the image, exactly as long as asked; of chunks that can be sent.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>>;

    /// The file that has these bytes at the same place, where the kernel has all of them in memory: they can go to a
    /// connection from there.
    fn in_memory(&self, _offset: u64, _length: usize) -> Option<&File> {
        None
    }

    /// Whether a chunk's bytes still are what the manifest says. If they are not, whoever keeps the
    /// image is told.
    fn check(&self, index: u32) -> BoxFuture<'_, io::Result<bool>>;

    /// Is cancelled when the image is deleted: sending it ends then.
    fn ended(&self) -> CancellationToken;
}

/// Finds what can be sent.
pub trait Library: Clone + Send + Sync + 'static {
    /// The image, or why it cannot be sent to that caller (now).
    fn find(
        &self,
        id: &ImageId,
        caller: &Caller,
    ) -> impl Future<Output = Result<Arc<dyn Offer>, String>> + Send;
}
