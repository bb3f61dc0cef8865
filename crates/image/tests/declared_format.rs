//! Formats, rows 44 to 46 of the list of faults: a declared format is kept, and a format is
//! detected only once.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print"
)]

mod oracle;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use image::convert::to_raw;
use image::{Error, Format, Image, extents};
use oracle::{bench, read_all};
use probe::{Content, Disk as _};

fn file_of(bytes: &[u8], len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(len).unwrap();
    file
}

#[test]
fn row_44_a_declared_raw_image_stays_raw_whatever_its_bytes() {
    let mut iso = vec![0; 40 << 10];
    iso[32_769..32_774].copy_from_slice(b"CD001");
    for bytes in [
        &b"QFI\xfb\0\0\0\x03/etc/shadow"[..],
        b"KDMV",
        b"vhdxfile",
        b"QED\0",
        b"conectix",
        &iso,
        b"# Disk DescriptorFile\nversion=1\n",
    ] {
        let image = Image::open(file_of(bytes, 1 << 20), Format::Raw).unwrap();
        assert_eq!((image.format(), image.size()), (Format::Raw, 1 << 20));
        let mut read = vec![0; bytes.len()];
        image.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, bytes);
        // Its raw form is itself, not what a header in it says.
        let out = tempfile::tempfile().unwrap();
        to_raw(&image, &out, &mut |_| {}, &|| false).unwrap();
        out.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(
            (read.as_slice(), out.metadata().unwrap().len()),
            (bytes, 1 << 20)
        );
    }
}

#[test]
fn row_44_a_format_is_told_by_its_first_bytes_once() {
    for (bytes, format) in [
        (&b"QFI\xfb\0\0\0\x03"[..], Format::Qcow2),
        // Which versions are read is the reader's to say.
        (b"QFI\xfb\0\0\0\x01", Format::Qcow2),
        (b"", Format::Raw),
        (b"QFI", Format::Raw),
        (b"plain bytes", Format::Raw),
        (b"LUKS\xba\xbe", Format::Raw),
    ] {
        assert_eq!(
            Format::detect(&file_of(bytes, 1 << 16)).unwrap(),
            format,
            "{bytes:?}"
        );
    }
    for size in [0, 1, 3, 511] {
        assert_eq!(Format::detect(&file_of(b"", size)).unwrap(), Format::Raw);
    }
}

#[test]
fn row_45_foreign_formats_are_refused_by_name() {
    let descriptor = b"# Disk DescriptorFile\nversion=1\nRW 2048 FLAT \"/etc/shadow\" 0\n";
    let mut vdi = vec![0; 512];
    vdi[0x40..0x44].copy_from_slice(&0xbeda_107fu32.to_le_bytes());
    for (bytes, name) in [
        (&descriptor[..], "VMDK"),
        (
            b"\n# a comment\n\nversion = 1\ncreateType=\"monolithicFlat\"\n",
            "VMDK",
        ),
        (b"# disk descriptorfile\r\nversion=1\r\n", "VMDK"),
        (b"KDMV\x01\0\0\0", "VMDK"),
        (b"COWD", "VMDK"),
        (b"vhdxfile", "VHDX"),
        (b"conectix", "VHD"),
        (b"QED\0", "QED"),
        (&vdi, "VDI"),
        (b"WithoutFreeSpace", "Parallels"),
        (b"\x1f\x8b\x08\0", "gzip"),
    ] {
        let error = Format::detect(&file_of(bytes, 1 << 20)).unwrap_err();
        assert!(matches!(error, Error::ForeignFormat { .. }));
        assert!(error.to_string().contains(name), "{error}");
    }
    // A fixed VHD is raw but for its last sector.
    let vhd = file_of(b"", 1 << 20);
    vhd.write_all_at(b"conectix", (1 << 20) - 512).unwrap();
    assert!(matches!(
        Format::detect(&vhd),
        Err(Error::ForeignFormat { .. })
    ));
}

#[test]
fn row_45_what_qemu_writes_in_other_formats_is_refused() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 4 << 20);
    for (format, options) in [
        ("vmdk", &[][..]),
        ("vmdk", &["-o", "subformat=monolithicFlat"]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
        ("vhdx", &[]),
        ("vpc", &[]),
        ("vpc", &["-o", "subformat=fixed"]),
        ("qed", &[]),
        ("vdi", &[]),
        ("parallels", &[]),
    ] {
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        args.extend(options);
        args.extend(["raw", "other"]);
        if !bench.try_run("qemu-img", &args).status.success() {
            println!("skipped: qemu-img without {format}");
            continue;
        }
        let detected = Format::detect(&File::open(bench.path("other")).unwrap());
        assert!(
            matches!(detected, Err(Error::ForeignFormat { .. })),
            "{format} {options:?}"
        );
    }
}

#[test]
fn row_46_a_sparse_image_of_1_tib_stays_sparse_and_fast() {
    let dir = tempfile::tempdir().unwrap();
    let create = |name: &str| {
        let path = dir.path().join(name);
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap()
    };
    let file = create("raw");
    if file.set_len(1 << 40).is_err() {
        println!("skipped: needs files of 1 TiB");
        return;
    }
    for index in 0..16u8 {
        let offset = u64::from(index) * (63 << 30) + (1 << 30);
        file.write_all_at(&vec![index + 1; 64 << 10], offset)
            .unwrap();
    }
    let before = bytes_read();
    let open = |name: &str| File::open(dir.path().join(name)).unwrap();
    let image = Image::open(open("raw"), Format::Raw).unwrap();
    assert_eq!(probe::probe(&image).unwrap(), Content::Unknown);
    // The raw form, a copy, a qcow2 image of it, and the raw form of that.
    let form = create("form");
    assert_eq!(
        to_raw(&image, &form, &mut |_| {}, &|| false).unwrap(),
        1 << 20
    );
    let copy = create("copy");
    assert_eq!(
        extents::copy_sparse(&file, &copy, &mut |_| true).unwrap(),
        1 << 20
    );
    let mut packed = create("qcow2");
    image::qcow2::create(&image, &mut packed, &image::qcow2::CreateOptions::default()).unwrap();
    let again = Image::open(open("qcow2"), Format::Qcow2).unwrap();
    let unpacked = create("unpacked");
    to_raw(&again, &unpacked, &mut |_| {}, &|| false).unwrap();
    let read = bytes_read() - before;
    assert!(read < 1 << 30, "{read} bytes were read");
    for made in [&form, &copy, &unpacked] {
        made.sync_all().unwrap();
        assert_eq!(made.metadata().unwrap().len(), 1 << 40);
        assert!(extents::allocated(made).unwrap() <= 2 << 20);
        for index in 0..16u8 {
            let mut block = vec![0; 64 << 10];
            made.read_exact_at(&mut block, u64::from(index) * (63 << 30) + (1 << 30))
                .unwrap();
            assert!(block.iter().all(|byte| *byte == index + 1));
        }
    }
}

/// Bytes that this thread has read so far (`rchar` of proc_pid_io(5)).
fn bytes_read() -> u64 {
    let counters = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let read = counters
        .lines()
        .find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

#[test]
fn names_of_formats_are_read_back() {
    for format in [Format::Raw, Format::Qcow2] {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert!("vmdk".parse::<Format>().is_err());
    let Some(bench) = bench() else { return };
    let raw = bench.raw("raw", 1 << 20);
    let image = Image::open(File::open(&raw).unwrap(), Format::Raw).unwrap();
    assert!(read_all(&image, 4096).unwrap() == std::fs::read(raw).unwrap());
}
