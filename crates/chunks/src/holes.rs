//! Holes in files: where they are, which bytes become one, and how to create one.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::manifest::is_zero;

/// The smallest hole, and what its place is a multiple of: a block of the file systems that disks have.
const BLOCK: usize = 4096;

/// The parts of `bytes`, which belong at `at` of a file, that are to be written: the blocks of it that are
/// not zeros, neighbours together.
pub fn data_runs(bytes: &[u8], at: u64) -> impl Iterator<Item = Range<usize>> + '_ {
    let skew = usize::try_from(at % BLOCK as u64).expect("less than a block");
    let end_of = move |from: usize| (from + BLOCK - (skew + from) % BLOCK).min(bytes.len());
    let mut next = 0;
    std::iter::from_fn(move || {
        while next < bytes.len() && is_zero(&bytes[next..end_of(next)]) {
            next = end_of(next);
        }
        let start = next;
        while next < bytes.len() && !is_zero(&bytes[next..end_of(next)]) {
            next = end_of(next);
        }
        (start < next).then_some(start..next)
    })
}

/// The first byte at or after `offset` that may not be in a hole; `size` when there is none.
pub fn next_data(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(data.min(size)),
        Err(Errno::NXIO) => Ok(size),
        // A file system that does not tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
        Err(error) => Err(error.into()),
    }
}

/// Makes a range a hole.
pub fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, offset, length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeros_are_not_written_wherever_the_bytes_belong() {
        let mut bytes = vec![0; 5 * BLOCK];
        bytes[2 * BLOCK - 1] = 1;
        bytes[2 * BLOCK] = 1;
        bytes[5 * BLOCK - 1] = 1;
        let runs = |at| data_runs(&bytes, at).collect::<Vec<_>>();
        let block = |n: usize| n * BLOCK;
        assert_eq!(runs(0), [block(1)..block(3), block(4)..block(5)]);
        // Blocks are those of the file.
        let end = block(5);
        assert_eq!(runs(512), [block(2) - 512..block(3) - 512, end - 512..end]);
        assert!(data_runs(&[0; 3 * BLOCK], 7).next().is_none());
        assert!(data_runs(&[1; 10], 4090).eq(std::iter::once(0..10)));
        assert!(data_runs(&[], 0).next().is_none());
    }
}
