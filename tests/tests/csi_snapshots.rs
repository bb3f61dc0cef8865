//! Snapshots and clones: their contents, their independence, and rejected requests.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use e2e::csi::{Claim, block, claim, of_snapshot, of_volume, refused};
use e2e::{FileSystem, Need, Node, Sandbox, block_on, needs};
use proto::csi::v1 as csi;
use tonic::Code;

const MIB: u64 = 1 << 20;

fn list(node: &Node, volume: &str, snapshot: &str, max: i32, token: &str) -> (Vec<String>, String) {
    let request = csi::ListSnapshotsRequest {
        max_entries: max,
        starting_token: token.into(),
        source_volume_id: volume.into(),
        snapshot_id: snapshot.into(),
        ..Default::default()
    };
    let reply = block_on(node.plugin.controller().list_snapshots(request)).unwrap();
    let reply = reply.into_inner();
    let entries = reply.entries.into_iter();
    let ids = entries.map(|entry| entry.snapshot.unwrap().snapshot_id);
    (ids.collect(), reply.next_token)
}

/// What a pod finds in a volume of this claim: the files of its root, without `lost+found`.
fn files_of(node: &Node, request: &csi::CreateVolumeRequest) -> Vec<(String, Vec<u8>)> {
    let mut claim = node.plugin.provision(request).unwrap();
    let target = node.plugin.run_pod(&mut claim, "reader").unwrap();
    let entries = fs::read_dir(&target).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut files: Vec<_> = files
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    node.plugin.end_pod(&claim, "reader").unwrap();
    node.plugin.delete(&claim).unwrap();
    files
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    File::open(path.parent().unwrap())
        .unwrap()
        .sync_all()
        .unwrap();
}

fn names(files: &[(String, Vec<u8>)]) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_snapshot_of_a_volume_in_use_holds_what_was_durable_then() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-snapshots");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let mut source = plugin.provision(&claim("source", 64 * MIB, &[])).unwrap();
    let target = plugin.run_pod(&mut source, "pod").unwrap();
    write(&target.join("before"), &vec![7; 300_000]);
    // Somebody writes all the time: what the snapshot holds must be whole all the same.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let busy = target.join("busy");
    let writer = std::thread::spawn(move || {
        let mut round = 0u64;
        while stopped.try_recv().is_err() {
            round += 1;
            write(&busy, &round.to_le_bytes().repeat(1000));
        }
        round
    });
    let taken = plugin.snapshot("snap-1", "source").unwrap();
    stop.send(()).unwrap();
    assert!(writer.join().unwrap() > 0);
    write(&target.join("after"), b"later");
    assert_eq!(taken.source_volume_id, "source");
    assert_eq!(taken.size_bytes, (64 * MIB).cast_signed());
    assert!(taken.creation_time.is_some());

    // Asked again it is the same one, though the volume has changed.
    assert_eq!(plugin.snapshot("snap-1", "source").unwrap(), taken);
    let mut other = plugin.provision(&claim("other", 64 * MIB, &[])).unwrap();
    refused(
        plugin.snapshot("snap-1", "other"),
        Code::AlreadyExists,
        &["snap-1", "source"],
    );
    refused(
        plugin.snapshot("snap-2", "nowhere"),
        Code::NotFound,
        &["nowhere"],
    );

    // A volume of it has what was durable at that moment, is as large as asked, and is its own.
    let small = of_snapshot("small", 32 * MIB, "snap-1");
    refused(plugin.provision(&small), Code::OutOfRange, &[]);
    let files = files_of(&node, &of_snapshot("restored", 96 * MIB, "snap-1"));
    assert!(
        names(&files).contains(&"before") && !names(&files).contains(&"after"),
        "{files:?}"
    );
    assert!(
        files
            .iter()
            .any(|(name, bytes)| name == "before" && *bytes == vec![7; 300_000])
    );

    depends_on_nothing(&node, &source, &mut other);
    assert_eq!(node.manager.list_images().unwrap(), Vec::new());
    assert_eq!(node.manager.list_volumes().unwrap(), Vec::new());
    sandbox.assert_nothing_attached(&node.disk.dir().join("volumes"));
}

/// Goes on with the snapshot `snap-1` of `source`, which holds a file `before` and is used by a pod.
fn depends_on_nothing(node: &Node, source: &Claim, other: &mut Claim) {
    let plugin = &node.plugin;
    // Nothing depends on the source, nor a volume on the snapshot.
    let mut kept = plugin
        .provision(&of_snapshot("kept", 64 * MIB, "snap-1"))
        .unwrap();
    plugin.end_pod(source, "pod").unwrap();
    plugin.delete(source).unwrap();
    assert_eq!(list(node, "source", "", 0, "").0, ["snap-1"]);
    plugin.delete_snapshot("snap-1").unwrap();
    plugin.delete_snapshot("snap-1").unwrap();
    let target = plugin.run_pod(&mut kept, "pod").unwrap();
    assert!(target.join("before").exists());
    plugin.end_pod(&kept, "pod").unwrap();
    let gone = plugin.provision(&of_snapshot("late", 64 * MIB, "snap-1"));
    refused(gone, Code::NotFound, &["snap-1"]);

    // A snapshot of a snapshot's volume, and of a volume that nobody has written to yet.
    plugin.snapshot("snap-3", "kept").unwrap();
    plugin.attach(other).unwrap();
    plugin.snapshot("snap-4", "other").unwrap();
    let files = files_of(node, &of_snapshot("blank", 64 * MIB, "snap-4"));
    assert_eq!(files, [], "what was blank is formatted as a new volume is");
    plugin.detach(other).unwrap();

    // Pages and filters.
    let (first, token) = list(node, "", "", 1, "");
    assert_eq!(first, ["snap-3"]);
    plugin.delete_snapshot("snap-3").unwrap();
    assert_eq!(
        list(node, "", "", 0, &token),
        (vec!["snap-4".into()], String::new())
    );
    assert_eq!(list(node, "", "snap-4", 0, "").0, ["snap-4"]);
    for (volume, snapshot) in [("nowhere", ""), ("", "../x"), ("kept", "snap-4")] {
        assert!(list(node, volume, snapshot, 0, "").0.is_empty());
    }
    plugin.delete_snapshot("snap-4").unwrap();
    plugin.delete(&kept).unwrap();
    plugin.delete(other).unwrap();
}

#[test]
fn a_clone_holds_what_its_source_held_and_says_where_it_is_from() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-clones");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let mut source = plugin.provision(&claim("source", 64 * MIB, &[])).unwrap();
    let target = plugin.run_pod(&mut source, "pod").unwrap();
    write(&target.join("before"), b"kept");
    let request = of_volume("clone", 96 * MIB, "source");
    let made = plugin.provision(&request).unwrap();
    assert_eq!(made.volume.content_source, request.volume_content_source);
    assert_eq!(made.volume.capacity_bytes, (96 * MIB).cast_signed());
    write(&target.join("after"), b"later");
    assert_eq!(plugin.provision(&request).unwrap().volume, made.volume);
    for other in [
        claim("clone", 96 * MIB, &[]),
        of_volume("clone", 96 * MIB, "another"),
        of_snapshot("clone", 96 * MIB, "snap"),
    ] {
        refused(plugin.provision(&other), Code::AlreadyExists, &["source"]);
    }
    assert_eq!(names(&files_of(&node, &request)), ["before"]);

    // The claim's StorageClass says the same of both, so that its image does not count.
    let mut request = of_volume("clone-2", 64 * MIB, "source");
    request.parameters = [("baseImage".to_owned(), "127.0.0.1:1/none:1".to_owned())].into();
    assert_eq!(names(&files_of(&node, &request)), ["after", "before"]);
    let unknown = of_volume("clone-3", 64 * MIB, "nowhere");
    refused(plugin.provision(&unknown), Code::NotFound, &["nowhere"]);
    let mut wrong = of_volume("clone-4", 64 * MIB, "source");
    wrong.volume_capabilities = vec![e2e::csi::mounted("xfs")];
    refused(
        plugin.provision(&wrong),
        Code::InvalidArgument,
        &["ext4", "xfs"],
    );
    wrong.volume_capabilities = vec![block()];
    plugin.delete(&plugin.provision(&wrong).unwrap()).unwrap();

    plugin.end_pod(&source, "pod").unwrap();
    plugin.delete(&source).unwrap();
    assert_eq!(node.manager.list_volumes().unwrap(), Vec::new());
}

/// Without reflink there is no moment at which a volume in use could be had whole.
#[test]
fn a_disk_that_cannot_share_extents_refuses_snapshots_of_volumes_in_use() {
    needs!(Need::Root, Need::FileSystem("ext4"));
    let sandbox = Sandbox::new("csi-no-reflink");
    let node = Node::new(&sandbox, FileSystem::Ext4);
    let plugin = &node.plugin;
    let mut source = plugin.provision(&claim("source", 64 * MIB, &[])).unwrap();
    let target = plugin.run_pod(&mut source, "pod").unwrap();
    write(&target.join("before"), b"kept");
    refused(
        plugin.snapshot("snap", "source"),
        Code::FailedPrecondition,
        &["share extents"],
    );
    assert_eq!(
        node.manager.list_images().unwrap(),
        Vec::new(),
        "nothing is left of it"
    );
    let in_use = plugin.provision(&of_volume("clone", 64 * MIB, "source"));
    refused(in_use, Code::FailedPrecondition, &["share extents"]);
    plugin.end_pod(&source, "pod").unwrap();
    plugin.snapshot("snap", "source").unwrap();
    assert_eq!(
        names(&files_of(&node, &of_snapshot("restored", 64 * MIB, "snap"))),
        ["before"]
    );
    assert_eq!(
        names(&files_of(&node, &of_volume("clone", 64 * MIB, "source"))),
        ["before"]
    );
    plugin.delete_snapshot("snap").unwrap();
    plugin.delete(&source).unwrap();
}

#[test]
fn what_may_change_of_a_volume_changes_and_the_rest_does_not() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-modify");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let map = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        owned.collect::<std::collections::HashMap<String, String>>()
    };
    let modify = |id: &str, pairs: &[(&str, &str)]| {
        let request = csi::ControllerModifyVolumeRequest {
            volume_id: id.into(),
            mutable_parameters: map(pairs),
            ..Default::default()
        };
        block_on(node.plugin.controller().controller_modify_volume(request)).map(drop)
    };
    // What may change wins over what is said for ever.
    let mut request = claim("pvc", 64 * MIB, &[("numberOfReplicas", "3")]);
    request.mutable_parameters = map(&[("numberOfReplicas", "1")]);
    let made = node.plugin.provision(&request).unwrap();
    let replicas = || node.manager.volume("pvc").unwrap().number_of_replicas;
    assert_eq!(replicas(), 1);
    modify(
        "pvc",
        &[("numberOfReplicas", "2"), ("staleReplicaTimeout", "7")],
    )
    .unwrap();
    modify(
        "pvc",
        &[("numberOfReplicas", "2"), ("staleReplicaTimeout", "7")],
    )
    .unwrap();
    let volume = node.manager.volume("pvc").unwrap();
    assert_eq!(
        (volume.number_of_replicas, volume.stale_replica_timeout),
        (2, 7)
    );
    for bad in [
        ("baseImage", "a:1"),
        ("numberOfReplicas", "0"),
        ("size", "1"),
    ] {
        let refusal = modify("pvc", &[("staleReplicaTimeout", "9"), bad]);
        refused(refusal, Code::InvalidArgument, &[bad.0]);
    }
    assert_eq!(
        node.manager.volume("pvc").unwrap(),
        volume,
        "all or nothing"
    );
    refused(modify("nowhere", &[]), Code::NotFound, &["nowhere"]);
    // The provisioner that asks again finds its volume as it has become.
    assert_eq!(
        node.plugin.provision(&request).unwrap().volume.volume_id,
        "pvc"
    );
    node.plugin.delete(&made).unwrap();
}
