//! A volume from a ready image: the time must not depend on the size of the image.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use e2e::manager::{Options, from_file, init_disk};
use e2e::{Disk, FileSystem, Manager, Sandbox, command};

use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
const RUNS: usize = 15;
/// Holes that the raw form of an image keeps are at least one MiB.
const EXTENTS: u64 = 10_000;
const EXTENT: u64 = MIB / 16;
/// The time between two volumes of an image, in which its next spare clone is made: of few hundred extents, and of
/// [`EXTENTS`].
const SHORTLY: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(1);

/// A raw image file with `data` bytes in every `period` bytes.
fn raw_image(path: &Path, size: u64, period: u64, data: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let piece: Vec<u8> = (0..data).map(|at| (at % 251) as u8 | 1).collect();
    let mut at = 0;
    while at < size {
        file.write_all_at(&piece, at).unwrap();
        at += period;
    }
}

struct Images {
    manager: Manager,
    disk: Disk,
    sandbox: Sandbox,
}

/// A manager with three ready images: 64 MiB and 4 GiB, a quarter of each data, and 4 GiB that come
/// in 32,768 pieces.
fn images(file_system: FileSystem) -> Images {
    let sandbox = Sandbox::new("bench-volume");
    let disk = Disk::new(&sandbox, "disk", file_system, 40 << 30);
    init_disk(disk.dir());
    let import = sandbox.make_dir("import");
    let manager = Manager::start(
        &sandbox,
        &Options::new(disk.dir()).with("--import-dir", &import),
    );
    let shapes = [
        ("small", 64 * MIB, 16 * MIB, 4 * MIB),
        ("large", 4096 * MIB, 16 * MIB, 4 * MIB),
        ("pieces", 4096 * MIB, MIB / 8, 16 << 10),
    ];
    for (name, size, period, data) in shapes {
        let path = import.join(name);
        raw_image(&path, size, period, data);
        make_image(&manager, name, &path);
    }
    // What the imports left to write would be written under the first case.
    command::run("sync", [""; 0]);
    Images {
        manager,
        disk,
        sandbox,
    }
}

/// Makes an image of a file, which is removed.
fn make_image(manager: &Manager, name: &str, path: &Path) {
    let image = manager.make_image(from_file(name, path)).unwrap();
    assert_eq!(image.progress, 100, "{image:?}");
    std::fs::remove_file(path).unwrap();
    // The first volume makes the raw form where one is needed.
    create(manager, name, "warm-up");
}

impl Images {
    /// An image whose raw form has [`EXTENTS`].
    fn make_extents(&self, name: &str) {
        let path = self.sandbox.path("import").join(name);
        raw_image(&path, EXTENTS * (MIB + EXTENT), MIB + EXTENT, EXTENT);
        make_image(&self.manager, name, &path);
        command::run("sync", [""; 0]);
        let uuid = self.manager.image(name).unwrap().uuid;
        let raw = format!("backing-images/{name}-{uuid}/raw");
        let raw = self.disk.dir().join(raw);
        // Its summary counts neighbours on the disk as one; each of its lines is one of the file.
        let extents = command::run("filefrag", ["-v".as_ref(), raw.as_os_str()]);
        assert!(extents.lines().count() as u64 > EXTENTS, "{extents}");
    }
}

/// Milliseconds of one CreateVolume.
fn create(manager: &Manager, image: &str, volume: &str) -> f64 {
    let start = Instant::now();
    manager.create_volume(volume, image, 0).unwrap();
    let took = start.elapsed().as_secs_f64() * 1e3;
    manager.delete_volume(volume).unwrap();
    took
}

pub(crate) fn on_xfs(report: &mut Report) {
    let images = images(FileSystem::Xfs);
    images.make_extents("extents");
    for (case, image, pause) in [
        ("volume-xfs-4GiB", "large", SHORTLY),
        ("volume-xfs-4GiB-fragmented", "pieces", SHORTLY),
        ("volume-xfs-10000-runs", "extents", LATER),
    ] {
        let after_a_pause = |image, volume| {
            sleep(pause);
            create(&images.manager, image, volume)
        };
        let runs = Runs::interleaved(
            RUNS,
            || after_a_pause(image, "ours"),
            || after_a_pause("small", "reference"),
        );
        report.add(
            case,
            &runs,
            "the same from an image of 64 MiB",
            "ms",
            Budget::AtMost(1.5),
        );
    }
    // What the disk needs for a sync of one new small file: the unit of all durable work.
    let mut number = 0;
    let runs = Runs::interleaved(
        RUNS,
        || create(&images.manager, "small", "ours"),
        || {
            number += 1;
            let probe = images.disk.dir().join(format!("probe-{number}"));
            let start = Instant::now();
            let file = File::create(&probe).unwrap();
            file.write_all_at(b"x", 0).unwrap();
            file.sync_all().unwrap();
            start.elapsed().as_secs_f64() * 1e3
        },
    );
    report.add(
        "volume-xfs-64MiB",
        &runs,
        "one file made and synced",
        "ms",
        Budget::AtMost(20.0),
    );
}

pub(crate) fn on_ext4(report: &mut Report) {
    let images = images(FileSystem::Ext4);
    let copy = images.disk.dir().join("copy");
    for (case, image) in [
        ("volume-ext4-64MiB", "small"),
        ("volume-ext4-4GiB", "large"),
    ] {
        let found = images.manager.image(image).unwrap();
        let backing = images
            .disk
            .dir()
            .join(format!("backing-images/{image}-{}/backing", found.uuid));
        let runs = Runs::interleaved(
            5,
            || create(&images.manager, image, "ours"),
            || {
                let start = Instant::now();
                command::run(
                    "cp",
                    [
                        "--sparse=auto".as_ref(),
                        backing.as_os_str(),
                        copy.as_os_str(),
                    ],
                );
                command::run("sync", [&copy]);
                let took = start.elapsed().as_secs_f64() * 1e3;
                std::fs::remove_file(&copy).unwrap();
                took
            },
        );
        report.add(
            case,
            &runs,
            "cp --sparse and sync of the image",
            "ms",
            Budget::None,
        );
    }
    drop(images.sandbox);
}
