//! The images we make: `qemu-img` finds nothing to complain of, and the same disk in them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print"
)]

mod oracle;

use std::fs::File;

use image::qcow2::{self, Compression, CreateOptions};
use oracle::{Bench, bench, open, read_all};
use probe::FileDisk;

const SIZES: &[u64] = &[
    512,
    65_536,
    66_048,
    1 << 20,
    (3 << 20) + 512,
    9_000_448,
    70 << 20,
];

fn options() -> Vec<CreateOptions> {
    let mut all = Vec::new();
    for compression in [None, Some(Compression::Zlib), Some(Compression::Zstd)] {
        for cluster_bits in [9, 12, 16, 21] {
            all.push(CreateOptions {
                compression,
                cluster_bits,
            });
        }
    }
    all
}

fn create(bench: &Bench, raw: &str, name: &str, options: CreateOptions) {
    let disk = FileDisk::open(&bench.path(raw)).unwrap();
    let mut out = File::create(bench.path(name)).unwrap();
    qcow2::create(&disk, &mut out, &options).unwrap();
}

#[test]
fn an_image_of_ours_passes_the_check_and_holds_the_disk() {
    let Some(bench) = bench() else { return };
    for size in SIZES {
        let raw = std::fs::read(bench.raw("raw", *size)).unwrap();
        for options in options() {
            if *size > 16 << 20 && options.cluster_bits < 16 {
                continue;
            }
            create(&bench, "raw", "image", options);
            bench.run("qemu-img", &["check", "-q", "-f", "qcow2", "image"]);
            let both = [
                "compare", "-q", "-s", "-f", "raw", "-F", "qcow2", "raw", "image",
            ];
            // Strict: holes of ours must be holes to QEMU too, so compare without `-s` on zeros.
            bench.run(
                "qemu-img",
                &both.map(|word| if word == "-s" { "-q" } else { word }),
            );
            let image = open(&bench.path("image")).unwrap();
            assert!(
                read_all(&image, 1 << 20).unwrap() == raw,
                "{size} {options:?}"
            );
        }
    }
}

#[test]
fn the_same_disk_makes_the_same_bytes() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 5 << 20);
    for options in options() {
        create(&bench, "raw", "one", options);
        // What the target held before does not matter, nor where the source has its holes.
        std::fs::copy(bench.path("raw"), bench.path("dense")).unwrap();
        let dense = std::fs::read(bench.path("raw")).unwrap();
        File::create(bench.path("dense"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, &dense))
            .unwrap();
        create(&bench, "dense", "two", options);
        let (one, two) = (
            std::fs::read(bench.path("one")),
            std::fs::read(bench.path("two")),
        );
        assert!(one.unwrap() == two.unwrap(), "{options:?}");
    }
}

#[test]
fn compression_makes_it_smaller() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 8 << 20);
    let mut sizes = Vec::new();
    for compression in [None, Some(Compression::Zlib), Some(Compression::Zstd)] {
        create(
            &bench,
            "raw",
            "image",
            CreateOptions {
                compression,
                cluster_bits: 16,
            },
        );
        sizes.push(std::fs::metadata(bench.path("image")).unwrap().len());
    }
    assert!(sizes[1] < sizes[0] && sizes[2] < sizes[0], "{sizes:?}");
}

#[test]
fn an_empty_image_is_small_and_all_zeros() {
    let Some(bench) = bench() else { return };
    for size in [512, 1 << 20, 10 << 30, 64 << 40] {
        let mut out = File::create(bench.path("image")).unwrap();
        qcow2::create_empty(size, &mut out, &CreateOptions::default()).unwrap();
        bench.run("qemu-img", &["check", "-q", "-f", "qcow2", "image"]);
        let image = open(&bench.path("image")).unwrap();
        assert_eq!(image.virtual_size().bytes(), size);
        assert_eq!(probe::probe(&image).unwrap(), probe::Content::Blank);
        let len = std::fs::metadata(bench.path("image")).unwrap().len();
        assert!(len <= (4 << 16) + (size >> 26), "{len} bytes for {size}");
    }
}

#[test]
fn a_disk_that_no_qcow2_image_can_hold_is_refused() {
    let Some(bench) = bench() else { return };
    let mut out = File::create(bench.path("image")).unwrap();
    for (size, cluster_bits) in [
        (0, 16),
        (513, 16),
        (1 << 20, 8),
        (1 << 20, 22),
        (1 << 60, 16),
    ] {
        let options = CreateOptions {
            compression: None,
            cluster_bits,
        };
        assert!(
            qcow2::create_empty(size, &mut out, &options).is_err(),
            "{size} {cluster_bits}"
        );
    }
}
