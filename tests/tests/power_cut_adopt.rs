//! Row 57: the power goes after every single write of an adoption, and of setting a wrong file aside.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use e2e::manager::{Options, init_disk};
use e2e::power::{Cut, RecordedDisk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, command, needs, wait};
use proto::storage::v1 as pb;

const DISK_SIZE: u64 = 64 << 20;

fn bytes(name: &str) -> Vec<u8> {
    let seed = name.len();
    (0..1 << 20)
        .map(|at| u8::try_from((at + seed) % 251).unwrap() + 1)
        .collect()
}

/// Each image has a uuid of its own.
fn id(name: &str) -> String {
    format!("{name}-{}", uuid(name))
}

fn uuid(name: &str) -> &'static str {
    if name == "right" {
        "a93b9a55"
    } else {
        "b93b9a55"
    }
}

fn work_file(disk: &Path, name: &str) -> PathBuf {
    disk.join("tmp").join(id(name))
}

/// What Longhorn's data source has left: two files, durable, and nothing that describes them.
fn prepare(disk: &Path) {
    init_disk(disk);
    fs::create_dir(disk.join("tmp")).unwrap();
    for name in ["right", "wrong"] {
        let mut file = File::create(work_file(disk, name)).unwrap();
        file.write_all(&bytes(name)).unwrap();
        file.sync_all().unwrap();
    }
    command::run("sync", ["-f".as_ref(), disk.as_os_str()]);
}

/// Longhorn's `fetch`, as the control plane asks for it.
fn fetch(manager: &Manager, disk: &Path, name: &str, size: u64) {
    let to = disk.join("backing-images").join(id(name)).join("backing");
    let query = [
        ("action", "fetch".to_owned()),
        ("src-file-path", work_file(disk, name).display().to_string()),
        ("dst-file-path", to.display().to_string()),
        ("uuid", uuid(name).to_owned()),
        ("disk-uuid", manager.disk().unwrap().uuid),
        ("size", size.to_string()),
    ];
    let pairs: Vec<_> = query
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let url = format!(
        "http://{}/v1/files?{}",
        manager.sync_address(),
        pairs.join("&")
    );
    command::run(
        "curl",
        [
            "--fail",
            "--silent",
            "--show-error",
            "--request",
            "POST",
            &url,
        ],
    );
}

/// The bytes of a file that must not get lost, wherever they are: its place, or set aside.
fn kept(disk: &Path, name: &str) -> Option<Vec<u8>> {
    let mut places = vec![work_file(disk, name)];
    for place in ["tmp", "backing-images"] {
        let entries = fs::read_dir(disk.join(place))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        places.extend(
            entries
                .filter(|path| path.is_dir())
                .map(|dir| dir.join("backing")),
        );
    }
    let wanted = bytes(name);
    places
        .into_iter()
        .filter_map(|path| fs::read(path).ok())
        .find(|found| *found == wanted)
}

#[test]
fn row_57_a_power_cut_at_any_write_of_an_adoption_loses_nothing() {
    needs!(
        Need::Root,
        Need::Fuse,
        Need::FileSystem("ext4"),
        Need::Tool("qemu-storage-daemon"),
        Need::Tool("curl")
    );
    let sandbox = Sandbox::new("power-adopt");
    let recorded = RecordedDisk::new(&sandbox, FileSystem::Ext4, DISK_SIZE, prepare);
    let manager = Manager::start(&sandbox, &Options::new(recorded.dir()));
    let begin = recorded.position();
    fetch(&manager, recorded.dir(), "right", 1 << 20);
    assert_eq!(
        manager.wait_image("right").unwrap().state(),
        pb::State::Ready
    );
    let adopted = recorded.position();
    fetch(&manager, recorded.dir(), "wrong", 512);
    wait::until("the wrong file is set aside", || {
        let image = manager.image("wrong").unwrap();
        image.message.contains("quarantined in").then_some(())
    });
    let end = recorded.position();
    drop(manager);
    let recording = recorded.finish();
    for count in begin..=end {
        let cut = if count % 2 == 0 {
            Cut::Clean
        } else {
            Cut::Dropped(count as u64)
        };
        let at = format!("{cut:?} after write {count} of {begin} to {end}");
        let target = sandbox.path("replayed.img");
        recording.replay(count, cut, &target).unwrap();
        let disk = Disk::mount(&sandbox, "replayed", target);
        {
            let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
            let images = manager.list_images().unwrap();
            for image in &images {
                assert_eq!(image.name, "right", "{at}: an image that is none");
                assert_eq!(
                    manager.wait_image("right").unwrap().state(),
                    pb::State::Ready,
                    "{at}"
                );
            }
            assert!(
                !images.is_empty() || count < adopted,
                "{at}: what was announced is lost"
            );
            for name in ["right", "wrong"] {
                assert!(kept(disk.dir(), name).is_some(), "{at}: {name} is lost");
            }
        }
        disk.detach();
    }
}
