//! What peers are given: an image whose two files are open, whole or on its way.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use store::IoContext;
use sync::bits::Bits;
use sync::files::ImageFiles;
use sync::offer::Offer;
use sync::protocol::{Geometry, Seal};
use tokio_util::sync::CancellationToken;
use types::ImageId;

use crate::Catalog;
use crate::error::Result;

/// An image of this disk, as it is given to peers. Its files are held open, not in place: a deletion does
/// not wait for receivers, it ends what is sent to them.
#[derive(Debug)]
pub(crate) struct StoredOffer {
    files: ImageFiles,
    kept: Kept,
    ended: CancellationToken,
}

#[derive(Debug)]
enum Kept {
    /// All of it is there. A chunk that a check finds damaged puts the image in doubt.
    Complete { catalog: Catalog, id: ImageId },
    /// The chunks that are there: the only record of what has arrived. A chunk that a check finds damaged
    /// is not given any more; that the whole is damaged is found by its SHA-512.
    Partial(Mutex<Bits>),
}

impl StoredOffer {
    /// A ready image of `catalog`.
    pub(crate) fn complete(
        files: ImageFiles,
        catalog: Catalog,
        id: ImageId,
        ended: CancellationToken,
    ) -> Self {
        let kept = Kept::Complete { catalog, id };
        Self { files, kept, ended }
    }

    /// An image on its way, of which all chunks but `missing` are there.
    pub(crate) fn partial(
        files: ImageFiles,
        missing: impl IntoIterator<Item = u32>,
        ended: CancellationToken,
    ) -> Self {
        let count = files.geometry().count();
        let have = Bits::all(count).without(&Bits::of(count, missing));
        let kept = Kept::Partial(Mutex::new(have));
        Self { files, kept, ended }
    }

    fn arrived(&self) -> Option<MutexGuard<'_, Bits>> {
        match &self.kept {
            Kept::Complete { .. } => None,
            Kept::Partial(have) => Some(have.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// One more chunk is there.
    pub(crate) fn add(&self, index: u32) {
        if let Some(mut have) = self.arrived() {
            have.insert(index);
        }
    }

    /// Chunks that are not there.
    pub(crate) fn missing(&self) -> Bits {
        let count = self.files.geometry().count();
        match self.arrived() {
            Some(have) => Bits::all(count).without(&have),
            None => Bits::none(count),
        }
    }
}

impl Offer for StoredOffer {
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
        self.arrived().map(|have| have.clone())
    }

    fn has(&self, index: u32) -> bool {
        self.arrived().is_none_or(|have| have.contains(index))
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.files.read(offset, length).boxed()
    }

    fn in_memory(&self, offset: u64, length: usize) -> Option<&File> {
        self.files.in_memory(offset, length)
    }

    fn check(&self, index: u32) -> BoxFuture<'_, io::Result<bool>> {
        async move {
            let good = self.files.check(index).await?;
            match &self.kept {
                _ if good => {}
                Kept::Complete { catalog, id } => {
                    catalog.doubt(id, &format!("chunk {index} is damaged; reading all of it"));
                }
                Kept::Partial(have) => {
                    let mut have = have.lock().unwrap_or_else(PoisonError::into_inner);
                    have.remove(index);
                }
            }
            Ok(good)
        }
        .boxed()
    }

    fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

/// Opens an image's bytes and its manifest for peers. The files stay readable when they get other names,
/// or none.
pub(crate) fn open_files(data: &Path, chunks: &Path, size: u64) -> Result<ImageFiles> {
    let bytes = File::open(data).context("open", data)?;
    let manifest = File::open(chunks).context("open", chunks)?;
    let files = ImageFiles::new(bytes, manifest, size);
    Ok(files.context("use the chunk manifest", chunks)?)
}
