//! Packed layers, whole and broken, and bombs: rows 14 and 15 of the faults.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod layers;

use std::io::{self, Read};

use image::layer::{Error, Input, Limits};
use image::oci::{Digest, Packing};
use layers::{described, file, gzip, input, search, search_within, tar, zstd};
use types::{Classify, ErrorKind};

fn layer() -> Vec<u8> {
    let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    tar(&[file("base_image/disk.raw", &content)])
}

#[test]
fn all_packings_give_the_same_bytes() {
    let tar = layer();
    let half = tar.len() / 2;
    let two_members = [gzip(&tar[..half]), gzip(&tar[half..])].concat();
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let frames = [&zstd(&tar[..half])[..], &skippable, &zstd(&tar[half..])].concat();
    let (_, expected) = search(vec![input(tar.clone())]);
    for (packing, packed) in [
        (Packing::Plain, tar.clone()),
        (Packing::Gzip, gzip(&tar)),
        (Packing::Gzip, two_members),
        (Packing::Zstd, zstd(&tar)),
        (Packing::Zstd, frames),
    ] {
        for declared in [packing, Packing::Unknown] {
            let (found, kept) = search(vec![described(packed.clone(), declared, Digest::of(&tar))]);
            found.unwrap_or_else(|error| panic!("{packing:?}: {error}"));
            assert!(
                kept.bytes == expected.bytes,
                "{packing:?}: other bytes came out"
            );
        }
    }
}

#[test]
fn row_14_a_bomb_is_stopped_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    let tar = tar(&[file("other", &zeros), file("base_image/a", b"x")]);
    let limits = Limits {
        unpacked: 8 << 20,
        ..Limits::default()
    };
    for packed in [gzip(&tar), zstd(&tar), tar.clone()] {
        let (result, kept) = search_within(vec![input(packed)], limits);
        assert!(
            matches!(result, Err(Error::TooLarge { limit: 0x80_0000 })),
            "{result:?}"
        );
        assert!(kept.path.is_empty());
    }
    let limits = Limits {
        ratio: 100,
        ratio_from: 8 << 20,
        ..Limits::default()
    };
    for packed in [gzip(&tar), zstd(&tar)] {
        let error = search_within(vec![input(packed)], limits).0.unwrap_err();
        assert!(matches!(error, Error::Bomb { ratio: 100, .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::OutOfRange);
    }
    // Several layers count together, and a file is measured before it is taken.
    let limits = Limits {
        unpacked: 100 << 20,
        ..Limits::default()
    };
    let two = vec![input(zstd(&tar)), input(zstd(&tar))];
    assert!(matches!(
        search_within(two, limits).0,
        Err(Error::TooLarge { .. })
    ));
    let limits = Limits {
        file: 1 << 20,
        ..Limits::default()
    };
    let big = layers::tar(&[file("base_image/a", &zeros[..2 << 20])]);
    let (result, kept) = search_within(vec![input(gzip(&big))], limits);
    assert!(
        matches!(
            result,
            Err(Error::FileTooLarge {
                size: 0x20_0000,
                ..
            })
        ),
        "{result:?}"
    );
    assert!(kept.path.is_empty());
}

#[test]
fn row_14_a_zstd_window_beyond_the_limit_is_refused() {
    let tar = layer();
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    // Without it the frame says its size, and the window is that.
    encoder.include_contentsize(false).unwrap();
    io::copy(&mut tar.as_slice(), &mut encoder).unwrap();
    let packed = encoder.finish().unwrap();
    let (result, _) = search(vec![input(packed.clone())]);
    assert!(
        matches!(
            result,
            Err(Error::Unpack {
                packing: Packing::Zstd,
                ..
            })
        ),
        "{result:?}"
    );
    let limits = Limits {
        zstd_window_log: 27,
        ..Limits::default()
    };
    assert!(search_within(vec![input(packed)], limits).0.is_ok());
}

#[test]
fn row_15_a_packed_layer_that_is_cut_or_goes_on_is_refused() {
    let tar = layer();
    let (gz, zst) = (gzip(&tar), zstd(&tar));
    for packed in [&gz, &zst] {
        for cut in [5, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
            let error = search(vec![input(packed[..cut].to_vec())]).0.unwrap_err();
            assert!(
                matches!(error, Error::Unpack { .. }),
                "cut at {cut}: {error}"
            );
            assert_eq!(error.kind(), ErrorKind::DataLoss);
        }
        for garbage in [
            &b"garbage that is not packed"[..],
            &[0; 64],
            &[0x1f],
            &[0x1f, 0x8b, 8],
        ] {
            let long = [packed.as_slice(), garbage].concat();
            let error = search(vec![input(long)]).0.unwrap_err();
            let refused = matches!(error, Error::Unpack { .. } | Error::Garbage { .. });
            assert!(refused, "{garbage:?}: {error}");
        }
        let mut flipped = packed.clone();
        let at = flipped.len() - 6;
        flipped[at] ^= 4;
        assert!(search(vec![input(flipped)]).0.is_err());
    }
    let plain_garbage = [tar.clone(), b"garbage".to_vec()].concat();
    let error = search(vec![input(gzip(&plain_garbage))]).0.unwrap_err();
    assert!(matches!(error, Error::Garbage { .. }), "{error}");
    // Tools pad archives with zeros, and may leave the end mark out.
    assert!(
        search(vec![input([tar.clone(), vec![0; 10240]].concat())])
            .0
            .is_ok()
    );
    assert!(
        search(vec![input(tar[..tar.len() - 1024].to_vec())])
            .0
            .is_ok()
    );
    assert!(
        search(vec![input(tar[..tar.len() - 4096].to_vec())])
            .0
            .is_err()
    );
}

#[test]
fn row_15_a_layer_that_unpacks_to_something_else_is_refused() {
    let tar = layer();
    let other = Digest::of(b"other");
    for (packing, packed) in [
        (Packing::Gzip, gzip(&tar)),
        (Packing::Zstd, zstd(&tar)),
        (Packing::Plain, tar.clone()),
    ] {
        let (result, _) = search(vec![described(packed, packing, other.clone())]);
        match result {
            Err(Error::DiffId {
                expected, actual, ..
            }) => {
                assert_eq!((expected, actual), (other.clone(), Digest::of(&tar)));
            }
            other => panic!("{packing:?}: {other:?}"),
        }
    }
}

#[test]
fn row_12_a_layer_that_is_not_packed_as_it_says_is_refused() {
    let tar = layer();
    for (declared, packed) in [
        (Packing::Plain, gzip(&tar)),
        (Packing::Gzip, tar.clone()),
        (Packing::Gzip, zstd(&tar)),
        (Packing::Zstd, gzip(&tar)),
    ] {
        let (result, _) = search(vec![Input {
            packing: declared,
            ..input(packed)
        }]);
        assert!(
            matches!(result, Err(Error::Packing { .. })),
            "{declared:?}: {result:?}"
        );
    }
}

/// Gives all bytes, then fails, as a registry's blob with a wrong digest does.
struct FailsAtEnd(io::Cursor<Vec<u8>>);

impl Read for FailsAtEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::Error::new(io::ErrorKind::InvalidData, "wrong digest")),
            n => Ok(n),
        }
    }
}

#[test]
fn row_04_an_error_at_the_very_end_of_a_layer_counts() {
    let tar = layer();
    for packed in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let reader = Box::new(FailsAtEnd(io::Cursor::new(packed)));
        let error = search(vec![Input {
            reader,
            ..input(Vec::new())
        }])
        .0
        .unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        assert_eq!(
            types::report(&error).to_string(),
            "cannot read layer layer: wrong digest"
        );
    }
}
