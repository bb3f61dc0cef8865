//! The raw form: the bytes of `qemu-img convert`, in few extents, with the large holes kept.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print"
)]

mod oracle;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use image::convert::{Progress, Source, to_raw};
use image::{Error, Format, Image, extents};
use oracle::{Bench, Noise, bench, open, xfs_bench};
use probe::{Disk as _, FileDisk};

fn convert(image: &dyn Source, out: &File) -> u64 {
    let mut last = Progress { done: 0, total: 0 };
    let mut calls = 0;
    let mut progress = |now: Progress| {
        assert!(
            now.done >= last.done && now.done <= now.total,
            "{now:?} after {last:?}"
        );
        last = now;
        calls += 1;
    };
    let data = to_raw(image, out, &mut progress, &|| false).unwrap();
    assert!(
        calls > 0 && last.done == last.total && last.total == data,
        "{last:?} of {data}"
    );
    data
}

fn new_file(path: &std::path::Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap()
}

#[test]
fn the_raw_form_holds_what_qemu_makes_of_the_image() {
    let Some(bench) = bench() else { return };
    compare_with_qemu(&bench);
}

#[test]
fn the_raw_form_holds_what_qemu_makes_of_the_image_where_extents_are_shared() {
    let Some(bench) = xfs_bench() else { return };
    compare_with_qemu(&bench);
}

fn compare_with_qemu(bench: &Bench) {
    for size in [512, 65_536, 66_048, (9 << 20) + 512, 40 << 20] {
        let raw = std::fs::read(bench.raw("raw", size)).unwrap();
        for options in [
            &[][..],
            &["-c"],
            &["-c", "-o", "compression_type=zstd"],
            &["-o", "cluster_size=4k"],
            &["-o", "extended_l2=on"],
        ] {
            let image = open(&bench.qcow2("raw", "image", options)).unwrap();
            // What the file held must not show through.
            std::fs::copy(bench.path("image"), bench.path("out")).unwrap();
            let out = File::options()
                .read(true)
                .write(true)
                .open(bench.path("out"))
                .unwrap();
            convert(&image, &out);
            assert!(
                std::fs::read(bench.path("out")).unwrap() == raw,
                "{size} {options:?}"
            );
        }
    }
}

/// Clusters that are not compressed lie in the image as the guest has them: on XFS they are shared, for no
/// space, up to the odd end; what is in small pieces is copied, so that the raw form has few extents.
#[test]
fn what_the_image_holds_in_one_piece_is_shared_and_not_copied() {
    let Some(bench) = xfs_bench() else { return };
    let size = (300 << 20) + 512;
    let raw = new_file(&bench.path("raw"));
    raw.set_len(size).unwrap();
    let mut noise = Noise(9);
    let block: Vec<u8> = (0..1 << 20).map(|_| noise.byte()).collect();
    for start in (0..100 << 20).chain(200 << 20..300 << 20).step_by(1 << 20) {
        raw.write_all_at(&block, start).unwrap();
    }
    for start in (120 << 20..130 << 20).step_by(128 << 10) {
        raw.write_all_at(&block[..64 << 10], start).unwrap();
    }
    raw.write_all_at(&[5; 512], size - 512).unwrap();
    let image = open(&bench.qcow2("raw", "image", &[])).unwrap();
    let free = || {
        let system = rustix::fs::statvfs(bench.path("")).unwrap();
        system.f_bfree * system.f_frsize
    };
    let before = free();
    let out = new_file(&bench.path("out"));
    convert(&image, &out);
    out.sync_all().unwrap();
    let taken = before - free();
    assert!(
        taken < 16 << 20,
        "{taken} bytes for 200 MiB that could be shared, and 10 MiB that could not"
    );
    let extents = extents::count(&out).unwrap().unwrap();
    assert!(extents <= 16, "{extents} extents");
    assert!(
        std::fs::read(bench.path("raw")).unwrap() == std::fs::read(bench.path("out")).unwrap(),
        "other bytes"
    );
    // A clone is its own: what is written to one is not seen in the other.
    out.write_all_at(&[0xee; 4096], 8 << 20).unwrap();
    let mut bytes = [0; 4096];
    image.read_exact_at(&mut bytes, 8 << 20).unwrap();
    assert!(bytes == block[..4096], "written through to the image");
}

#[test]
fn large_holes_and_long_zeros_take_no_space() {
    let Some(bench) = bench() else { return };
    let raw = new_file(&bench.path("raw"));
    raw.set_len(1 << 30).unwrap();
    raw.write_all_at(&[1; 4096], 0).unwrap();
    raw.write_all_at(&vec![0; 32 << 20], 64 << 20).unwrap();
    raw.write_all_at(&[2; 4096], (1 << 30) - 4096).unwrap();
    let out = new_file(&bench.path("out"));
    convert(&FileDisk::new(raw).unwrap(), &out);
    out.sync_all().unwrap();
    assert_eq!(out.metadata().unwrap().len(), 1 << 30);
    assert!(extents::allocated(&out).unwrap() <= 1 << 20);
    let data: Vec<_> = extents::data_ranges(&out)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        (data.len(), data[0].start, data[1].end),
        (2, 0, 1 << 30),
        "{data:?}"
    );
}

#[test]
fn a_fragmented_raw_image_is_laid_out_anew_in_few_extents() {
    let Some(bench) = bench() else { return };
    laid_out_anew(&bench);
}

/// What the image holds in many extents is copied there, not shared.
#[test]
fn a_fragmented_raw_image_is_laid_out_anew_where_extents_are_shared() {
    let Some(bench) = xfs_bench() else { return };
    laid_out_anew(&bench);
}

/// 4 KiB of data and 4 KiB of hole in turn: cloning such a file costs thousands of extents.
fn laid_out_anew(bench: &Bench) {
    let raw = new_file(&bench.path("raw"));
    raw.set_len(32 << 20).unwrap();
    let mut noise = Noise(3);
    for offset in (0..4096u64).rev().map(|index| index * 8192) {
        let block: Vec<u8> = (0..4096).map(|_| noise.byte()).collect();
        raw.write_all_at(&block, offset).unwrap();
    }
    let Some(before) = extents::count(&raw).unwrap() else {
        println!("skipped: needs FIEMAP");
        return;
    };
    assert!(before > 1000, "the source has only {before} extents");
    let out = new_file(&bench.path("out"));
    let image = Image::open(raw, Format::Raw).unwrap();
    assert_eq!(convert(&image, &out), 16 << 20);
    let after = extents::count(&out).unwrap().unwrap();
    assert!(after <= 8, "{after} extents");
    let same =
        std::fs::read(bench.path("raw")).unwrap() == std::fs::read(bench.path("out")).unwrap();
    assert!(same);
}

/// Pieces far apart, as a sparse raw image has them: gaps up to eight times the data are closed.
#[test]
fn a_sparse_raw_image_has_a_raw_form_of_few_extents() {
    let Some(bench) = xfs_bench() else { return };
    let raw = new_file(&bench.path("raw"));
    raw.set_len(64 << 20).unwrap();
    for offset in (0..64 << 20).step_by(128 << 10) {
        raw.write_all_at(&[7; 16 << 10], offset).unwrap();
    }
    let out = new_file(&bench.path("out"));
    let image = Image::open(raw, Format::Raw).unwrap();
    assert_eq!(convert(&image, &out), 8 << 20);
    let after = extents::count(&out).unwrap().unwrap();
    assert!(after <= 8, "{after} extents");
}

/// Little data in many places: closing all gaps would take many times the space.
#[test]
fn closing_gaps_never_takes_much_more_than_twice_the_space() {
    let Some(bench) = bench() else { return };
    let raw = new_file(&bench.path("raw"));
    raw.set_len(256 << 20).unwrap();
    for offset in (0..256 << 20).step_by(512 << 10) {
        raw.write_all_at(&[7; 4096], offset).unwrap();
    }
    let out = new_file(&bench.path("out"));
    convert(&FileDisk::new(raw).unwrap(), &out);
    out.sync_all().unwrap();
    let taken = extents::allocated(&out).unwrap();
    println!("{taken} bytes for {} of data", 512 * 4096);
    assert!(taken <= 64 << 20, "{taken}");
}

#[test]
fn a_damaged_image_fails_and_a_cancelled_one_stops() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 40 << 20);
    let path = bench.qcow2("raw", "image", &[]);
    let out = new_file(&bench.path("out"));
    let image = open(&path).unwrap();
    let asked = AtomicU32::new(0);
    let cancelled = || asked.fetch_add(1, Ordering::Relaxed) > 3;
    let error = to_raw(&image, &out, &mut |_| {}, &cancelled).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    let size = std::fs::metadata(&path).unwrap().len();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size - (1 << 20))
        .unwrap();
    let error = to_raw(&open(&path).unwrap(), &out, &mut |_| {}, &|| false).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn sparse_copies_keep_data_holes_and_length() {
    let Some(bench) = bench() else { return };
    for size in [0, 1, 4095, 512 << 10, (9 << 20) + 7] {
        let source = File::open(bench.raw("raw", size)).unwrap();
        let target = new_file(&bench.path("copy"));
        target.write_all_at(&[9; 10_000], 200_000).unwrap();
        let mut told = 0;
        let copied = extents::copy_sparse(&source, &target, &mut |bytes| {
            told = bytes;
            true
        });
        assert_eq!(copied.unwrap(), told);
        let read = |name| std::fs::read(bench.path(name)).unwrap();
        assert!(read("raw") == read("copy"), "{size}");
        let holes = |file: &File| {
            extents::data_ranges(file)
                .unwrap()
                .map(Result::unwrap)
                .collect::<Vec<_>>()
        };
        assert_eq!(holes(&source), holes(&target), "{size}");
        assert!(
            extents::allocated(&target).unwrap() <= extents::allocated(&source).unwrap() + 8192
        );
    }
}

#[test]
fn a_clone_is_a_clone_or_nothing() {
    let Some(bench) = bench() else { return };
    let source = File::open(bench.raw("raw", 1 << 20)).unwrap();
    let target = new_file(&bench.path("clone"));
    let cloned = extents::reflink(&source, &target).unwrap();
    println!("cloned: {cloned}");
    assert_eq!(
        target.metadata().unwrap().len(),
        if cloned { 1 << 20 } else { 0 }
    );
}

#[test]
fn holes_are_punched_and_space_is_given() {
    let Some(bench) = bench() else { return };
    let file = new_file(&bench.path("file"));
    if !extents::preallocate(&file, 0..8 << 20).unwrap() {
        println!("skipped: needs fallocate");
        return;
    }
    assert_eq!(file.metadata().unwrap().len(), 8 << 20);
    assert!(extents::allocated(&file).unwrap() >= 8 << 20);
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    assert!(extents::punch_hole(&file, 65_536..8 << 20).unwrap());
    assert_eq!(file.metadata().unwrap().len(), 8 << 20);
    assert!(extents::allocated(&file).unwrap() <= 128 << 10);
    let mut byte = [9];
    file.read_exact_at(&mut byte, 65_536).unwrap();
    assert_eq!(byte, [0]);
}
