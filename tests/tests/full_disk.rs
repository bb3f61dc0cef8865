//! What gives room back works on a disk that has none: detaching, deleting, cancelling.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use e2e::csi::claim;
use e2e::life::{LIFE, Life, Request, state_after};
use e2e::manager::{NODE, Options, from_volume, init_disk};
use e2e::noise::noise;
use e2e::{Disk, FileSystem, Manager, Need, Node, Sandbox, block_on, command, needs};
use proto::csi::v1 as csi;
use tonic::Code;

const MIB: u64 = 1 << 20;
const DISK_SIZE: u64 = 320 * MIB;
/// More than any file system of that size has.
const FILES_MAX: usize = 100_000;

/// Writes until the file system takes nothing more: no byte, no file, no name.
fn fill_up(volume: &Path, disk: &Path) {
    let filler = disk.join("filler");
    fs::create_dir_all(&filler).unwrap();
    for _ in 0..2 {
        write_all(volume);
        for number in 0..FILES_MAX {
            let path = filler.join(format!("{number:06}"));
            let made = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .and_then(|file| file.write_all_at(&[1; 1500], 0));
            if made.is_err() {
                break;
            }
        }
        command::run("sync", ["-f".as_ref(), disk.as_os_str()]);
    }
    assert!(
        File::create(disk.join("one-more"))
            .and_then(|file| file.write_all_at(&[1; 8192], 0).and(file.sync_all()))
            .is_err(),
        "the disk is full"
    );
    fs::remove_file(disk.join("one-more")).ok();
}

/// What a pod does that fills its volume: large pieces, then smaller ones behind them.
fn write_all(volume: &Path) {
    let file = File::options().write(true).open(volume).unwrap();
    let size = file.metadata().unwrap().len();
    let mut at = 0;
    for piece in [4 * MIB, 64 << 10, 4096] {
        let bytes = vec![0x5a; usize::try_from(piece).unwrap()];
        while at + piece <= size && file.write_all_at(&bytes, at).is_ok() {
            at += piece;
        }
    }
    file.sync_all().ok();
}

/// Two published volumes of which one fills the disk, an image with a volume, and a snapshot.
fn full(file_system: FileSystem) {
    let sandbox = Sandbox::new("full-disk");
    let life = Life::new(&sandbox);
    let disk = Disk::new(&sandbox, "disk", file_system, DISK_SIZE);
    init_disk(disk.dir());
    let options = life.options(disk.dir());
    let mut manager = Manager::start(&sandbox, &options);
    life.request(&manager, Request::Import).unwrap();
    life.request(&manager, Request::CreateVolume).unwrap();
    manager.make_image(from_volume("snap", "one")).unwrap();
    for name in ["big", "other", "third"] {
        manager.create_volume(name, "", 512 * MIB).unwrap();
        manager.publish_volume(name, NODE).unwrap();
    }
    fill_up(&disk.dir().join("volumes/big/volume"), disk.dir());

    manager.unpublish_volume("other", NODE).unwrap();
    assert!(manager.volume("other").unwrap().published.is_empty());
    // A new start on the full disk knows it as well, and works.
    manager.process.terminate();
    manager = Manager::start(&sandbox, &options);
    assert!(manager.volume("other").unwrap().published.is_empty());
    assert_eq!(manager.volume("third").unwrap().published.len(), 1);
    manager.delete_volume("other").unwrap();
    manager.unpublish_volume("third", NODE).unwrap();
    manager.delete_image("snap").unwrap();
    manager.delete_volume("one").unwrap();
    manager.delete_image("base").unwrap();
    manager.unpublish_volume("big", NODE).unwrap();
    manager.delete_volume("big").unwrap();
    manager.delete_volume("third").unwrap();
    fs::remove_dir_all(disk.dir().join("filler")).unwrap();
    assert_eq!(life.observe(&manager, disk.dir()), state_after(LIFE.len()));
    manager.process.terminate();
    manager = Manager::start(&sandbox, &options);
    for (count, request) in LIFE.into_iter().enumerate() {
        life.request(&manager, request).unwrap();
        assert_eq!(life.observe(&manager, disk.dir()), state_after(count + 1));
    }
}

#[test]
fn row_125_a_full_ext4_disk_is_emptied_by_the_calls_that_give_back() {
    needs!(Need::Root, Need::FileSystem("ext4"), Need::Tool("qemu-img"));
    full(FileSystem::Ext4);
}

#[test]
fn row_125_a_full_xfs_disk_is_emptied_by_the_calls_that_give_back() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Tool("qemu-img"));
    full(FileSystem::Xfs);
}

#[test]
fn row_125_a_full_btrfs_disk_is_emptied_by_the_calls_that_give_back() {
    needs!(
        Need::Root,
        Need::FileSystem("btrfs"),
        Need::Tool("qemu-img")
    );
    full(FileSystem::Btrfs);
}

#[test]
fn row_126_a_volume_is_detached_though_its_disk_became_read_only() {
    needs!(Need::Root, Need::FileSystem("ext4"));
    let sandbox = Sandbox::new("read-only-disk");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, DISK_SIZE);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    manager.create_volume("v", "", 64 * MIB).unwrap();
    manager.publish_volume("v", NODE).unwrap();
    // What the kernel does to an ext4 that finds an error in itself.
    let dir = disk.dir().display().to_string();
    command::run("mount", ["-o", "remount,abort", &dir]);
    assert!(
        File::create(disk.dir().join("x")).is_err(),
        "it is read-only"
    );
    for _ in 0..2 {
        manager.unpublish_volume("v", NODE).unwrap();
    }
    assert!(manager.volume("v").unwrap().published.is_empty());
    // Its bytes cannot be given back, and nobody is told that they were.
    let refused = manager.delete_volume("v").unwrap_err();
    assert!(refused.message().contains("volumes/v"), "{refused}");
    assert_eq!(manager.list_volumes().unwrap().len(), 1);
}

#[test]
fn row_128_what_is_offered_can_be_made_and_no_more() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("overcommit");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let offered = || {
        let mut controller = node.plugin.controller();
        let reply = block_on(controller.get_capacity(csi::GetCapacityRequest::default()))
            .unwrap()
            .into_inner();
        assert_eq!(reply.maximum_volume_size, Some(reply.available_capacity));
        u64::try_from(reply.available_capacity).unwrap()
    };
    let make = |name: &str, size: u64| node.plugin.provision(&claim(name, size, &[]));
    let all = offered();
    assert!(all > 5 << 30, "volumes are thin: {all}");
    let refused = make("more", all + 4096).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains(&all.to_string()), "{refused}");
    for size in [1 << 60, (1 << 63) - 4096] {
        let refused = make("huge", size).unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    }
    let small = make("small", 64 * MIB).unwrap();
    let refused = node.manager.grow_volume("small", 1 << 40).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(node.manager.volume("small").unwrap().size, 64 * MIB);
    let rest = offered();
    assert_eq!(rest, all - 64 * MIB);
    let made = make("rest", rest).unwrap();
    assert_eq!(offered(), 0);
    for claim in [small, made] {
        node.plugin.delete(&claim).unwrap();
    }
    assert_eq!(offered(), all);
}

#[test]
fn row_129_a_disk_that_fills_up_is_said() {
    needs!(Need::Root, Need::FileSystem("ext4"));
    let sandbox = Sandbox::new("fills-up");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, DISK_SIZE);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    manager.create_volume("v", "", 512 * MIB).unwrap();
    assert_eq!(manager.volume("v").unwrap().condition, "");
    let file = File::options()
        .write(true)
        .open(disk.dir().join("volumes/v/volume"))
        .unwrap();
    let left = disk.available() - DISK_SIZE / 20;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, left).unwrap();
    let condition = manager.volume("v").unwrap().condition;
    assert!(condition.contains("nearly full"), "{condition}");
    assert!(manager.disk().unwrap().creatable > Some(0));
    // Its blocks come back once nobody has it open.
    drop(file);
    write_all(&disk.dir().join("volumes/v/volume"));
    let condition = manager.volume("v").unwrap().condition;
    assert!(condition.contains("the disk is full"), "{condition}");
    let found = manager.disk().unwrap();
    assert_eq!((found.creatable, found.warning), (Some(0), condition));
    let refused = manager.create_volume("w", "", MIB).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    manager.delete_volume("v").unwrap();
    manager.create_volume("w", "", MIB).unwrap();
    assert_eq!(manager.volume("w").unwrap().condition, "");
}

/// Eight uploads at once onto a disk that has room for some of them.
#[test]
fn row_131_uploads_leave_the_reserve_to_volumes() {
    needs!(Need::Root, Need::FileSystem("ext4"), Need::Tool("curl"));
    let sandbox = Sandbox::new("uploads");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, DISK_SIZE);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    manager.create_volume("v", "", 64 * MIB).unwrap();
    let volume = File::options()
        .write(true)
        .open(disk.dir().join("volumes/v/volume"))
        .unwrap();
    let image = sandbox.write("image", noise(1, 60 * MIB));
    let upload = |number: u32, size: u64| {
        let uuid = format!("0000000{number}");
        let path = disk.dir().join(format!("backing-images/up-{uuid}/backing"));
        let url = format!(
            "http://{}/v1/files?action=upload&file-path={}&uuid={uuid}&size={size}",
            manager.sync_address(),
            path.display()
        );
        let form = format!("chunk=@{}", image.display());
        let output = command::output("curl", ["-sS", "--fail-with-body", "-F", &form, &url]);
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), words)
    };
    for (number, size) in [(8, 10 << 40), (9, 1 << 62)] {
        let (done, words) = upload(number, size);
        assert!(!done && words.contains("bytes free"), "{words}");
    }
    let done = std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn({
                    let upload = &upload;
                    move || upload(number, 60 * MIB)
                })
            })
            .collect();
        // A pod writes meanwhile, and each write is taken.
        for at in 0..256 {
            volume.write_all_at(&[1; 4096], at * 4096).unwrap();
            volume.sync_data().unwrap();
        }
        uploads
            .into_iter()
            .map(|upload| upload.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(done.iter().any(|(done, _)| *done), "{done:?}");
    for (_, words) in done.iter().filter(|(done, _)| !done) {
        assert!(
            words.contains("bytes free") || words.contains("the disk is full"),
            "{words}"
        );
        assert!(!words.contains("No space left"), "{words}");
    }
    assert!(
        disk.available() >= DISK_SIZE / 64 - 2 * MIB,
        "{}",
        disk.available()
    );
}
