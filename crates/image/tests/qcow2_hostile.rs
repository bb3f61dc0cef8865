//! Hostile and damaged qcow2 images, rows 33 to 43 of the list of faults: they are refused, or read
//! as QEMU reads them, and nothing else is ever opened.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print"
)]

mod oracle;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use image::convert::to_raw;
use image::{Error, Format, Image, Limits, Refusal};
use oracle::{Bench, Noise, bench, open, read_all};
use probe::Disk as _;
use types::{ByteSize, Classify as _, ErrorKind};

/// A small image of 64 KiB clusters whose tables are where `qemu-img` puts them.
fn sample(bench: &Bench, options: &[&str]) -> Vec<u8> {
    bench.raw("raw", 1 << 20);
    std::fs::read(bench.qcow2("raw", "image", options)).unwrap()
}

/// Opens the image with `changes` written over it.
fn open_changed(bench: &Bench, bytes: &[u8], changes: &[(u64, &[u8])]) -> image::Result<Image> {
    let path = bench.path("changed");
    std::fs::remove_file(&path).ok();
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all_at(bytes, 0).unwrap();
    for (offset, change) in changes {
        file.write_all_at(change, *offset).unwrap();
    }
    open(&path)
}

fn refusal(result: image::Result<Image>) -> Refusal {
    match result.map(|_| ()) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused but {other:?}"),
    }
}

#[track_caller]
fn assert_damaged(result: image::Result<Image>) {
    match result.map(|_| ()) {
        Err(error @ Error::Damaged { .. }) => assert_eq!(error.kind(), ErrorKind::DataLoss),
        other => panic!("not damaged but {other:?}"),
    }
}

/// The image opens, and reading it says that it is damaged.
#[track_caller]
fn assert_read_fails(image: &Image) {
    let error = read_all(image, 65_536).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

/// Appends a header extension where `qemu-img` has put its own first one.
fn with_extension(bytes: &[u8], kind: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut extension = kind.to_be_bytes().to_vec();
    extension.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    extension.extend(body);
    extension.resize(extension.len().next_multiple_of(8) + 8, 0);
    bytes[112..112 + extension.len()].copy_from_slice(&extension);
    bytes
}

#[test]
fn row_33_a_backing_file_is_refused_and_never_opened() {
    let Some(bench) = bench() else { return };
    let bytes = sample(&bench, &[]);
    let fifo = bench.path("fifo");
    bench.run("mkfifo", &["fifo"]);
    let fifo = fifo.to_str().unwrap();
    let json = format!("json:{{\"driver\":\"raw\",\"file\":{{\"filename\":\"{fifo}\"}}}}");
    for name in [
        "/etc/shadow",
        "relative",
        "/absent",
        "nbd://localhost/x",
        fifo,
        &json,
    ] {
        let len = u32::try_from(name.len()).unwrap();
        let changes: &[(u64, &[u8])] = &[
            (8, &4096u64.to_be_bytes()),
            (16, &len.to_be_bytes()),
            (4096, name.as_bytes()),
        ];
        // Opening the pipe would wait for a writer for ever.
        let refused = refusal(open_changed(&bench, &bytes, changes));
        assert_eq!(refused, Refusal::BackingFile, "{name}");
    }
    // Also without a name, without an offset, and in a qcow2 file as QEMU itself makes it.
    for change in [(8, &4096u64.to_be_bytes()[..]), (16, &4u32.to_be_bytes())] {
        assert_eq!(
            refusal(open_changed(&bench, &bytes, &[change])),
            Refusal::BackingFile
        );
    }
    let create = [
        "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "raw", "overlay",
    ];
    bench.run("qemu-img", &create);
    assert_eq!(refusal(open(&bench.path("overlay"))), Refusal::BackingFile);
    let create = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "gone", "overlay", "1M",
    ];
    bench.run("qemu-img", &create);
    assert_eq!(refusal(open(&bench.path("overlay"))), Refusal::BackingFile);
}

#[test]
fn row_34_an_external_data_file_is_refused() {
    let Some(bench) = bench() else { return };
    let options = "data_file=data,data_file_raw=on";
    bench.run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", options, "image", "1M"],
    );
    assert_eq!(refusal(open(&bench.path("image"))), Refusal::DataFile);
    // The feature alone, and the name alone.
    let bytes = sample(&bench, &[]);
    let bit: &[(u64, &[u8])] = &[(72, &4u64.to_be_bytes())];
    assert_eq!(
        refusal(open_changed(&bench, &bytes, bit)),
        Refusal::DataFile
    );
    let named = with_extension(&bytes, 0x4441_5441, b"/etc/shadow");
    assert_eq!(
        refusal(open_changed(&bench, &named, &[])),
        Refusal::DataFile
    );
}

#[test]
fn row_35_a_json_data_file_is_refused() {
    let Some(bench) = bench() else { return };
    let bytes = sample(&bench, &[]);
    let name = br#"json:{"driver":"null-co","read-zeroes":true}"#;
    let named = with_extension(&bytes, 0x4441_5441, name);
    for changes in [&[][..], &[(72, &4u64.to_be_bytes()[..])]] {
        let error = open_changed(&bench, &named, changes).unwrap_err();
        assert!(
            matches!(error, Error::Refused(Refusal::DataFile)),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn row_36_unknown_features_are_refused_and_dirty_images_are_read() {
    let Some(bench) = bench() else { return };
    let bytes = sample(&bench, &[]);
    let features = |bits: u64| open_changed(&bench, &bytes, &[(72, &bits.to_be_bytes())]);
    for bit in 5..64 {
        let refused = refusal(features(1 << bit));
        let Refusal::UnknownFeatures { bits, .. } = refused else {
            panic!("{bit}: {refused:?}")
        };
        assert_eq!(bits, 1 << bit);
    }
    assert_eq!(refusal(features(2)), Refusal::Corrupt);
    // Dirty: only reference counts are in doubt, and a reader needs none.
    let dirty = features(1).unwrap();
    assert!(read_all(&dirty, 65_536).unwrap() == std::fs::read(bench.path("raw")).unwrap());
    // Without the bit of compression types zlib is what it is.
    assert_damaged(features(8));
    for version in [0, 1, 4, u32::MAX] {
        let changed = open_changed(&bench, &bytes, &[(4, &version.to_be_bytes())]);
        assert_eq!(refusal(changed), Refusal::Version(version));
    }
    assert_eq!(
        refusal(open_changed(&bench, &bytes, &[(104, &[9])])),
        Refusal::Compression(9)
    );
    assert_damaged(open_changed(&bench, &bytes, &[(104, &[1])]));
    // The image's own name for a feature is in the message, whatever bytes it is made of.
    let mut entry = vec![0u8, 40];
    entry.extend(b"evil\n\x1b[31mfeature");
    entry.resize(48, 0);
    let named = with_extension(&bytes, 0x6803_f857, &entry);
    let changes: &[(u64, &[u8])] = &[(72, &(1u64 << 40).to_be_bytes())];
    let error = open_changed(&bench, &named, changes)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(r"evil\n\x1b[31mfeature") && !error.contains('\n'),
        "{error}"
    );
}

#[test]
fn row_36_extended_l2_reads_as_qemu_reads_it() {
    let Some(bench) = bench() else { return };
    sample(&bench, &["-o", "extended_l2=on,cluster_size=64k"]);
    for write in [
        "write -P 9 66048 4096",
        "write -z 131072 4096",
        "discard 262144 2048",
    ] {
        bench.run("qemu-io", &["-f", "qcow2", "-c", write, "image"]);
    }
    let expected = bench.converted("image").unwrap();
    assert!(read_all(&open(&bench.path("image")).unwrap(), 4096).unwrap() == expected);
    // Bitmaps that say two things at once.
    let bytes = std::fs::read(bench.path("image")).unwrap();
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l2 = word(usize::try_from(word(40)).unwrap()) & 0x00ff_ffff_ffff_fe00;
    let image = open_changed(&bench, &bytes, &[(l2 + 8, &[0xff; 8])]).unwrap();
    assert_read_fails(&image);
}

#[test]
fn row_37_impossible_geometry_is_refused() {
    let Some(bench) = bench() else { return };
    let bytes = sample(&bench, &[]);
    for bits in [0u32, 8, 22, 31, 32, 63, 64, u32::MAX] {
        assert_damaged(open_changed(&bench, &bytes, &[(20, &bits.to_be_bytes())]));
    }
    for length in [0u32, 72, 103, 105, 65_544, u32::MAX] {
        assert_damaged(open_changed(
            &bench,
            &bytes,
            &[(100, &length.to_be_bytes())],
        ));
    }
    for order in [7u32, 64, u32::MAX] {
        assert_damaged(open_changed(&bench, &bytes, &[(96, &order.to_be_bytes())]));
    }
    // Subclusters want clusters of 16 KiB at least.
    let small = sample(&bench, &["-o", "cluster_size=4k"]);
    assert_damaged(open_changed(&bench, &small, &[(72, &16u64.to_be_bytes())]));
}

#[test]
fn row_38_impossible_virtual_sizes_are_refused_before_any_allocation() {
    let Some(bench) = bench() else { return };
    let bytes = sample(&bench, &[]);
    let sized = |size: u64| open_changed(&bench, &bytes, &[(24, &size.to_be_bytes())]);
    for size in [0, 1, 511, 513, (1 << 20) + 256] {
        assert_damaged(sized(size));
    }
    for size in [1 << 47, 1 << 63, u64::MAX - 511] {
        let error = sized(size).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{size}: {error}");
        assert_eq!(error.kind(), ErrorKind::OutOfRange);
    }
    // Within the limit, but the L1 table has no room for it.
    assert_damaged(sized(1 << 40));
    // The limit is the caller's.
    let file = || File::open(bench.path("image")).unwrap();
    let limit = |max| Limits {
        virtual_size_max: ByteSize(max),
    };
    for format in [Format::Qcow2, Format::Raw] {
        assert!(
            Image::open_with(file(), format, limit(4096)).is_err(),
            "{format}"
        );
        assert!(
            Image::open_with(file(), format, limit(1 << 30)).is_ok(),
            "{format}"
        );
    }
}

#[test]
fn row_39_an_l1_table_that_cannot_be_there_is_refused() {
    let Some(bench) = bench() else { return };
    let bytes = sample(&bench, &[]);
    let end = bytes.len() as u64;
    for offset in [
        0,
        1,
        512,
        65_537,
        end.next_multiple_of(65_536),
        1 << 40,
        1 << 63,
        u64::MAX,
    ] {
        assert_damaged(open_changed(&bench, &bytes, &[(40, &offset.to_be_bytes())]));
    }
    for entries in [0u32, 1 << 22, 1 << 29, u32::MAX] {
        assert_damaged(open_changed(
            &bench,
            &bytes,
            &[(36, &entries.to_be_bytes())],
        ));
    }
    // The refcount table is not read, and must be possible all the same.
    for offset in [0, 1, 1 << 40, u64::MAX] {
        assert_damaged(open_changed(&bench, &bytes, &[(48, &offset.to_be_bytes())]));
    }
    for clusters in [0u32, 1 << 16, u32::MAX] {
        assert_damaged(open_changed(
            &bench,
            &bytes,
            &[(56, &clusters.to_be_bytes())],
        ));
    }
}

/// The L1 table and the first L2 table of a sample.
fn tables(bytes: &[u8]) -> (u64, u64) {
    let word = |at: u64| {
        let at = usize::try_from(at).unwrap();
        u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
    };
    let l1 = word(40);
    (l1, word(l1) & 0x00ff_ffff_ffff_fe00)
}

#[test]
fn row_40_entries_that_lead_nowhere_fail_for_their_cluster_alone() {
    let Some(bench) = bench() else { return };
    let bytes = sample(&bench, &[]);
    let raw = std::fs::read(bench.path("raw")).unwrap();
    let (l1, l2) = tables(&bytes);
    let end = (bytes.len() as u64).next_multiple_of(65_536);
    // Behind the end, not a cluster's start, reserved bits.
    for entry in [
        end,
        1 << 50,
        65_536 + 512,
        1 << 56 | 65_536,
        1 << 1 | 65_536,
    ] {
        let changed = open_changed(&bench, &bytes, &[(l2, &(1 << 63 | entry).to_be_bytes())]);
        let image = changed.unwrap();
        let mut cluster = vec![0; 65_536];
        assert!(image.read_exact_at(&mut cluster, 0).is_err(), "{entry:#x}");
        image.read_exact_at(&mut cluster, 65_536).unwrap();
        assert!(cluster == raw[65_536..131_072], "{entry:#x}");
    }
    for entry in [end, 1 << 50, 65_536 + 512, 1 << 56 | 65_536, 1] {
        let changed = open_changed(&bench, &bytes, &[(l1, &(1 << 63 | entry).to_be_bytes())]);
        assert_read_fails(&changed.unwrap());
    }
    // To itself, to the L1 table, to one cluster twice: bytes like any other, QEMU's bytes.
    let data = (1 << 63) | (5 * 65_536u64);
    for changes in [
        &[(l2, (1 << 63 | l2).to_be_bytes())][..],
        &[(l2, (1 << 63 | l1).to_be_bytes())],
        &[(l2, data.to_be_bytes()), (l2 + 8, data.to_be_bytes())],
    ] {
        let changes: Vec<(u64, &[u8])> = changes.iter().map(|(at, b)| (*at, &b[..])).collect();
        let image = open_changed(&bench, &bytes, &changes).unwrap();
        assert!(read_all(&image, 65_536).unwrap() == bench.converted("changed").unwrap());
    }
    // An L1 entry to the L1 table itself: its words are no L2 entries with a place, or they are.
    let image = open_changed(&bench, &bytes, &[(l1, &(1 << 63 | l1).to_be_bytes())]).unwrap();
    let ours = read_all(&image, 65_536).ok();
    assert!(ours.is_none() || ours == bench.converted("changed"));
    // A zero cluster is unknown in version 2.
    let old = sample(&bench, &["-o", "compat=0.10"]);
    let (_, l2) = tables(&old);
    assert_read_fails(&open_changed(&bench, &old, &[(l2, &1u64.to_be_bytes())]).unwrap());
}

#[test]
fn row_41_a_broken_compressed_cluster_fails_and_nothing_is_read_past_it() {
    let Some(bench) = bench() else { return };
    for options in [&["-c"][..], &["-c", "-o", "compression_type=zstd"]] {
        let bytes = sample(&bench, options);
        let (_, l2) = tables(&bytes);
        let at = usize::try_from(l2).unwrap();
        // The second cluster of 128 KiB is text: it is compressed.
        let slot = (0..16)
            .find(|slot| bytes[at + slot * 8] & 0x40 != 0)
            .unwrap();
        let place = l2 + slot as u64 * 8;
        let entry = u64::from_be_bytes(bytes[at + slot * 8..][..8].try_into().unwrap());
        let offset = entry & ((1 << 54) - 1);
        let changed = |entry: u64| open_changed(&bench, &bytes, &[(place, &entry.to_be_bytes())]);
        // Where it ends: one sector, when it has more; where it starts: behind the end, in zeros.
        let sectors = entry >> 54 & 0xff;
        if sectors > 0 {
            assert_read_fails(&changed(1 << 62 | offset).unwrap());
        }
        assert_read_fails(&changed(1 << 62 | 1 << 53).unwrap());
        assert_read_fails(&changed(entry & !((1 << 54) - 1) | bytes.len() as u64).unwrap());
        // More sectors than there are: the bytes behind the stream are not its own.
        let image = changed(entry | 0xff << 54).unwrap();
        assert!(read_all(&image, 65_536).unwrap() == bench.converted("changed").unwrap());
        // Broken bytes: QEMU's data or an error. Deflate is exact about what a broken stream means;
        // zstd is not (its versions differ, and the frames carry no checksum), so there the damage
        // must stay in its cluster.
        let start = usize::try_from(offset).unwrap();
        let (is_zstd, cluster) = (options.len() > 1, slot * 65_536..(slot + 1) * 65_536);
        for step in 0..24 {
            let mut broken = bytes.clone();
            broken[start + step * 5] ^= 0x5a;
            let image = open_changed(&bench, &broken, &[]).unwrap();
            let Ok(ours) = read_all(&image, 65_536) else {
                continue;
            };
            let mut theirs = bench.converted("changed");
            if is_zstd && let Some(theirs) = &mut theirs {
                theirs[cluster.clone()].copy_from_slice(&ours[cluster.clone()]);
            }
            assert!(
                is_zstd || theirs.is_some(),
                "byte {step}: refused by qemu-img"
            );
            assert!(
                theirs.is_none_or(|theirs| theirs == ours),
                "{options:?} byte {step}"
            );
        }
    }
}

/// One cluster, claimed by every cluster of a disk of 4 TiB: it must not fill the disk it lands on.
#[test]
fn row_40_one_cluster_for_a_whole_disk_is_refused_before_it_fills_ours() {
    let Some(bench) = bench() else { return };
    let size = 2 << 20;
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=2M",
        "image",
        "4T",
    ];
    bench.run("qemu-img", &create);
    let bytes = std::fs::read(bench.path("image")).unwrap();
    let (l1, _) = tables(&bytes);
    let end = (bytes.len() as u64).next_multiple_of(size);
    let table = (1u64 << 63 | (end + size)).to_be_bytes().repeat(1 << 18);
    let l1_table = (1u64 << 63 | end).to_be_bytes().repeat(8);
    let changes: &[(u64, &[u8])] = &[
        (l1, &l1_table),
        (end, &table),
        (end + size, &vec![7; 2 << 20]),
    ];
    let image = open_changed(&bench, &bytes, changes).unwrap();
    let out = File::create(bench.path("out")).unwrap();
    let error = to_raw(&image, &out, &mut |_| {}, &|| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert_eq!(out.metadata().unwrap().len(), 0);
}

#[test]
fn row_41_a_bomb_is_bounded_by_its_cluster() {
    let Some(bench) = bench() else { return };
    let bytes = sample(&bench, &["-c", "-o", "compression_type=zstd"]);
    let (_, l2) = tables(&bytes);
    // A zstd frame of 1 GiB of zeros, as run-length blocks of 128 KiB: 4 bytes each.
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40];
    for index in 0..8192u32 {
        let is_last = u32::from(index == 8191);
        bomb.extend(&((128 << 10) << 3 | 1 << 1 | is_last).to_le_bytes()[..3]);
        bomb.push(0);
    }
    let at = (bytes.len() as u64).next_multiple_of(65_536);
    let entry = 1 << 62 | 0xff << 54 | at;
    let changes: &[(u64, &[u8])] = &[(l2, &u64::to_be_bytes(entry)), (at, &bomb)];
    assert_read_fails(&open_changed(&bench, &bytes, changes).unwrap());
}

#[test]
fn row_42_snapshots_and_bitmaps_are_ignored_and_encryption_is_refused() {
    let Some(bench) = bench() else { return };
    sample(&bench, &[]);
    bench.run("qemu-img", &["snapshot", "-c", "before", "image"]);
    bench.run(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 5 0 65536", "image"],
    );
    bench.run(
        "qemu-img",
        &["bitmap", "--add", "-f", "qcow2", "image", "dirty-bits"],
    );
    let expected = bench.converted("image").unwrap();
    let image = open(&bench.path("image")).unwrap();
    let ours = read_all(&image, 65_536).unwrap();
    assert!(ours == expected && ours[..65_536].iter().all(|byte| *byte == 5));
    let bytes = std::fs::read(bench.path("image")).unwrap();
    for (at, value) in [(60, 65_537u32), (60, u32::MAX), (68, 512)] {
        // A table that cannot be; the last is an offset that is no cluster's start.
        assert_damaged(open_changed(&bench, &bytes, &[(at, &value.to_be_bytes())]));
    }
    for method in [1u32, 2, 3] {
        let changed = open_changed(&bench, &bytes, &[(32, &method.to_be_bytes())]);
        assert_eq!(refusal(changed), Refusal::Encrypted);
    }
    let plain = sample(&bench, &[]);
    let named = with_extension(&plain, 0x0537_be77, &[0; 16]);
    assert_eq!(
        refusal(open_changed(&bench, &named, &[])),
        Refusal::Encrypted
    );
}

/// The differential check: the bytes of `qemu-img convert`, or an error. `true` when they were read.
fn same_or_refused(bench: &Bench, what: &str) -> bool {
    let Ok(image) = open(&bench.path("changed")) else {
        return false;
    };
    if image.size() > 64 << 20 {
        return false;
    }
    let Ok(ours) = read_all(&image, 1 << 20) else {
        return false;
    };
    let Some(theirs) = bench.converted("changed") else {
        panic!("{what}: read here and refused by qemu-img");
    };
    assert!(ours == theirs, "{what}: other bytes than qemu-img's");
    true
}

#[test]
fn row_43_a_truncated_image_is_read_as_qemu_reads_it_or_refused() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 96 << 10);
    // Small clusters, so that 64 KiB hold every kind of table.
    for options in [
        &["-o", "cluster_size=4k"][..],
        &["-c", "-o", "cluster_size=4k"],
    ] {
        let bytes = std::fs::read(bench.qcow2("raw", "image", options)).unwrap();
        let whole = std::fs::read(bench.path("raw")).unwrap();
        let path = bench.path("changed");
        std::fs::copy(bench.path("image"), &path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for len in (0..=bytes.len().min(64 << 10) as u64).rev() {
            file.set_len(len).unwrap();
            let read = open(&path)
                .ok()
                .and_then(|image| read_all(&image, 1 << 20).ok());
            // Whatever can still be read is what was there: the end of the last compressed sector is
            // no loss.
            assert!(
                read.is_none_or(|ours| ours == whole),
                "{options:?} cut to {len}"
            );
            if len % 4096 == 0 {
                same_or_refused(&bench, &format!("{options:?} cut to {len}"));
            }
        }
    }
}

#[test]
fn row_43_random_mutations_are_read_as_qemu_reads_them_or_refused() {
    let Some(bench) = bench() else { return };
    bench.raw("raw", 512 << 10);
    let mut noise = Noise(0x5eed);
    let (mut read, mut refused) = (0, 0);
    for options in [
        &["-o", "cluster_size=4k"][..],
        &["-c", "-o", "cluster_size=4k"],
        &["-o", "extended_l2=on,cluster_size=16k"],
    ] {
        let bytes = std::fs::read(bench.qcow2("raw", "image", options)).unwrap();
        for round in 0..60 {
            let mut mutant = bytes.clone();
            for _ in 0..=noise.next() % 3 {
                // Mostly in the header and in what the tables say, where a bit decides.
                let end = [112, 20 << 10, mutant.len()][usize::try_from(noise.next() % 3).unwrap()];
                let mut at = usize::try_from(noise.next()).unwrap() % end.min(mutant.len());
                while mutant[at] == 0 && !noise.next().is_multiple_of(16) {
                    at = usize::try_from(noise.next()).unwrap() % end.min(mutant.len());
                }
                match noise.next() % 3 {
                    0 => mutant[at] ^= 1 << (noise.next() % 8),
                    1 => mutant[at] = noise.byte(),
                    _ => mutant[at] = [0, 1, 0x7f, 0x80, 0xff][usize::from(noise.byte() % 5)],
                }
            }
            std::fs::remove_file(bench.path("changed")).ok();
            let mut file = File::create(bench.path("changed")).unwrap();
            io::Write::write_all(&mut file, &mutant).unwrap();
            if same_or_refused(&bench, &format!("{options:?} round {round}")) {
                read += 1;
            } else {
                refused += 1;
            }
        }
    }
    println!("{read} mutants read alike, {refused} refused");
    assert!(
        read > 20 && refused > 20,
        "the mutations are of no use: {read}, {refused}"
    );
}
