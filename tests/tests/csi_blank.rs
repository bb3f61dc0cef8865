//! The plugin with blank volumes: names, sizes and parameters; repeated, reordered and concurrent
//! calls; hostile targets and mount flags; its socket.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use e2e::csi::{Claim, Plugin, block, claim, mounted, refused};
use e2e::manager::{NODE, Options, init_disk};
use e2e::{
    Disk, FileSystem, Manager, Need, Node, Process, Sandbox, block_on, command, leftovers, needs,
    programs,
};
use proto::csi::v1 as csi;
use proto::csi::v1::volume_capability::AccessType;
use proto::csi::v1::volume_capability::access_mode::Mode;
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;

fn create(node: &Node, request: csi::CreateVolumeRequest) -> Result<csi::Volume, Status> {
    let reply = block_on(node.plugin.controller().create_volume(request))?;
    Ok(reply.into_inner().volume.unwrap())
}

fn with_mode(mode: Mode) -> csi::VolumeCapability {
    let mut capability = mounted("");
    capability.access_mode = Some(csi::volume_capability::AccessMode { mode: mode.into() });
    capability
}

fn with_flags(flags: &[&str]) -> csi::VolumeCapability {
    let mut capability = mounted("");
    if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
        mount.mount_flags = flags.iter().map(ToString::to_string).collect();
    }
    capability
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the field of the message is optional"
)]
fn range(required_bytes: u64, limit_bytes: u64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes: i64::try_from(required_bytes).unwrap(),
        limit_bytes: i64::try_from(limit_bytes).unwrap(),
    })
}

#[test]
fn row_69_a_hundred_equal_calls_make_one_volume() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-parallel");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let request = claim("pvc-1", 64 * MIB, &[("numberOfReplicas", "1")]);
    let volumes: Vec<csi::Volume> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| node.plugin.provision(&request).unwrap().volume))
            .collect();
        callers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(volumes.iter().all(|volume| *volume == volumes[0]));
    assert_eq!(node.manager.list_volumes().unwrap().len(), 1);
    let larger = claim("pvc-1", 128 * MIB, &[("numberOfReplicas", "1")]);
    refused(
        create(&node, larger),
        Code::AlreadyExists,
        &["pvc-1", "size"],
    );
    let other = claim("pvc-1", 64 * MIB, &[("numberOfReplicas", "2")]);
    let words = ["numberOfReplicas", "\"1\"", "\"2\""];
    refused(create(&node, other), Code::AlreadyExists, &words);
    let mut xfs = claim("pvc-1", 64 * MIB, &[("numberOfReplicas", "1")]);
    xfs.volume_capabilities = vec![mounted("btrfs")];
    refused(create(&node, xfs), Code::AlreadyExists, &["fsType"]);
    node.plugin
        .delete(&node.plugin.provision(&request).unwrap())
        .unwrap();
    node.assert_empty(&sandbox);
}

#[test]
fn row_70_names_sizes_and_parameters_are_checked() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-requests");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let base = || claim("pvc-1", 64 * MIB, &[]);
    let sized = |required, limit| csi::CreateVolumeRequest {
        capacity_range: range(required, limit),
        ..base()
    };
    for name in ["", "n\u{7}", "n\0", &"n".repeat(129)] {
        refused(
            create(&node, claim(name, MIB, &[])),
            Code::InvalidArgument,
            &[],
        );
    }
    let none = csi::CreateVolumeRequest {
        volume_capabilities: vec![],
        ..base()
    };
    refused(
        create(&node, none),
        Code::InvalidArgument,
        &["volume_capabilities"],
    );
    refused(
        create(&node, sized(2 * MIB, MIB)),
        Code::InvalidArgument,
        &["limit_bytes"],
    );
    // 4097 bytes would have to be rounded up past the limit.
    refused(create(&node, sized(4097, 4097)), Code::OutOfRange, &[]);
    let misspelt = claim("pvc-1", MIB, &[("numberOfReplica", "1")]);
    refused(
        create(&node, misspelt),
        Code::InvalidArgument,
        &["numberOfReplicas"],
    );
    let small = csi::CreateVolumeRequest {
        volume_capabilities: vec![mounted("xfs")],
        ..sized(MIB, MIB)
    };
    refused(create(&node, small), Code::OutOfRange, &["xfs"]);
    node.assert_empty(&sandbox);

    for (name, request, size) in [
        ("exact", sized(32 * MIB, 32 * MIB), 32 * MIB),
        ("odd", sized(32 * MIB + 1, 0), 32 * MIB + 4096),
        // Less than ext4 with a journal takes is rounded up.
        ("small", sized(5000, 0), 8 * MIB),
        ("n", claim(&"n".repeat(128), MIB, &[]), 8 * MIB),
    ] {
        let claim = node.plugin.provision(&request).unwrap();
        assert_eq!(claim.volume.capacity_bytes, size.cast_signed(), "{name}");
        node.plugin.delete(&claim).unwrap();
    }
    node.assert_empty(&sandbox);
}

#[test]
fn row_74_only_what_is_proven_blank_is_formatted() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-blank");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let mut blank = node
        .plugin
        .provision(&claim("blank", 64 * MIB, &[]))
        .unwrap();
    let target = node.plugin.run_pod(&mut blank, "pod").unwrap();
    assert_eq!(fs_type(&target), "ext4", "nothing asked, nothing there");
    fs::File::create(target.join("kept")).unwrap();
    node.plugin.end_pod(&blank, "pod").unwrap();
    let target = node.plugin.run_pod(&mut blank, "pod").unwrap();
    assert!(target.join("kept").exists(), "formatted once only");
    node.plugin.end_pod(&blank, "pod").unwrap();

    // One byte in the middle that no signature tells of.
    let mut written = node
        .plugin
        .provision(&claim("written", 64 * MIB, &[]))
        .unwrap();
    let path = node.disk.dir().join("volumes/written/volume");
    let mut file = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.seek(SeekFrom::Start(40 * MIB + 1)).unwrap();
    file.write_all(b"x").unwrap();
    node.plugin.attach(&mut written).unwrap();
    refused(
        node.plugin.stage(&written),
        Code::FailedPrecondition,
        &["written"],
    );
    let mut bytes = vec![0; 4 << 20];
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0), "nothing was formatted");
    node.plugin.detach(&written).unwrap();
    for claim in [&blank, &written] {
        node.plugin.delete(claim).unwrap();
    }
    node.assert_empty(&sandbox);
}

/// The file system type that the kernel shows at a mount point.
#[track_caller]
fn fs_type(target: &Path) -> String {
    mount_line(target)[0].clone()
}

/// Type and options of the mount at `target`.
#[track_caller]
fn mount_line(target: &Path) -> [String; 2] {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| Path::new(fields[1]) == target)
        .unwrap_or_else(|| panic!("nothing is mounted at {}", target.display()));
    [line[2].to_owned(), line[3].to_owned()]
}

fn unknown() -> Claim {
    let volume_id = "no-such-volume".to_owned();
    Claim {
        request: claim("no-such-volume", MIB, &[]),
        volume: csi::Volume {
            volume_id,
            ..Default::default()
        },
        publish_context: HashMap::new(),
    }
}

#[test]
fn row_75_calls_repeated_out_of_order_and_for_unknown_volumes() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-order");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let mut nobody = unknown();
    refused(plugin.attach(&mut nobody), Code::NotFound, &[]);
    plugin.unpublish(&nobody, "pod").unwrap();
    plugin.unstage(&nobody).unwrap();
    plugin.detach(&nobody).unwrap();
    plugin.delete(&nobody).unwrap();

    let mut claim = plugin.provision(&claim("pvc-1", 64 * MIB, &[])).unwrap();
    refused(
        plugin.publish(&claim, "pod"),
        Code::FailedPrecondition,
        &["stage"],
    );
    let elsewhere = csi::ControllerPublishVolumeRequest {
        volume_id: "pvc-1".into(),
        node_id: "another-node".into(),
        volume_capability: Some(mounted("")),
        ..Default::default()
    };
    let reply = block_on(plugin.controller().controller_publish_volume(elsewhere));
    refused(reply, Code::NotFound, &["another-node"]);
    for _ in 0..2 {
        plugin.attach(&mut claim).unwrap();
    }
    for _ in 0..2 {
        plugin.stage(&claim).unwrap();
    }
    for _ in 0..2 {
        plugin.publish(&claim, "pod").unwrap();
    }
    assert_eq!(leftovers::loops_below(node.disk.dir()).len(), 1);
    refused(plugin.unstage(&claim), Code::FailedPrecondition, &[]);
    refused(plugin.delete(&claim), Code::FailedPrecondition, &[NODE]);
    let readonly = publish_request(plugin, &claim, "pod", true);
    refused(
        block_on(plugin.node().node_publish_volume(readonly)),
        Code::AlreadyExists,
        &[],
    );
    for _ in 0..2 {
        plugin.unpublish(&claim, "pod").unwrap();
    }
    for _ in 0..2 {
        plugin.unstage(&claim).unwrap();
    }
    for _ in 0..2 {
        plugin.detach(&claim).unwrap();
    }
    for _ in 0..2 {
        plugin.delete(&claim).unwrap();
    }
    node.assert_empty(&sandbox);
}

fn publish_request(
    plugin: &Plugin,
    claim: &Claim,
    pod: &str,
    readonly: bool,
) -> csi::NodePublishVolumeRequest {
    csi::NodePublishVolumeRequest {
        volume_id: claim.volume.volume_id.clone(),
        staging_target_path: plugin.staging(claim).display().to_string(),
        target_path: plugin.target(claim, pod).display().to_string(),
        volume_capability: claim.request.volume_capabilities.first().cloned(),
        publish_context: claim.publish_context.clone(),
        readonly,
        ..Default::default()
    }
}

#[test]
fn row_75_calls_at_once_for_one_volume_do_the_work_once() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-at-once");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let mut claim = node
        .plugin
        .provision(&claim("pvc-1", 64 * MIB, &[]))
        .unwrap();
    node.plugin.attach(&mut claim).unwrap();
    let results: Vec<Result<PathBuf, Status>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| node.plugin.stage(&claim)))
            .collect();
        callers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let aborted = |result: &Result<PathBuf, Status>| {
        result
            .as_ref()
            .is_err_and(|status| status.code() == Code::Aborted)
    };
    assert!(results.iter().any(Result::is_ok));
    assert!(results.iter().any(aborted), "they did not meet");
    assert!(results.iter().all(|one| one.is_ok() || aborted(one)));
    assert_eq!(leftovers::loops_below(node.disk.dir()).len(), 1);
    assert_eq!(leftovers::mounts_below(node.plugin.kubelet_dir()).len(), 1);
    node.plugin.unstage(&claim).unwrap();
    node.plugin.detach(&claim).unwrap();
    node.plugin.delete(&claim).unwrap();
    node.assert_empty(&sandbox);
}

#[test]
fn row_77_what_lies_at_a_target_is_never_followed_or_covered() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-target");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let mut claim = plugin.provision(&claim("pvc-1", 64 * MIB, &[])).unwrap();
    plugin.attach(&mut claim).unwrap();
    plugin.stage(&claim).unwrap();
    let outside = sandbox.make_dir("outside");
    let lay = |pod: &str| {
        let target = plugin.target(&claim, pod);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        target
    };

    symlink(&outside, lay("link")).unwrap();
    refused(
        plugin.publish(&claim, "link"),
        Code::FailedPrecondition,
        &["link"],
    );
    assert!(leftovers::mounts_below(&outside).is_empty());
    fs::File::create(lay("file")).unwrap();
    refused(
        plugin.publish(&claim, "file"),
        Code::FailedPrecondition,
        &[],
    );
    fs::create_dir_all(lay("full").join("something")).unwrap();
    refused(
        plugin.publish(&claim, "full"),
        Code::FailedPrecondition,
        &[],
    );
    plugin.unpublish(&claim, "full").unwrap_err();
    assert!(plugin.target(&claim, "full").join("something").exists());

    // Unmounted and removed by hand.
    let target = plugin.publish(&claim, "pod").unwrap();
    command::run("umount", [&target]);
    plugin.publish(&claim, "pod").unwrap();
    command::run("umount", [&target]);
    fs::remove_dir(&target).unwrap();
    plugin.unpublish(&claim, "pod").unwrap();
    plugin.publish(&claim, "pod").unwrap();
    plugin.end_pod(&claim, "pod").unwrap();
    plugin.delete(&claim).unwrap();
    node.assert_empty(&sandbox);
}

#[test]
fn row_79_mount_flags_are_on_a_list_and_nosuid_nodev_always() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-flags");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let mut claim = node
        .plugin
        .provision(&claim("pvc-1", 64 * MIB, &[]))
        .unwrap();
    node.plugin.attach(&mut claim).unwrap();
    for flags in [
        &["suid"][..],
        &["dev"],
        &["loop=/dev/loop0"],
        &["x-systemd.automount"],
        &["; touch /tmp/owned"],
        &["bind"],
    ] {
        claim.request.volume_capabilities = vec![with_flags(flags)];
        refused(node.plugin.stage(&claim), Code::InvalidArgument, &[]);
    }
    for fs_type in ["ext4 -o loop", "overlay", "fuse.x", "../ext4"] {
        claim.request.volume_capabilities = vec![mounted(fs_type)];
        refused(
            node.plugin.stage(&claim),
            Code::InvalidArgument,
            &["fs_type"],
        );
    }
    claim.request.volume_capabilities = vec![with_flags(&["noatime"])];
    let staged = node.plugin.stage(&claim).unwrap();
    let target = node.plugin.publish(&claim, "pod").unwrap();
    for mount in [staged, target] {
        let options = &mount_line(&mount)[1];
        for flag in ["nosuid", "nodev", "noatime"] {
            assert!(options.split(',').any(|option| option == flag), "{options}");
        }
    }
    node.plugin.end_pod(&claim, "pod").unwrap();
    node.plugin.delete(&claim).unwrap();
    node.assert_empty(&sandbox);
}

#[test]
fn a_read_only_volume_is_read_only_to_its_pods() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-readonly");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let mut claim = node
        .plugin
        .provision(&claim("pvc-1", 64 * MIB, &[]))
        .unwrap();
    node.plugin.run_pod(&mut claim, "writer").unwrap();
    let request = publish_request(&node.plugin, &claim, "reader", true);
    let target = node.plugin.target(&claim, "reader");
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    block_on(node.plugin.node().node_publish_volume(request)).unwrap();
    assert!(fs::File::create(target.join("x")).is_err());
    assert!(fs::File::create(node.plugin.target(&claim, "writer").join("x")).is_ok());
    node.plugin.unpublish(&claim, "reader").unwrap();
    node.plugin.end_pod(&claim, "writer").unwrap();

    claim.request.volume_capabilities = vec![with_mode(Mode::MultiNodeReaderOnly)];
    let target = node.plugin.run_pod(&mut claim, "rox").unwrap();
    assert!(target.join("x").exists());
    assert!(fs::File::create(target.join("y")).is_err());
    node.plugin.end_pod(&claim, "rox").unwrap();
    node.plugin.delete(&claim).unwrap();
    node.assert_empty(&sandbox);
}

#[test]
fn volumes_of_both_kinds_grow_while_they_are_used() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-expand");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    // XFS, because the kernel grows a mounted ext4 only for CAP_SYS_RESOURCE, which not every machine
    // has to give.
    for (name, capability) in [("mounted", mounted("xfs")), ("block", block())] {
        let mut request = claim(name, 320 * MIB, &[]);
        request.volume_capabilities = vec![capability];
        let mut claim = node.plugin.provision(&request).unwrap();
        let target = node.plugin.run_pod(&mut claim, "pod").unwrap();
        let grow = csi::ControllerExpandVolumeRequest {
            volume_id: name.into(),
            capacity_range: range(400 * MIB, 0),
            ..Default::default()
        };
        let grown = block_on(node.plugin.controller().controller_expand_volume(grow)).unwrap();
        assert_eq!(grown.get_ref().capacity_bytes, (400 * MIB).cast_signed());
        assert!(grown.get_ref().node_expansion_required);
        let grow = csi::NodeExpandVolumeRequest {
            volume_id: name.into(),
            volume_path: target.display().to_string(),
            capacity_range: range(400 * MIB, 0),
            ..Default::default()
        };
        block_on(node.plugin.node().node_expand_volume(grow)).unwrap();
        let stats = csi::NodeGetVolumeStatsRequest {
            volume_id: name.into(),
            volume_path: target.display().to_string(),
            ..Default::default()
        };
        let stats = block_on(node.plugin.node().node_get_volume_stats(stats)).unwrap();
        let total = stats.get_ref().usage[0].total.cast_unsigned();
        assert!(total > 330 * MIB, "{name}: {total}");
        let condition = stats.get_ref().volume_condition.clone().unwrap();
        assert!(!condition.abnormal, "{name}: {}", condition.message);
        node.plugin.end_pod(&claim, "pod").unwrap();
        node.plugin.delete(&claim).unwrap();
    }
    node.assert_empty(&sandbox);
}

#[test]
fn room_is_told_for_all_volumes_and_for_one() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-room");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let room = |name: Option<&str>| {
        let segment = |name: &str| ("driver.longhorn.io/node".to_owned(), name.to_owned());
        let request = csi::GetCapacityRequest {
            accessible_topology: name.map(|name| csi::Topology {
                segments: [segment(name)].into(),
            }),
            ..Default::default()
        };
        let reply = block_on(node.plugin.controller().get_capacity(request));
        let reply = reply.unwrap().into_inner();
        assert_eq!(reply.minimum_volume_size, Some(4096));
        (reply.available_capacity, reply.maximum_volume_size.unwrap())
    };
    let (all, one) = room(None);
    assert!(all > 0 && one == all, "there is one disk: {all} and {one}");
    assert_eq!(room(Some("elsewhere")), (0, 0));
}

#[test]
fn a_node_that_is_full_takes_no_more() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-full");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    let limit = ["--max-volumes-per-node=2"];
    let plugin = Plugin::start_as(&sandbox, &manager, disk.dir(), "", &limit);
    let info = block_on(plugin.node().node_get_info(csi::NodeGetInfoRequest {}));
    assert_eq!(info.unwrap().into_inner().max_volumes_per_node, 2);
    let provision = |name: &str| plugin.provision(&claim(name, MIB, &[])).unwrap();
    let mut claims = ["a", "b", "c"].map(provision);
    for claim in &mut claims[..2] {
        plugin.attach(claim).unwrap();
    }
    refused(
        plugin.attach(&mut claims[2]),
        Code::ResourceExhausted,
        &["2 published volumes", "--max-volumes-per-node"],
    );
    // What it has it may be given again, and a place that is free is given away.
    plugin.attach(&mut claims[1]).unwrap();
    plugin.detach(&claims[0]).unwrap();
    plugin.attach(&mut claims[2]).unwrap();
    for claim in &claims {
        plugin.detach(claim).unwrap();
        plugin.delete(claim).unwrap();
    }
}

#[test]
fn pages_of_volumes_survive_deletions_between_them() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-pages");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let claims: Vec<Claim> = ["a", "b", "c", "d", "e"]
        .iter()
        .map(|name| node.plugin.provision(&claim(name, MIB, &[])).unwrap())
        .collect();
    let page = |max_entries, starting_token: String| {
        let request = csi::ListVolumesRequest {
            max_entries,
            starting_token,
        };
        let reply = block_on(node.plugin.controller().list_volumes(request)).unwrap();
        let reply = reply.into_inner();
        let ids = reply
            .entries
            .into_iter()
            .map(|e| e.volume.unwrap().volume_id);
        (ids.collect::<Vec<_>>(), reply.next_token)
    };
    let (ids, token) = page(2, String::new());
    assert_eq!(ids, ["a", "b"]);
    for number in [1, 2] {
        node.plugin.delete(&claims[number]).unwrap();
    }
    let (ids, token) = page(0, token);
    assert_eq!((ids, token.as_str()), (vec!["d".into(), "e".into()], ""));
    for claim in &claims {
        node.plugin.delete(claim).unwrap();
    }
    node.assert_empty(&sandbox);
}

#[test]
fn row_85_only_root_reaches_the_socket_and_a_dead_one_is_replaced() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Tool("curl"));
    let sandbox = Sandbox::new("csi-socket");
    let mut node = Node::new(&sandbox, FileSystem::Xfs);
    let directory = node.plugin.kubelet_dir().join("plugins/driver.longhorn.io");
    let socket = directory.join("csi.sock");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&socket)), (0o700, 0o600));
    // Everything above is open to all, so that it is the socket's own directory that keeps them out.
    for above in directory.parent().unwrap().ancestors() {
        fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
        if above == sandbox.dir() {
            break;
        }
    }
    let path = socket.display().to_string();
    let connect = [
        "curl",
        "--silent",
        "--max-time",
        "5",
        "--unix-socket",
        &path,
        "http://x/",
    ];
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let as_nobody = command::output(nobody[0], nobody[1..].iter().chain(&connect));
    assert_eq!(
        as_nobody.status.code(),
        Some(7),
        "curl(1): failed to connect"
    );
    let as_root = command::output(connect[0], &connect[1..]);
    assert_ne!(as_root.status.code(), Some(7), "root connects");

    let second = |endpoint: &Path| {
        let options = [
            ("--endpoint", format!("unix://{}", endpoint.display())),
            ("--mode", "controller".to_owned()),
        ];
        let arguments = options
            .into_iter()
            .flat_map(|(option, value)| [option.to_owned(), value]);
        Process::spawn(&sandbox, "second", &programs::csi_plugin(), arguments, &[])
    };
    let mut while_served = second(&socket);
    assert_eq!(
        while_served.wait_end().code(),
        Some(1),
        "{}",
        while_served.log()
    );
    let link = directory.join("link.sock");
    symlink(&socket, &link).unwrap();
    let mut through_link = second(&link);
    assert_eq!(
        through_link.wait_end().code(),
        Some(1),
        "{}",
        through_link.log()
    );
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

    node.plugin.process.kill_9();
    assert!(socket.exists(), "a killed plugin leaves its socket");
    node.plugin = Plugin::start(&sandbox, &node.manager, node.disk.dir());
    assert_eq!(mode(&socket), 0o600);
    assert!(node.plugin.process.terminate().success());
    assert!(
        !socket.exists(),
        "a plugin that ends takes its socket along"
    );
}
