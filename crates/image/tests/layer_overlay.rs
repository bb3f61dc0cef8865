//! Which file is the disk image in stacked layers: row 19 of the faults.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod layers;

use image::layer::{Directory, Error, Found};
use layers::{Entry, Kept, dir, file, search_plain};
use types::{Classify, ErrorKind};

fn found(layers: &[&[Entry<'_>]], path: &str, content: &[u8]) -> Kept {
    let (found, kept) = search_plain(layers);
    let found: Found = found.unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(format!("{}/{}", found.directory.name(), found.name), path);
    assert_eq!((kept.path.as_str(), kept.bytes.as_slice()), (path, content));
    assert_eq!(found.size, content.len() as u64);
    kept
}

#[test]
fn the_documented_image_is_found_among_other_layers() {
    let busybox = [
        dir("bin/"),
        file("bin/sh", b"elf"),
        (b"bin/ls".as_slice(), b'1', b"bin/sh".as_slice()),
    ];
    let image = [
        dir("base_image/"),
        file("base_image/example.qcow2", b"QFI\xfb"),
    ];
    found(&[&image, &busybox], "base_image/example.qcow2", b"QFI\xfb");
    // Paths as some tools write them mean the same.
    found(
        &[&[dir("./"), file("./base_image/a", b"x")]],
        "base_image/a",
        b"x",
    );
    found(&[&[file("/base_image//./a", b"x")]], "base_image/a", b"x");
    found(&[&[file("base_image/a", b"")]], "base_image/a", b"");
}

#[test]
fn row_19_the_upper_file_wins_and_what_is_hidden_does_not_count() {
    let lower = [file("base_image/a", b"old")];
    found(
        &[&[file("base_image/a", b"new")], &lower],
        "base_image/a",
        b"new",
    );
    let renamed = [file("base_image/.wh.a", b""), file("base_image/b", b"new")];
    found(&[&renamed, &lower], "base_image/b", b"new");
    let opaque = [
        file("base_image/b", b"new"),
        file("base_image/.wh..wh..opq", b""),
    ];
    found(&[&opaque, &lower], "base_image/b", b"new");
    let replaced = [file(".wh.base_image", b""), file("base_image/b", b"new")];
    found(&[&replaced, &lower], "base_image/b", b"new");
    // Of two entries of one name in one layer the last counts, as when it is unpacked.
    let twice = [
        file("base_image/a", b"first"),
        file("base_image/a", b"second"),
    ];
    let kept = found(&[&twice], "base_image/a", b"second");
    assert_eq!(kept.discarded, ["base_image/a"]);
}

#[test]
fn row_19_what_was_whited_out_is_absent() {
    for upper in [
        &[file("base_image/.wh.a", b"")][..],
        &[file("base_image/.wh..wh..opq", b"")],
        &[file(".wh.base_image", b"")],
        &[file(".wh..wh..opq", b"")],
    ] {
        let (result, kept) = search_plain(&[upper, &[file("base_image/a", b"x")]]);
        assert!(matches!(result, Err(Error::Nothing)), "{result:?}");
        assert!(kept.path.is_empty());
    }
}

#[test]
fn row_19_no_file_or_two_files_are_refused_clearly() {
    let (nothing, _) = search_plain(&[&[dir("base_image/"), file("etc/passwd", b"x")]]);
    let nothing = nothing.unwrap_err();
    assert!(
        nothing.to_string().contains("no file in /base_image/"),
        "{nothing}"
    );
    assert_eq!(nothing.kind(), ErrorKind::InvalidArgument);
    let (none, _) = search_plain(&[]);
    assert!(matches!(none, Err(Error::Nothing)));
    for layers in [
        &[&[file("base_image/a", b"x"), file("base_image/b", b"y")][..]][..],
        &[&[file("base_image/b", b"y")], &[file("base_image/a", b"x")]],
        &[&[file("disk/a", b"x"), file("disk/b", b"y")]],
        &[&[file("disk/b", b"y")], &[file("disk/a", b"x")]],
    ] {
        let (two, _) = search_plain(layers);
        let error = two.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("exactly one file, but contains a, b"),
            "{error}"
        );
    }
    let (nested, _) = search_plain(&[&[file("base_image/x/a", b"x")]]);
    assert!(matches!(
        nested,
        Err(Error::NotRegular {
            kind: "directory",
            ..
        })
    ));
    let (empty, _) = search_plain(&[&[file("base_image/a", b"x"), dir("base_image/sub/")]]);
    assert!(matches!(
        empty,
        Err(Error::NotRegular {
            kind: "directory",
            ..
        })
    ));
}

#[test]
fn a_container_disk_counts_only_without_a_base_image() {
    let disk = [file("disk/d.img", b"disk")];
    found(&[&disk], "disk/d.img", b"disk");
    let base = [file("base_image/b", b"base")];
    for layers in [&[&disk[..], &base][..], &[&base, &disk]] {
        let kept = found(layers, "base_image/b", b"base");
        assert!(kept.discarded.iter().all(|path| path == "disk/d.img"));
    }
    let same_layer = [
        file("disk/d.img", b"disk"),
        file("base_image/b", b"base"),
        file("disk/e", b"e"),
    ];
    let kept = found(&[&same_layer], "base_image/b", b"base");
    assert_eq!(kept.discarded, ["disk/d.img"]);
    // Whatever else is under /disk/ is no business of a base image's.
    let odd = [
        (b"disk/l".as_slice(), b'2', b"/etc/shadow".as_slice()),
        file("base_image/b", b"base"),
    ];
    found(&[&odd], "base_image/b", b"base");
    let (found, _) = search_plain(&[&[file("disk/d", b"x")], &[file("disk/.wh.d", b"")]]);
    assert_eq!(found.unwrap().directory, Directory::Disk);
}

#[test]
fn a_layer_that_cannot_matter_is_not_read() {
    let top = layers::input(layers::tar(&[
        file("base_image/a", b"x"),
        file("base_image/.wh..wh..opq", b""),
    ]));
    let never = layers::input(b"not a tar at all".to_vec());
    assert!(layers::search(vec![top, never]).0.is_ok());
}
