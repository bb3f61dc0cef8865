//! CRC-32C (Castagnoli), the checksum of ext4, XFS and btrfs metadata.

/// Remainders of every byte at eight distances, for the reflected polynomial 0x1EDC6F41.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "byte is below 256")]
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82F6_3B78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut distance = 1;
    while distance < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before: u32 = tables[distance - 1][byte];
            tables[distance][byte] = before >> 8 ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        distance += 1;
    }
    tables
}

/// Goes on with the raw register `crc`, neither inverted before nor after: ext4's way.
pub(super) fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let low = crc ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let low = low.to_le_bytes();
        let table = |distance: usize, byte: u8| TABLES[distance][usize::from(byte)];
        crc = table(7, low[0]) ^ table(6, low[1]) ^ table(5, low[2]) ^ table(4, low[3]);
        crc ^= table(3, word[4]) ^ table(2, word[5]) ^ table(1, word[6]) ^ table(0, word[7]);
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
    }
    crc
}

/// The checksum of `bytes` as XFS and btrfs use it: inverted before and after.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    !update(!0, bytes)
}

#[cfg(test)]
mod tests {
    /// The check value of RFC 3720, appendix B.4, and the usual "123456789".
    #[test]
    fn known_values() {
        assert_eq!(super::checksum(b"123456789"), 0xE306_9283);
        assert_eq!(super::checksum(&[0; 32]), 0x8A91_36AA);
    }
}
