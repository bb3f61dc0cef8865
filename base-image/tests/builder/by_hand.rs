//! Images as people make them by hand, in every way that the original documentation shows.

use std::fs;
use std::io::Write;
use std::path::Path;

use image::oci::write::{Contents, LayerFile, docker_archive, layout};
use image::oci::{Digest, OCI_CONFIG, OCI_MANIFEST};
use serde_json::json;

use crate::support::{fails, has, inspect, tool};

/// A layer as `docker build` makes it: a tar, packed by gzip.
fn layer(
    dir: &Path,
    name: &str,
    entries: &[(&str, &[u8])],
) -> (std::path::PathBuf, Digest, Digest) {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, contents) in entries {
        let mut header = tar::Header::new_ustar();
        let is_directory = path.ends_with('/');
        header.set_entry_type(if is_directory {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(0o755);
        header.set_size(contents.len() as u64);
        tar.append_data(&mut header, path, *contents).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&tar).unwrap();
    let packed = gzip.finish().unwrap();
    let path = dir.join(name);
    fs::write(&path, &packed).unwrap();
    (path, Digest::of(&packed), Digest::of(&tar))
}

/// An image of these layers, the lowest first, as a layout and as what `docker save` writes.
fn image(dir: &Path, name: &str, layers: &[&[(&str, &[u8])]]) {
    let made: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(i, entries)| layer(dir, &format!("{name}.layer{i}"), entries))
        .collect();
    let diff_ids: Vec<_> = made
        .iter()
        .map(|(_, _, diff_id)| diff_id.to_string())
        .collect();
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string().into_bytes();
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let files: Vec<_> = made
        .iter()
        .map(|(path, digest, _)| LayerFile {
            path,
            digest,
            size: size(path),
        })
        .collect();
    let descriptors: Vec<_> = files
        .iter()
        .map(|file| {
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            json!({ "mediaType": media_type, "digest": file.digest, "size": file.size })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": descriptors,
        "config": { "mediaType": OCI_CONFIG, "digest": Digest::of(&config), "size": config.len() },
    });
    let manifest = manifest.to_string().into_bytes();
    let (manifest, config, layers) = (&manifest[..], &config[..], &files[..]);
    let contents = Contents {
        manifest,
        config,
        layers,
        reference: None,
        platform: None,
    };
    layout(&dir.join(name), &contents).unwrap();
    docker_archive(&dir.join(format!("{name}.tar")), &contents).unwrap();
}

const BUSYBOX: &[(&str, &[u8])] = &[("bin/", b""), ("bin/busybox", b"\x7fELF"), ("etc/", b"")];

/// One image for each way, in `dir`.
fn make_images(dir: &Path) {
    // "qemu-img create", a file system put into it, "qemu-img convert -c".
    tool(
        dir,
        "qemu-img",
        ["create", "-q", "-f", "qcow2", "example.qcow2", "4G"],
    );
    fs::write(dir.join("page"), vec![b'p'; 70_000]).unwrap();
    tool(dir, "truncate", ["-s", "32M", "example.raw"]);
    tool(dir, "mkfs.ext4", ["-q", "-F", "-L", "pages", "example.raw"]);
    tool(
        dir,
        "qemu-img",
        ["convert", "-O", "qcow2", "example.raw", "filled.qcow2"],
    );
    tool(
        dir,
        "qemu-img",
        [
            "convert",
            "-c",
            "-O",
            "qcow2",
            "example.raw",
            "compressed.qcow2",
        ],
    );
    let zstd = [
        "convert",
        "-c",
        "-O",
        "qcow2",
        "-o",
        "compression_type=zstd",
        "example.raw",
        "zstd.qcow2",
    ];
    tool(dir, "qemu-img", zstd);
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let (empty, raw) = (read("example.qcow2"), read("example.raw"));
    let (filled, compressed, zstd) = (
        read("filled.qcow2"),
        read("compressed.qcow2"),
        read("zstd.qcow2"),
    );
    let file = |bytes| {
        [
            ("base_image/", &b""[..]),
            ("base_image/example.qcow2", bytes),
        ]
    };
    let disk = |bytes| [("disk/", &b""[..]), ("disk/disk.img", bytes)];

    image(dir, "empty", &[BUSYBOX, &file(&empty)]);
    image(dir, "filled", &[BUSYBOX, &file(&filled)]);
    image(dir, "compressed", &[BUSYBOX, &file(&compressed)]);
    image(dir, "zstd", &[&file(&zstd)]);
    image(dir, "raw", &[BUSYBOX, &[], &file(&raw)]);
    image(dir, "replaced", &[BUSYBOX, &file(&empty), &file(&filled)]);
    image(dir, "container-disk", &[&disk(&filled)]);
}

#[test]
fn every_way_of_the_documentation_is_understood() {
    if !has("qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make_images(dir);
    for (name, format, fs_type) in [
        ("empty", "qcow2", None),
        ("filled", "qcow2", Some("ext4")),
        ("compressed", "qcow2", Some("ext4")),
        ("zstd", "qcow2", Some("ext4")),
        ("raw", "raw", Some("ext4")),
        ("replaced", "qcow2", Some("ext4")),
        ("container-disk", "qcow2", Some("ext4")),
    ] {
        for reference in [
            format!("oci-layout:{name}"),
            format!("docker-archive:{name}.tar"),
        ] {
            let seen = inspect(dir, &[&reference]);
            assert_eq!(seen["format"], format, "{reference}");
            let (size, what) = (&seen["virtualSize"], &seen["content"]);
            if let Some(fs_type) = fs_type {
                assert_eq!(*size, 32 << 20, "{reference}");
                assert_eq!(
                    (&what["fsType"], &what["label"]),
                    (&fs_type.into(), &"pages".into())
                );
            } else {
                assert_eq!(
                    (size, &what["type"]),
                    (&(4_u64 << 30).into(), &"blank".into())
                );
            }
        }
    }
}

#[test]
fn a_virtual_machine_disk_shows_its_partitions() {
    if !has("sfdisk") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tool(dir, "truncate", ["-s", "64M", "vm.img"]);
    fs::write(dir.join("table"), "label: gpt\n,16M\n,\n").unwrap();
    tool(dir, "sh", ["-c", "sfdisk -q vm.img < table"]);
    let seen = inspect(dir, &["file:vm.img"]);
    assert_eq!(seen["content"]["table"], "gpt");
    let partitions = seen["content"]["partitions"].as_array().unwrap();
    assert_eq!(
        (partitions.len(), &partitions[0]["size"]),
        (2, &(16 << 20).into())
    );
}

#[test]
fn what_is_no_base_image_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image(dir, "none", &[BUSYBOX]);
    let two: &[(&str, &[u8])] = &[("base_image/a", b"1"), ("base_image/b", b"2")];
    image(dir, "two", &[two]);
    let mut backed = b"QFI\xfb".to_vec();
    backed.extend([0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 112, 0, 0, 0, 8]);
    backed.resize(65536, 0);
    image(dir, "backed", &[&[("base_image/a.qcow2", &backed)]]);
    for (name, expected) in [
        ("none", "base_image"),
        ("two", "a, b"),
        ("backed", "backing file"),
    ] {
        let said = fails(dir, &["inspect", &format!("oci-layout:{name}")]);
        assert!(said.contains(expected), "{name}: {said}");
    }
}
