//! Maps of sparse files in tar archives: GNU's old form and the three PAX ones.
//!
//! A map is accepted only if its pieces are in order, do not overlap, lie inside the file, and add
//! up to the stored bytes.

/// The most pieces of a map: 16 MiB of memory, a 8 GiB file with a hole in every other 4 KiB.
const SEGMENTS_MAX: usize = 1 << 20;

/// Where the stored bytes of a sparse file go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Map {
    /// Size of the file, holes included.
    pub(crate) size: u64,
    /// Offset and length of each piece that is stored.
    pub(crate) segments: Vec<(u64, u64)>,
}

impl Map {
    /// Adds a piece, unless there are too many.
    pub(crate) fn push(&mut self, offset: u64, length: u64) -> Result<(), &'static str> {
        if self.segments.len() == SEGMENTS_MAX {
            return Err("a sparse file has too many pieces");
        }
        self.segments.push((offset, length));
        Ok(())
    }

    /// Checks the map against the number of bytes that are stored.
    pub(crate) fn check(&self, stored: u64) -> Result<(), &'static str> {
        let mut end = 0;
        let mut sum = 0u64;
        for (offset, length) in &self.segments {
            if *offset < end {
                return Err("the pieces of a sparse file overlap or are out of order");
            }
            end = offset
                .checked_add(*length)
                .ok_or("a piece of a sparse file is out of range")?;
            sum += length;
        }
        if end > self.size {
            return Err("a piece of a sparse file lies beyond its end");
        }
        if sum != stored {
            return Err("the pieces of a sparse file are not as many bytes as are stored");
        }
        Ok(())
    }

    /// Reads GNU.sparse.map of PAX 0.1: `offset,length,offset,length…`.
    pub(crate) fn from_list(text: &str) -> Result<Self, &'static str> {
        const BAD: &str = "the map of a sparse file is not valid";
        let mut map = Self::default();
        let mut numbers = text.split(',').filter(|text| !text.is_empty());
        while let Some(offset) = numbers.next() {
            let length = numbers.next().ok_or(BAD)?;
            map.push(number(offset).ok_or(BAD)?, number(length).ok_or(BAD)?)?;
        }
        Ok(map)
    }
}

/// A decimal number without a sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_18_a_map_that_lies_is_refused() {
        let check = |size, stored, segments: &[(u64, u64)]| {
            Map {
                size,
                segments: segments.to_vec(),
            }
            .check(stored)
        };
        assert_eq!(check(100, 30, &[(0, 10), (50, 20), (100, 0)]), Ok(()));
        for (size, stored, segments) in [
            (100, 30, &[(0, 20), (10, 10)][..]),
            (100, 20, &[(50, 10), (0, 10)]),
            (100, 20, &[(90, 20)]),
            (100, 10, &[(u64::MAX, 10)]),
            (8 << 60, u64::MAX, &[(0, u64::MAX), (u64::MAX, 1)]),
            (100, 30, &[(0, 10)]),
            (100, 10, &[(0, 30)]),
        ] {
            assert!(
                check(size, stored, segments).is_err(),
                "{segments:?} was taken"
            );
        }
        assert!(Map::from_list("0,1,2").is_err() && Map::from_list("0,-1").is_err());
        assert_eq!(
            Map::from_list("0,1,2,3").unwrap().segments,
            [(0, 1), (2, 3)]
        );
    }
}
