//! VMDK, VDI and VHDX against qemu-img: the same bytes, or a refusal; never other bytes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod oracle;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use image::foreign::{Foreign, ForeignImage};
use image::{Error, Format, Limits};
use oracle::{Bench, Noise, bench};
use probe::Disk as _;
use types::{ByteSize, Classify, ErrorKind};

/// What qemu-img can make of each format and we read.
const MADE: &[(Foreign, &str)] = &[
    (Foreign::Vmdk, "subformat=monolithicSparse"),
    (Foreign::Vmdk, "subformat=monolithicSparse,zeroed_grain=on"),
    (Foreign::Vmdk, "subformat=streamOptimized"),
    (Foreign::Vdi, "static=off"),
    (Foreign::Vdi, "static=on"),
    (Foreign::Vhdx, "subformat=dynamic,block_size=1M"),
    (
        Foreign::Vhdx,
        "subformat=dynamic,block_size=8M,block_state_zero=off",
    ),
    (Foreign::Vhdx, "subformat=fixed,block_size=2M"),
];

fn make(bench: &Bench, (format, options): (Foreign, &str), raw: &str) -> String {
    let name = format!("made.{format}");
    let args = ["convert", "-f", "raw", "-O", format.as_str(), "-o", options];
    bench.run("qemu-img", &[&args[..], &[raw, &name]].concat());
    name
}

fn read(path: &Path, format: Foreign) -> std::io::Result<Vec<u8>> {
    let image = ForeignImage::open(File::open(path).unwrap(), format)?;
    // What a damaged size claims must not become an allocation of this test.
    if image.size() > 1 << 30 {
        return Err(std::io::Error::other("too large for this test"));
    }
    let mut bytes = vec![0xaa; usize::try_from(image.size()).unwrap()];
    let mut offset = 0;
    for part in bytes.chunks_mut(100_000) {
        image.read_exact_at(part, offset)?;
        offset += part.len() as u64;
    }
    Ok(bytes)
}

/// By `next_data`: what that calls a hole must be zeros.
fn read_by_ranges(path: &Path, format: Foreign) -> Vec<u8> {
    let image = ForeignImage::open(File::open(path).unwrap(), format).unwrap();
    let mut bytes = vec![0; usize::try_from(image.size()).unwrap()];
    let mut offset = 0;
    while let Some(range) = image.next_data(offset).unwrap() {
        assert!(range.start >= offset && range.end > range.start);
        let place = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        image.read_exact_at(&mut bytes[place], range.start).unwrap();
        offset = range.end;
    }
    bytes
}

/// What qemu-img makes of it; `None` when it refuses.
fn qemu(bench: &Bench, name: &str, format: Foreign) -> Option<Vec<u8>> {
    let args = [
        "convert",
        "-f",
        format.as_str(),
        "-O",
        "raw",
        name,
        "by-qemu",
    ];
    let done = bench.try_run("qemu-img", &args).status.success();
    done.then(|| std::fs::read(bench.path("by-qemu")).unwrap())
}

#[test]
fn every_kind_that_is_one_file_gives_the_bytes_that_qemu_gives() {
    let Some(bench) = bench() else { return };
    for size in [9 << 20, (3 << 20) + 512] {
        let raw = bench.raw("raw", size);
        let expected = std::fs::read(raw).unwrap();
        for &(format, options) in MADE {
            let name = make(&bench, (format, options), "raw");
            let path = bench.path(&name);
            // Formats that know whole blocks only have zeros behind the raw image's end.
            let mut bytes = read(&path, format).unwrap();
            assert!(read_by_ranges(&path, format) == bytes, "{format} {options}");
            assert!(bytes.len() >= expected.len(), "{format} {options}");
            assert!(
                bytes
                    .split_off(expected.len())
                    .iter()
                    .all(|byte| *byte == 0)
            );
            assert!(bytes == expected, "{format} {options}");
        }
    }
}

#[test]
fn a_stream_whose_directory_is_at_its_end_is_read() {
    let Some(bench) = bench() else { return };
    let expected = std::fs::read(bench.raw("raw", 5 << 20)).unwrap();
    let name = make(&bench, (Foreign::Vmdk, "subformat=streamOptimized"), "raw");
    let path = bench.path(&name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let header = bytes[..512].to_vec();
    bytes[56..64].fill(0xff);
    let mut footer = vec![0; 512];
    footer[0] = 1;
    footer[12] = 3;
    bytes.extend([footer, header, vec![0; 512]].concat());
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&bytes, 0)
        .unwrap();
    assert!(
        qemu(&bench, &name, Foreign::Vmdk).unwrap() == expected,
        "the test's own image"
    );
    assert!(read(&path, Foreign::Vmdk).unwrap() == expected);
    // A footer that sends to a footer is none.
    let end = bytes.len() as u64 - 1024;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 8], end + 56).unwrap();
    assert_eq!(kind(&path, Foreign::Vmdk), ErrorKind::DataLoss);
}

fn kind(path: &Path, format: Foreign) -> ErrorKind {
    let error = ForeignImage::open(File::open(path).unwrap(), format).unwrap_err();
    error.kind()
}

/// Row 45: what names other files, or another format than was said, is refused by a sentence.
#[test]
fn row_45_what_is_not_all_in_one_file_or_not_what_was_said_is_refused() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 2 << 20);
    for options in [
        "subformat=monolithicFlat",
        "subformat=twoGbMaxExtentSparse",
        "subformat=twoGbMaxExtentFlat",
    ] {
        let name = make(&bench, (Foreign::Vmdk, options), "raw");
        assert_eq!(
            kind(&bench.path(&name), Foreign::Vmdk),
            ErrorKind::InvalidArgument,
            "{options}"
        );
    }
    // One extent of a split image alone, which has a header but no descriptor.
    make(
        &bench,
        (Foreign::Vmdk, "subformat=twoGbMaxExtentSparse"),
        "raw",
    );
    assert_eq!(
        kind(&bench.path("made-s001.vmdk"), Foreign::Vmdk),
        ErrorKind::InvalidArgument
    );
    make(&bench, (Foreign::Vmdk, "subformat=monolithicSparse"), "raw");
    bench.run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "vmdk",
            "-b",
            "made.vmdk",
            "-F",
            "vmdk",
            "child.vmdk",
        ],
    );
    let error = ForeignImage::open(File::open(bench.path("child.vmdk")).unwrap(), Foreign::Vmdk);
    assert!(error.unwrap_err().to_string().contains("difference"));
    for said in [Foreign::Vmdk, Foreign::Vdi, Foreign::Vhdx] {
        for (format, options) in [
            (Foreign::Vdi, "static=off"),
            (Foreign::Vhdx, "subformat=dynamic"),
        ] {
            let name = make(&bench, (format, options), "raw");
            if said != format {
                assert_eq!(kind(&bench.path(&name), said), ErrorKind::InvalidArgument);
            }
        }
        assert_eq!(kind(&bench.path("raw"), said), ErrorKind::InvalidArgument);
        File::create(bench.path("empty")).unwrap();
        assert_eq!(kind(&bench.path("empty"), said), ErrorKind::DataLoss);
    }
    // Nobody is told these by their bytes.
    for (format, options) in [MADE[0], MADE[3], MADE[5]] {
        let name = make(&bench, (format, options), "raw");
        let told = Format::detect(&File::open(bench.path(&name)).unwrap());
        assert!(matches!(told, Err(Error::ForeignFormat { .. })), "{format}");
    }
}

#[test]
fn a_disk_beyond_the_limit_is_refused() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 2 << 20);
    for made in [MADE[0], MADE[3], MADE[5]] {
        let name = make(&bench, made, "raw");
        let file = File::open(bench.path(&name)).unwrap();
        let virtual_size_max = ByteSize(1 << 20);
        let error = ForeignImage::open_with(file, made.0, Limits { virtual_size_max });
        assert!(matches!(error, Err(Error::TooLarge { .. })));
    }
}

#[test]
fn a_vhdx_whose_log_waits_is_refused() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 1 << 20);
    let name = make(&bench, (Foreign::Vhdx, "subformat=dynamic"), "raw");
    let file = File::options()
        .read(true)
        .write(true)
        .open(bench.path(&name))
        .unwrap();
    for at in [64 << 10, 128 << 10] {
        let mut header = vec![0; 4096];
        file.read_exact_at(&mut header, at).unwrap();
        header[48] = 1;
        header[4..8].fill(0);
        let sum = header.iter().fold(!0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                sum >> 1 ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
            })
        });
        header[4..8].copy_from_slice(&(!sum).to_le_bytes());
        file.write_all_at(&header, at).unwrap();
    }
    let error =
        ForeignImage::open(File::open(bench.path(&name)).unwrap(), Foreign::Vhdx).unwrap_err();
    assert!(error.to_string().contains("log"), "{error}");
}

/// Cut anywhere: an error, or all of the bytes.
#[test]
fn a_cut_image_never_gives_other_bytes() {
    let Some(bench) = bench() else { return };
    let expected = std::fs::read(bench.raw("raw", 2 << 20)).unwrap();
    for &made in MADE {
        let name = make(&bench, made, "raw");
        let whole = std::fs::read(bench.path(&name)).unwrap();
        let cut = bench.path("cut");
        let file = File::create(&cut).unwrap();
        file.write_all_at(&whole, 0).unwrap();
        let mut noise = Noise(7);
        let mut lengths: Vec<u64> = (0..60).map(|_| noise.next() % whole.len() as u64).collect();
        lengths.extend([0, 1, 511, 512, 513, 1024, whole.len() as u64 - 1]);
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        for len in lengths {
            file.set_len(len).unwrap();
            if let Ok(bytes) = read(&cut, made.0) {
                assert!(bytes.starts_with(&expected), "{made:?} cut to {len}");
            }
        }
    }
}

/// Bytes of the tables and headers changed at random: an error, or what qemu-img makes of it too.
#[test]
fn a_changed_image_gives_the_bytes_that_qemu_gives_or_none() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 2 << 20);
    for &made in MADE {
        let (format, _) = made;
        let name = make(&bench, made, "raw");
        let original = read(&bench.path(&name), format).unwrap();
        let whole = std::fs::read(bench.path(&name)).unwrap();
        // The tables are where few bytes are not zero; data is most of the rest.
        let places: Vec<usize> = match format {
            Foreign::Vhdx => [0..8, 65536..65680, 131_072..131_216, 196_608..196_700]
                .into_iter()
                .flatten()
                .chain((1 << 20..whole.len().min(4 << 20)).filter(|at| whole[*at] != 0))
                .collect(),
            _ => (0..whole.len().min(128 << 10))
                .filter(|at| *at < 512 || whole[*at] != 0)
                .collect(),
        };
        let mut noise = Noise(11);
        let changed = bench.path("changed");
        let file = File::create(&changed).unwrap();
        file.write_all_at(&whole, 0).unwrap();
        let (mut asked, mut same, mut last) = (0, 0, 0);
        for _ in 0..200 {
            let at = places[usize::try_from(noise.next()).unwrap() % places.len()];
            file.write_all_at(&whole[last..=last], last as u64).unwrap();
            file.write_all_at(&[whole[at] ^ (noise.byte() | 1)], at as u64)
                .unwrap();
            last = at;
            let Ok(ours) = read(&changed, format) else {
                continue;
            };
            same += 1;
            if ours == original || asked == 12 {
                continue;
            }
            asked += 1;
            let theirs = qemu(&bench, "changed", format);
            assert!(
                theirs == Some(ours),
                "{made:?}: byte {at} changed from {}",
                whole[at]
            );
        }
        println!("{made:?}: {same} of 200 read, {asked} compared");
    }
}
