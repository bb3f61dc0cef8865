//! Which bytes of a chunk have arrived.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};

/// Pieces that a chunk may be in: one each 256 bytes.
const PIECES_MAX: usize = 4096;
/// Chunks that may be begun and not complete: 64 GiB of an image. Senders go from front to back.
const PARTIALS_MAX: usize = 1 << 16;

/// The ranges of a chunk that have come: sorted, apart, not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage(Vec<Range<usize>>);

impl Coverage {
    pub(super) fn full(whole: usize) -> Self {
        Self(std::iter::once(0..whole).collect())
    }

    pub(super) fn is_full(&self, whole: usize) -> bool {
        matches!(self.0.as_slice(), [range] if *range == (0..whole))
    }

    /// Bytes that have come.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Range::len).sum()
    }

    /// The parts of `range` in order, and for each whether it came before.
    pub(super) fn split(&self, range: Range<usize>) -> Vec<(Range<usize>, bool)> {
        let mut parts = Vec::new();
        let mut at = range.start;
        for there in &self.0 {
            let (start, end) = (there.start.max(at), there.end.min(range.end));
            if start >= end {
                continue;
            }
            if at < start {
                parts.push((at..start, false));
            }
            parts.push((start..end, true));
            at = end;
        }
        if at < range.end {
            parts.push((at..range.end, false));
        }
        parts
    }

    /// Notes that `range` came.
    pub(super) fn add(&mut self, range: Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        // All that touch it become one with it.
        let first = self.0.partition_point(|there| there.end < range.start);
        let last = self.0.partition_point(|there| there.start <= range.end);
        let mut whole = range;
        if let [touched_first, .., touched_last] | [touched_first @ touched_last] =
            &self.0[first..last]
        {
            whole = whole.start.min(touched_first.start)..whole.end.max(touched_last.end);
        }
        self.0.splice(first..last, std::iter::once(whole));
        if self.0.len() > PIECES_MAX {
            return Err(Error::NotOfImage(
                "it arrives in too small pieces".to_owned(),
            ));
        }
        Ok(())
    }
}

/// The chunks that are begun and not complete.
#[derive(Debug, Default)]
pub(super) struct Partials(HashMap<usize, Coverage>);

impl Partials {
    pub(super) fn take(&mut self, index: usize) -> Coverage {
        self.0.remove(&index).unwrap_or_default()
    }

    pub(super) fn put(&mut self, index: usize, coverage: Coverage) -> Result<()> {
        if coverage.len() > 0 {
            self.0.insert(index, coverage);
        }
        if self.0.len() > PARTIALS_MAX {
            return Err(Error::NotOfImage(
                "it arrives at too many offsets at once".to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The same as a flag for each byte.
        #[test]
        fn ranges_tell_what_flags_would(
            ranges in prop::collection::vec((0..40usize, 0..12usize), 0..30),
            asked in (0..40usize, 1..15usize),
        ) {
            let mut coverage = Coverage::default();
            let mut flags = [false; 64];
            for (start, length) in ranges {
                coverage.add(start..start + length).unwrap();
                flags[start..start + length].fill(true);
            }
            prop_assert_eq!(coverage.len(), flags.iter().filter(|flag| **flag).count());
            let asked = asked.0..asked.0 + asked.1;
            let parts = coverage.split(asked.clone());
            let mut at = asked.start;
            for (part, there) in parts {
                prop_assert_eq!(part.start, at);
                prop_assert!(flags[part.clone()].iter().all(|flag| *flag == there));
                at = part.end;
            }
            prop_assert_eq!(at, asked.end);
        }
    }

    #[test]
    fn a_chunk_in_dust_is_refused() {
        let mut coverage = Coverage::default();
        let refused = (0..=PIECES_MAX).try_for_each(|n| coverage.add(n * 3..n * 3 + 1));
        assert!(refused.is_err());
    }
}
