//! A persistent work file: the leftovers of an attempt to assemble an image, taken over by the next
//! attempt.
//!
//! The manifest is written before the file is created, so a file without it means nothing. What the
//! file holds is believed by its digests alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate};
use tracing::info;
use types::Cancel;
use types::crash_point;

use crate::durable;
use crate::error::{IoContext, Result};
use crate::ingest::hold;
use crate::layout::ImagePaths;
use crate::manifest::{ManifestFile as _, still_wanted};
use chunks::holes::{next_data, punch};
use chunks::{CHUNK, Chunk, Manifest};

/// Opens the work file of an image with this manifest, and tells which chunks are there and whether the
/// room for the others is taken.
pub(super) fn open(
    paths: &ImagePaths,
    known: &Manifest,
    cancel: &Cancel,
) -> Result<(File, PathBuf, Vec<Option<Chunk>>, bool)> {
    let path = &paths.part;
    if Manifest::read(&paths.part_chunks, known.size)?.as_ref() != Some(known) {
        durable::remove_file(path)?;
        known.write(&paths.part_chunks)?;
    }
    crash_point!("store.assembly.described");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .context("open", path)?;
    hold(&file, path)?;
    file.set_len(known.size)
        .context("set the length of", path)?;
    let there = look(&file, known, cancel).context("read", path)??;
    let preallocated = preallocate(&file, known, &there).context("allocate", path)?;
    Ok((file, path.clone(), there, preallocated))
}

/// Reads what may be data and compares it; bytes that are wrong become a hole.
fn look(file: &File, known: &Manifest, cancel: &Cancel) -> io::Result<Result<Vec<Option<Chunk>>>> {
    let mut there = Vec::with_capacity(known.chunks.len());
    let mut buffer = vec![0; CHUNK];
    // Before this offset there is nothing but a hole.
    let mut data = next_data(file, 0, known.size)?;
    let mut kept = 0_u64;
    for (index, chunk) in known.chunks.iter().enumerate() {
        if let Err(cancelled) = still_wanted(cancel) {
            return Ok(Err(cancelled));
        }
        let bytes = &mut buffer[..known.chunk_len(index)];
        let (start, end) = (
            index as u64 * CHUNK as u64,
            index as u64 * CHUNK as u64 + bytes.len() as u64,
        );
        if data < start {
            data = next_data(file, start, known.size)?;
        }
        let found = if data >= end {
            Chunk::Hole
        } else {
            file.read_exact_at(bytes, start)?;
            Chunk::of(bytes)
        };
        if found != *chunk && found != Chunk::Hole {
            punch(file, start, end - start)?;
        }
        kept += if found == *chunk && found != Chunk::Hole {
            end - start
        } else {
            0
        };
        there.push((found == *chunk).then_some(found));
    }
    if kept > 0 {
        info!(kept, size = known.size, "resumes an earlier attempt");
    }
    Ok(Ok(there))
}

/// Takes the room for what is missing at once, in few extents: a disk that is too full says so before
/// the first byte is sent for nothing.
fn preallocate(file: &File, known: &Manifest, there: &[Option<Chunk>]) -> io::Result<bool> {
    let mut index = 0;
    while index < there.len() {
        let run = there[index..]
            .iter()
            .take_while(|chunk| chunk.is_none())
            .count();
        if run > 0 {
            let start = index as u64 * CHUNK as u64;
            let end = ((index + run) as u64 * CHUNK as u64).min(known.size);
            match fallocate(file, FallocateFlags::KEEP_SIZE, start, end - start) {
                Ok(()) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        index += run.max(1);
    }
    Ok(true)
}
