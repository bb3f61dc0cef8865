//! What gives room back works on a disk that has none: detaching, deleting, cancelling.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use e2e::life::{LIFE, Life, Request, state_after};
use e2e::manager::{NODE, from_volume, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, command, needs};

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
