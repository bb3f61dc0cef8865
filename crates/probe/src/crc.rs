//! The two checksums that superblocks use. Bit by bit: the inputs are a few kilobytes.

/// CRC-32 of IEEE 802.3, as in GPT headers.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !update(!0, bytes, 0xedb8_8320)
}

/// CRC-32C (Castagnoli) with neither the first nor the last inversion: `seed` goes in as it is.
pub(crate) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    update(seed, bytes, 0x82f6_3b78)
}

fn update(seed: u32, bytes: &[u8], polynomial: u32) -> u32 {
    bytes.iter().fold(seed, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ polynomial
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_two_polynomials() {
        // "check" of the usual catalogues of CRC parameters.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }
}
