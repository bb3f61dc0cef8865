//! An image's two files, as they are read for peers: its bytes and its manifest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::ReadWriteFlags;

use super::manifest::manifest_length;
use super::protocol::{Geometry, Seal};
use chunks::{CHUNK, Chunk};

const DIGEST: usize = 32;
/// A part of a file of which the kernel has all or nothing in memory, mostly: what it reads ahead at a time, by default.
const PROBE: usize = 128 << 10;

/// The files, open. They stay readable when they get other names, or none.
#[derive(Debug)]
pub struct ImageFiles {
    data: Arc<File>,
    chunks: Arc<File>,
    geometry: Geometry,
    seal: Seal,
}

impl ImageFiles {
    /// The open files of an image of `size` bytes. Fails with `InvalidData` when the second is not the
    /// manifest of such an image.
    pub fn new(data: File, chunks: File, size: u64) -> io::Result<Self> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let chunk = u32::try_from(CHUNK).expect("a MiB");
        let geometry = Geometry::new(size, chunk).ok_or_else(damaged)?;
        let length = chunks.metadata()?.len();
        if length != manifest_length(geometry) {
            return Err(damaged());
        }
        // Whoever gets the manifest checks the seal against it, and the chunks against the manifest.
        let mut seal = [0; DIGEST];
        chunks.read_exact_at(&mut seal, length - DIGEST as u64)?;
        Ok(Self {
            data: Arc::new(data),
            chunks: Arc::new(chunks),
            geometry,
            seal: Seal(seal),
        })
    }

    /// The shape of the image.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Which image it is, exactly.
    pub fn seal(&self) -> Seal {
        self.seal
    }

    /// A part of the manifest.
    pub async fn manifest(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        read(&self.chunks, offset, length).await
    }

    /// A part of the image.
    pub async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        read(&self.data, offset, length).await
    }

    /// The file with the image's bytes, where the kernel has all of these in memory, as far as that is told by one
    /// byte of each [`PROBE`]. Where that is wrong, whoever sends them waits for the disk.
    pub fn in_memory(&self, offset: u64, length: usize) -> Option<&File> {
        let end = offset + length as u64;
        let there = |at: u64| {
            let mut byte = [0];
            let mut into = [io::IoSliceMut::new(&mut byte)];
            rustix::io::preadv2(&*self.data, &mut into, at, ReadWriteFlags::NOWAIT) == Ok(1)
        };
        let all = (offset..end).step_by(PROBE).all(there) && there(end.saturating_sub(1));
        all.then_some(&*self.data)
    }

    /// Whether a chunk is what the manifest says.
    pub async fn check(&self, index: u32) -> io::Result<bool> {
        let geometry = self.geometry;
        let behind = u64::from(geometry.count() - index + 1) * DIGEST as u64;
        let digest = self.manifest(manifest_length(geometry) - behind, DIGEST);
        let digest = digest.await?;
        let length = geometry.length(index);
        let bytes = self.read(geometry.offset(index), length).await?;
        Ok(match Chunk::of(&bytes) {
            Chunk::Hole => digest.iter().all(|byte| *byte == 0),
            Chunk::Data(hash) => hash.as_bytes()[..] == digest[..],
        })
    }
}

/// Reads exactly `length` bytes of a file. What the kernel has in memory is read at once; only what
/// must come from the disk takes a thread that may wait.
async fn read(file: &Arc<File>, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    let mut there = 0;
    while there < length {
        let mut into = [io::IoSliceMut::new(&mut bytes[there..])];
        let at = offset + there as u64;
        match rustix::io::preadv2(&**file, &mut into, at, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => there += read,
            // Not in memory, or a file system that cannot tell.
            Err(_) => break,
        }
    }
    if there < length {
        let file = Arc::clone(file);
        let read = tokio::task::spawn_blocking(move || {
            file.read_exact_at(&mut bytes[there..], offset + there as u64)
                .map(|()| bytes)
        });
        bytes = read.await.map_err(io::Error::other)??;
    }
    Ok(bytes.into())
}
