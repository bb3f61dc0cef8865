//! The node service (`longhorn.node.v1`) of a running plugin, with real loop devices: attached once whoever asks
//! (240), killed (241), after a reboot (242), on a full disk and without the file (243), in use (244), and who may
//! call (245).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::csi::{Plugin, block, claim, refused};
use e2e::flexvolume::Driver;
use e2e::{
    AddressFile, FileSystem, Need, Node, Sandbox, block_on, command, leftovers, needs, programs,
    wait,
};
use proto::node::v1 as pb;
use tonic::{Code, Status};

// Loop devices are the machine's: no two tests here have volumes of one name.
const MIB: u64 = 1 << 20;

fn attach(plugin: &Plugin, volume: &str, read_only: bool) -> Result<pb::Attachment, Status> {
    let request = pb::AttachVolumeRequest {
        volume: volume.to_owned(),
        read_only,
        ..Default::default()
    };
    block_on(plugin.node_service().attach_volume(request)).map(tonic::Response::into_inner)
}

fn detach(plugin: &Plugin, volume: &str) -> Result<(), Status> {
    let volume = volume.to_owned();
    let request = pb::DetachVolumeRequest { volume };
    block_on(plugin.node_service().detach_volume(request)).map(drop)
}

/// What the service lists of this sandbox: loop devices are the machine's.
fn list(plugin: &Plugin, sandbox: &Sandbox) -> Vec<pb::Attachment> {
    let request = pb::ListAttachmentsRequest {};
    let listed = block_on(plugin.node_service().list_attachments(request)).unwrap();
    let ours = |one: &pb::Attachment| Path::new(&one.file).starts_with(sandbox.dir());
    let all = listed.into_inner().attachments;
    all.into_iter().filter(ours).collect()
}

fn devices(node: &Node) -> Vec<(PathBuf, PathBuf)> {
    leftovers::loops_below(&node.disk.dir().join("volumes"))
}

fn records(plugin: &Plugin) -> usize {
    fs::read_dir(plugin.node_state()).map_or(0, Iterator::count)
}

/// A node with a blank volume of 64 MiB.
fn with_volume(sandbox: &Sandbox, volume: &str) -> Node {
    let node = Node::new(sandbox, FileSystem::Xfs);
    node.manager.create_volume(volume, "", 64 * MIB).unwrap();
    node
}

#[test]
fn row_240_a_volume_is_attached_once_whoever_asks() {
    const VOLUME: &str = "local-once";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-once");
    let node = with_volume(&sandbox, VOLUME);
    let plugin = &node.plugin;
    let info = block_on(plugin.node_service().get_node(pb::GetNodeRequest {}));
    let info = info.unwrap().into_inner();
    assert_eq!(info.node_id, e2e::manager::NODE);
    assert_eq!(info.lacks, Vec::<String>::new());
    let disk = node.manager.disk().unwrap();
    assert_eq!(info.disks.len(), 1);
    assert_eq!(info.disks[0].uuid, disk.uuid);
    assert_eq!(list(plugin, &sandbox), Vec::new());

    let first = attach(plugin, VOLUME, false).unwrap();
    assert_eq!((first.size, first.read_only), (64 * MIB, false));
    assert_eq!(attach(plugin, VOLUME, false).unwrap().device, first.device);
    assert_eq!(devices(&node).len(), 1);
    let listed = list(plugin, &sandbox);
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].device, listed[0].holder()),
        (&first.device, pb::attachment::Holder::Node)
    );
    assert_eq!(listed[0].troubles, Vec::<String>::new());
    refused(
        attach(plugin, VOLUME, true),
        Code::AlreadyExists,
        &[VOLUME, "for writing"],
    );
    // It is a device to write to, and the manager keeps its hands off.
    let device = File::options().write(true).open(&first.device).unwrap();
    device.write_all_at(&[7; 4096], MIB).unwrap();
    device.sync_all().unwrap();
    drop(device);
    assert!(node.manager.delete_volume(VOLUME).is_err());

    // Many at once: one device, and who came in between is told to come again.
    detach(plugin, VOLUME).unwrap();
    for _ in 0..5 {
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| attach(plugin, VOLUME, false)))
                .collect();
            for caller in callers {
                match caller.join().unwrap() {
                    Ok(_) => {}
                    Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
                }
            }
        });
        assert_eq!(devices(&node).len(), 1);
        attach(plugin, VOLUME, false).unwrap();
        detach(plugin, VOLUME).unwrap();
    }
    detach(plugin, VOLUME).unwrap();
    assert_eq!((devices(&node), records(plugin)), (Vec::new(), 0));
    refused(
        attach(plugin, "nothing", false),
        Code::NotFound,
        &["nothing"],
    );
    refused(
        attach(plugin, "../x", false),
        Code::InvalidArgument,
        &["volume"],
    );
    assert_eq!(records(plugin), 0);
}

#[test]
fn row_240_the_node_service_and_csi_leave_each_others_devices_alone() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-csi");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    // CSI leaves it alone, and does not take it for a leftover of its own.
    let mut made = plugin
        .provision(&claim("pvc-node-once", 64 * MIB, &[]))
        .unwrap();
    let pvc = made.volume.volume_id.clone();
    let held = attach(plugin, &pvc, true).unwrap();
    plugin.attach(&mut made).unwrap();
    refused(
        plugin.stage(&made),
        Code::FailedPrecondition,
        &[&pvc, &held.device, "node service", "detach"],
    );
    assert_eq!(attach(plugin, &pvc, true).unwrap().device, held.device);
    detach(plugin, &pvc).unwrap();
    // And the reverse, for a file system and for a block device that no pod has yet.
    plugin.stage(&made).unwrap();
    refused(
        attach(plugin, &pvc, false),
        Code::FailedPrecondition,
        &[&pvc, "staged for pods"],
    );
    let listed = list(plugin, &sandbox);
    let staged = listed.iter().find(|one| one.volume == pvc).unwrap();
    assert_eq!(staged.holder(), pb::attachment::Holder::Pods);
    assert_eq!(staged.mounts, [plugin.staging(&made).display().to_string()]);
    detach(plugin, &pvc).unwrap();
    assert!(leftovers::mounts_below(plugin.kubelet_dir()).contains(&plugin.staging(&made)));
    plugin.unstage(&made).unwrap();
    made.request.volume_capabilities = vec![block()];
    plugin.stage(&made).unwrap();
    refused(
        attach(plugin, &pvc, false),
        Code::FailedPrecondition,
        &[&pvc, "staged for pods"],
    );
    plugin.unstage(&made).unwrap();
    assert_eq!((devices(&node), records(plugin)), (Vec::new(), 0));
}

#[test]
fn row_240_flexvolume_and_the_node_service_leave_each_others_devices_alone() {
    const VOLUME: &str = "local-flex";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-flex");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let driver = Driver::install(&sandbox, &node.manager, node.disk.dir());
    let size = [("size", "64Mi")];
    let (_, answer) = driver.mount("pod", VOLUME, &size);
    answer.success();
    // The list shows what FlexVolume has, and nothing is taken from it.
    let staged = list(&node.plugin, &sandbox).swap_remove(0);
    assert_eq!(staged.holder(), pb::attachment::Holder::Pods);
    assert_eq!(staged.mounts.len(), 2, "{staged:?}");
    let busy = attach(&node.plugin, VOLUME, false);
    refused(busy, Code::FailedPrecondition, &[VOLUME, "staged for pods"]);
    driver.unmount("pod", VOLUME).success();
    let held = attach(&node.plugin, VOLUME, false).unwrap();
    let (_, answer) = driver.mount("pod", VOLUME, &size);
    answer.failure(&[&held.device, "node service", "detach"]);
    detach(&node.plugin, VOLUME).unwrap();
    // The plugin is away: nothing of FlexVolume waits for it.
    let mut node = node;
    node.plugin.process.kill_9();
    let (_, answer) = driver.mount("pod", VOLUME, &size);
    answer.success();
    driver.unmount("pod", VOLUME).success();
    driver.assert_nothing_left(&sandbox, node.disk.dir());
}

#[test]
fn row_241_a_plugin_killed_while_it_attaches_or_detaches_converges_on_the_same_call() {
    const VOLUME: &str = "local-killed";
    needs!(Need::Failpoints, Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-killed");
    let mut node = with_volume(&sandbox, VOLUME);
    for point in [
        "host.stage.recorded",
        "host.stage.attached",
        "host.unstage.unmounted",
        "host.unstage.detached",
    ] {
        for again in [true, false] {
            let failpoint = format!("{point}=return");
            node.plugin.process.terminate();
            node.plugin = Plugin::start_with(&sandbox, &node.manager, node.disk.dir(), &failpoint);
            let attached = attach(&node.plugin, VOLUME, false);
            let killed = attached.is_err() || detach(&node.plugin, VOLUME).is_err();
            assert!(killed, "{point} is reached");
            assert_eq!(node.plugin.process.wait_end().signal(), Some(9), "{point}");
            node.plugin = Plugin::start(&sandbox, &node.manager, node.disk.dir());
            assert!(devices(&node).len() <= 1, "{point}");
            // The record tells it until somebody comes.
            assert_eq!(list(&node.plugin, &sandbox).len(), 1, "{point}");
            if again {
                let device = attach(&node.plugin, VOLUME, false).unwrap().device;
                let listed = list(&node.plugin, &sandbox);
                assert_eq!(listed.len(), 1, "{point}");
                assert_eq!(
                    (&listed[0].device, listed[0].troubles.len()),
                    (&device, 0),
                    "{point}"
                );
            }
            detach(&node.plugin, VOLUME).unwrap();
            assert_eq!(
                (devices(&node), records(&node.plugin)),
                (Vec::new(), 0),
                "{point}"
            );
        }
    }
}

#[test]
fn row_242_after_a_reboot_the_record_tells_what_was_attached() {
    const VOLUME: &str = "local-reboot";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-reboot");
    let mut node = with_volume(&sandbox, VOLUME);
    let reboot = |node: &mut Node| {
        let device = attach(&node.plugin, VOLUME, true).unwrap().device;
        node.plugin.process.kill_9();
        command::run("losetup", ["--detach", &device]);
        // Who looks at all devices at this moment keeps it: the kernel lets go of it after them (loop(4), autoclear).
        wait::until("the device is free", || {
            devices(node).is_empty().then_some(())
        });
        node.plugin = Plugin::start(&sandbox, &node.manager, node.disk.dir());
        let listed = list(&node.plugin, &sandbox);
        assert_eq!(listed.len(), 1);
        let stale = &listed[0];
        assert_eq!((stale.volume.as_str(), stale.device.as_str()), (VOLUME, ""));
        assert!(
            stale.read_only && stale.troubles[0].contains("attach it again"),
            "{stale:?}"
        );
    };
    reboot(&mut node);
    // The disk may not be there yet: that takes nothing away.
    let volumes = node.disk.dir().join("volumes");
    let aside = node.disk.dir().join("aside");
    fs::rename(&volumes, &aside).unwrap();
    refused(
        attach(&node.plugin, VOLUME, true),
        Code::NotFound,
        &[VOLUME],
    );
    assert_eq!(list(&node.plugin, &sandbox).len(), 1);
    fs::rename(&aside, &volumes).unwrap();
    let again = attach(&node.plugin, VOLUME, true).unwrap();
    assert!(again.read_only && !again.device.is_empty());
    assert_eq!(devices(&node).len(), 1);
    detach(&node.plugin, VOLUME).unwrap();
    reboot(&mut node);
    detach(&node.plugin, VOLUME).unwrap();
    assert_eq!((devices(&node), records(&node.plugin)), (Vec::new(), 0));
    // A record that a failing disk spoilt is told, and detached.
    let device = attach(&node.plugin, VOLUME, false).unwrap().device;
    let record = node
        .plugin
        .node_state()
        .join(format!("{VOLUME}.longhorn.json"));
    File::options()
        .write(true)
        .open(&record)
        .unwrap()
        .set_len(7)
        .unwrap();
    assert_eq!(list(&node.plugin, &sandbox)[0].device, device);
    assert_eq!(attach(&node.plugin, VOLUME, false).unwrap().device, device);
    fs::remove_file(&record).unwrap();
    detach(&node.plugin, VOLUME).unwrap();
    assert_eq!((devices(&node), records(&node.plugin)), (Vec::new(), 0));
}

#[test]
fn row_243_a_volume_is_detached_on_a_full_disk_and_without_its_file() {
    const VOLUME: &str = "local-full";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-full");
    let node = with_volume(&sandbox, VOLUME);
    let state = sandbox.make_dir("state");
    let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
    command::run(
        "mount",
        options.into_iter().chain([state.to_str().unwrap()]),
    );
    let records = state.join("attachments").display().to_string();
    let mut node = node;
    node.plugin.process.terminate();
    let more = ["--node-state", records.as_str()];
    node.plugin = Plugin::start_as(&sandbox, &node.manager, node.disk.dir(), "", &more);
    attach(&node.plugin, VOLUME, false).unwrap();
    let full = File::create(state.join("filler")).unwrap();
    let mut at = 0;
    while full.write_all_at(&[1; 4096], at).is_ok() {
        at += 4096;
    }
    node.manager
        .create_volume("local-full-2", "", 64 * MIB)
        .unwrap();
    refused(
        attach(&node.plugin, "local-full-2", false),
        Code::ResourceExhausted,
        &["record"],
    );
    assert_eq!(devices(&node).len(), 1);
    // Whatever happened to the file.
    let file = node.disk.dir().join("volumes").join(VOLUME).join("volume");
    fs::remove_file(&file).unwrap();
    let troubles = list(&node.plugin, &sandbox).swap_remove(0).troubles;
    assert!(
        troubles.iter().any(|trouble| trouble.contains("deleted")),
        "{troubles:?}"
    );
    detach(&node.plugin, VOLUME).unwrap();
    detach(&node.plugin, VOLUME).unwrap();
    assert_eq!(devices(&node), Vec::new());
    assert_eq!(list(&node.plugin, &sandbox), Vec::new());
}

#[test]
fn row_244_a_device_in_use_is_not_taken_away_and_what_is_wrong_with_it_is_told() {
    const VOLUME: &str = "local-used";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-used");
    let node = with_volume(&sandbox, VOLUME);
    let plugin = &node.plugin;
    let device = attach(plugin, VOLUME, false).unwrap().device;
    // As DRBD, device-mapper and a mount do.
    let taken = File::options()
        .read(true)
        .custom_flags(libc_excl())
        .open(&device)
        .unwrap();
    refused(
        detach(plugin, VOLUME),
        Code::FailedPrecondition,
        &[&device, "in use"],
    );
    drop(taken);
    assert_eq!(attach(plugin, VOLUME, false).unwrap().device, device);
    let point = sandbox.make_dir("mounted");
    command::run("mkfs.ext4", ["-q", "-F", device.as_str()]);
    command::run("mount", [device.as_str(), point.to_str().unwrap()]);
    refused(
        detach(plugin, VOLUME),
        Code::FailedPrecondition,
        &[&device, "mounted at"],
    );
    let listed = list(plugin, &sandbox).swap_remove(0);
    assert_eq!(listed.mounts, [point.display().to_string()]);
    assert_eq!(attach(plugin, VOLUME, false).unwrap().device, device);
    command::run("umount", [&point]);
    // A volume that grows is told, and the device follows the next attach.
    node.manager.grow_volume(VOLUME, 96 * MIB).unwrap();
    let grown = list(plugin, &sandbox).swap_remove(0);
    assert!(
        grown
            .troubles
            .iter()
            .any(|trouble| trouble.contains("has grown")),
        "{grown:?}"
    );
    assert_eq!(attach(plugin, VOLUME, false).unwrap().size, 96 * MIB);
    let grown = list(plugin, &sandbox).swap_remove(0);
    assert_eq!(
        (grown.size, grown.troubles.len()),
        (96 * MIB, 0),
        "{grown:?}"
    );
    // One whose end is cut off, too.
    let file = node.disk.dir().join("volumes").join(VOLUME).join("volume");
    File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(8 * MIB)
        .unwrap();
    let cut = list(plugin, &sandbox).swap_remove(0);
    assert!(
        cut.troubles
            .iter()
            .any(|trouble| trouble.contains("truncated")),
        "{cut:?}"
    );
    detach(plugin, VOLUME).unwrap();
    assert_eq!((devices(&node), records(plugin)), (Vec::new(), 0));
}

fn libc_excl() -> i32 {
    i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap()
}

#[test]
fn row_245_nobody_but_root_calls_the_node_service() {
    const VOLUME: &str = "local-who";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-who");
    let node = with_volume(&sandbox, VOLUME);
    let socket = node.plugin.node_socket();
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // The command line, as root and as nobody, who finds a socket that somebody opened to all by mistake.
    let url = format!("unix:{}", socket.display());
    let program = sandbox.path("cli");
    fs::copy(programs::manager(), &program).unwrap();
    let run = |user: u32, arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["node"]).args(arguments).args(["--url", &url]);
        command
            .uid(user)
            .gid(user)
            .stdin(Stdio::null())
            .current_dir("/");
        let output = command.output().unwrap();
        (output.status.success(), command::words(&output))
    };
    for path in socket
        .ancestors()
        .take_while(|path| *path != Path::new("/tmp"))
    {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let (done, words) = run(0, &["attach", "--name", VOLUME]);
    assert!(done && words.contains("/dev/loop"), "{words}");
    let (done, words) = run(0, &["list", "-o", "table"]);
    assert!(
        done && words.contains(VOLUME) && words.contains("TROUBLE"),
        "{words}"
    );
    let (done, words) = run(0, &["get"]);
    assert!(done && words.contains("\"kernel\""), "{words}");
    for arguments in [
        &["list"][..],
        &["detach", "--name", VOLUME],
        &["attach", "--name", VOLUME],
    ] {
        let (done, words) = run(65534, arguments);
        assert!(!done && words.contains("node service"), "{words}");
    }
    assert_eq!(devices(&node).len(), 1);
    let (done, words) = run(0, &["detach", "--name", VOLUME]);
    assert!(done, "{words}");
    assert_eq!(devices(&node), Vec::new());
}

#[test]
fn row_249_over_the_network_the_node_service_is_for_certificates() {
    const VOLUME: &str = "local-tls";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("node-tls");
    let node = with_volume(&sandbox, VOLUME);
    let cli = |arguments: &[&str]| {
        let mut command = Command::new(programs::manager());
        command.args(arguments).current_dir(sandbox.dir());
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.success(), command::words(&output))
    };
    let issue = |role: &[&str], output: &str| {
        let shared = ["certs", "issue", "--ca", "authority", "--output", output];
        let (done, words) = cli(&[&shared[..], role].concat());
        assert!(done, "{words}");
    };
    assert!(cli(&["certs", "init", "authority"]).0);
    issue(&["--role", "node", "--node", e2e::manager::NODE], "plugin");
    issue(&["--role", "cli", "--instance", "alice"], "alice");
    issue(
        &["--role", "manager", "--node", e2e::manager::NODE],
        "manager",
    );
    let mut node = node;
    node.plugin.process.terminate();
    let addresses = AddressFile::new(&sandbox);
    let (file, own) = (addresses.path().to_owned(), sandbox.path("plugin"));
    let more = [
        "--mode=node",
        "--node-listen=127.0.0.1:0",
        "--http-listen=127.0.0.1:0",
        &format!("--address-file={}", file.display()),
        &format!("--certificates={}", own.display()),
    ];
    node.plugin = Plugin::start_as(&sandbox, &node.manager, node.disk.dir(), "", &more);
    let url = addresses.get("node").to_string();
    let call =
        |who: &[&str]| cli(&[&["node", "attach", "--name", VOLUME, "--url", &url], who].concat());
    let (done, words) = call(&["--certificates", "manager"]);
    assert!(!done && words.contains("may not call"), "{words}");
    let (done, words) = call(&[]);
    assert!(!done, "{words}");
    assert_eq!(devices(&node), Vec::new());
    let (done, words) = call(&["--certificates", "alice"]);
    assert!(done && words.contains("/dev/loop"), "{words}");
    assert_eq!(devices(&node).len(), 1);
    // The socket goes on without.
    detach(&node.plugin, VOLUME).unwrap();
    // Without a certificate there is no such port.
    let mut plain = Command::new(programs::csi_plugin());
    plain.args([
        "--mode=node",
        "--node-id=n",
        "--disk=/",
        "--node-listen=127.0.0.1:0",
    ]);
    let refused = plain.output().unwrap();
    assert_eq!(
        refused.status.code(),
        Some(64),
        "{}",
        command::words(&refused)
    );
    assert!(command::words(&refused).contains("--node-listen needs a certificate"));
}
