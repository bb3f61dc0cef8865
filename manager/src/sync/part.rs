//! An incoming image: where chunks are written, and what is served meanwhile.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::bits::Bits;
use super::buffers::Buffer;
use super::files::ImageFiles;
use super::offer::Offer;
use super::protocol::{Geometry, Seal};
use super::receive::{Part, PutError};
use crate::error::{Error, Result};
use crate::store::Assembly;

/// An assembly that peers fill and empty.
#[derive(Debug)]
pub struct Arriving {
    assembly: Arc<Assembly>,
    served: Arc<Came>,
}

/// What has come of an image. It outlives the assembly, whose files it reads by descriptors of its
/// own: until the image is ready it is served from here.
#[derive(Debug)]
struct Came {
    files: ImageFiles,
    have: Mutex<Bits>,
    ended: CancellationToken,
}

impl Arriving {
    /// An assembly with a known manifest, and the files that it makes.
    pub fn new(assembly: Assembly, files: ImageFiles, ended: CancellationToken) -> Self {
        let mut have = Bits::all(files.geometry().count());
        for index in assembly.missing() {
            have.remove(index);
        }
        let have = Mutex::new(have);
        Self {
            assembly: Arc::new(assembly),
            served: Arc::new(Came { files, have, ended }),
        }
    }

    /// Where the bytes are put together.
    pub fn assembly(&self) -> &Arc<Assembly> {
        &self.assembly
    }
}

impl Part for Arriving {
    fn offer(&self) -> Arc<dyn Offer> {
        self.served.clone()
    }

    fn missing(&self) -> Bits {
        Bits::of(self.served.geometry().count(), self.assembly.missing())
    }

    fn put(self: Arc<Self>, index: u32, bytes: Buffer) -> BoxFuture<'static, Result<(), PutError>> {
        let put = move || {
            match self.assembly.put_chunk(index, &bytes) {
                Ok(()) => {}
                // The second: it came before, from another peer, and was right.
                Err(Error::ChunkMismatch { .. } | Error::NotOfImage(_)) => {
                    return Err(PutError::Damaged);
                }
                Err(error) => return Err(PutError::Failed(error)),
            }
            let mut have = self.served.lock_have();
            have.insert(index);
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

impl Came {
    fn lock_have(&self) -> MutexGuard<'_, Bits> {
        self.have.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offer for Came {
    fn geometry(&self) -> Geometry {
        self.files.geometry()
    }

    fn seal(&self) -> Seal {
        self.files.seal()
    }

    fn manifest(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.files.manifest(offset, length).boxed()
    }

    fn have(&self) -> Option<Bits> {
        Some(self.lock_have().clone())
    }

    fn has(&self, index: u32) -> bool {
        self.lock_have().contains(index)
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.files.read(offset, length).boxed()
    }

    fn check(&self, index: u32) -> BoxFuture<'_, io::Result<bool>> {
        async move {
            let good = self.files.check(index).await?;
            if !good {
                // Not served any more. That the whole is damaged is found by its SHA-512, or by the
                // next who reads it.
                self.lock_have().remove(index);
            }
            Ok(good)
        }
        .boxed()
    }

    fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}
