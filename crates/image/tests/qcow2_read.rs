//! Reads the output of the real tools: every legal kind of qcow2 image, byte for byte.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print"
)]

mod oracle;

use oracle::{bench, open, read_all, read_by_ranges};

/// Options of `qemu-img convert` for one kind of image each.
const KINDS: &[&[&str]] = &[
    &[],
    &["-o", "compat=0.10"],
    &["-o", "cluster_size=512"],
    &["-o", "cluster_size=4k"],
    &["-o", "cluster_size=2M"],
    &["-o", "refcount_bits=1"],
    &["-o", "refcount_bits=64"],
    &["-o", "lazy_refcounts=on"],
    &["-o", "preallocation=metadata"],
    &["-o", "extended_l2=on"],
    &["-o", "extended_l2=on,cluster_size=16k"],
    &["-o", "extended_l2=on,cluster_size=2M"],
    &["-c"],
    &["-c", "-o", "compat=0.10"],
    &["-c", "-o", "cluster_size=512"],
    &["-c", "-o", "cluster_size=4k"],
    &["-c", "-o", "cluster_size=2M"],
    &["-c", "-o", "extended_l2=on"],
    &["-c", "-o", "compression_type=zstd"],
    &["-c", "-o", "compression_type=zstd,cluster_size=512"],
    &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
    &["-c", "-o", "compression_type=zstd,extended_l2=on"],
];

/// Sizes with a reason: a sector, around a cluster, not a whole number of clusters, many clusters.
const SIZES: &[u64] = &[
    512,
    65_024,
    65_536,
    66_048,
    1 << 20,
    (3 << 20) + 512,
    9_000_448,
];

#[test]
fn every_legal_kind_of_image_reads_as_qemu_reads_it() {
    let Some(bench) = bench() else { return };
    for size in SIZES {
        let raw = std::fs::read(bench.raw("raw", *size)).unwrap();
        for options in KINDS {
            let image = open(&bench.qcow2("raw", "image", options)).unwrap();
            assert_eq!(image.virtual_size().bytes(), *size);
            for piece in [512, 4096 + 512, 65_536, 1 << 22] {
                assert!(
                    read_all(&image, piece).unwrap() == raw,
                    "{size} {options:?} by {piece}"
                );
            }
            assert!(
                read_by_ranges(&image).unwrap() == raw,
                "{size} {options:?} by ranges"
            );
        }
    }
}

#[test]
fn images_that_a_guest_has_written_to_read_as_qemu_reads_them() {
    let Some(bench) = bench() else { return };
    for options in [
        "cluster_size=64k",
        "cluster_size=4k",
        "extended_l2=on,cluster_size=64k",
        "compat=0.10",
        "lazy_refcounts=on",
    ] {
        bench.run(
            "qemu-img",
            &[
                "create", "-q", "-f", "qcow2", "-o", options, "image", "3000832",
            ],
        );
        let writes = [
            "write -P 1 1000448 8704",
            "write -P 2 0 512",
            "write -P 3 3000320 512",
            "write -z 65536 65536",
            "write -z 1001472 512",
            "write -P 4 66048 512",
            "discard 0 131072",
            "write -P 5 2000896 131072",
            "write -c -P 6 524288 65536",
        ];
        for write in writes {
            // Compressed and zero writes do not exist in each version; both sides skip them.
            bench.try_run("qemu-io", &["-f", "qcow2", "-c", write, "image"]);
        }
        let expected = bench.converted("image").unwrap();
        let image = open(&bench.path("image")).unwrap();
        assert!(read_all(&image, 4096).unwrap() == expected, "{options}");
        assert!(read_by_ranges(&image).unwrap() == expected, "{options}");
    }
}
