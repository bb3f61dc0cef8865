//! Reads a regular file of the tree once, in order, and skips zeros.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::error::{Error, io};

/// Zeros become a hole only in whole units of this many bytes: smaller ones would cost more extents
/// than space. Holes of the source play no part, so a copy of the tree gives the same result.
const UNIT: usize = 64 << 10;

pub(super) fn read<E: From<Error>>(
    file: &File,
    path: impl Fn() -> PathBuf,
    size: u64,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; 16 * UNIT];
    let mut at = 0;
    while at < size {
        if let Some(next) = next_data(file, at) {
            // Only a way to read less: what is skipped would have been found to be zero.
            at = next.max(at) / UNIT as u64 * UNIT as u64;
        } else if file_length(file) == Some(size) {
            break;
        }
        if at >= size {
            break;
        }
        let length = usize::try_from(size - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let piece = &mut buffer[..length];
        file.read_exact_at(piece, at)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Error::Changed { path: path() },
                _ => io("read", path())(error),
            })?;
        for unit in piece.chunks(UNIT) {
            if !is_zero(unit) {
                take(at, unit)?;
            }
            at += unit.len() as u64;
        }
    }
    if file_length(file) == Some(size) {
        Ok(())
    } else {
        Err(E::from(Error::Changed { path: path() }))
    }
}

fn file_length(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}

/// Where the next bytes that may not be zero are; `None` when none follow. A file system that cannot
/// tell has data everywhere.
fn next_data(file: &File, at: u64) -> Option<u64> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(next) => Some(next),
        Err(rustix::io::Errno::NXIO) => None,
        Err(_) => Some(at),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
