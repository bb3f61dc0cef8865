//! Volumes that are used without a pod, on a running plugin and manager with real loop devices: one user at a time
//! whoever asks (421, 422), never another volume's data (423), after a boot (424), killed at each step (425), on a full
//! disk and without the file (426), without the manager (427), grown in use (428), in use (429).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::csi::{Plugin, claim, mounted, refused};
use e2e::flexvolume::Driver;
use e2e::manager::Options;
use e2e::{
    FileSystem, Manager, Need, Node, Sandbox, block_on, command, leftovers, needs, programs, wait,
};
use proto::node::v1 as pb;
use proto::node::v1::expose_volume_request::Access;
use proto::storage::v1::{Publication, Use};
use rustix::process::Signal;
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;
const INITIATOR: &str = "iqn.2026-01.org.example:host";

fn expose_as(
    plugin: &Plugin,
    volume: &str,
    read_only: bool,
    access: Access,
) -> Result<pb::Exposed, Status> {
    let request = pb::ExposeVolumeRequest {
        volume: volume.to_owned(),
        read_only,
        access: Some(access),
        ..Default::default()
    };
    block_on(plugin.node_service().expose_volume(request)).map(tonic::Response::into_inner)
}

fn expose(plugin: &Plugin, volume: &str) -> Result<pb::Exposed, Status> {
    let device = Access::BlockDevice(pb::BlockDeviceAccess {});
    expose_as(plugin, volume, false, device)
}

fn target() -> Access {
    Access::Target(pb::TargetAccess {
        initiator_names: vec![INITIATOR.to_owned()],
        without_chap: true,
        ..Default::default()
    })
}

fn unexpose(plugin: &Plugin, volume: &str) -> Result<(), Status> {
    let request = pb::UnexposeVolumeRequest {
        volume: volume.to_owned(),
        disconnect: false,
    };
    block_on(plugin.node_service().unexpose_volume(request)).map(drop)
}

fn list(plugin: &Plugin) -> Vec<pb::Exposed> {
    let listed = block_on(
        plugin
            .node_service()
            .list_exposed(pb::ListExposedRequest {}),
    );
    listed.unwrap().into_inner().exposed
}

fn devices(node: &Node) -> Vec<(PathBuf, PathBuf)> {
    leftovers::loops_below(&node.disk.dir().join("volumes"))
}

fn published(node: &Node, volume: &str) -> Vec<Use> {
    let volume = node.manager.volume(volume).unwrap();
    volume.published.iter().map(Publication::r#use).collect()
}

fn name(sandbox: &Sandbox, volume: &str) -> PathBuf {
    sandbox.path("dev/longhorn").join(volume)
}

/// Nothing of the volume is left on the node, or at its manager.
#[track_caller]
fn assert_gone(node: &Node, sandbox: &Sandbox, volume: &str) {
    assert_eq!(list(&node.plugin), Vec::new());
    assert_eq!(devices(node), Vec::new());
    assert!(name(sandbox, volume).symlink_metadata().is_err());
    assert_eq!(published(node, volume), []);
    let files = |dir: &Path| {
        let all =
            fs::read_dir(dir).map(|all| all.flatten().filter(|one| one.path().is_file()).count());
        all.unwrap_or_default()
    };
    let state = node.plugin.exposed_state();
    assert_eq!((files(&state), files(&state.join("attached"))), (0, 0));
}

fn with_volume(sandbox: &Sandbox, volume: &str) -> Node {
    let node = Node::new(sandbox, FileSystem::Xfs);
    node.manager.create_volume(volume, "", 64 * MIB).unwrap();
    node
}

fn start(node: &mut Node, sandbox: &Sandbox, failpoint: &str) {
    node.plugin = Plugin::start_with(sandbox, &node.manager, node.disk.dir(), failpoint);
}

/// Writes something that is recognized to a device.
fn write(path: &Path, byte: u8) {
    let device = File::options().write(true).open(path).unwrap();
    device.write_all_at(&[byte; 4096], MIB).unwrap();
    device.sync_all().unwrap();
}

fn read(path: &Path) -> u8 {
    let mut bytes = [0; 4096];
    File::open(path)
        .unwrap()
        .read_exact_at(&mut bytes, MIB)
        .unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

/// Waits until the name leads to a device of the volume with these bytes.
#[track_caller]
fn wait_for(node: &Node, sandbox: &Sandbox, volume: &str, byte: u8) {
    wait::until("the volume is exposed again", || {
        let found = list(&node.plugin)
            .into_iter()
            .find(|one| one.volume == volume)?;
        let path = name(sandbox, volume);
        if !found.path.is_empty() && found.troubles.is_empty() {
            assert_eq!(Path::new(&found.path), path);
            assert_eq!(read(&path), byte);
            return Some(());
        }
        None
    });
}

#[test]
fn row_421_what_is_written_without_a_pod_a_pod_finds() {
    needs!(
        Need::Root,
        Need::FileSystem("ext4"),
        Need::FileSystem("xfs")
    );
    let sandbox = Sandbox::new("exposed-pod");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let mut request = claim("pvc-exposed-pod", 64 * MIB, &[]);
    request.volume_capabilities = vec![mounted("ext4")];
    let mut made = plugin.provision(&request).unwrap();
    let volume = made.volume.volume_id.clone();
    let pod = plugin.run_pod(&mut made, "one").unwrap();
    fs::write(pod.join("text"), "of a pod").unwrap();
    plugin.end_pod(&made, "one").unwrap();

    let first = expose(plugin, &volume).unwrap();
    assert_eq!((first.size, first.read_only), (64 * MIB, false));
    let path = name(&sandbox, &volume);
    assert_eq!(Path::new(&first.path), path);
    assert_eq!(fs::read_link(&path).unwrap(), Path::new(&first.device));
    assert_eq!(published(&node, &volume), [Use::Device]);
    assert_eq!(expose(plugin, &volume).unwrap(), first);
    assert_eq!(list(plugin), std::slice::from_ref(&first));
    let point = sandbox.make_dir("mounted");
    command::run("mount", [&path, &point]);
    assert_eq!(fs::read_to_string(point.join("text")).unwrap(), "of a pod");
    fs::write(point.join("text"), "of nobody's").unwrap();
    command::run("umount", [&point]);
    unexpose(plugin, &volume).unwrap();
    unexpose(plugin, &volume).unwrap();
    assert_gone(&node, &sandbox, &volume);

    let pod = plugin.run_pod(&mut made, "two").unwrap();
    assert_eq!(fs::read_to_string(pod.join("text")).unwrap(), "of nobody's");
    plugin.end_pod(&made, "two").unwrap();
    // Nobody writes through one that is for reading.
    let device = Access::BlockDevice(pb::BlockDeviceAccess {});
    let shown = expose_as(plugin, &volume, true, device).unwrap();
    assert!(shown.read_only);
    let written = File::options()
        .write(true)
        .open(&path)
        .and_then(|device| device.write_all_at(&[1; 4096], 0).and(device.sync_all()));
    assert!(written.is_err());
    refused(
        expose(plugin, &volume),
        Code::AlreadyExists,
        &[&volume, "reading only"],
    );
    unexpose(plugin, &volume).unwrap();
    plugin.delete(&made).unwrap();
    assert_eq!(devices(&node), Vec::new());
}

#[test]
fn row_422_pods_and_others_never_use_a_volume_at_once() {
    needs!(
        Need::Root,
        Need::FileSystem("ext4"),
        Need::FileSystem("xfs")
    );
    let sandbox = Sandbox::new("exposed-one");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let mut made = plugin
        .provision(&claim("pvc-exposed-one", 64 * MIB, &[]))
        .unwrap();
    let volume = made.volume.volume_id.clone();
    let way_out = ["unexpose", volume.as_str()];
    // What CSI was told while it had the volume it may still say when somebody else has it.
    plugin.attach(&mut made).unwrap();
    refused(
        expose(plugin, &volume),
        Code::FailedPrecondition,
        &[&volume, "pods", "unpublish"],
    );
    assert_eq!(list(plugin), Vec::new());
    let stale = made.clone();
    plugin.detach(&made).unwrap();

    expose(plugin, &volume).unwrap();
    refused(plugin.attach(&mut made), Code::FailedPrecondition, &way_out);
    // By what the node keeps, not by the device, which is not there yet after a boot: a cluster that attaches nothing
    // asks no manager.
    let kept = [&way_out[..], &["is exposed without a pod on this node"]].concat();
    refused(plugin.stage(&stale), Code::FailedPrecondition, &kept);
    let attach = pb::AttachVolumeRequest {
        volume: volume.clone(),
        ..Default::default()
    };
    let attached = block_on(plugin.node_service().attach_volume(attach));
    refused(attached, Code::FailedPrecondition, &way_out);
    refused(plugin.delete(&made), Code::FailedPrecondition, &way_out);
    refused(
        expose_as(plugin, &volume, false, target()),
        Code::FailedPrecondition,
        &["--target-socket"],
    );
    // What Kubernetes takes back is its own.
    plugin.detach(&made).unwrap();
    assert_eq!(published(&node, &volume), [Use::Device]);
    let listed = block_on(
        plugin
            .controller()
            .list_volumes(proto::csi::v1::ListVolumesRequest::default()),
    );
    let status = listed
        .unwrap()
        .into_inner()
        .entries
        .remove(0)
        .status
        .unwrap();
    assert_eq!(status.published_node_ids, Vec::<String>::new());
    unexpose(plugin, &volume).unwrap();
    assert_gone(&node, &sandbox, &volume);

    // Staged without a publication, as it is after somebody unpublished by force: the device is the lock.
    plugin.attach(&mut made).unwrap();
    plugin.stage(&made).unwrap();
    plugin.detach(&made).unwrap();
    refused(
        expose(plugin, &volume),
        Code::FailedPrecondition,
        &[&volume, "staged for pods"],
    );
    assert_eq!(
        (list(plugin), published(&node, &volume)),
        (Vec::new(), Vec::new())
    );
    plugin.unstage(&made).unwrap();
    plugin.delete(&made).unwrap();
}

#[test]
fn row_422_flexvolume_leaves_what_is_exposed_alone() {
    const VOLUME: &str = "exposed-flex";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("exposed-flex");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let driver = Driver::install(&sandbox, &node.manager, node.disk.dir());
    let size = [("size", "64Mi")];
    driver.mount("pod", VOLUME, &size).1.success();
    refused(
        expose(&node.plugin, VOLUME),
        Code::FailedPrecondition,
        &[VOLUME, "pods"],
    );
    driver.unmount("pod", VOLUME).success();
    node.manager
        .create_volume("exposed-flex-2", "", 64 * MIB)
        .unwrap();
    expose(&node.plugin, "exposed-flex-2").unwrap();
    let (_, answer) = driver.mount("pod", "exposed-flex-2", &size);
    answer.failure(&["exposed-flex-2"]);
    unexpose(&node.plugin, "exposed-flex-2").unwrap();
    driver.assert_nothing_left(&sandbox, node.disk.dir());
}

#[test]
fn row_422_of_callers_at_once_one_kind_has_the_volume() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("exposed-race");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let made = plugin
        .provision(&claim("pvc-exposed-race", 64 * MIB, &[]))
        .unwrap();
    let volume = made.volume.volume_id.clone();
    for _ in 0..8 {
        let (exposed, attached) = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| expose(plugin, &volume)))
                .collect();
            let mut claim = made.clone();
            let attached = plugin.attach(&mut claim);
            let exposed: Vec<_> = callers.into_iter().map(|one| one.join().unwrap()).collect();
            (exposed, attached)
        });
        let users = published(&node, &volume);
        assert_eq!(users.len(), 1, "{exposed:?} {attached:?}");
        let has_device = users == [Use::Device];
        assert_eq!(attached.is_ok(), !has_device, "{attached:?}");
        assert_eq!(devices(&node).len(), usize::from(has_device));
        for one in exposed {
            assert_eq!(one.is_ok(), has_device, "{one:?}");
        }
        unexpose(plugin, &volume).unwrap();
        plugin.detach(&made).unwrap();
        assert_gone(&node, &sandbox, &volume);
    }
}

#[test]
fn row_423_a_name_never_shows_another_volume() {
    const VOLUME: &str = "exposed-trap";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("exposed-trap");
    let mut node = with_volume(&sandbox, VOLUME);
    let path = name(&sandbox, VOLUME);
    write(Path::new(&expose(&node.plugin, VOLUME).unwrap().path), 7);
    let other = sandbox.path("other");
    File::create(&other).unwrap().set_len(64 * MIB).unwrap();
    write(&other, 9);
    // Its device is given back behind its back, and the next file gets the number: while the plugin is there, and
    // while it is not.
    for is_away in [false, true] {
        let device = fs::read_link(&path).unwrap();
        node.plugin.process.signal(Signal::STOP);
        if is_away {
            node.plugin.process.kill_9();
        }
        command::run("losetup", [Path::new("--detach"), &device]);
        let gone = || devices(&node).is_empty().then_some(());
        wait::until("the device is free", gone);
        command::run("losetup", [&device, &other]);
        assert_eq!(read(&path), 9, "this is the trap");
        if is_away {
            start(&mut node, &sandbox, "");
        } else {
            node.plugin.process.signal(Signal::CONT);
        }
        wait_for(&node, &sandbox, VOLUME, 7);
        assert_ne!(fs::read_link(&path).unwrap(), device);
        assert_eq!(read(&device), 9, "what is another's stays");
        command::run("losetup", [Path::new("--detach"), &device]);
    }
    // A name that a crash left, and a file of another program beside it.
    let directory = path.parent().unwrap().to_owned();
    let stray = directory.join("stray");
    std::os::unix::fs::symlink("/dev/loop0", &stray).unwrap();
    let foreign = directory.join("foreign");
    fs::write(&foreign, "").unwrap();
    wait::until("the stray name is gone", || {
        stray.symlink_metadata().is_err().then_some(())
    });
    node.manager.create_volume("foreign", "", 64 * MIB).unwrap();
    refused(
        expose(&node.plugin, "foreign"),
        Code::FailedPrecondition,
        &["foreign", "not ours"],
    );
    assert!(foreign.exists());
    unexpose(&node.plugin, VOLUME).unwrap();
    assert_gone(&node, &sandbox, VOLUME);
}

#[test]
fn row_424_after_a_boot_the_node_exposes_again() {
    const VOLUME: &str = "exposed-boot";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("exposed-boot");
    let mut node = with_volume(&sandbox, VOLUME);
    let path = name(&sandbox, VOLUME);
    write(Path::new(&expose(&node.plugin, VOLUME).unwrap().path), 7);
    let reboot = |node: &mut Node| {
        let device = fs::read_link(&path).unwrap();
        node.plugin.process.kill_9();
        command::run("losetup", [Path::new("--detach"), &device]);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    };
    reboot(&mut node);
    start(&mut node, &sandbox, "");
    wait_for(&node, &sandbox, VOLUME, 7);
    // The disk comes later than the plugin, and somebody has taken the publication back meanwhile.
    let (volumes, aside) = (
        node.disk.dir().join("volumes"),
        node.disk.dir().join("aside"),
    );
    reboot(&mut node);
    fs::rename(&volumes, &aside).unwrap();
    start(&mut node, &sandbox, "");
    wait::until("the trouble is told", || {
        let shown = list(&node.plugin).swap_remove(0);
        assert_eq!(shown.path, "");
        shown
            .troubles
            .iter()
            .any(|why| why.contains("no file"))
            .then_some(())
    });
    fs::rename(&aside, &volumes).unwrap();
    wait_for(&node, &sandbox, VOLUME, 7);
    assert_eq!(published(&node, VOLUME), [Use::Device]);
    unexpose(&node.plugin, VOLUME).unwrap();
    assert_gone(&node, &sandbox, VOLUME);
    // One whose record a failing disk spoilt is told, and taken back.
    expose(&node.plugin, VOLUME).unwrap();
    fs::write(
        node.plugin.exposed_state().join(format!("{VOLUME}.json")),
        "{",
    )
    .unwrap();
    let shown = list(&node.plugin).swap_remove(0);
    assert!(shown.troubles[0].contains("not readable"), "{shown:?}");
    unexpose(&node.plugin, VOLUME).unwrap();
    assert_gone(&node, &sandbox, VOLUME);
}

#[test]
fn row_425_a_plugin_killed_at_any_step_converges() {
    const VOLUME: &str = "exposed-killed";
    needs!(Need::Failpoints, Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("exposed-killed");
    let mut node = with_volume(&sandbox, VOLUME);
    for point in [
        "node.kept.written",
        "node.expose.recorded",
        "node.expose.published",
        "host.stage.recorded",
        "host.stage.attached",
        "node.expose.attached",
        "node.expose.linked",
        "node.expose.named",
        "node.unexpose.unnamed",
        "host.unstage.unmounted",
        "host.unstage.detached",
        "node.unexpose.detached",
        "node.unexpose.owed",
        "node.unexpose.unpublished",
    ] {
        for again in [true, false] {
            node.plugin.process.terminate();
            start(&mut node, &sandbox, &format!("{point}=return"));
            let exposed = expose(&node.plugin, VOLUME);
            let killed = exposed.is_err() || unexpose(&node.plugin, VOLUME).is_err();
            assert!(killed, "{point} is reached");
            assert_eq!(node.plugin.process.wait_end().signal(), Some(9), "{point}");
            start(&mut node, &sandbox, "");
            assert!(devices(&node).len() <= 1, "{point}");
            if again {
                let shown = expose(&node.plugin, VOLUME).unwrap();
                write(Path::new(&shown.path), 7);
                assert_eq!(devices(&node).len(), 1, "{point}");
                assert_eq!(published(&node, VOLUME), [Use::Device], "{point}");
            }
            unexpose(&node.plugin, VOLUME).unwrap();
            assert_gone(&node, &sandbox, VOLUME);
        }
    }
    // Nobody calls again: what was recorded is made, and what was taken back stays so.
    for (point, is_there) in [
        ("node.expose.recorded", true),
        ("node.unexpose.owed", false),
    ] {
        node.plugin.process.terminate();
        start(&mut node, &sandbox, &format!("{point}=return"));
        let exposed = expose(&node.plugin, VOLUME);
        assert!(exposed.is_err() || unexpose(&node.plugin, VOLUME).is_err());
        node.plugin.process.wait_end();
        start(&mut node, &sandbox, "");
        if is_there {
            wait_for(&node, &sandbox, VOLUME, 7);
            unexpose(&node.plugin, VOLUME).unwrap();
        }
        let owed = node.plugin.exposed_state().join(format!("{VOLUME}.owed"));
        wait::until("nothing is owed", || (!owed.exists()).then_some(()));
        assert_gone(&node, &sandbox, VOLUME);
    }
}

#[test]
fn row_426_it_is_taken_back_on_a_full_disk_and_without_its_file() {
    const VOLUME: &str = "exposed-full";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("exposed-full");
    let mut node = with_volume(&sandbox, VOLUME);
    let state = sandbox.make_dir("state");
    let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
    command::run(
        "mount",
        options.into_iter().chain([state.to_str().unwrap()]),
    );
    node.plugin.process.terminate();
    let records = state.join("attachments").display().to_string();
    let more = ["--node-state", records.as_str()];
    node.plugin = Plugin::start_as(&sandbox, &node.manager, node.disk.dir(), "", &more);
    expose(&node.plugin, VOLUME).unwrap();
    let record = state.join(format!("exposed/{VOLUME}.json"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&record), mode(record.parent().unwrap())),
        (0o600, 0o700)
    );
    let full = File::create(state.join("filler")).unwrap();
    let mut at = 0;
    while full.write_all_at(&[1; 4096], at).is_ok() {
        at += 4096;
    }
    node.manager
        .create_volume("exposed-full-2", "", 64 * MIB)
        .unwrap();
    refused(
        expose(&node.plugin, "exposed-full-2"),
        Code::ResourceExhausted,
        &["record"],
    );
    assert_eq!(published(&node, "exposed-full-2"), []);
    assert_eq!(devices(&node).len(), 1);
    let file = node.disk.dir().join("volumes").join(VOLUME).join("volume");
    fs::remove_file(&file).unwrap();
    wait::until("the trouble is told", || {
        let troubles = list(&node.plugin).swap_remove(0).troubles;
        troubles
            .iter()
            .any(|why| why.contains("deleted"))
            .then_some(())
    });
    unexpose(&node.plugin, VOLUME).unwrap();
    unexpose(&node.plugin, VOLUME).unwrap();
    assert_eq!(
        (list(&node.plugin), devices(&node)),
        (Vec::new(), Vec::new())
    );
    assert!(!record.exists() && !record.with_extension("owed").exists());
}

#[test]
fn row_427_a_manager_that_is_away_holds_up_nothing_that_is_taken_back() {
    const VOLUME: &str = "exposed-away";
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("exposed-away");
    let mut node = with_volume(&sandbox, VOLUME);
    expose(&node.plugin, VOLUME).unwrap();
    node.manager.process.kill_9();
    // What is there works on, and is told without it.
    assert_eq!(list(&node.plugin).len(), 1);
    expose(&node.plugin, VOLUME).unwrap_err();
    write(&name(&sandbox, VOLUME), 7);
    unexpose(&node.plugin, VOLUME).unwrap();
    assert_eq!(
        (list(&node.plugin), devices(&node)),
        (Vec::new(), Vec::new())
    );
    assert!(name(&sandbox, VOLUME).symlink_metadata().is_err());
    refused(
        expose(&node.plugin, VOLUME),
        Code::Unavailable,
        &["manager"],
    );
    assert_eq!(
        (list(&node.plugin), devices(&node)),
        (Vec::new(), Vec::new())
    );
    // It comes back at another address.
    node.manager = Manager::start(&sandbox, &Options::new(node.disk.dir()));
    assert_eq!(published(&node, VOLUME), [Use::Device]);
    node.plugin.process.kill_9();
    start(&mut node, &sandbox, "");
    wait::until("the publication is taken back", || {
        published(&node, VOLUME).is_empty().then_some(())
    });
    let state = node.plugin.exposed_state();
    wait::until("nothing is owed", || {
        (!state.join(format!("{VOLUME}.owed")).exists()).then_some(())
    });
    assert_gone(&node, &sandbox, VOLUME);
}

#[test]
fn row_428_a_device_grows_while_it_is_mounted() {
    const VOLUME: &str = "exposed-grown";
    needs!(
        Need::Root,
        Need::FileSystem("ext4"),
        Need::FileSystem("xfs")
    );
    let sandbox = Sandbox::new("exposed-grown");
    let node = with_volume(&sandbox, VOLUME);
    let path = PathBuf::from(expose(&node.plugin, VOLUME).unwrap().path);
    let point = sandbox.make_dir("mounted");
    command::run("mkfs.ext4", [Path::new("-q"), &path]);
    command::run("mount", [&path, &point]);
    fs::write(point.join("text"), "here").unwrap();
    node.manager.grow_volume(VOLUME, 96 * MIB).unwrap();
    assert_eq!(expose(&node.plugin, VOLUME).unwrap().size, 96 * MIB);
    node.manager.grow_volume(VOLUME, 128 * MIB).unwrap();
    wait::until("the device has grown by itself", || {
        (list(&node.plugin).swap_remove(0).size == 128 * MIB).then_some(())
    });
    let size = command::run("blockdev", [Path::new("--getsize64"), &path]);
    assert_eq!(size.trim(), (128 * MIB).to_string());
    assert_eq!(fs::read_to_string(point.join("text")).unwrap(), "here");
    command::run("umount", [&point]);
    unexpose(&node.plugin, VOLUME).unwrap();
    assert_gone(&node, &sandbox, VOLUME);
}

#[test]
fn row_429_a_device_in_use_stays_as_it_was() {
    const VOLUME: &str = "exposed-used";
    needs!(
        Need::Root,
        Need::FileSystem("ext4"),
        Need::FileSystem("xfs")
    );
    let sandbox = Sandbox::new("exposed-used");
    let node = with_volume(&sandbox, VOLUME);
    let shown = expose(&node.plugin, VOLUME).unwrap();
    let path = PathBuf::from(&shown.path);
    // Somebody has it open, for himself or not.
    let open = File::open(&path).unwrap();
    refused(
        unexpose(&node.plugin, VOLUME),
        Code::FailedPrecondition,
        &["in use"],
    );
    drop(open);
    assert_eq!(
        list(&node.plugin),
        std::slice::from_ref(&shown),
        "it does not go with its last user"
    );
    let point = sandbox.make_dir("mounted");
    command::run("mkfs.ext4", [Path::new("-q"), &path]);
    command::run("mount", [&path, &point]);
    let point_text = point.display().to_string();
    refused(
        unexpose(&node.plugin, VOLUME),
        Code::FailedPrecondition,
        &["in use", &point_text],
    );
    assert_eq!(fs::read_link(&path).unwrap(), Path::new(&shown.device));
    assert_eq!(published(&node, VOLUME), [Use::Device]);
    command::run("umount", [&point]);
    // The command line, to the end.
    let url = format!("unix:{}", node.plugin.node_socket().display());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(programs::manager());
        let output = command
            .arg("node")
            .args(arguments)
            .args(["--url", &url])
            .output()
            .unwrap();
        (output.status.success(), command::words(&output))
    };
    let (done, words) = run(&["exposed", "-o", "table"]);
    assert!(
        done && words.contains(&shown.path) && words.contains("TROUBLE"),
        "{words}"
    );
    let (done, words) = run(&["expose", VOLUME, "--block-device"]);
    assert!(done && words.contains(&shown.device), "{words}");
    let (done, words) = run(&["expose", VOLUME]);
    assert!(!done && words.contains("--target"), "{words}");
    let (done, words) = run(&["unexpose", VOLUME]);
    assert!(done, "{words}");
    let (done, words) = run(&["exposed"]);
    assert!(done && words.contains("[]"), "{words}");
    assert_gone(&node, &sandbox, VOLUME);
}
