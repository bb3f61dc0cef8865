//! A disk in memory. Its contents survive a crash of its host, except for the latest writes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use catalog::Error;
use chunks::{Chunk, Manifest};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sync::bits::Bits;
use sync::buffers::Buffer;
use sync::offer::Offer;
use sync::protocol::{Geometry, ImageShape, Seal};
use sync::target::{FinishError, Part, Put, PutError, Target};
use tokio_util::sync::CancellationToken;
use types::Sha512;

use crate::host::Host;

/// Bytes of a chunk in the simulation.
pub(crate) const CHUNK: u32 = 64;

/// What is on the disk of one host.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// A complete image, under its final name.
    pub complete: Option<Copy>,
    /// One that is on its way.
    pub part: Option<PartFile>,
    /// Nothing more can be written.
    pub full: bool,
}

/// An image's bytes and its manifest.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
}

#[derive(Debug)]
pub(crate) struct PartFile {
    pub manifest: Manifest,
    pub chunks: BTreeMap<u32, Vec<u8>>,
    /// What a crash may spoil.
    pub last: Option<u32>,
}

impl Copy {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let manifest = Manifest {
            size: bytes.len() as u64,
            checksum: Some(Sha512::of(&bytes)),
            chunks: bytes.chunks(CHUNK as usize).map(Chunk::of).collect(),
        };
        Self { bytes, manifest }
    }
}

pub(crate) fn shape(manifest: &Manifest) -> (Geometry, Seal) {
    let geometry = Geometry::new(manifest.size, CHUNK).unwrap();
    let seal = Seal(*manifest.to_bytes().last_chunk().unwrap());
    (geometry, seal)
}

/// What a host serves: all of an image, or what has come of it.
#[derive(Debug)]
pub(crate) struct Served {
    pub host: Arc<Host>,
    pub geometry: Geometry,
    pub seal: Seal,
    pub whole: bool,
    pub ended: CancellationToken,
}

impl Served {
    fn manifest_bytes(&self) -> Vec<u8> {
        let disk = self.host.disk();
        let manifest = match (&disk.complete, &disk.part) {
            (Some(copy), _) => Some(&copy.manifest),
            (None, Some(part)) => Some(&part.manifest),
            (None, None) => None,
        };
        manifest.map(Manifest::to_bytes).unwrap_or_default()
    }

    fn bytes(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let disk = self.host.disk();
        let start = usize::try_from(offset).unwrap();
        if let Some(copy) = &disk.complete {
            return Ok(copy.bytes[start..start + length].to_vec());
        }
        let part = disk.part.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let index = u32::try_from(offset / u64::from(CHUNK)).unwrap();
        if part.manifest.chunks[index as usize] == Chunk::Hole {
            return Ok(vec![0; length]);
        }
        let chunk = part.chunks.get(&index).ok_or(io::ErrorKind::NotFound)?;
        Ok(chunk[..length].to_vec())
    }
}

impl Offer for Served {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn seal(&self) -> Seal {
        self.seal
    }

    fn manifest(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let start = usize::try_from(offset).unwrap();
        let piece = self
            .manifest_bytes()
            .get(start..start + length)
            .map(<[u8]>::to_vec);
        std::future::ready(piece.map(Bytes::from).ok_or(io::ErrorKind::NotFound.into())).boxed()
    }

    fn have(&self) -> Option<Bits> {
        let disk = self.host.disk();
        if self.whole && disk.complete.is_some() {
            return None;
        }
        let count = self.geometry.count();
        let Some(part) = &disk.part else {
            // It is complete by now.
            return disk.complete.is_none().then(|| Bits::none(count));
        };
        let there = (0..count).filter(|index| {
            part.chunks.contains_key(index) || part.manifest.chunks[*index as usize] == Chunk::Hole
        });
        Some(Bits::of(count, there))
    }

    /// As the seed says the bytes come, come late, come wrong, or do not come.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        async move {
            let mut bytes = self.bytes(offset, length)?;
            let mood = self.host.draw(100);
            let at = usize::try_from(self.host.draw(length as u64)).unwrap();
            if self.host.is_moody() {
                match mood {
                    0..=3 => bytes[at] ^= 1,
                    4..=6 => tokio::time::sleep(Duration::from_secs(4)).await,
                    7..=9 => return Err(io::Error::other("a bad sector")),
                    10 => bytes.truncate(at),
                    11 => bytes.extend([7; 9]),
                    _ => {}
                }
            }
            Ok(bytes.into())
        }
        .boxed()
    }

    fn check(&self, index: u32) -> BoxFuture<'_, io::Result<bool>> {
        let length = self.geometry.length(index);
        let found = self.bytes(self.geometry.offset(index), length);
        let good = found.map(|bytes| {
            let disk = self.host.disk();
            let manifest = match (&disk.complete, &disk.part) {
                (Some(copy), _) => Some(&copy.manifest),
                (None, part) => part.as_ref().map(|part| &part.manifest),
            };
            manifest.is_some_and(|known| Chunk::of(&bytes) == known.chunks[index as usize])
        });
        if let Ok(false) = good {
            self.host.doubt();
        }
        std::future::ready(good).boxed()
    }

    fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

/// The way of an image onto the disk of a host.
#[derive(Debug)]
pub(crate) struct Way(pub Arc<Host>);

#[derive(Debug)]
pub(crate) struct Incoming {
    host: Arc<Host>,
    offer: Arc<Served>,
}

impl Target for Way {
    type Part = Incoming;
    type Done = Copy;
    type Error = Error;

    async fn open(&self, manifest: Manifest, shape: ImageShape) -> Result<Arc<Incoming>, Error> {
        let mut disk = self.0.disk();
        let same = |part: &PartFile| part.manifest == manifest;
        if !disk.part.as_ref().is_some_and(same) {
            let (chunks, last) = (BTreeMap::new(), None);
            disk.part = Some(PartFile {
                manifest,
                chunks,
                last,
            });
        }
        // As the store does: what an earlier attempt left is believed by its digests alone.
        let part = disk.part.as_mut().unwrap();
        let PartFile {
            manifest, chunks, ..
        } = part;
        chunks.retain(|index, bytes| Chunk::of(bytes) == manifest.chunks[*index as usize]);
        let host = self.0.clone();
        let ImageShape { geometry, seal } = shape;
        let offer = Arc::new(Served {
            host: host.clone(),
            geometry,
            seal,
            whole: false,
            ended: CancellationToken::new(),
        });
        Ok(Arc::new(Incoming { host, offer }))
    }

    async fn finish(&self, part: Arc<Incoming>) -> Result<Copy, FinishError<Error>> {
        tokio::time::sleep(Duration::from_millis(self.0.draw(50))).await;
        let missing = part.missing().count();
        if missing > 0 {
            self.0
                .wrong(format!("finished with {missing} chunks missing"));
        }
        let disk = self.0.disk();
        let part = disk.part.as_ref().unwrap();
        let mut bytes = vec![0; usize::try_from(part.manifest.size).unwrap()];
        for (index, chunk) in &part.chunks {
            let start = (index * CHUNK) as usize;
            bytes[start..start + chunk.len()].copy_from_slice(chunk);
        }
        let actual = Sha512::of(&bytes);
        let told = part.manifest.checksum.unwrap();
        if actual != told && !self.0.gullible {
            let lie = store::Error::Checksum {
                expected: Box::new(told),
                actual: Box::new(actual),
            };
            return Err(FinishError::FalseManifest(lie.into()));
        }
        let manifest = part.manifest.clone();
        Ok(Copy { bytes, manifest })
    }

    async fn discard(&self) -> Result<(), Error> {
        self.0.disk().part = None;
        Ok(())
    }
}

impl Part for Incoming {
    type Error = Error;

    fn offer(&self) -> Arc<dyn Offer> {
        self.offer.clone()
    }

    fn missing(&self) -> Bits {
        let disk = self.host.disk();
        let part = disk.part.as_ref().unwrap();
        let missing = (0..)
            .zip(&part.manifest.chunks)
            .filter(|(index, chunk)| **chunk != Chunk::Hole && !part.chunks.contains_key(index));
        Bits::of(self.offer.geometry.count(), missing.map(|(index, _)| index))
    }

    fn put(self: Arc<Self>, index: u32, bytes: Buffer) -> Put<Error> {
        async move {
            tokio::time::sleep(Duration::from_millis(self.host.draw(3))).await;
            let mut disk: MutexGuard<'_, Disk> = self.host.disk();
            if disk.full {
                let (available, needed) = (0, u64::from(CHUNK));
                return Err(PutError::Failed(
                    store::Error::NoSpace { available, needed }.into(),
                ));
            }
            let part = disk.part.as_mut().unwrap();
            if Chunk::of(&bytes) != part.manifest.chunks[index as usize] {
                return Err(PutError::Damaged);
            }
            part.chunks.insert(index, bytes.to_vec());
            part.last = Some(index);
            drop(disk);
            self.host.note(format!("put {index}"));
            Ok(())
        }
        .boxed()
    }
}

/// What a crash does to what was written last.
pub(crate) fn crash(disk: &Mutex<Disk>, spoil: bool) {
    let mut disk = disk.lock().unwrap();
    if let Some(part) = &mut disk.part
        && let Some(last) = part.last.take()
        && spoil
        && let Some(bytes) = part.chunks.get_mut(&last)
    {
        bytes[0] ^= 0xff;
    }
}
