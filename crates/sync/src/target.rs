//! Where a received image goes, and what the tasks of a sync tell each other.

use std::sync::Arc;

use chunks::Manifest;
use futures_util::future::BoxFuture;
use types::{ImageId, Sha512};

use super::Error;
use super::address::PeerAddress;
use super::bits::Bits;
use super::buffers::Buffer;
use super::offer::Offer;
use super::planner::{Event, PeerId};
use super::protocol::ImageShape;

/// What is to be received.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which image; peers have it under the same name.
    pub id: ImageId,
    /// Who has it. At least one.
    pub peers: Vec<PeerAddress>,
    /// The size it must have.
    pub size: Option<u64>,
    /// The SHA-512 it must have.
    pub expected: Option<Sha512>,
}

/// Where a received image goes.
pub trait Target: Send + Sync {
    /// The image on its way.
    type Part: Part<Error = Self::Error>;
    /// What is made of it.
    type Done: Send;
    /// What can go wrong with it, and in the sync.
    type Error: From<Error> + std::error::Error + Send + Sync + 'static;

    /// Opens the way in. What an earlier attempt left of the same image is there already.
    fn open(
        &self,
        manifest: Manifest,
        shape: ImageShape,
    ) -> impl Future<Output = Result<Arc<Self::Part>, Self::Error>> + Send;

    /// Every chunk is there: makes the image of them.
    fn finish(
        &self,
        part: Arc<Self::Part>,
    ) -> impl Future<Output = Result<Self::Done, FinishError<Self::Error>>> + Send;

    /// Removes what has come: it was not what it claimed to be.
    fn discard(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// An image that is being received.
pub trait Part: Send + Sync + 'static {
    /// What can go wrong with it.
    type Error: From<Error> + Send + 'static;

    /// What has come of it, for others.
    fn offer(&self) -> Arc<dyn Offer>;

    /// Chunks with data that are not there.
    fn missing(&self) -> Bits;

    /// Takes in a chunk, if it is the right one.
    fn put(self: Arc<Self>, index: u32, bytes: Buffer) -> Put<Self::Error>;
}

/// The work of [`Part::put`].
pub type Put<E> = BoxFuture<'static, Result<(), PutError<E>>>;

/// Why a chunk was not taken in.
#[derive(Debug)]
pub enum PutError<E> {
    /// It is not what the manifest says.
    Damaged,
    /// It cannot be kept.
    Failed(E),
}

/// Why no image was made of all chunks.
#[derive(Debug)]
pub enum FinishError<E> {
    /// Each chunk is what the manifest says, and the SHA-512 of the whole is not.
    FalseManifest(E),
    Failed(E),
}

/// What the tasks of a sync tell its leading task.
pub(super) enum Message<E> {
    /// Something for the planner.
    Event(Event),
    /// A peer told of others, and how it tells them of us.
    Peers(PeerId, Vec<PeerAddress>, Option<PeerAddress>),
    /// Our own disk failed: there is nothing to plan any more.
    Failed(E),
}
