//! The qcow2 reader on any bytes: it never panics, never reads past the end of the disk, and its
//! holes are zeros.
//!
//! With `FUZZ_DIFFERENTIAL` in the environment, `qemu-img convert` also reads each accepted image
//! and must produce the same bytes. This is slow: `run` does it only for the corpus.

#![no_main]

use std::fs::File;
use std::io::Write as _;
use std::process::Command;

use image::{Format, Image, Limits};
use libfuzzer_sys::fuzz_target;
use probe::Disk as _;
use types::ByteSize;

/// Larger disks are refused by the limit: they would only be slow.
const SIZE_MAX: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some(read) = read(data) else { return };
    // zstd's versions disagree on what a broken frame means: there is nothing to compare.
    let is_zstd = data.get(104) == Some(&1);
    if std::env::var_os("FUZZ_DIFFERENTIAL").is_some() && !is_zstd {
        compare(data, &read);
    }
});

/// The whole disk, when it can be read.
fn read(data: &[u8]) -> Option<Vec<u8>> {
    let memory = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = File::from(memory.expect("memory for a small file"));
    file.write_all(data).expect("memory for a small file");
    let limits = Limits { virtual_size_max: ByteSize(SIZE_MAX) };
    let image = Image::open_with(file, Format::Qcow2, limits).ok()?;
    let size = usize::try_from(image.size()).expect("bounded by the limit");
    let mut whole = vec![0xaa; size];
    let is_whole = image.read_exact_at(&mut whole, 0).is_ok();
    // The same by pieces and by ranges: not an error, not a byte may be different.
    let mut pieces = vec![0x55; size];
    let mut offset = 0;
    let mut are_whole = true;
    for piece in pieces.chunks_mut(5 * 512) {
        are_whole &= image.read_exact_at(piece, offset).is_ok();
        offset += piece.len() as u64;
    }
    assert_eq!(is_whole, are_whole, "an error came and went");
    let (mut ranges, mut offset) = (vec![0; size], 0);
    while let Ok(Some(range)) = image.next_data(offset) {
        assert!(range.start >= offset && range.start < range.end && range.end <= image.size());
        let place = range.start as usize..range.end as usize;
        if image.read_exact_at(&mut ranges[place], range.start).is_err() {
            break;
        }
        offset = range.end;
    }
    if !is_whole {
        return None;
    }
    assert!(whole == pieces && whole == ranges, "three ways to read, and different bytes");
    Some(whole)
}

/// Holds `ours` against `qemu-img convert`, with an explicit format.
fn compare(data: &[u8], ours: &[u8]) {
    let name = |kind| std::env::temp_dir().join(format!("fuzz-{}-{kind}", std::process::id()));
    let (input, output) = (name("in"), name("out"));
    let mut file = File::create(&input).expect("a temporary file");
    file.write_all(data).expect("a temporary file");
    let status = Command::new("qemu-img")
        .args(["convert", "-q", "-f", "qcow2", "-O", "raw"])
        .args([&input, &output])
        .status()
        .expect("qemu-img, which the differential run needs");
    let theirs = status.success().then(|| std::fs::read(&output).expect("what qemu-img made"));
    for path in [&input, &output] {
        let _ = std::fs::remove_file(path);
    }
    // What QEMU refuses for a table that we do not need (reference counts) is no disagreement.
    if let Some(theirs) = theirs {
        assert!(theirs == ours, "qemu-img makes other bytes of it");
    }
}
