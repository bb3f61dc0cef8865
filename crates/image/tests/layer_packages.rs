//! Layouts and archives, ours and those of other tools, whole and broken: rows 2, 3, 5 and 13.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test"
)]

mod layers;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::layer::{Limits, find};
use image::oci::write::{Contents, LayerFile, docker_archive, layout, oci_archive};
use image::oci::{Digest, Error, Package, Platform, open_beneath};
use layers::{Kept, file, gzip, header, input, padded, tar};
use types::{Classify, ErrorKind};

const NAME: &str = "example.com/web:v1";

/// An image with one layer, in files of a temporary directory.
struct Fixture {
    directory: tempfile::TempDir,
    config: Vec<u8>,
    manifest: Vec<u8>,
    layer: Digest,
    size: u64,
    disk: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let unpacked = tar(&[file("base_image/disk.raw", &disk)]);
        let packed = gzip(&unpacked);
        put(&directory.path().join("layer"), &packed);
        let (layer, size) = (Digest::of(&packed), packed.len() as u64);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(&unpacked)
        )
        .into_bytes();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{layer}","size":{size}}}]}}"#,
            Digest::of(&config),
            config.len()
        )
        .into_bytes();
        Self {
            directory,
            config,
            manifest,
            layer,
            size,
            disk,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, writer: fn(&Path, &Contents<'_>) -> Result<(), Error>, name: &str) -> PathBuf {
        let path = self.path(name);
        let layer = self.path("layer");
        let layers = [LayerFile {
            path: &layer,
            digest: &self.layer,
            size: self.size,
        }];
        let platform = amd64();
        let contents = Contents {
            manifest: &self.manifest,
            config: &self.config,
            layers: &layers,
            reference: Some(NAME),
            platform: Some(&platform),
        };
        writer(&path, &contents).unwrap();
        path
    }
}

fn put(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn open(path: &Path) -> Result<Package, Error> {
    let file = File::open(path).unwrap();
    if path.is_dir() {
        Package::layout(file, path)
    } else {
        Package::archive(file, path)
    }
}

/// The disk image of a package, and the digest of the image around it.
fn read(path: &Path, reference: Option<&str>) -> Result<(Vec<u8>, Digest), Error> {
    let package = open(path)?;
    let image = package.select(reference, &amd64())?;
    let mut kept = Kept::default();
    find(package.inputs(&image)?, Limits::default(), &mut kept)
        .unwrap_or_else(|error| panic!("{}: {}", path.display(), types::report(&error)));
    Ok((kept.bytes, image.digest))
}

#[test]
fn what_is_written_is_read_again_the_same() {
    let image = Fixture::new();
    let manifest = Digest::of(&image.manifest);
    for (writer, name, digest) in [
        (layout as fn(&Path, &Contents<'_>) -> _, "layout", &manifest),
        (oci_archive, "oci.tar", &manifest),
        (docker_archive, "docker.tar", &Digest::of(&image.config)),
    ] {
        let path = image.write(writer, name);
        for reference in [None, Some(NAME)] {
            let (disk, found) = read(&path, reference).unwrap();
            assert!(disk == image.disk, "{name}: another disk came out");
            assert_eq!(found, *digest);
        }
        let error = read(&path, Some("example.com/other:v1")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(NAME), "{error}");
        if path.is_file() {
            let again = image.write(writer, &format!("again-{name}"));
            assert!(
                fs::read(&path).unwrap() == fs::read(again).unwrap(),
                "{name}: not deterministic"
            );
        }
    }
    let left: Vec<_> = fs::read_dir(image.directory.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 6, "{left:?}");
}

#[test]
fn a_layer_that_changed_since_it_was_described_is_not_written() {
    let image = Fixture::new();
    let layer = image.path("layer");
    let mut bytes = fs::read(&layer).unwrap();
    bytes[1000] ^= 1;
    put(&layer, &bytes);
    let layers = [LayerFile {
        path: &layer,
        digest: &image.layer,
        size: image.size,
    }];
    let contents = Contents {
        manifest: &image.manifest,
        config: &image.config,
        layers: &layers,
        reference: None,
        platform: None,
    };
    let path = image.path("oci.tar");
    assert!(matches!(
        oci_archive(&path, &contents),
        Err(Error::DigestMismatch { .. })
    ));
    assert!(!path.exists());
    let path = image.path("layout");
    assert!(matches!(
        layout(&path, &contents),
        Err(Error::DigestMismatch { .. })
    ));
    assert!(!path.join("index.json").exists());
    // Neither is a layout written over something else.
    assert!(matches!(
        layout(image.directory.path(), &contents),
        Err(Error::Io { .. })
    ));
}

#[test]
fn other_tools_read_ours_and_we_read_theirs() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        println!("skipped: needs skopeo");
        return;
    }
    let image = Fixture::new();
    let skopeo = |from: &str, to: &str| {
        let (from, to) = (
            from.replace('@', image.directory.path().to_str().unwrap()),
            to,
        );
        let to = to.replace('@', image.directory.path().to_str().unwrap());
        let mut command = Command::new("skopeo");
        let output = command
            .args(["--insecure-policy", "copy", "-q", &from, &to])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{from} to {to}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    image.write(layout, "layout");
    image.write(oci_archive, "oci.tar");
    image.write(docker_archive, "docker.tar");
    for (from, to, name) in [
        (
            format!("oci:@/layout:{NAME}"),
            "oci-archive:@/1.tar:v1".to_owned(),
            "1.tar",
        ),
        (
            format!("oci-archive:@/oci.tar:{NAME}"),
            format!("docker-archive:@/2.tar:{NAME}"),
            "2.tar",
        ),
        (
            format!("docker-archive:@/docker.tar:{NAME}"),
            "oci:@/3".to_owned(),
            "3",
        ),
    ] {
        skopeo(&from, &to);
        let (disk, _) = read(&image.path(name), None).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(disk == image.disk, "{name}: another disk came out");
    }
}

#[test]
fn docker_save_with_links_and_short_names_is_read() {
    let image = Fixture::new();
    let unpacked = tar(&[file("base_image/disk.raw", &image.disk)]);
    let config = Digest::of(&image.config).hex().to_owned() + ".json";
    let manifest =
        format!(r#"[{{"Config":"{config}","RepoTags":["web:latest"],"Layers":["b/layer.tar"]}}]"#);
    // As old versions wrote it: a layer that another image has too is a link to it.
    let archive = |link: &[u8]| {
        tar(&[
            file("a/layer.tar", &unpacked),
            (b"b/layer.tar", b'2', link),
            file(&config, &image.config),
            file("manifest.json", manifest.as_bytes()),
        ])
    };
    let path = image.path("save.tar");
    put(&path, &archive(b"../a/layer.tar"));
    for reference in [None, Some("web"), Some("docker.io/library/web:latest")] {
        assert!(read(&path, reference).unwrap().0 == image.disk);
    }
    // Links that lead out, nowhere or round are nothing.
    for link in [
        &b"../../../etc/passwd"[..],
        b"/etc/passwd",
        b"c",
        b"layer.tar",
    ] {
        put(&path, &archive(link));
        let error = read(&path, None).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{link:?}: {error}");
    }
}

#[test]
fn row_02_damage_in_a_package_is_found() {
    let image = Fixture::new();
    let path = image.write(layout, "layout");
    let blob = |digest: &Digest| path.join("blobs/sha256").join(digest.hex());
    for digest in [Digest::of(&image.manifest), Digest::of(&image.config)] {
        let good = fs::read(blob(&digest)).unwrap();
        let mut bad = good.clone();
        let at = bad.iter().position(|byte| *byte == b',').unwrap();
        bad[at] = b' ';
        put(&blob(&digest), &bad);
        assert!(matches!(
            read(&path, None),
            Err(Error::DigestMismatch { .. })
        ));
        // Row 3: a wrong length is seen before the content.
        put(&blob(&digest), &[good.clone(), b"\n".to_vec()].concat());
        assert!(matches!(read(&path, None), Err(Error::SizeMismatch { .. })));
        put(&blob(&digest), &good);
    }
    let mut layer = fs::read(blob(&image.layer)).unwrap();
    layer[4] ^= 1;
    put(&blob(&image.layer), &layer);
    let package = open(&path).unwrap();
    let selected = package.select(None, &amd64()).unwrap();
    let error = find(
        package.inputs(&selected).unwrap(),
        Limits::default(),
        &mut Kept::default(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(
        types::report(&error).to_string().contains("its digest is"),
        "{}",
        types::report(&error)
    );
    layer.pop();
    put(&blob(&image.layer), &layer);
    let selected = package.select(None, &amd64()).unwrap();
    assert!(matches!(
        package.inputs(&selected),
        Err(Error::SizeMismatch { .. })
    ));
}

#[test]
fn row_05_nothing_outside_a_layout_is_opened() {
    let image = Fixture::new();
    let path = image.write(layout, "layout");
    let outside = image.path("outside");
    fs::copy(path.join("index.json"), &outside).unwrap();
    fs::remove_file(path.join("index.json")).unwrap();
    for target in ["../outside", outside.to_str().unwrap(), "/dev/zero"] {
        std::os::unix::fs::symlink(target, path.join("index.json")).unwrap();
        let error = read(&path, None).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{target}: {error}");
        fs::remove_file(path.join("index.json")).unwrap();
    }
    // Inside, a link is as good as a file.
    fs::copy(&outside, path.join("real.json")).unwrap();
    std::os::unix::fs::symlink("real.json", path.join("index.json")).unwrap();
    assert!(read(&path, None).is_ok());
    fs::remove_file(path.join("index.json")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(path.join("index.json"))
            .status()
            .unwrap()
            .success()
    );
    assert!(matches!(read(&path, None), Err(Error::Missing { .. })));

    let root = image.directory.path();
    assert!(open_beneath(root, "layout/oci-layout".as_ref()).is_ok());
    for climbing in ["../x", "/etc/passwd", "layout/../../etc/passwd"] {
        assert!(open_beneath(root, climbing.as_ref()).is_err(), "{climbing}");
    }
    let digest = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../../outside","size":3}]}"#;
    fs::remove_file(path.join("index.json")).unwrap();
    put(&path.join("index.json"), digest.as_bytes());
    assert!(matches!(read(&path, None), Err(Error::Json { .. })));
}

#[test]
fn row_13_indexes_in_a_layout_are_bounded_and_clear() {
    let image = Fixture::new();
    let path = image.write(layout, "layout");
    let arm: Platform = "linux/arm64".parse().unwrap();
    // One image, whatever it is for, needs no choice.
    assert!(open(&path).unwrap().select(None, &arm).is_ok());
    let entry = |digest: &Digest, size: usize, kind: &str, rest: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}.v1+json","digest":"{digest}","size":{size}{rest}}}"#
        )
    };
    let index = |entries: &[String]| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        )
        .into_bytes()
    };
    let manifest = |rest: &str| {
        entry(
            &Digest::of(&image.manifest),
            image.manifest.len(),
            "manifest",
            rest,
        )
    };
    let amd = manifest(r#","platform":{"os":"linux","architecture":"amd64"}"#);
    let s390 = manifest(r#","platform":{"os":"linux","architecture":"s390x"}"#);
    put(&path.join("index.json"), &index(&[amd.clone(), s390]));
    assert!(read(&path, None).is_ok());
    let error = open(&path).unwrap().select(None, &arm).unwrap_err();
    assert!(matches!(error, Error::NoPlatform { .. }), "{error}");
    // Two without platforms: which one is meant cannot be told.
    put(
        &path.join("index.json"),
        &index(&[manifest(""), manifest("")]),
    );
    assert!(matches!(read(&path, None), Err(Error::NoSuchImage { .. })));
    let mut inner = index(&[amd]);
    for depth in 1..6 {
        let digest = Digest::of(&inner);
        put(&path.join("blobs/sha256").join(digest.hex()), &inner);
        inner = index(&[entry(&digest, inner.len(), "index", "")]);
        put(&path.join("index.json"), &inner);
        assert_eq!(read(&path, None).is_ok(), depth <= 2, "depth {depth}");
    }
    put(&path.join("index.json"), &vec![b' '; 5 << 20]);
    assert!(matches!(read(&path, None), Err(Error::TooLarge { .. })));
}

#[test]
fn what_is_no_package_is_said_so() {
    let image = Fixture::new();
    let path = image.path("x");
    for (bytes, what) in [
        (gzip(&tar(&[])), "compressed"),
        (tar(&[file("etc/passwd", b"x")]), "oci-layout"),
        (vec![1; 4096], "tar archive"),
        (
            [header(b"manifest.json", b'0', b"", 1 << 30), padded(b"[")].concat(),
            "middle of a file",
        ),
        (Vec::new(), "oci-layout"),
        (tar(&[file("manifest.json", b"[]")]), "no named image"),
        (tar(&[file("manifest.json", b"{")]), "manifest.json"),
        (
            tar(&[file("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#)]),
            "version",
        ),
    ] {
        put(&path, &bytes);
        let error = read(&path, None).unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

/// Writes a document into a layout under its digest; what names it.
fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> serde_json::Value {
    let digest = Digest::of(bytes);
    put(&layout.join("blobs/sha256").join(digest.hex()), bytes);
    serde_json::json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
}

/// A layout of one manifest, with these entries of its index besides.
fn layout_of(image: &Fixture, name: &str, manifest: &serde_json::Value, more: &[&str]) -> PathBuf {
    let path = image.write(layout, name);
    let text = manifest.to_string();
    let entry = blob(
        &path,
        "application/vnd.oci.image.manifest.v1+json",
        text.as_bytes(),
    );
    let entries: Vec<String> = more
        .iter()
        .map(|text| (*text).to_owned())
        .chain([entry.to_string()])
        .collect();
    let index = format!(
        r#"{{"schemaVersion":2,"annotations":null,"manifests":[{}]}}"#,
        entries.join(",")
    );
    put(&path.join("index.json"), index.as_bytes());
    path
}

/// What is `null` is not there, and what cannot be meant is not read, in every document.
#[test]
fn row_176_null_is_not_there_and_what_is_not_chosen_is_not_read() {
    let image = Fixture::new();
    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let odd = [
        serde_json::json!(null),
        serde_json::json!({"a": null, "b": 7, "c": "d"}),
        serde_json::json!([]),
        serde_json::json!("text"),
    ];
    let mut number = 0;
    let mut reads = |manifest: &serde_json::Value, more: &[&str]| {
        number += 1;
        let path = layout_of(&image, &format!("layout-{number}"), manifest, more);
        let (disk, _) = read(&path, None)
            .unwrap_or_else(|error| panic!("{manifest} {more:?}: {}", types::report(&error)));
        assert!(disk == image.disk);
    };
    for value in &odd {
        for place in ["/layers/0", "/config", ""] {
            let mut changed = manifest.clone();
            changed.pointer_mut(place).unwrap()["annotations"] = value.clone();
            reads(&changed, &[]);
        }
    }
    for field in ["urls", "data", "platform", "artifactType", "subject"] {
        for place in ["/layers/0", "/config", ""] {
            let mut changed = manifest.clone();
            changed.pointer_mut(place).unwrap()[field] = serde_json::json!(null);
            reads(&changed, &[]);
        }
    }
    // Entries of an index that are not images, or that nobody can read.
    let unknown = r#""platform":{"os":"unknown","architecture":"unknown"}"#;
    let digest = Digest::of(b"x").to_string();
    for entry in [
        format!(r#"{{"mediaType":"x","digest":"{digest}","size":1,"annotations":null,{unknown}}}"#),
        format!(r#"{{"digest":"{digest}","size":1,"mediaType":null,{unknown}}}"#),
        format!(r#"{{"digest":"{digest}","size":"large",{unknown}}}"#),
        format!(r#"{{"digest":"md5:zz","size":1,{unknown}}}"#),
        "null".to_owned(),
        "7".to_owned(),
        "{}".to_owned(),
    ] {
        reads(&manifest, &[&entry]);
    }
    // What is needed is still read strictly.
    let mut wrong = manifest.clone();
    wrong["layers"][0]["size"] = serde_json::json!(null);
    let path = layout_of(&image, "wrong", &wrong, &[]);
    assert!(read(&path, None).is_err());
    let path = image.write(layout, "only");
    put(
        &path.join("index.json"),
        br#"{"schemaVersion":2,"manifests":[{"digest":"../x","size":1}]}"#,
    );
    let error = read(&path, None).unwrap_err();
    assert!(
        types::report(&error).to_string().contains("digest"),
        "{error}"
    );
}

/// The one blob of an artifact is the disk image, or a layer that holds it.
#[test]
fn row_179_an_artifact_is_its_one_blob() {
    let image = Fixture::new();
    let path = image.write(layout, "artifact");
    let empty = blob(&path, "application/vnd.oci.empty.v1+json", b"{}");
    let mut qcow2 = vec![7; 70_000];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let mut raw = vec![0; 300_000];
    raw[1024..2048].fill(5);
    let artifact = |media_type: &str, bytes: &[u8]| {
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.unknown.artifact.v1",
            "config": empty,
            "layers": [blob(&path, media_type, bytes)],
        })
    };
    let taken = |manifest: &serde_json::Value| {
        let text = manifest.to_string();
        let entry = blob(
            &path,
            "application/vnd.oci.image.manifest.v1+json",
            text.as_bytes(),
        );
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
        put(&path.join("index.json"), index.to_string().as_bytes());
        read(&path, None)
    };
    let tar_type = "application/vnd.oci.image.layer.v1.tar";
    for (media_type, bytes, disk) in [
        ("application/vnd.kubevirt.disk.qcow2", &qcow2, &qcow2),
        ("application/vnd.kubevirt.disk.raw+gzip", &gzip(&raw), &raw),
        (
            "application/vnd.kubevirt.disk.raw+zstd",
            &layers::zstd(&raw),
            &raw,
        ),
        ("application/octet-stream", &raw, &raw),
        (tar_type, &qcow2, &qcow2),
        (tar_type, &raw, &raw),
        (tar_type, &tar(&[file("base_image/d", &raw)]), &raw),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            &gzip(&tar(&[file("disk/d", &raw)])),
            &raw,
        ),
    ] {
        let (found, _) = taken(&artifact(media_type, bytes)).unwrap();
        assert!(found == *disk, "{media_type}");
    }
    // In a true image it is said what the layer is.
    let layer = input(qcow2.clone());
    let error = find([layer], Limits::default(), &mut Kept::default()).unwrap_err();
    assert!(error.to_string().contains("qcow2 image itself"), "{error}");
    // Of several blobs the one that is called a disk, whatever the config is.
    let mut several = artifact("application/vnd.kubevirt.disk.qcow2", &qcow2);
    several["layers"]
        .as_array_mut()
        .unwrap()
        .push(blob(&path, "text/plain", b"read me"));
    assert!(taken(&several).unwrap().0 == qcow2);
    for refused in [
        "application/vnd.oci.empty.v1+json",
        "application/vnd.oci.image.layer.v1.tar+encrypted",
    ] {
        let error = taken(&artifact(refused, &qcow2)).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}
