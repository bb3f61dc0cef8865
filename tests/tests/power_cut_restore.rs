//! The power goes after every single write of a restore: there is no image afterwards, or a whole one.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use e2e::manager::{Options, from_backup, init_disk, new_backup};
use e2e::noise::noise;
use e2e::power::{Cut, RecordedDisk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, needs};
use proto::storage::v1 as pb;

const DISK_SIZE: u64 = 320 << 20;
const MIB: u64 = 1 << 20;

fn options(disk: &Path, store: &Path) -> Options {
    Options::new(disk).with(
        "--backup-target",
        format!("default=vfs://{}", store.display()),
    )
}

#[test]
fn a_power_cut_at_any_write_of_a_restore_leaves_nothing_or_a_whole_image() {
    needs!(
        Need::Root,
        Need::Fuse,
        Need::FileSystem("xfs"),
        Need::Tool("qemu-storage-daemon")
    );
    let sandbox = Sandbox::new("power-cut-restore");
    let store = sandbox.make_dir("store");
    let bytes = backed_up(&sandbox, &store);
    let recorded = RecordedDisk::new(&sandbox, FileSystem::Xfs, DISK_SIZE, init_disk);
    let manager = Manager::start(&sandbox, &options(recorded.dir(), &store));
    let begin = recorded.position();
    let image = manager
        .make_image(from_backup("back", "vol", "b1"))
        .unwrap();
    assert_eq!(image.state(), pb::State::Ready, "{}", image.message);
    let end = recorded.position();
    drop(manager);
    let recording = recorded.finish();
    assert!(end > begin + 5, "it writes: {begin} to {end}");
    for count in begin..=end {
        let cut = if count % 2 == 0 {
            Cut::Clean
        } else {
            Cut::Dropped(count as u64)
        };
        let target = sandbox.path("replayed.img");
        recording.replay(count, cut, &target).unwrap();
        let disk = Disk::mount(&sandbox, "replayed", target);
        {
            let manager = Manager::start(&sandbox, &options(disk.dir(), &store));
            let found = manager.list_images().unwrap();
            assert!(count < end || found.len() == 1, "it was announced");
            for image in found {
                let image = manager.wait_image(&image.name).unwrap();
                assert_eq!(
                    image.state(),
                    pb::State::Ready,
                    "after {count}: {}",
                    image.message
                );
                assert!(held(disk.dir(), &image) == bytes, "after {count}");
            }
            // Each takes the time of a lock.
            if count % 16 == 0 {
                let again = manager
                    .make_image(from_backup("back", "vol", "b1"))
                    .unwrap();
                assert_eq!(
                    again.state(),
                    pb::State::Ready,
                    "after {count}: {}",
                    again.message
                );
                assert!(held(disk.dir(), &again) == bytes, "after {count}");
            }
        }
        disk.detach();
    }
}

fn held(disk: &Path, image: &pb::BackingImage) -> Vec<u8> {
    let directory = format!("backing-images/{}-{}", image.name, image.uuid);
    fs::read(disk.join(directory).join("backing")).unwrap()
}

/// Backs up a volume from another disk; what it held.
fn backed_up(sandbox: &Sandbox, store: &Path) -> Vec<u8> {
    let disk = sandbox.make_dir("other-disk");
    init_disk(&disk);
    let manager = Manager::start(sandbox, &options(&disk, store));
    let volume = manager.create_volume("vol", "", 12 * MIB).unwrap();
    let path = disk.join(&volume.replicas[0].path);
    let file = File::options().write(true).open(&path).unwrap();
    for at in [0, 5 * MIB, 9 * MIB] {
        file.write_all_at(&noise(at + 1, MIB), at).unwrap();
    }
    let backup = manager.make_backup(new_backup("vol", "b1")).unwrap();
    assert_eq!(
        backup.state(),
        pb::BackupState::Complete,
        "{}",
        backup.message
    );
    fs::read(path).unwrap()
}
