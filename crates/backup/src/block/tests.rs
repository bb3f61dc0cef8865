//! Blocks that Longhorn packed, blocks of ours, and bytes that are neither.

use super::*;
use crate::{BlockError, fixtures, layout};

use bytes::Bytes;

fn stored(bytes: &[u8], length: u64, checksum: BlockChecksum) -> Stored {
    Stored {
        bytes: Bytes::copy_from_slice(bytes),
        length,
        checksum,
    }
}

fn both(stored: &Stored) -> Result<Bytes, BlockError> {
    let one = decode(&stored.bytes, stored.length, &stored.checksum);
    let all = decode_all(vec![stored.clone(), stored.clone()]);
    assert!(all.iter().all(|block| *block == one), "together as alone");
    one
}

#[test]
fn every_block_that_longhorn_wrote_is_unpacked_to_its_checksum() {
    let mut count = 0;
    for (key, bytes) in fixtures::store() {
        let Some(checksum) = layout::block_of(&key) else {
            continue;
        };
        let length = match key.split('/').nth(4) {
            Some("vol-none-16m") => BlockSize::MIB16.bytes(),
            // The last of the backing image is short.
            _ if key.ends_with("694e.blk") => (1 << 20) + 512,
            _ => BlockSize::MIB2.bytes(),
        };
        let block = both(&stored(&bytes, length, checksum))
            .unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(BlockChecksum::of(&block), checksum);
        count += 1;
    }
    assert_eq!(count, 18);
}

/// Bytes that a compressor makes something of, but not everything.
fn block(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let half: Vec<u8> = std::iter::repeat_with(&mut next)
        .flatten()
        .take(length / 2)
        .collect();
    let mut bytes = vec![0; length - half.len()];
    bytes.extend(half);
    bytes
}

#[test]
fn what_is_packed_is_unpacked_and_looks_as_longhorn_packs_it() {
    for length in [1, 511, 4096, 2 << 20, (1 << 20) + 512] {
        let bytes = block(length, 7);
        let checksum = BlockChecksum::of(&bytes);
        for compression in [Compression::None, Compression::Gzip, Compression::Lz4] {
            let packed = encode(&bytes, compression);
            let known: &[u8] = match compression {
                Compression::None => &bytes[..1],
                // No name, no time.
                Compression::Gzip => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0],
                // Version 1, independent blocks, content checksum, 4 MiB.
                Compression::Lz4 => &[0x04, 0x22, 0x4d, 0x18, 0x64, 0x60],
            };
            assert!(
                packed.starts_with(known),
                "{compression}: {:x?}",
                &packed[..8.min(packed.len())]
            );
            let unpacked = both(&stored(&packed, length as u64, checksum)).unwrap();
            assert!(*unpacked == *bytes, "{compression} of {length} bytes");
        }
    }
}

#[test]
fn frames_of_other_writers_are_unpacked() {
    use lz4_flex::frame::{BlockMode, BlockSize as Frame, FrameEncoder, FrameInfo};
    use std::io::Write;
    let bytes = block(2 << 20, 9);
    for mode in [BlockMode::Linked, BlockMode::Independent] {
        for size in [Frame::Max64KB, Frame::Max256KB, Frame::Max4MB] {
            let info = FrameInfo::new().block_mode(mode).block_size(size);
            let info = info
                .block_checksums(true)
                .content_size(Some(bytes.len() as u64));
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&bytes).unwrap();
            let packed = encoder.finish().unwrap();
            let stored = stored(&packed, bytes.len() as u64, BlockChecksum::of(&bytes));
            assert!(*both(&stored).unwrap() == *bytes);
        }
    }
}

#[test]
fn frames_are_unpacked_by_the_format_s_own_tool() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    // One that shrinks, and one that does not: a frame holds such blocks as they are.
    let mut text = block(2 << 20, 9);
    text[1 << 20..].fill(b'x');
    for bytes in [block(2 << 20, 9), text, block(4097, 9)] {
        let packed = encode(&bytes, Compression::Lz4);
        let mut command = Command::new("lz4");
        command.args(["-dc"]).stdin(Stdio::piped());
        let Ok(mut tool) = command.stdout(Stdio::piped()).spawn() else {
            println!("skipped: needs lz4");
            return;
        };
        let mut stdin = tool.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&packed).unwrap());
        let output = tool.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success() && output.stdout == bytes);
    }
}

#[test]
fn a_block_that_only_looks_packed_is_taken_as_it_is() {
    for magic in [&[0x1f, 0x8b, 8][..], &[0x04, 0x22, 0x4d, 0x18]] {
        let mut bytes = block(4096, 3);
        bytes[..magic.len()].copy_from_slice(magic);
        let stored = stored(&bytes, 4096, BlockChecksum::of(&bytes));
        assert!(*both(&stored).unwrap() == *bytes);
    }
}

#[test]
fn what_is_not_the_block_is_told_apart() {
    let bytes = block(64 << 10, 5);
    let (length, checksum) = (bytes.len() as u64, BlockChecksum::of(&bytes));
    let other = BlockChecksum::of(b"other");
    for compression in [Compression::None, Compression::Gzip, Compression::Lz4] {
        let packed = encode(&bytes, compression);
        for cut in [0, 1, 3, 20, packed.len() / 2, packed.len() - 20] {
            let error = both(&stored(&packed[..cut], length, checksum)).unwrap_err();
            let is_short =
                matches!(error, BlockError::CutShort { stored, .. } if stored == cut as u64);
            assert!(
                is_short || compression != Compression::None,
                "{compression} at {cut}: {error}"
            );
            assert!(
                matches!(
                    error,
                    BlockError::CutShort { .. } | BlockError::Damaged { .. }
                ),
                "{compression} at {cut}: {error}"
            );
        }
        let bomb = both(&stored(&packed, length - 1, checksum)).unwrap_err();
        assert_eq!(
            bomb,
            BlockError::TooMuch { length: length - 1 },
            "{compression}"
        );
        let error = both(&stored(&packed, length, other)).unwrap_err();
        let actual = checksum.to_string();
        assert_eq!(
            error,
            BlockError::Checksum { length, actual },
            "{compression}"
        );
        let mut flipped = packed.clone();
        let middle = flipped.len() * 3 / 4;
        flipped[middle] ^= 1;
        let error = both(&stored(&flipped, length, checksum)).unwrap_err();
        assert!(
            matches!(
                error,
                BlockError::Damaged { .. }
                    | BlockError::Checksum { .. }
                    | BlockError::CutShort { .. }
            ),
            "{compression}: {error}"
        );
    }
}

#[test]
fn no_more_is_unpacked_than_a_block() {
    let length = BlockSize::MIB2.bytes();
    for (store, files) in fixtures::hostile() {
        if store != "gzip-bomb" {
            continue;
        }
        let mut errors = 0;
        for (key, bytes) in files {
            let Some(checksum) = layout::block_of(&key) else {
                continue;
            };
            match both(&stored(&bytes, length, checksum)) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error, BlockError::TooMuch { length });
                    errors += 1;
                }
            }
        }
        assert_eq!(errors, 1);
        return;
    }
    panic!("no gzip bomb");
}

#[test]
fn checksums_are_the_same_alone_and_together() {
    let blocks: Vec<_> = [
        4096,
        4096,
        0,
        4096,
        111,
        112,
        127,
        128,
        129,
        4096,
        4096,
        4096,
        4096,
        1 << 20,
    ]
    .into_iter()
    .enumerate()
    .map(|(index, length)| block(length, index as u64 * 2 + 1))
    .collect();
    for count in 0..=blocks.len() {
        let some: Vec<&[u8]> = blocks[..count].iter().map(Vec::as_slice).collect();
        let alone: Vec<_> = some.iter().map(|block| BlockChecksum::of(block)).collect();
        assert_eq!(BlockChecksum::of_all(&some), alone);
    }
    // FIPS 180-4: SHA-512 of "abc".
    let abc = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a";
    assert_eq!(BlockChecksum::of(b"abc").to_string(), abc);
    assert_eq!(
        BlockChecksum::of_all(&[b"abc".as_slice(); 5]),
        [abc.parse().unwrap(); 5]
    );
}

#[test]
fn a_checksum_is_64_lower_case_digits() {
    let text = "0123456789abcdef".repeat(4);
    assert_eq!(text.parse::<BlockChecksum>().unwrap().to_string(), text);
    for text in [
        &text[..63],
        &text.to_uppercase(),
        &format!("{text}0"),
        "",
        "aa",
        "../../../../etc/passwd",
    ] {
        assert!(text.parse::<BlockChecksum>().is_err(), "{text}");
    }
}

#[test]
fn a_block_size_is_one_that_can_be() {
    for bytes in [4096, 1 << 20, 2 << 20, 16 << 20, 64 << 20] {
        assert_eq!(BlockSize::new(bytes).unwrap().bytes(), bytes);
    }
    for bytes in [0, 512, 4097, (64 << 20) + 512, u64::MAX] {
        assert!(BlockSize::new(bytes).is_err(), "{bytes}");
    }
}
