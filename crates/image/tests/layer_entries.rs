//! Names, kinds and maps that attack: rows 16, 17 and 18 of the faults.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod layers;

use std::process::Command;

use image::layer::Error;
use layers::{Entry, dir, file, header, input, padded, pax, seal, search, search_plain, tar};

#[test]
fn row_16_a_path_that_climbs_is_refused() {
    for path in [
        "../../etc/passwd",
        "base_image/../../etc/passwd",
        "x/../base_image/a",
        "..",
        "base_image/..",
        "/../etc/passwd",
        "./../x",
    ] {
        let (result, kept) = search_plain(&[&[file("base_image/a", b"x"), file(path, b"evil")]]);
        assert!(
            matches!(result, Err(Error::Traversal { .. })),
            "{path}: {result:?}"
        );
        assert_eq!(kept.bytes, b"x");
    }
}

#[test]
fn row_16_only_the_exact_name_counts() {
    let long = format!("{}/base_image/a", "x".repeat(5000));
    let others: [Entry<'_>; 8] = [
        file("etc/passwd", b"evil"),
        file("/etc/passwd", b"evil"),
        (b"base_image\\a", b'0', b"evil"),
        (b"\xff\xfe/base_image", b'0', b"evil"),
        (b"Base_Image/a", b'0', b"evil"),
        (b"base_image ", b'0', b"evil"),
        file(&long, b"evil"),
        file("sub/base_image/a", b"evil"),
    ];
    let mut entries = others.to_vec();
    entries.push(file("base_image/a", b"good"));
    let (found, kept) = search_plain(&[&entries]);
    assert_eq!(found.unwrap().name, "a");
    assert_eq!(kept.bytes, b"good");
    let (nothing, _) = search_plain(&[&others]);
    assert!(matches!(nothing, Err(Error::Nothing)));
    // A NUL ends a name in a header, and is no part of a name in a PAX record.
    let nul = [
        pax(&[("path", b"base_image\0/a")]),
        header(b"x", b'0', b"", 4),
        padded(b"evil"),
    ]
    .concat();
    assert!(matches!(search(vec![input(nul)]).0, Err(Error::Nothing)));
}

#[test]
fn row_16_a_name_that_is_no_file_name_is_refused() {
    let long = format!("base_image/{}", "x".repeat(4200));
    let nul = pax(&[("path", b"base_image/a\0b")]);
    let with_nul = [nul, header(b"x", b'0', b"", 0)].concat();
    for layer in [
        tar(&[file(&long, b"x")]),
        tar(&[(b"base_image/\xff\xfe", b'0', b"x")]),
        tar(&[(b"base_image/a\nb", b'0', b"x")]),
        with_nul,
    ] {
        let (result, kept) = search(vec![input(layer)]);
        assert!(matches!(result, Err(Error::Name { .. })), "{result:?}");
        assert!(kept.path.is_empty());
    }
}

#[test]
fn row_17_links_in_place_of_the_image_are_refused() {
    let links: [(&[Entry<'_>], &str); 6] = [
        (&[(b"base_image", b'2', b"/etc")], "symbolic link"),
        (&[(b"base_image/a", b'2', b"/etc/shadow")], "symbolic link"),
        (&[(b"base_image/a", b'1', b"etc/shadow")], "hard link"),
        (
            &[dir("base_image/"), (b"base_image/a", b'1', b"base_image/b")],
            "hard link",
        ),
        (&[(b"disk", b'2', b"/etc")], "symbolic link"),
        (&[(b"disk/a", b'1', b"etc/shadow")], "hard link"),
    ];
    for (entries, expected) in links {
        let (result, kept) = search_plain(&[entries]);
        match result {
            Err(Error::NotRegular { kind, .. }) => assert_eq!(kind, expected),
            other => panic!("{entries:?}: {other:?}"),
        }
        assert!(kept.path.is_empty());
    }
    // A link below a directory is hidden by it, and so is all below the link.
    let (found, _) = search_plain(&[
        &[file("base_image/a", b"x")],
        &[(b"base_image", b'2', b"/etc")],
        &[file("base_image/b", b"y")],
    ]);
    assert_eq!(found.unwrap().name, "a");
}

#[test]
fn row_18_devices_and_fifos_are_refused_and_modes_are_not_kept() {
    for (flag, expected) in [
        (b'3', "character device"),
        (b'4', "block device"),
        (b'6', "fifo"),
    ] {
        let (result, _) = search_plain(&[&[(b"base_image/a", flag, b"")]]);
        assert!(matches!(result, Err(Error::NotRegular { kind, .. }) if kind == expected));
    }
    let mut setuid: [u8; 512] = header(b"base_image/a", b'0', b"", 4)[..]
        .try_into()
        .unwrap();
    setuid[100..107].copy_from_slice(b"0004755");
    seal(&mut setuid);
    let (found, kept) = search(vec![input([&setuid[..], &padded(b"data")].concat())]);
    assert!(found.is_ok());
    assert_eq!(kept.bytes, b"data");
}

/// A header of GNU's old sparse form.
fn gnu_sparse(pieces: &[(u64, u64)], real: u64, stored: u64) -> Vec<u8> {
    let mut block: [u8; 512] = header(b"base_image/a", b'S', b"", stored)[..]
        .try_into()
        .unwrap();
    block[257..265].copy_from_slice(b"ustar  \0");
    for (at, (offset, length)) in pieces.iter().enumerate() {
        let field = 386 + 24 * at;
        block[field..field + 11].copy_from_slice(format!("{offset:011o}").as_bytes());
        block[field + 12..field + 23].copy_from_slice(format!("{length:011o}").as_bytes());
    }
    block[483] = 0x80;
    block[487..495].copy_from_slice(&real.to_be_bytes());
    seal(&mut block);
    block.to_vec()
}

#[test]
fn row_18_a_sparse_map_that_lies_is_refused() {
    let good = [
        gnu_sparse(&[(0, 4), (8192, 4)], 1 << 14, 8),
        padded(b"headtail"),
    ]
    .concat();
    let (found, kept) = search(vec![input(good)]);
    assert_eq!(found.unwrap().size, 1 << 14);
    assert_eq!(
        (&kept.bytes[..4], &kept.bytes[8192..8196]),
        (&b"head"[..], &b"tail"[..])
    );
    assert_eq!(kept.holes, (1 << 14) - 8);
    for (pieces, real, stored) in [
        (&[(0, 8), (4, 4)][..], 100, 12),
        (&[(8, 4), (0, 4)], 100, 8),
        (&[(0, 4)], 100, 8),
        (&[(98, 4)], 100, 4),
        (&[(0, 8)], 1 << 20, 4),
        (&[(0o77_777_777_777, 4)], 100, 4),
    ] {
        let layer = [gnu_sparse(pieces, real, stored), padded(&[1; 16])].concat();
        let (result, kept) = search(vec![input(layer)]);
        assert!(
            matches!(result, Err(Error::Tar { .. })),
            "{pieces:?}: {result:?}"
        );
        assert!(kept.path.is_empty());
    }
    let huge = [gnu_sparse(&[(0, 4)], 8 << 60, 4), padded(b"head")].concat();
    assert!(matches!(
        search(vec![input(huge)]).0,
        Err(Error::FileTooLarge { .. })
    ));
    let endless = pax(&[
        ("GNU.sparse.map", b"0,4,18446744073709551615,4"),
        ("GNU.sparse.size", b"8"),
    ]);
    let endless = [
        endless,
        header(b"base_image/a", b'0', b"", 8),
        padded(&[1; 8]),
    ]
    .concat();
    assert!(matches!(
        search(vec![input(endless)]).0,
        Err(Error::Tar { .. })
    ));
}

#[test]
fn row_18_sparse_files_of_gnu_tar_come_out_as_they_went_in() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("base_image/disk.raw");
    std::fs::create_dir(image.parent().unwrap()).unwrap();
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(3 << 20).unwrap();
    // More pieces than one header holds, to see the blocks that follow it.
    for piece in 0..40 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[piece; 4096], u64::from(piece) * 65536)
            .unwrap();
    }
    let expected = std::fs::read(&image).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=1.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=0.0"],
    ] {
        let mut command = Command::new("tar");
        command
            .arg("--sparse")
            .args(format)
            .arg("-C")
            .arg(directory.path());
        let output = command.args(["-c", "base_image"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let (found, kept) = search(vec![input(output.stdout)]);
        assert_eq!(
            found.unwrap_or_else(|e| panic!("{format:?}: {e}")).size,
            3 << 20
        );
        assert!(kept.bytes == expected, "{format:?}: other bytes came out");
        assert!(
            kept.holes > 1 << 20,
            "{format:?}: {} bytes of holes",
            kept.holes
        );
    }
}

#[test]
fn a_number_or_header_that_is_none_is_refused() {
    let good: [u8; 512] = header(b"base_image/a", b'0', b"", 4)[..]
        .try_into()
        .unwrap();
    let damage = |at: usize, bytes: &[u8]| {
        let mut block = good;
        block[at..at + bytes.len()].copy_from_slice(bytes);
        seal(&mut block);
        [&block[..], &padded(b"data")].concat()
    };
    let mut wrong_sum = good;
    wrong_sum[0] ^= 1;
    for layer in [
        damage(124, b"99999999999"),
        damage(124, b"-0000000001"),
        damage(124, &[0xff; 12]),
        damage(
            124,
            &[
                0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        ),
        wrong_sum.to_vec(),
        good[..100].to_vec(),
        good.to_vec(),
        [pax(&[("size", b"99999999999999999999")]), good.to_vec()].concat(),
        [pax(&[("size", b"-1")]), good.to_vec()].concat(),
        pax(&[("path", b"base_image/a")]).repeat(100),
        [header(b"x", b'x', b"", 1 << 32), vec![b'0'; 4096]].concat(),
        [header(b"x", b'x', b"", 5), padded(b"9 a=b")].concat(),
    ] {
        let (result, _) = search(vec![input(layer)]);
        assert!(matches!(result, Err(Error::Tar { .. })), "{result:?}");
    }
}
