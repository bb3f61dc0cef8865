//! Bytes that no compression and no search for zeros makes smaller.

/// `length` bytes that depend on the seed alone.
pub fn noise(seed: u64, length: impl TryInto<usize>) -> Vec<u8> {
    let length = length
        .try_into()
        .unwrap_or_else(|_| panic!("so much fits in no memory"));
    let mut state = seed * 2 + 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let words = std::iter::repeat_with(next).take(length.div_ceil(8));
    let mut bytes: Vec<u8> = words.flatten().collect();
    bytes.truncate(length);
    bytes
}
