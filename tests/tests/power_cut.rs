//! Row 57: the power goes after every single write of an image's and its volumes' whole life.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use e2e::life::{LIFE, Life, state_after};
use e2e::manager::init_disk;
use e2e::power::{Cut, RecordedDisk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, needs};

/// Small, so that each replay copies little; XFS wants no less than 300 MiB.
const DISK_SIZE: u64 = 320 << 20;

#[test]
fn row_57_a_power_cut_at_any_write_on_xfs_keeps_what_was_acknowledged() {
    needs!(
        Need::Root,
        Need::Fuse,
        Need::FileSystem("xfs"),
        Need::Tool("qemu-storage-daemon"),
        Need::Tool("qemu-img")
    );
    cut_everywhere(FileSystem::Xfs);
}

#[test]
fn row_57_a_power_cut_at_any_write_on_ext4_keeps_what_was_acknowledged() {
    needs!(
        Need::Root,
        Need::Fuse,
        Need::FileSystem("ext4"),
        Need::Tool("qemu-storage-daemon"),
        Need::Tool("qemu-img")
    );
    cut_everywhere(FileSystem::Ext4);
}

fn cut_everywhere(file_system: FileSystem) {
    let sandbox = Sandbox::new("power-cut");
    let life = Life::new(&sandbox);
    let recorded = RecordedDisk::new(&sandbox, file_system, DISK_SIZE, init_disk);
    let manager = Manager::start(&sandbox, &life.options(recorded.dir()));
    // What the log held when each request was made, and when it was acknowledged.
    let begin = recorded.position();
    let mut made = Vec::new();
    let mut acknowledged = Vec::new();
    for request in LIFE {
        made.push(recorded.position());
        life.request(&manager, request)
            .unwrap_or_else(|status| panic!("{request:?}: {status}"));
        acknowledged.push(recorded.position());
    }
    drop(manager);
    let recording = recorded.finish();
    let end = *acknowledged.last().unwrap();
    assert!(
        end > begin + LIFE.len(),
        "every request writes: {begin} to {end}"
    );

    for count in begin..=end {
        // In turn: what the disk had seen, and what of it a volatile cache may lose.
        let cut = if count % 2 == 0 {
            Cut::Clean
        } else {
            Cut::Dropped(count as u64)
        };
        let done = acknowledged
            .iter()
            .filter(|position| **position <= count)
            .count();
        let begun = made.iter().filter(|position| **position <= count).count();
        let _where = Place(format!(
            "{cut:?} after write {count} of {begin} to {end}, requests {done} to {begun}"
        ));
        let target = sandbox.path("replayed.img");
        recording.replay(count, cut, &target).unwrap();
        let disk = Disk::mount(&sandbox, "replayed", target);
        {
            let manager = Manager::start(&sandbox, &life.options(disk.dir()));
            let found = life.observe(&manager, disk.dir());
            let allowed: Vec<_> = (done..=begun).map(state_after).collect();
            assert!(
                allowed.contains(&found),
                "{cut:?} after {count} writes: {found:?} is none of {allowed:?}"
            );
        }
        disk.detach();
    }
}

/// Says where a failing test was.
struct Place(String);

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at: {}", self.0);
        }
    }
}
