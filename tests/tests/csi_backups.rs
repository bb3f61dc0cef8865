//! Snapshots that are backups: from CreateSnapshot of a class of type `bak` to a claim in a cluster that has nothing
//! but the store.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use e2e::csi::{Claim, Plugin, backup_of, claim, mounted, of_snapshot, refused};
use e2e::manager::{Options, init_disk};
use e2e::noise::noise;
use e2e::{Disk, FileSystem, Manager, Need, Node, Sandbox, block_on, needs};
use proto::csi::v1 as csi;
use tonic::Code;

const MIB: u64 = 1 << 20;
/// Incompressible, and more than one block.
const LENGTH: usize = 5 << 20;

/// A directory that is the default target, for the managers of a test.
fn store(sandbox: &Sandbox) -> PathBuf {
    sandbox.make_dir("store")
}

fn address(store: &Path) -> String {
    format!("vfs://{}", store.display())
}

/// A manager with that target, and its plugin.
fn site(sandbox: &Sandbox, disk: &str, store: &Path) -> Node {
    let disk = Disk::new(sandbox, disk, FileSystem::Xfs, 1 << 30);
    let target = format!("default={}", address(store));
    Node::start(sandbox, disk, |options| {
        options.with("--backup-target", target)
    })
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    let directory = File::open(path.parent().unwrap()).unwrap();
    directory.sync_all().unwrap();
}

/// A volume `source` that a pod uses, with a file of noise in it.
fn source(plugin: &Plugin) -> (Claim, PathBuf) {
    let mut source = plugin.provision(&claim("source", 64 * MIB, &[])).unwrap();
    let target = plugin.run_pod(&mut source, "pod").unwrap();
    write(&target.join("before"), &noise(1, LENGTH));
    (source, target)
}

fn end(plugin: &Plugin, source: &Claim) {
    plugin.end_pod(source, "pod").unwrap();
    plugin.delete(source).unwrap();
}

/// What a pod finds in the file of a volume of this claim, which is deleted then.
fn read(plugin: &Plugin, request: &csi::CreateVolumeRequest, file: &str) -> Vec<u8> {
    let mut claim = plugin.provision(request).unwrap();
    let target = plugin.run_pod(&mut claim, "reader").unwrap();
    let bytes = fs::read(target.join(file)).unwrap();
    plugin.end_pod(&claim, "reader").unwrap();
    plugin.delete(&claim).unwrap();
    bytes
}

#[test]
fn a_backup_is_restored_where_nothing_but_the_store_is() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-backups");
    let store = store(&sandbox);
    let node = site(&sandbox, "disk", &store);
    let plugin = &node.plugin;
    let (mut claim_of_source, target) = source(plugin);
    let request = backup_of("snapshot-1", "source", &[], &[]);
    let taken = plugin.back_up(&request).unwrap();
    assert_eq!(taken.snapshot_id, "bak://source/snapshot-1");
    assert_eq!(taken.source_volume_id, "source");
    assert_eq!(taken.size_bytes, (64 * MIB).cast_signed());
    assert!(taken.creation_time.is_some());
    write(&target.join("before"), &noise(2, LENGTH));
    // Asked again it is the same one, though the volume has changed.
    assert_eq!(plugin.back_up(&request).unwrap(), taken);
    let other = plugin.provision(&claim("other", 64 * MIB, &[])).unwrap();
    refused(
        plugin.back_up(&backup_of("snapshot-1", "other", &[], &[])),
        Code::AlreadyExists,
        &["snapshot-1", "source"],
    );
    refused(
        plugin.back_up(&backup_of("snapshot-2", "nowhere", &[], &[])),
        Code::NotFound,
        &["nowhere"],
    );
    plugin.delete(&other).unwrap();
    // The next one has what was written since.
    let class = [("backupCompression", "gzip"), ("backupMode", "incremental")];
    let request = backup_of("snapshot-2", "source", &class, &[]);
    assert!(plugin.back_up(&request).unwrap().ready_to_use);
    let (first, second) = ("bak://source/snapshot-1", "bak://source/snapshot-2");
    let ready = |id: &str| (id.to_owned(), true);
    assert_eq!(plugin.snapshots_of("", first).unwrap(), [ready(first)]);
    let listed = plugin.snapshots_of("source", "").unwrap();
    for id in [first, second] {
        assert!(listed.contains(&ready(id)), "{listed:?}");
    }
    for (volume, id) in [("", "bak://source/none"), ("", "bak://x"), ("other", first)] {
        assert_eq!(
            plugin.snapshots_of(volume, id).unwrap(),
            [],
            "{volume} {id}"
        );
    }
    end(plugin, &claim_of_source);
    claim_of_source.volume.volume_id.clear();
    drop(node);

    // Another cluster: it has an empty disk, and the store.
    let node = site(&sandbox, "another-disk", &store);
    restored_elsewhere(&node, &store);
    node.assert_empty(&sandbox);
}

/// The backups of `source` are used on a node that never saw it.
fn restored_elsewhere(node: &Node, store: &Path) {
    let plugin = &node.plugin;
    let first = "bak://source/snapshot-1";
    let request = of_snapshot("restored", 96 * MIB, first);
    let made = plugin.provision(&request).unwrap();
    assert_eq!(made.volume.content_source, request.volume_content_source);
    assert_eq!(plugin.provision(&request).unwrap().volume, made.volume);
    refused(
        plugin.provision(&of_snapshot(
            "restored",
            96 * MIB,
            "bak://source/snapshot-2",
        )),
        Code::AlreadyExists,
        &["restored"],
    );
    assert!(read(plugin, &request, "before") == noise(1, LENGTH));
    // Its class may name an image: what it is made from counts.
    let mut second = of_snapshot("restored-2", 64 * MIB, "bak://source/snapshot-2");
    second.parameters = [("baseImage".to_owned(), "127.0.0.1:1/none:1".to_owned())].into();
    assert!(read(plugin, &second, "before") == noise(2, LENGTH));
    // By the address in a class, without a source: it is the same image.
    let at = format!("{}?backup=snapshot-1&volume=source", address(store));
    let images = node.manager.list_images().unwrap().len();
    let class = [("fromBackup", at.as_str())];
    assert!(read(plugin, &claim("of-class", 64 * MIB, &class), "before") == noise(1, LENGTH));
    assert_eq!(node.manager.list_images().unwrap().len(), images);

    let small = of_snapshot("small", 32 * MIB, first);
    refused(plugin.provision(&small), Code::OutOfRange, &[]);
    for mut wrong in [
        of_snapshot("wrong", 64 * MIB, first),
        claim("wrong", 64 * MIB, &class),
    ] {
        wrong.volume_capabilities = vec![mounted("xfs")];
        refused(
            plugin.provision(&wrong),
            Code::InvalidArgument,
            &["ext4", "xfs"],
        );
    }
    let elsewhere = [(
        "fromBackup",
        "s3://bucket@region/path/?backup=back&volume=vol",
    )];
    refused(
        plugin.provision(&claim("elsewhere", 64 * MIB, &elsewhere)),
        Code::FailedPrecondition,
        &["s3://bucket@region/path", "--backup-target"],
    );
    let mut no_target = of_snapshot("no-target", 64 * MIB, "bak://source/snapshot-1?target=none");
    refused(
        plugin.provision(&no_target),
        Code::FailedPrecondition,
        &["none", "--backup-target"],
    );
    no_target = of_snapshot("no-backup", 64 * MIB, "bak://source/none");
    refused(plugin.provision(&no_target), Code::NotFound, &["none"]);

    // Its volume is gone, and the node of that.
    plugin.delete_snapshot(first).unwrap();
    plugin.delete_snapshot(first).unwrap();
    assert_eq!(plugin.snapshots_of("", first).unwrap(), []);
    plugin.delete_snapshot("bak://source/snapshot-2").unwrap();
    let blocks = files(store).into_iter();
    let blocks: Vec<_> = blocks
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "blk"))
        .collect();
    assert_eq!(blocks, Vec::<String>::new(), "blocks that no backup needs");
    refused(
        plugin.delete_snapshot("bak://source/snapshot-1?target=none"),
        Code::FailedPrecondition,
        &["none"],
    );
}

/// The names of all files below a directory.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[test]
fn a_plugin_that_is_killed_finds_the_backup_that_it_began() {
    needs!(Need::Failpoints, Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-backup-crash");
    let store = store(&sandbox);
    let mut node = site(&sandbox, "disk", &store);
    let (source, _) = source(&node.plugin);
    node.plugin.process.terminate();
    let point = "csi.create_snapshot.backup_begun=return";
    let mut plugin = Plugin::start_with(&sandbox, &node.manager, node.disk.dir(), point);
    let request = backup_of("snapshot-1", "source", &[], &[]);
    plugin.back_up_once(&request).unwrap_err();
    assert_eq!(plugin.process.wait_end().signal(), Some(9));
    let plugin = Plugin::start(&sandbox, &node.manager, node.disk.dir());
    let taken = plugin.back_up(&request).unwrap();
    assert!(taken.ready_to_use);
    let configs = files(&store).into_iter();
    let configs: Vec<_> = configs.filter(|name| name.starts_with("backup_")).collect();
    assert_eq!(configs, ["backup_snapshot-1.cfg"]);
    plugin.delete_snapshot(&taken.snapshot_id).unwrap();
    end(&plugin, &source);
    node.plugin = plugin;
    node.assert_empty(&sandbox);
}

#[test]
fn a_store_that_is_away_breaks_its_backups_and_nothing_else() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-backup-store-away");
    let store = store(&sandbox);
    let node = site(&sandbox, "disk", &store);
    let plugin = &node.plugin;
    let (source, _) = source(plugin);
    let kept = backup_of("kept", "source", &[], &[]);
    let kept = plugin.back_up(&kept).unwrap().snapshot_id;
    plugin.snapshot("local", "source").unwrap();
    let away = store.with_extension("away");
    fs::rename(&store, &away).unwrap();

    let request = backup_of("snapshot-1", "source", &[], &[]);
    let status = plugin.back_up(&request).unwrap_err();
    assert!(status.message().contains("store"), "{status}");
    // Nobody is told that a backup is gone, and what is on the disk is listed.
    let status = plugin.snapshots_of("", &kept).unwrap_err();
    assert_ne!(status.code(), Code::NotFound, "{status}");
    let listed = plugin.snapshots_of("source", "").unwrap();
    assert!(listed.contains(&("local".to_owned(), true)), "{listed:?}");
    assert!(plugin.delete_snapshot(&kept).is_err());

    fs::rename(&away, &store).unwrap();
    assert!(plugin.back_up(&request).unwrap().ready_to_use);
    for id in [kept.as_str(), "bak://source/snapshot-1", "local"] {
        plugin.delete_snapshot(id).unwrap();
    }
    end(plugin, &source);
    node.assert_empty(&sandbox);
}

#[test]
fn the_secrets_of_a_class_are_in_no_log_and_no_answer() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-backup-secrets");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    init_disk(disk.dir());
    let options = Options::new(disk.dir()).with("--log-level", "debug");
    let manager = Manager::start(&sandbox, &options);
    let level = ["--log-level", "debug"];
    let plugin = Plugin::start_as(&sandbox, &manager, disk.dir(), "", &level);
    let made = plugin.provision(&claim("source", 64 * MIB, &[])).unwrap();
    let value = "hunter2-of-the-tests";
    let secret = [
        ("AWS_ACCESS_KEY_ID", "AKIA-OF-THE-TESTS"),
        ("AWS_SECRET_ACCESS_KEY", value),
        ("AWS_ENDPOINTS", "http://127.0.0.1:9"),
        ("BACKUP_TARGET", "s3://bucket@region/path/"),
    ];
    let mut said = Vec::new();
    let request = backup_of("snapshot-1", "source", &[], &secret);
    said.push(plugin.back_up_once(&request).unwrap_err());
    let without = backup_of("snapshot-1", "source", &[], &secret[..3]);
    said.push(plugin.back_up_once(&without).unwrap_err());
    let both = backup_of(
        "snapshot-1",
        "source",
        &[("backupTargetName", "x")],
        &secret,
    );
    said.push(plugin.back_up_once(&both).unwrap_err());
    let at = "s3://bucket@region/path/?backup=back&volume=vol";
    let mut of_class = claim("restored", 64 * MIB, &[("fromBackup", at)]);
    let pairs = secret[..3].iter();
    of_class.secrets = pairs
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect();
    said.push(plugin.provision_once(&of_class).unwrap_err());
    let delete = csi::DeleteSnapshotRequest {
        snapshot_id: "bak://source/snapshot-1".into(),
        secrets: request.secrets.clone(),
    };
    said.push(block_on(plugin.controller().delete_snapshot(delete)).unwrap_err());
    for status in &said {
        assert!(!format!("{status:?}").contains("hunter2"), "{status:?}");
    }
    assert_eq!(said[1].code(), Code::InvalidArgument, "{:?}", said[1]);
    assert!(said[1].message().contains("BACKUP_TARGET"), "{:?}", said[1]);
    plugin.delete(&made).unwrap();
    for process in [&plugin.process, &manager.process] {
        assert!(!process.log().contains("hunter2"), "{}", process.log());
        for name in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{}/{name}", process.id())).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
        }
    }
    assert!(!in_files(disk.dir(), value), "a secret is on the disk");
}

/// Whether a text is in any file below a directory.
fn in_files(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            return in_files(&entry.path(), text);
        }
        let bytes = fs::read(entry.path()).unwrap();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[test]
fn a_group_is_never_backed_up() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-backup-group");
    let store = store(&sandbox);
    let node = site(&sandbox, "disk", &store);
    let made = node
        .plugin
        .provision(&claim("source", 64 * MIB, &[]))
        .unwrap();
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: "group".into(),
        source_volume_ids: vec!["source".into()],
        parameters: [("type".into(), "bak".into())].into(),
        ..Default::default()
    };
    let reply = block_on(node.plugin.groups().create_volume_group_snapshot(request));
    refused(reply, Code::InvalidArgument, &["type", "group"]);
    assert_eq!(files(&store), Vec::<String>::new());
    node.plugin.delete(&made).unwrap();
}
