//! Sizes in bytes, with arithmetic that cannot wrap.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The sector every disk image is measured in, in bytes.
pub const SECTOR: u64 = 512;
/// The block a volume's size is rounded up to, in bytes (csi-and-flexvolume.md §6.1).
pub const BLOCK: u64 = 4096;

/// A number of bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The plain number.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The next multiple of `unit`, or `None` past `u64::MAX`.
    pub const fn round_up(self, unit: u64) -> Option<Self> {
        match self.0.checked_next_multiple_of(unit) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// Whether this is a whole number of `unit`s.
    pub const fn is_multiple_of(self, unit: u64) -> bool {
        self.0.is_multiple_of(unit)
    }
}

impl fmt::Display for ByteSize {
    /// Exact bytes, with the binary unit where the number is whole in it: `33554432 (32Mi)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = [
            (60, "Ei"),
            (50, "Pi"),
            (40, "Ti"),
            (30, "Gi"),
            (20, "Mi"),
            (10, "Ki"),
        ]
        .into_iter()
        .find(|(shift, _)| self.0 >> shift > 0 && self.0.trailing_zeros() >= *shift);
        match unit {
            Some((shift, unit)) => write!(f, "{} ({}{unit})", self.0, self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_exactly() {
        assert_eq!(ByteSize(32 << 20).to_string(), "33554432 (32Mi)");
        assert_eq!(ByteSize(1000).to_string(), "1000");
        assert_eq!(ByteSize(0).to_string(), "0");
    }

    #[test]
    fn rounding_up_never_wraps() {
        assert_eq!(ByteSize(1).round_up(BLOCK), Some(ByteSize(BLOCK)));
        assert_eq!(ByteSize(BLOCK).round_up(BLOCK), Some(ByteSize(BLOCK)));
        assert_eq!(ByteSize(u64::MAX).round_up(BLOCK), None);
    }
}
