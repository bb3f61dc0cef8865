//! A set of blocks of a volume: one bit each, so that 4 TiB need 256 KiB.

use std::ops::Range;

use crate::block::BlockSize;

const WORD: u64 = u64::BITS as u64;

/// Which blocks of a volume are meant. A block is known by its index: offset ÷ block size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
    size: u64,
    block: BlockSize,
}

impl BlockSet {
    /// No block of a volume of `size` bytes.
    pub fn new(size: u64, block: BlockSize) -> Self {
        let blocks = size.div_ceil(block.bytes());
        let words = usize::try_from(blocks.div_ceil(WORD)).expect("bits fit memory");
        Self {
            words: vec![0; words],
            size,
            block,
        }
    }

    /// All blocks of a volume of `size` bytes.
    pub fn all(size: u64, block: BlockSize) -> Self {
        let mut set = Self::new(size, block);
        set.insert(0..size);
        set
    }

    /// Bytes of the volume.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> BlockSize {
        self.block
    }

    /// Adds every block that has a byte of the range. What lies behind the volume's end is left out.
    pub fn insert(&mut self, range: Range<u64>) {
        let end = range.end.min(self.size);
        if range.start >= end {
            return;
        }
        let block = self.block.bytes();
        for index in range.start / block..end.div_ceil(block) {
            self.words[place(index)] |= 1 << (index % WORD);
        }
    }

    /// Whether the block is in the set.
    pub fn contains(&self, index: u64) -> bool {
        let word = usize::try_from(index / WORD).ok();
        let word = word.and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & (1 << (index % WORD)) != 0)
    }

    /// How many blocks there are.
    pub fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// The indexes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..).zip(&self.words).flat_map(|(place, &word)| Ones {
            word,
            base: place * WORD,
        })
    }

    /// The first block of the set at `from` or behind it.
    pub(crate) fn next(&self, from: u64) -> Option<u64> {
        let first = usize::try_from(from / WORD).ok()?;
        let masked = self.words.get(first)? & (u64::MAX << (from % WORD));
        if masked != 0 {
            return Some(from / WORD * WORD + u64::from(masked.trailing_zeros()));
        }
        let rest = &self.words[first + 1..];
        let skipped = rest.iter().position(|word| *word != 0)?;
        let base = (from / WORD + 1 + skipped as u64) * WORD;
        Some(base + u64::from(rest[skipped].trailing_zeros()))
    }
}

/// The word of a block that is below the end.
fn place(index: u64) -> usize {
    usize::try_from(index / WORD).expect("below the end of the words")
}

/// The bits of one word.
struct Ones {
    word: u64,
    base: u64,
}

impl Iterator for Ones {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.base + u64::from(bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 2 << 20;

    #[test]
    fn a_range_touches_each_block_of_which_it_has_a_byte() {
        let mut set = BlockSet::new(200 * BLOCK + 1, BlockSize::MIB2);
        set.insert(BLOCK - 1..BLOCK + 1);
        set.insert(64 * BLOCK..65 * BLOCK);
        set.insert(5..5);
        set.insert(200 * BLOCK..u64::MAX);
        set.insert(300 * BLOCK..400 * BLOCK);
        let expected = [0, 1, 64, 200];
        assert_eq!(set.iter().collect::<Vec<_>>(), expected);
        assert_eq!(set.count(), 4);
        assert!(set.contains(64) && !set.contains(65) && !set.contains(u64::MAX));
    }

    #[test]
    fn the_next_member_is_found_in_this_word_or_a_later_one() {
        let mut set = BlockSet::new(1000 * BLOCK, BlockSize::MIB2);
        for index in [3, 63, 64, 700] {
            set.insert(index * BLOCK..index * BLOCK + 1);
        }
        let mut from = 0;
        let mut found = Vec::new();
        while let Some(index) = set.next(from) {
            found.push(index);
            from = index + 1;
        }
        assert_eq!(found, set.iter().collect::<Vec<_>>());
        assert_eq!(set.next(701), None);
        assert_eq!(set.next(u64::MAX), None);
    }

    #[test]
    fn four_tebibytes_are_256_kibibytes() {
        let set = BlockSet::all(4 << 40, BlockSize::MIB2);
        assert_eq!(set.words.len() * 8, 256 << 10);
        assert_eq!(set.count(), 2 << 20);
    }
}
