//! Fields of on-disk structures, at fixed places of a block.

/// The `N` bytes at `at` of a structure whose size is known.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("the slice has the array's length")
}

/// Puts `value` at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Splits `total` items evenly over the fewest parts of at most `max`: B-trees want their blocks at
/// least half full.
pub(super) fn even_parts(total: usize, max: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let parts = total.div_ceil(max).max(1);
    (0..parts).map(move |part| total * part / parts..total * (part + 1) / parts)
}
