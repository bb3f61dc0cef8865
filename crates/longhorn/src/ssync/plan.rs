//! How a file is cut into requests: data in batches, one hole for each hole.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::{Buf, Bytes};

use super::batches::Share;
use store::IoContext;

use crate::error::Result;
use chunks::is_zero;

/// Bytes of one `writeData`, as the Go sender's.
pub(super) const BATCH: u64 = 2 << 20;
/// The Go receiver writes with O_DIRECT where the size allows it: begins and ends must be multiples
/// of this.
const ALIGNMENT: u64 = 4096;
/// Zeros that are looked for, and holes that are kept: shorter ones cost more as a request of their
/// own than as bytes.
const HOLE_MIN: u64 = 32 << 10;

/// One request's worth of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes from an offset on.
    Data(u64, Bytes),
    Hole(Range<u64>),
}

/// Reads a file from front to back. What its file system has as holes or as space that was never
/// written is not read; zeros that were written are found.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    file: &'a File,
    path: &'a Path,
    size: u64,
    /// Everything before this has become pieces, or belongs to the hole that is open.
    at: u64,
    /// Where the open hole began; `at` when none is open.
    hole_from: u64,
    /// Up to where there is data, as far as it is known.
    data_end: u64,
    /// What was read from `at` on.
    buffer: Bytes,
    /// Where the memory of pieces is from.
    share: Share,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path, size: u64, share: Share) -> Self {
        Self {
            file,
            path,
            size,
            at: 0,
            hole_from: 0,
            data_end: 0,
            buffer: Bytes::new(),
            share,
        }
    }

    /// The next piece; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Piece>> {
        loop {
            if self.buffer.is_empty() {
                if self.at == self.data_end {
                    self.find_data()?;
                }
                if self.at == self.size {
                    return Ok(self.close_hole());
                }
                self.read_batch()?;
            }
            let (run, is_hole) = first_run(&self.buffer);
            if is_hole {
                self.buffer.advance(run);
                self.at += run as u64;
            } else if self.hole_from < self.at {
                return Ok(self.close_hole());
            } else {
                let piece = Piece::Data(self.at, self.buffer.split_to(run));
                self.at += run as u64;
                self.hole_from = self.at;
                return Ok(Some(piece));
            }
        }
    }

    fn close_hole(&mut self) -> Option<Piece> {
        let hole = std::mem::replace(&mut self.hole_from, self.at)..self.at;
        (!hole.is_empty()).then_some(Piece::Hole(hole))
    }

    fn read_batch(&mut self) -> Result<()> {
        let length = BATCH.min(self.data_end - self.at);
        let length = usize::try_from(length).expect("2 MiB at most");
        // What is left of the last batch gives its place back before the next is asked for.
        self.buffer = Bytes::new();
        let read = |buffer: &mut [u8]| self.file.read_exact_at(buffer, self.at);
        self.buffer = self.share.batch(length, read).context("read", self.path)?;
        Ok(())
    }

    /// Goes to the next data, over what is a hole. A hole that is too short counts as data.
    fn find_data(&mut self) -> Result<()> {
        let next = |offset| {
            let found = probe::next_data(self.file, self.size, offset);
            found.context("find data in", self.path)
        };
        let Some(found) = next(self.at)? else {
            (self.at, self.data_end) = (self.size, self.size);
            return Ok(());
        };
        let begin = (found.start / ALIGNMENT * ALIGNMENT).max(self.at);
        let mut end = aligned_end(found.end, self.size);
        while end < self.size && end - begin < BATCH {
            let Some(more) = next(end)? else { break };
            if more.start.saturating_sub(end) >= HOLE_MIN {
                break;
            }
            end = aligned_end(more.end, self.size);
        }
        let after_data = self.at > 0 && self.hole_from == self.at;
        if !after_data || begin - self.at >= HOLE_MIN {
            self.at = begin;
        }
        self.data_end = end;
        Ok(())
    }
}

fn aligned_end(end: u64, size: u64) -> u64 {
    end.next_multiple_of(ALIGNMENT).min(size)
}

/// The length of the run that a buffer begins with, and whether it is of zeros. Runs of zeros shorter
/// than [`HOLE_MIN`] belong to the data around them.
fn first_run(buffer: &[u8]) -> (usize, bool) {
    let step = usize::try_from(HOLE_MIN).expect("32 KiB");
    let mut blocks = buffer.chunks(step);
    let zero = blocks.next().is_some_and(is_zero);
    let mut length = step.min(buffer.len());
    for block in blocks {
        if is_zero(block) != zero {
            break;
        }
        length += block.len();
    }
    (length, zero)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssync::Batches;
    use proptest::prelude::*;

    fn file_of(writes: &[(u64, Vec<u8>)], size: u64) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("backing"))
            .unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in writes {
            file.write_all_at(bytes, *offset).unwrap();
        }
        (dir, file)
    }

    fn pieces(file: &File, size: u64) -> Vec<Piece> {
        let share = Batches::default().share();
        let mut pieces = Pieces::new(file, Path::new("backing"), size, share);
        // Copied, as who sends them lets go of each: a send may only have so many in memory.
        let copied = |piece| match piece {
            Piece::Data(at, bytes) => Piece::Data(at, Bytes::copy_from_slice(&bytes)),
            hole @ Piece::Hole(_) => hole,
        };
        std::iter::from_fn(|| pieces.next().unwrap().map(copied)).collect()
    }

    fn holes(pieces: &[Piece]) -> Vec<Range<u64>> {
        let holes = pieces.iter().filter_map(|piece| match piece {
            Piece::Hole(range) => Some(range.clone()),
            Piece::Data(..) => None,
        });
        holes.collect()
    }

    /// Every byte is in one piece, in order, and is what the file has; no hole follows another.
    fn check(file: &File, size: u64) -> Vec<Piece> {
        let pieces = pieces(file, size);
        let mut at = 0;
        let mut last_was_hole = false;
        for piece in &pieces {
            match piece {
                Piece::Hole(range) => {
                    assert!(!last_was_hole && !range.is_empty(), "{range:?}");
                    assert_eq!(range.start, at);
                    let mut bytes = vec![1; usize::try_from(range.end - range.start).unwrap()];
                    file.read_exact_at(&mut bytes, at).unwrap();
                    assert!(is_zero(&bytes));
                    at = range.end;
                    last_was_hole = true;
                }
                Piece::Data(offset, bytes) => {
                    assert_eq!((*offset, offset % ALIGNMENT), (at, 0));
                    assert!(bytes.len() as u64 <= BATCH && !bytes.is_empty());
                    let mut there = vec![0; bytes.len()];
                    file.read_exact_at(&mut there, at).unwrap();
                    assert!(there == *bytes, "at {at}");
                    at += bytes.len() as u64;
                    last_was_hole = false;
                }
            }
        }
        assert_eq!(at, size);
        pieces
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn data_goes_in_batches_and_a_hole_is_one_piece() {
        let data = vec![7; usize::try_from(5 * MIB).unwrap()];
        let (_dir, file) = file_of(&[(0, data), (1000 * MIB, vec![1; 513])], 4000 * MIB);
        let pieces = pieces(&file, 4000 * MIB);
        let tail = 1000 * MIB + 4096;
        assert_eq!(holes(&pieces), [5 * MIB..1000 * MIB, tail..4000 * MIB]);
        assert_eq!(pieces.len(), 6);
    }

    #[test]
    fn an_empty_file_of_a_tib_is_one_hole() {
        let (_dir, file) = file_of(&[], 1 << 40);
        assert_eq!(pieces(&file, 1 << 40), [Piece::Hole(0..1 << 40)]);
    }

    #[test]
    fn written_zeros_and_unwritten_space_are_holes() {
        let zeros = vec![0; usize::try_from(9 * MIB).unwrap()];
        let (_dir, file) = file_of(&[(0, zeros), (9 * MIB, vec![1; 4096])], 40 * MIB);
        image::extents::preallocate(&file, 20 * MIB..30 * MIB).unwrap();
        let pieces = check(&file, 40 * MIB);
        assert_eq!(holes(&pieces), [0..9 * MIB, 9 * MIB + 4096..40 * MIB]);
    }

    #[test]
    fn short_holes_cost_no_requests() {
        let writes: Vec<_> = (0..512).map(|n| (n * 8192, vec![1; 4096])).collect();
        let (_dir, file) = file_of(&writes, 4 * MIB);
        assert!(check(&file, 4 * MIB).len() <= 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_file_is_cut_into_its_own_bytes(
            writes in prop::collection::vec((0..12_000_000_u64, 1..300_000_usize, 0..3_u8), 0..12),
            size in 1..13_000_000_u64,
        ) {
            let writes: Vec<_> = writes
                .into_iter()
                .map(|(offset, length, byte)| (offset, vec![byte; length]))
                .collect();
            let (_dir, file) = file_of(&writes, size);
            file.set_len(size).unwrap();
            check(&file, size);
        }
    }
}
