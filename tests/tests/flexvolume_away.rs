//! Cleanup on a node needs no manager: FlexVolume without one, and on a full disk.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use e2e::flexvolume::{Driver, options_of};
use e2e::manager::{NODE, Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, leftovers, needs};

fn rig(
    sandbox: &Sandbox,
    file_system: FileSystem,
    size: u64,
    more: &str,
) -> (Disk, Manager, Driver) {
    let disk = Disk::new(sandbox, "disk", file_system, size);
    init_disk(disk.dir());
    let manager = Manager::start(sandbox, &Options::new(disk.dir()));
    let driver = Driver::install_with(sandbox, &manager.address().to_string(), disk.dir(), more);
    (disk, manager, driver)
}

#[track_caller]
fn assert_given_back(manager: &Manager) {
    for volume in manager.list_volumes().unwrap() {
        assert!(volume.published.is_empty(), "{volume:?}");
    }
}

#[test]
fn row_127_unmount_needs_no_manager_and_the_next_call_tells_it() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("flex-away");
    let (disk, mut manager, driver) = rig(&sandbox, FileSystem::Xfs, 320 << 20, "");
    for name in ["a", "b", "c"] {
        driver.mount(name, name, &[("size", "64Mi")]).1.success();
    }
    manager.process.terminate();
    driver.unmount("a", "a").success();
    // As often as the kubelet likes.
    driver.unmount("a", "a").success();
    let a = driver.target("a", "a");
    assert!(!leftovers::mounts_below(&a).contains(&a));
    sandbox.assert_nothing_attached(&disk.dir().join("volumes/a"));
    // One whose record is lost, as well.
    for record in std::fs::read_dir(driver.state_dir().join("targets")).unwrap() {
        let path = record.unwrap().path();
        if path.extension().is_some_and(|end| end == "json")
            && std::fs::read_to_string(&path)
                .unwrap()
                .contains("\"volume\":\"b\"")
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    driver.unmount("b", "b").success();

    manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    assert_eq!(manager.volume("a").unwrap().published.len(), 1);
    let driver = driver.with_manager(&sandbox, &manager);
    // A volume that is mounted again is no debt any more.
    driver.mount("a2", "a", &[]).1.success();
    assert_eq!(manager.volume("a").unwrap().published.len(), 1);
    driver.unmount("c", "c").success();
    assert!(manager.volume("b").unwrap().published.is_empty());
    assert_eq!(manager.volume("a").unwrap().published.len(), 1);
    driver.unmount("a2", "a").success();
    assert_given_back(&manager);
    driver.assert_nothing_left(&sandbox, disk.dir());
}

#[test]
fn row_127_detach_and_unmountdevice_need_no_manager() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("flex-away-attach");
    let (disk, mut manager, driver) = rig(&sandbox, FileSystem::Xfs, 320 << 20, "attach = true");
    let json = options_of("pod", "pv", &[("size", "64Mi")]);
    driver.call(["attach", &json, NODE]).success();
    let device = driver
        .kubelet_dir()
        .join("plugins/kubernetes.io/flexvolume/mounts/pv");
    std::fs::create_dir_all(&device).unwrap();
    let device = device.to_str().unwrap();
    driver
        .call(["mountdevice", device, "/dev/longhorn/pv", &json])
        .success();
    manager.process.terminate();
    driver.call(["unmountdevice", device]).success();
    driver.call(["detach", "pv", NODE]).success();
    driver.call(["detach", "pv", NODE]).success();
    sandbox.assert_nothing_attached(&disk.dir().join("volumes"));

    manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    let driver = driver.with_manager(&sandbox, &manager);
    // Attached anew, it is not taken back; detached, it is.
    driver.call(["attach", &json, NODE]).success();
    driver.call(["isattached", &json, NODE]).success();
    assert_eq!(manager.volume("pv").unwrap().published.len(), 1);
    driver.call(["detach", "pv", NODE]).success();
    assert_given_back(&manager);
    driver.assert_nothing_left(&sandbox, disk.dir());
}

/// Writes into a mounted volume until nothing more goes.
fn fill(target: &Path) {
    let mut file = File::create(target.join("big")).unwrap();
    let piece = vec![0x5a; 1 << 20];
    for _ in 0..900 {
        if file
            .write_all(&piece)
            .and_then(|()| file.sync_data())
            .is_err()
        {
            break;
        }
    }
}

fn full(file_system: FileSystem) {
    let sandbox = Sandbox::new("flex-full");
    let (disk, manager, driver) = rig(&sandbox, file_system, 320 << 20, "");
    let (target, answer) = driver.mount("a", "a", &[("size", "1Gi")]);
    answer.success();
    driver.mount("b", "b", &[("size", "64Mi")]).1.success();
    fill(&target);
    driver.unmount("b", "b").success();
    driver.unmount("a", "a").success();
    assert_given_back(&manager);
    driver.assert_nothing_left(&sandbox, disk.dir());
    manager.delete_volume("a").unwrap();
    driver.mount("c", "c", &[("size", "64Mi")]).1.success();
    driver.unmount("c", "c").success();
}

#[test]
fn row_127_unmount_works_on_a_full_ext4_disk() {
    needs!(Need::Root, Need::FileSystem("ext4"));
    full(FileSystem::Ext4);
}

#[test]
fn row_127_unmount_works_on_a_full_xfs_disk() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    full(FileSystem::Xfs);
}

#[test]
fn row_127_unmount_works_on_a_full_btrfs_disk() {
    needs!(Need::Root, Need::FileSystem("btrfs"));
    full(FileSystem::Btrfs);
}
