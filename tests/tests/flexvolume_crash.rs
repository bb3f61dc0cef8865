//! Rows 102 and 103: the executable is killed at every marked step, the machine reboots, and many
//! calls run at once.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use e2e::baseimage::{Build, PARTY_WIZARD, WIZARD, web_page};
use e2e::flexvolume::{Answer, Driver, mount_arguments, options_of};
use e2e::manager::{NODE, Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Registry, Sandbox, documents, leftovers, needs};

/// Volumes that are mounted and unmounted, and how many at once.
/// Of replicated volumes, which FlexVolume has not: `crates/host/tests/crash.rs` says where they are tried.
const DRBD: [&str; 3] = ["host.drbd.", "host.format.copied", "host.format.marked"];

const CALLS: usize = 100;
const THREADS: usize = 16;

/// A manager with one ready image, and its reference.
fn rig(sandbox: &Sandbox) -> (Disk, Manager, Driver, String) {
    let disk = Disk::new(sandbox, "disk", FileSystem::Xfs, 1 << 30);
    let registry = Registry::start(sandbox);
    init_disk(disk.dir());
    let manager = Manager::start(sandbox, &Options::new(disk.dir()).with_registry(&registry));
    let driver = Driver::install(sandbox, &manager, disk.dir());
    let page = web_page(sandbox);
    let build = Build {
        from: Some(&page),
        fs: Some("ext4"),
        size: Some("32Mi"),
        options: &[],
    };
    let reference = build.push(&registry, "flex/crash:v1");
    driver
        .mount("warm", "warm", &[("baseImage", &reference)])
        .1
        .success();
    driver.unmount("warm", "warm").success();
    manager.delete_volume("warm").unwrap();
    (disk, manager, driver, reference)
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

/// Makes a call that may be killed; whether it was.
fn killed<S: AsRef<OsStr>>(driver: &Driver, point: &str, arguments: &[S]) -> bool {
    let output = driver
        .with_failpoint(format!("{point}=return"))
        .output(arguments);
    if output.status.code().is_none() {
        assert!(
            output.stdout.is_empty(),
            "{point}: killed before it answers"
        );
        return true;
    }
    Answer::of(&output);
    false
}

#[test]
fn row_102_killed_at_every_failpoint_the_same_call_converges() {
    needs_registry!();
    needs!(Need::Failpoints);
    let sandbox = Sandbox::new("flex-crash");
    let (disk, manager, driver, reference) = rig(&sandbox);
    let mut points = documents::crash_points(&["flexvolume/src", "crates/host/src"]);
    // The installer's own test is in flexvolume_answers.rs.
    points.retain(|point| !point.starts_with("flexvolume.install."));
    assert!(points.len() > 10, "{points:?}");
    let mut killed_nowhere = Vec::new();
    for point in &points {
        let mut kills = 0;
        for options in [
            &[("baseImage", reference.as_str()), ("size", "64Mi")][..],
            &[("size", "32Mi")],
        ] {
            let target = driver.target("pod", "v");
            let json = options_of("pod", "v", options);
            let mount = mount_arguments(&target, &json);
            let unmount = ["unmount".as_ref(), target.as_os_str()];
            if killed(&driver, point, &mount) {
                kills += 1;
                driver.call(&mount).success();
            }
            assert_mounted_once(&driver, &target, options.len() == 2, point);
            if killed(&driver, point, &unmount) {
                kills += 1;
                driver.call(unmount).success();
            }
            driver.assert_nothing_left(&sandbox, disk.dir());
            // Killed half-way, and the pod is gone: no second mount, only `unmount`.
            killed(&driver, point, &mount);
            driver.call(unmount).success();
            assert_nothing_left(&driver, &sandbox, &disk, &manager, point);
        }
        if kills == 0 {
            killed_nowhere.push(point);
        }
    }
    // Growing in use is a call of attached volumes.
    let elsewhere = [
        "flexvolume.mountdevice.",
        "host.expand.",
        DRBD[0],
        DRBD[1],
        DRBD[2],
    ];
    killed_nowhere.retain(|point| !elsewhere.iter().any(|area| point.starts_with(area)));
    assert!(
        killed_nowhere.is_empty(),
        "no call reaches {killed_nowhere:?}"
    );
}

fn assert_mounted_once(driver: &Driver, target: &Path, is_image: bool, point: &str) {
    let mounts = leftovers::mounts_below(driver.kubelet_dir());
    assert_eq!(mounts, [target.to_owned()], "{point}: mounted once");
    if is_image {
        assert!(
            fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD,
            "{point}"
        );
    }
}

#[test]
fn row_102_killed_at_every_failpoint_an_attached_volume_converges() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Failpoints);
    let sandbox = Sandbox::new("flex-crash-attached");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    let address = manager.address().to_string();
    let driver = Driver::install_with(&sandbox, &address, disk.dir(), "attach = true");
    let global = driver
        .kubelet_dir()
        .join("plugins/kubernetes.io/flexvolume/rancher.io/longhorn/mounts/pv");
    fs::create_dir_all(&global).unwrap();
    let target = driver.target("pod", "pv");
    // The kernel lets any root grow XFS in use, and ext4 only with CAP_SYS_RESOURCE.
    let options = [("size", "320Mi"), ("kubernetes.io/fsType", "xfs")];
    let json = options_of("pod", "pv", &options);
    let (device, json) = ("/dev/longhorn/pv", json.as_str());
    let (new, old) = (&*(336u64 << 20).to_string(), &*(320u64 << 20).to_string());
    let [at_node, at_pod] = [&global, &target].map(|path| path.to_str().unwrap());
    let calls: [&[&str]; 9] = [
        &["attach", json, NODE],
        &["waitforattach", device, json],
        &["mountdevice", at_node, device, json],
        &["mount", at_pod, json],
        &["expandvolume", json, device, new, old],
        &["expandfs", json, device, at_pod, new, old],
        &["unmount", at_pod],
        &["unmountdevice", at_node],
        &["detach", "pv", NODE],
    ];
    let mut points = documents::crash_points(&["flexvolume/src", "crates/host/src"]);
    points.retain(|point| !point.starts_with("flexvolume.install."));
    let mut killed_nowhere = Vec::new();
    for point in &points {
        let mut kills = 0;
        for call in calls {
            if killed(&driver, point, call) {
                kills += 1;
                driver.call(call).success();
            }
            if call[0] == "expandfs" {
                let mounts = leftovers::mounts_below(driver.kubelet_dir());
                assert_eq!(mounts, [global.clone(), target.clone()], "{point}");
            }
        }
        assert_nothing_left(&driver, &sandbox, &disk, &manager, point);
        // Killed half-way, and the pod is gone: the node only takes away, and the controller detaches.
        for call in calls {
            killed(&driver, point, call);
            if call[0] == "mount" {
                break;
            }
        }
        for call in &calls[6..] {
            driver.call(*call).success();
        }
        assert_nothing_left(&driver, &sandbox, &disk, &manager, point);
        if kills == 0 {
            killed_nowhere.push(point);
        }
    }
    // An attached volume is made and published by `attach` and staged by `mountdevice`.
    let elsewhere = ["ensured", "recorded", "published", "staged"]
        .map(|step| format!("flexvolume.mount.{step}"));
    let is_of_drbd = |point: &String| DRBD.iter().any(|area| point.starts_with(area));
    killed_nowhere.retain(|point| !elsewhere.contains(point) && !is_of_drbd(point));
    assert!(
        killed_nowhere.is_empty(),
        "no call reaches {killed_nowhere:?}"
    );
}

/// Nothing is left on the node, and no volume is published; deletes the volumes.
#[track_caller]
fn assert_nothing_left(
    driver: &Driver,
    sandbox: &Sandbox,
    disk: &Disk,
    manager: &Manager,
    point: &str,
) {
    driver.assert_nothing_left(sandbox, disk.dir());
    for volume in manager.list_volumes().unwrap() {
        assert!(volume.published.is_empty(), "{point}: {volume:?}");
        manager.delete_volume(&volume.name).unwrap();
    }
}

#[test]
fn row_103_after_a_reboot_and_of_what_was_never_mounted() {
    needs_registry!();
    let sandbox = Sandbox::new("flex-reboot");
    let (disk, manager, driver, reference) = rig(&sandbox);
    let options = [("baseImage", reference.as_str())];
    let reboot = || {
        // What a reboot takes: every mount and every loop device.
        leftovers::end(driver.kubelet_dir());
        leftovers::end(driver.state_dir());
        leftovers::end(&disk.dir().join("volumes"));
    };
    for pod in ["stays", "goes", "directory-gone"] {
        driver.mount(pod, pod, &options).1.success();
    }
    reboot();
    // The pod is still wanted: it is mounted as before.
    let (target, answer) = driver.mount("stays", "stays", &options);
    answer.success();
    assert!(fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD);
    driver.unmount("stays", "stays").success();
    // It is not: only `unmount` comes, with nothing but the directory, or not even that.
    driver.unmount("goes", "goes").success();
    let pods = driver.kubelet_dir().join("pods/directory-gone");
    fs::remove_dir_all(&pods).unwrap();
    driver.unmount("directory-gone", "directory-gone").success();
    driver.unmount("never", "was").success();
    driver.assert_nothing_left(&sandbox, disk.dir());

    // The mount was taken away by hand: what the record says is detached nevertheless.
    let (target, answer) = driver.mount("by-hand", "by-hand", &options);
    answer.success();
    e2e::command::run("umount", [&target]);
    driver.unmount("by-hand", "by-hand").success();
    driver.assert_nothing_left(&sandbox, disk.dir());
    // The records were lost: the kernel knows as well.
    driver.mount("lost", "lost", &options).1.success();
    fs::remove_dir_all(driver.state_dir().join("targets")).unwrap();
    driver.unmount("lost", "lost").success();
    driver.assert_nothing_left(&sandbox, disk.dir());
    // The pod of before the reboot is gone for good: its name is free again.
    driver.mount("old", "same", &options).1.success();
    reboot();
    driver.mount("new", "same", &options).1.success();
    driver.unmount("new", "same").success();
    driver.unmount("old", "same").success();
    driver.assert_nothing_left(&sandbox, disk.dir());
    for volume in manager.list_volumes().unwrap() {
        assert!(volume.published.is_empty(), "{volume:?}");
    }
}

#[test]
fn a_hundred_mounts_and_unmounts_at_once_leave_nothing() {
    needs_registry!();
    let sandbox = Sandbox::new("flex-parallel");
    let (disk, manager, driver, reference) = rig(&sandbox);
    let work = |first: usize| {
        for number in (first..CALLS).step_by(THREADS) {
            let (pod, volume) = (format!("pod-{number}"), format!("v-{number}"));
            let (target, answer) = driver.mount(&pod, &volume, &[("baseImage", &reference)]);
            answer.success();
            assert!(fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD);
            driver.unmount(&pod, &volume).success();
        }
    };
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || work(first));
        }
        // Beside them one volume that all want: one call wins, the others are told why not.
        scope.spawn(|| {
            let wins: usize = std::thread::scope(|scope| {
                let contend = |number: usize| {
                    let pod = format!("rival-{number}");
                    let options = [("baseImage", reference.as_str())];
                    let (_, answer) = driver.mount(&pod, "wanted", &options);
                    if answer.status() == "Success" {
                        return 1;
                    }
                    answer.failure(&["in use by pod"]);
                    0
                };
                let rivals: Vec<_> = (0..8)
                    .map(|number| scope.spawn(move || contend(number)))
                    .collect();
                rivals.into_iter().map(|rival| rival.join().unwrap()).sum()
            });
            assert_eq!(wins, 1);
            for number in 0..8 {
                driver
                    .unmount(&format!("rival-{number}"), "wanted")
                    .success();
            }
        });
    });
    driver.assert_nothing_left(&sandbox, disk.dir());
    let volumes = manager.list_volumes().unwrap();
    assert_eq!(volumes.len(), CALLS + 1);
    assert!(volumes.iter().all(|volume| volume.published.is_empty()));
}
