//! A set of chunks, one bit each: those of a peer, or those still missing.
//!
//! On the wire: bit `n` of the set is bit `n % 8` (the lowest first) of byte `n / 8`.

/// A set of the numbers below [`Bits::len`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: u32,
}

const WORD: usize = 64;

impl Bits {
    /// The empty set of numbers below `len`.
    pub fn none(len: u32) -> Self {
        Self {
            words: vec![0; (len as usize).div_ceil(WORD)],
            len,
        }
    }

    /// All numbers below `len`.
    pub fn all(len: u32) -> Self {
        let mut bits = Self::none(len);
        bits.words.fill(u64::MAX);
        bits.trim();
        bits
    }

    /// The set of those numbers below `len`; others are left out.
    pub fn of(len: u32, members: impl IntoIterator<Item = u32>) -> Self {
        let mut bits = Self::none(len);
        for member in members {
            bits.insert(member);
        }
        bits
    }

    /// Clears what is behind the end in the last word.
    fn trim(&mut self) {
        let used = self.len as usize % WORD;
        if let (Some(last), true) = (self.words.last_mut(), used > 0) {
            *last &= (1 << used) - 1;
        }
    }

    /// Numbers that can be members.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// How many members there are.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether `index` is a member.
    pub fn contains(&self, index: u32) -> bool {
        let word = self.words.get(index as usize / WORD);
        word.is_some_and(|word| word >> (index as usize % WORD) & 1 == 1)
    }

    /// Makes `index` a member; tells whether it was none. Numbers behind the end are ignored.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.len || self.contains(index) {
            return false;
        }
        self.words[index as usize / WORD] |= 1 << (index as usize % WORD);
        true
    }

    /// Makes `index` no member; tells whether it was one.
    pub fn remove(&mut self, index: u32) -> bool {
        let was = self.contains(index);
        if was {
            self.words[index as usize / WORD] &= !(1 << (index as usize % WORD));
        }
        was
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// What is in this one and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// What is in either.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// `other` is as long as this one: all sets of one image are.
    fn zip(&self, other: &Self, both: impl Fn(u64, u64) -> u64) -> Self {
        debug_assert_eq!(self.len, other.len, "sets of different images");
        let pairs = self.words.iter().zip(&other.words);
        Self {
            words: pairs.map(|(a, b)| both(*a, *b)).collect(),
            len: self.len,
        }
    }

    /// The first member at or after `from`.
    pub fn next(&self, from: u32) -> Option<u32> {
        let start = from as usize / WORD;
        let mut mask = u64::MAX << (from as usize % WORD);
        for (at, word) in self.words.iter().enumerate().skip(start) {
            let found = word & mask;
            if found != 0 {
                let index = at * WORD + found.trailing_zeros() as usize;
                return u32::try_from(index).ok();
            }
            mask = u64::MAX;
        }
        None
    }

    /// All members, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.next(0), |last| self.next(last + 1))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes());
        bytes.take((self.len as usize).div_ceil(8)).collect()
    }

    /// Reads the wire form of a set of numbers below `len`; `None` when it has another length or a
    /// member behind the end.
    pub fn from_bytes(len: u32, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != (len as usize).div_ceil(8) {
            return None;
        }
        let words = bytes.chunks(8).map(|piece| {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            u64::from_le_bytes(word)
        });
        let read = Self {
            words: words.collect(),
            len,
        };
        let mut trimmed = read.clone();
        trimmed.trim();
        (trimmed == read).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_does_what_a_set_does() {
        for len in [1, 7, 8, 63, 64, 65, 200] {
            let members: BTreeSet<u32> = (0..len).filter(|n| n % 3 == 1).collect();
            let bits = Bits::of(len, members.iter().copied());
            assert_eq!(bits.iter().collect::<BTreeSet<_>>(), members);
            assert_eq!(bits.count() as usize, members.len());
            let rest = Bits::all(len).without(&bits);
            assert_eq!(rest.count() + bits.count(), len);
            assert!(rest.and(&bits).is_empty());
            assert_eq!(rest.or(&bits), Bits::all(len));
            assert!(!bits.contains(len) && !Bits::none(len).insert(len));
        }
    }

    #[test]
    fn the_wire_form_reads_back_and_a_wrong_one_does_not() {
        let bits = Bits::of(11, [0, 8, 10]);
        assert_eq!(bits.to_bytes(), [0b1, 0b101]);
        assert_eq!(Bits::from_bytes(11, &bits.to_bytes()), Some(bits));
        assert_eq!(Bits::from_bytes(11, &[0]), None);
        assert_eq!(Bits::from_bytes(11, &[0, 0, 0]), None);
        assert_eq!(Bits::from_bytes(11, &[0, 0b1000]), None, "a twelfth chunk");
    }
}
