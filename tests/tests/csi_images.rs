//! The plugin with base images: sizes, missing and malformed images, other files, and file systems
//! that differ from the request.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use e2e::baseimage::{Build, PARTY_WIZARD, WIZARD, web_page};
use e2e::csi::{Claim, block, claim, mounted, refused};
use e2e::{Disk, FileSystem, Need, Node, Registry, Sandbox, block_on, command, needs, registry};
use proto::csi::v1 as csi;
use tonic::Code;

const MIB: u64 = 1 << 20;
/// What the images of these tests show to a guest.
const SIZE: u64 = 64 * MIB;

struct Rig {
    node: Node,
    registry: Registry,
}

impl Rig {
    /// `knows_password`: whether the manager knows the registry's.
    fn new(sandbox: &Sandbox, knows_password: bool) -> Self {
        let disk = Disk::new(sandbox, "disk", FileSystem::Xfs, 1 << 30);
        let registry = Registry::start(sandbox);
        let node = Node::start(sandbox, disk, |options| {
            if knows_password {
                return options.with_registry(&registry);
            }
            options
                .with("--registry-config", &registry.registry_config)
                .with("--allow-address", "127.0.0.0/8")
        });
        Self { node, registry }
    }

    /// A base image with an ext4 file system that holds the web page.
    fn push_ext4(&self, sandbox: &Sandbox) -> String {
        let page = web_page(sandbox);
        self.push(Some(&page), Some("ext4"), "csi/ext4:v1")
    }

    fn push(&self, from: Option<&Path>, fs: Option<&str>, name: &str) -> String {
        let build = Build {
            from,
            fs,
            size: (fs.is_some()).then_some("64Mi"),
            options: &[],
        };
        build.push(&self.registry, name)
    }

    fn volume_file(&self, name: &str) -> PathBuf {
        self.node
            .disk
            .dir()
            .join("volumes")
            .join(name)
            .join("volume")
    }
}

/// A claim of a volume of an image.
fn of_image(name: &str, size: u64, reference: &str) -> csi::CreateVolumeRequest {
    claim(name, size, &[("baseImage", reference)])
}

fn used_as(
    capability: csi::VolumeCapability,
    request: csi::CreateVolumeRequest,
) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        volume_capabilities: vec![capability],
        ..request
    }
}

macro_rules! needs_registry {
    () => {
        needs!(
            Need::Root,
            Need::FileSystem("xfs"),
            Need::Tool("docker-registry"),
            Need::Tool("htpasswd")
        )
    };
}

#[test]
fn row_71_a_volume_is_at_least_as_large_as_its_image() {
    needs_registry!();
    let sandbox = Sandbox::new("csi-sizes");
    let rig = Rig::new(&sandbox, true);
    let reference = rig.push_ext4(&sandbox);
    let smaller = of_image("smaller", SIZE - 4096, &reference);
    refused(
        rig.node.plugin.provision(&smaller),
        Code::OutOfRange,
        &["67108864"],
    );

    // Nothing asked: the image's own size.
    let mut natural = of_image("natural", 0, &reference);
    natural.capacity_range = None;
    let natural = rig.node.plugin.provision(&natural).unwrap();
    assert_eq!(natural.volume.capacity_bytes, SIZE.cast_signed());

    // Larger: the file system grows to it, and what is beyond the image reads as zeros.
    let larger = of_image("larger", 3 * SIZE, &reference);
    let mut larger = rig.node.plugin.provision(&larger).unwrap();
    assert_eq!(larger.volume.capacity_bytes, (3 * SIZE).cast_signed());
    let mut file = fs::File::open(rig.volume_file("larger")).unwrap();
    let mut beyond = Vec::new();
    file.seek(SeekFrom::Start(SIZE)).unwrap();
    file.read_to_end(&mut beyond).unwrap();
    assert_eq!(beyond.len() as u64, 2 * SIZE);
    assert!(beyond.iter().all(|byte| *byte == 0));
    let target = rig.node.plugin.run_pod(&mut larger, "pod").unwrap();
    let stat = rustix::fs::statvfs(&target).unwrap();
    let total = stat.f_blocks * stat.f_frsize;
    assert!(total > 2 * SIZE, "{total} bytes");
    assert!(fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD);
    rig.node.plugin.end_pod(&larger, "pod").unwrap();
    for claim in [&natural, &larger] {
        rig.node.plugin.delete(claim).unwrap();
    }
    rig.node.assert_empty(&sandbox);
}

/// A container image without a disk image in it, as an OCI layout; skopeo pushes it.
fn push_plain_container(sandbox: &Sandbox, registry: &Registry, name: &str) -> String {
    let layout = sandbox.make_dir("layout");
    sandbox.make_dir("layout/blobs/sha256");
    sandbox.write("files/etc/motd", "hello");
    let add = |path: &Path| {
        let sum = command::run("sha256sum", [path]);
        let digest = sum.split(' ').next().unwrap().to_owned();
        let size = fs::metadata(path).unwrap().len();
        fs::rename(path, layout.join("blobs/sha256").join(&digest)).unwrap();
        serde_json::json!({"digest": format!("sha256:{digest}"), "size": size})
    };
    let described = |mut blob: serde_json::Value, media_type: &str| {
        let media_type = format!("application/vnd.oci.image.{media_type}");
        blob["mediaType"] = media_type.into();
        blob
    };
    let tar = sandbox.path("layer.tar");
    let files = sandbox.path("files");
    command::run(
        "tar",
        [
            "-cf".as_ref(),
            tar.as_os_str(),
            "-C".as_ref(),
            files.as_os_str(),
            "etc".as_ref(),
        ],
    );
    let layer = add(&tar);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = add(&sandbox.write("config.json", config.to_string()));
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(config, "config.v1+json"),
        "layers": [described(layer, "layer.v1.tar")],
    });
    let manifest = add(&sandbox.write("manifest.json", manifest.to_string()));
    let index = serde_json::json!({
        "schemaVersion": 2, "manifests": [described(manifest, "manifest.v1+json")],
    });
    sandbox.write("layout/index.json", index.to_string());
    sandbox.write("layout/oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    let reference = registry.reference(name);
    let (from, to) = (
        format!("oci:{}", layout.display()),
        format!("docker://{reference}"),
    );
    let credentials = format!("{}:{}", registry::USER, registry::PASSWORD);
    let copy = [
        "copy",
        "--dest-tls-verify=false",
        "--dest-creds",
        &credentials,
        &from,
        &to,
    ];
    command::run("skopeo", copy);
    reference
}

#[test]
fn row_72_what_is_no_base_image_is_said_and_leaves_nothing() {
    needs_registry!();
    needs!(Need::Tool("skopeo"));
    let sandbox = Sandbox::new("csi-no-image");
    let rig = Rig::new(&sandbox, true);
    let missing = rig.registry.reference("csi/ext4:v1");
    let request = of_image("pvc-1", SIZE, &missing);
    refused(
        rig.node.plugin.provision(&request),
        Code::NotFound,
        &["csi/ext4:v1"],
    );
    for malformed in [
        "127.0.0.1:1/UPPER:v1",
        "a b",
        "docker://a/b",
        "127.0.0.1:1/a:b:c",
        "a/b@sha256:12",
    ] {
        let request = of_image("pvc-2", SIZE, malformed);
        refused(
            rig.node.plugin.provision(&request),
            Code::InvalidArgument,
            &[],
        );
    }
    let plain = push_plain_container(&sandbox, &rig.registry, "csi/plain:v1");
    let status = rig
        .node
        .plugin
        .provision(&of_image("pvc-3", SIZE, &plain))
        .unwrap_err();
    assert!(status.message().contains("base_image"), "{status}");
    assert!(
        matches!(
            status.code(),
            Code::InvalidArgument | Code::FailedPrecondition
        ),
        "{status}"
    );
    rig.node.assert_empty(&sandbox);
    // The tag comes into being, and the same request succeeds.
    assert_eq!(rig.push_ext4(&sandbox), missing);
    let claim = rig.node.plugin.provision(&request).unwrap();
    rig.node.plugin.delete(&claim).unwrap();
    rig.node.assert_empty(&sandbox);
}

/// Every file below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let found = command::run(
        "find",
        [directory.as_os_str(), "-type".as_ref(), "f".as_ref()],
    );
    found.lines().map(PathBuf::from).collect()
}

#[test]
fn row_88_a_claim_brings_its_own_pull_secret_and_nobody_writes_it_down() {
    needs_registry!();
    let sandbox = Sandbox::new("csi-secret");
    let rig = Rig::new(&sandbox, false);
    let reference = rig.push_ext4(&sandbox);
    let request = of_image("pvc-1", SIZE, &reference);
    let status = rig.node.plugin.provision(&request).unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let wrong = csi::CreateVolumeRequest {
        secrets: [("username", registry::USER), ("password", "hocus-pocus")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..request.clone()
    };
    let status = rig.node.plugin.provision(&wrong).unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let right = csi::CreateVolumeRequest {
        secrets: [
            ("username", registry::USER),
            ("password", registry::PASSWORD),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        ..request
    };
    let claim = rig.node.plugin.provision(&right).unwrap();
    rig.node.plugin.delete(&claim).unwrap();
    for log in [
        rig.node.plugin.process.log(),
        rig.node.manager.process.log(),
    ] {
        for secret in [registry::PASSWORD, "hocus-pocus", "d2l6YXJk"] {
            assert!(!log.contains(secret), "{secret} is in the log");
        }
    }
    for path in files_below(rig.node.disk.dir()) {
        let bytes = fs::read(&path).unwrap();
        let found = |secret: &str| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(
            !found(registry::PASSWORD),
            "the password is in {}",
            path.display()
        );
    }
}

#[test]
fn row_73_a_base_image_is_never_formatted_whatever_is_asked() {
    needs_registry!();
    let sandbox = Sandbox::new("csi-fstype");
    let rig = Rig::new(&sandbox, true);
    let reference = rig.push_ext4(&sandbox);
    let request = used_as(mounted("xfs"), of_image("pvc-1", SIZE, &reference));
    refused(
        rig.node.plugin.provision(&request),
        Code::InvalidArgument,
        &["ext4", "xfs"],
    );
    let old_key = claim(
        "pvc-1",
        SIZE,
        &[("baseImage", &reference), ("fsType", "btrfs")],
    );
    refused(
        rig.node.plugin.provision(&old_key),
        Code::InvalidArgument,
        &["ext4", "btrfs"],
    );
    rig.node.assert_empty(&sandbox);

    // A volume that exists, staged with another type than it was made for.
    let same = used_as(mounted("ext4"), of_image("pvc-1", SIZE, &reference));
    let mut claim = rig.node.plugin.provision(&same).unwrap();
    rig.node.plugin.attach(&mut claim).unwrap();
    let file = rig.volume_file("pvc-1");
    let before = command::run("sha512sum", [&file]);
    claim.request.volume_capabilities = vec![mounted("xfs")];
    refused(
        rig.node.plugin.stage(&claim),
        Code::FailedPrecondition,
        &["ext4", "xfs"],
    );
    assert_eq!(
        before,
        command::run("sha512sum", [&file]),
        "not a byte was written"
    );
    claim.request.volume_capabilities = vec![mounted("")];
    let target = rig.node.plugin.run_pod(&mut claim, "pod").unwrap();
    assert!(fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD);
    rig.node.plugin.end_pod(&claim, "pod").unwrap();
    rig.node.plugin.delete(&claim).unwrap();
    rig.node.assert_empty(&sandbox);
}

/// A raw image of 64 MiB in which `write` has left something.
fn raw(sandbox: &Sandbox, name: &str, write: impl FnOnce(&Path, &mut fs::File)) -> PathBuf {
    let path = sandbox.path(name);
    let mut file = fs::File::create_new(&path).unwrap();
    file.set_len(SIZE).unwrap();
    write(&path, &mut file);
    path
}

#[test]
fn row_74_images_without_one_file_system_are_for_raw_block_use() {
    needs_registry!();
    needs!(Need::FileSystem("ext4"));
    let sandbox = Sandbox::new("csi-no-fs");
    let rig = Rig::new(&sandbox, true);
    let at = |file: &mut fs::File, offset, bytes: &[u8]| {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(bytes).unwrap();
    };
    let partitioned = raw(&sandbox, "partitioned", |_, file| {
        // One Linux partition from 1 MiB to the end: a classic partition table.
        let mut entry = [0u8; 16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&2048u32.to_le_bytes());
        entry[12..].copy_from_slice(&u32::try_from(SIZE / 512 - 2048).unwrap().to_le_bytes());
        at(file, 446, &entry);
        at(file, 510, &[0x55, 0xaa]);
    });
    let two = raw(&sandbox, "two", |path, file| {
        command::run("mkfs.ext4", ["-q".as_ref(), path.as_os_str()]);
        // ext4 leaves its first 1024 bytes to boot loaders: room for another's superblock.
        at(file, 0, b"hsqs");
        at(file, 28, &[4, 0]);
    });
    let unknown = raw(&sandbox, "unknown", |_, file| {
        at(file, 40 * MIB, b"something");
    });
    let journal = raw(&sandbox, "journal", |path, file| {
        command::run("mkfs.ext4", ["-q".as_ref(), path.as_os_str()]);
        // s_journal_dev of the superblock: the journal is on device 8:1, whosever that is.
        at(file, 1024 + 0xe4, &[1, 8]);
    });
    for (name, from, fs_type, words) in [
        (
            "journal",
            Some(&journal),
            None,
            &["ext4", "journal is on another device"][..],
        ),
        ("blank", None, Some("none"), &["no file system"]),
        (
            "partitioned",
            Some(&partitioned),
            None,
            &["partition table", "dos"],
        ),
        ("two", Some(&two), None, &["ext4", "squashfs"]),
        ("unknown", Some(&unknown), None, &["file system"]),
    ] {
        let reference = rig.push(
            from.map(PathBuf::as_path),
            fs_type,
            &format!("csi/{name}:v1"),
        );
        for asked in ["", "ext4"] {
            let request = used_as(mounted(asked), of_image(name, SIZE, &reference));
            refused(
                rig.node.plugin.provision(&request),
                Code::InvalidArgument,
                words,
            );
        }
        let request = used_as(block(), of_image(name, SIZE, &reference));
        let mut claim = rig.node.plugin.provision(&request).unwrap();
        let device = rig.node.plugin.run_pod(&mut claim, "pod").unwrap();
        assert_block(&device, from.map(PathBuf::as_path));
        rig.node.plugin.end_pod(&claim, "pod").unwrap();
        // Staged as a file system after all: never formatted, never mounted.
        rig.node.plugin.attach(&mut claim).unwrap();
        stage_as_mount(&rig, &claim);
        rig.node.plugin.detach(&claim).unwrap();
        rig.node.plugin.delete(&claim).unwrap();
    }
    rig.node.assert_empty(&sandbox);
}

#[test]
fn a_partition_of_an_image_is_mounted_by_its_number() {
    needs_registry!();
    needs!(Need::FileSystem("ext4"), Need::Tool("sfdisk"));
    let sandbox = Sandbox::new("csi-partition");
    let rig = Rig::new(&sandbox, true);
    // A file system of 32 MiB in the second partition of a GPT; the first holds nothing.
    let inner = sandbox.path("inner");
    fs::File::create(&inner).unwrap().set_len(32 * MIB).unwrap();
    let page = web_page(&sandbox);
    let make = [
        "-q".as_ref(),
        "-d".as_ref(),
        page.as_os_str(),
        inner.as_os_str(),
    ];
    command::run("mkfs.ext4", make);
    let disk = raw(&sandbox, "partitioned", |path, file| {
        let script = "label: gpt\nunit: sectors\n2048,8192\n20480,65536\n";
        let script = sandbox.write("script", script);
        let line = format!("sfdisk -q {} < {}", path.display(), script.display());
        command::run("sh", ["-c", &line]);
        file.seek(SeekFrom::Start(20480 * 512)).unwrap();
        file.write_all(&fs::read(&inner).unwrap()).unwrap();
    });
    let reference = rig.push(Some(&disk), None, "csi/partition:v1");
    let of_partition = |name: &str, partition: &str| {
        let parameters = [("baseImage", reference.as_str()), ("partition", partition)];
        claim(name, SIZE, &parameters)
    };
    // Without a number it is said how to give one; a wrong one is told which there are.
    let whole = rig
        .node
        .plugin
        .provision(&of_image("whole", SIZE, &reference));
    refused(
        whole,
        Code::InvalidArgument,
        &["partition table", "gpt", "parameter partition"],
    );
    for (partition, words) in [("3", ["partition 3", "1, 2"]), ("0", ["partition", "128"])] {
        let wrong = rig.node.plugin.provision(&of_partition("wrong", partition));
        refused(wrong, Code::InvalidArgument, &words);
    }
    let blank = rig.node.plugin.provision(&of_partition("blank", "1"));
    refused(blank, Code::InvalidArgument, &["no file system"]);
    let other = used_as(mounted("xfs"), of_partition("other", "2"));
    refused(
        rig.node.plugin.provision(&other),
        Code::InvalidArgument,
        &["ext4", "xfs"],
    );
    rig.node.assert_empty(&sandbox);

    let request = of_partition("pvc", "2");
    let mut claim = rig.node.plugin.provision(&request).unwrap();
    assert_eq!(
        rig.node.plugin.provision(&request).unwrap().volume,
        claim.volume
    );
    let another = rig.node.plugin.provision(&of_partition("pvc", "1"));
    refused(another, Code::AlreadyExists, &["partition"]);
    let target = rig.node.plugin.run_pod(&mut claim, "pod").unwrap();
    assert!(fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD);
    let grown = rig.node.plugin.expand(&claim, "pod", 2 * SIZE);
    refused(grown, Code::OutOfRange, &["partition"]);
    rig.node.plugin.end_pod(&claim, "pod").unwrap();
    rig.node.plugin.delete(&claim).unwrap();
    rig.node.assert_empty(&sandbox);
}

fn stage_as_mount(rig: &Rig, claim: &Claim) {
    let file = rig.volume_file(&claim.volume.volume_id);
    let before = command::run("sha512sum", [&file]);
    for asked in ["", "ext4"] {
        let mut claim = claim.clone();
        claim.request.volume_capabilities = vec![mounted(asked)];
        refused(rig.node.plugin.stage(&claim), Code::FailedPrecondition, &[]);
    }
    assert_eq!(
        before,
        command::run("sha512sum", [&file]),
        "not a byte was written"
    );
}

/// The device holds what the image was made from (zeros, if from nothing).
fn assert_block(device: &Path, from: Option<&Path>) {
    let bytes = fs::read(device).unwrap();
    assert_eq!(bytes.len() as u64, SIZE);
    match from {
        Some(path) => assert!(bytes == fs::read(path).unwrap()),
        None => assert!(bytes.iter().all(|byte| *byte == 0)),
    }
}

#[test]
fn a_repeated_call_needs_neither_registry_nor_image_again() {
    needs_registry!();
    let sandbox = Sandbox::new("csi-again");
    let mut rig = Rig::new(&sandbox, true);
    let reference = rig.push_ext4(&sandbox);
    let request = of_image("pvc-1", SIZE, &reference);
    let claim = rig.node.plugin.provision(&request).unwrap();
    rig.registry.stop();
    let again = block_on(rig.node.plugin.controller().create_volume(request)).unwrap();
    assert_eq!(again.into_inner().volume.unwrap(), claim.volume);
    // And another volume of the same image comes from the disk.
    let second = rig
        .node
        .plugin
        .provision(&of_image("pvc-2", SIZE, &reference))
        .unwrap();
    for claim in [&claim, &second] {
        rig.node.plugin.delete(claim).unwrap();
    }
    rig.node.assert_empty(&sandbox);
}

/// Row 163: somebody clears images away while volumes are made of them.
#[test]
fn row_163_a_volume_is_made_while_its_image_is_deleted() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd")
    );
    let sandbox = Sandbox::new("image-races");
    let rig = Rig::new(&sandbox, true);
    let reference = rig.push_ext4(&sandbox);
    let plugin = &rig.node.plugin;
    let mut made = 0;
    for n in 0..60 {
        // Once in each round, at whatever moment that is.
        let clear = || {
            for image in rig.node.manager.list_images().unwrap() {
                // Refused while a volume was made of it.
                let _ = rig.node.manager.delete_image(&image.name);
            }
        };
        let claim = of_image(&format!("race-{n}"), SIZE, &reference);
        let answer = std::thread::scope(|scope| {
            scope.spawn(clear);
            plugin.provision_once(&claim)
        });
        match answer {
            Ok(claim) => {
                made += 1;
                plugin.delete(&claim).unwrap();
            }
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
    }
    assert!(made > 0, "none was made");
}
