//! The footprint of the manager: memory, and the time to start.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use e2e::manager::{Options, from_file, init_disk};
use e2e::{Disk, FileSystem, Manager, Sandbox};

use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// Memory while an image of 8 GiB with 100 MiB of data comes in, and idle. The reference is the bound.
pub(crate) fn memory(report: &mut Report) {
    let mut peak = Runs::default();
    let mut idle = Runs::default();
    for _ in 0..3 {
        let sandbox = Sandbox::new("bench-memory");
        let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 12 << 30);
        init_disk(disk.dir());
        let import = sandbox.make_dir("import");
        let path = import.join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(8 << 30).unwrap();
        for piece in 0..100 {
            file.write_all_at(&vec![0x5a; 1 << 20], piece * 80 * MIB)
                .unwrap();
        }
        let manager = Manager::start(
            &sandbox,
            &Options::new(disk.dir()).with("--import-dir", &import),
        );
        idle.add(mib(manager.process.memory().1), 16.0);
        let image = manager.make_image(from_file("sparse", &path)).unwrap();
        assert_eq!(image.progress, 100, "{image:?}");
        peak.add(mib(manager.process.memory().0), 64.0);
    }
    report.add(
        "memory-idle",
        &idle,
        "the bound",
        "MiB",
        Budget::AtMost(1.0),
    );
    report.add(
        "memory-peak-8GiB-sparse",
        &peak,
        "the bound",
        "MiB",
        Budget::AtMost(1.0),
    );
}

/// From the start of the process to its first answer, with 1,000 ready images and with none.
pub(crate) fn start(report: &mut Report) {
    let sandbox = Sandbox::new("bench-start");
    let disks = ["full", "empty"].map(|name| Disk::new(&sandbox, name, FileSystem::Xfs, 4 << 30));
    for disk in &disks {
        init_disk(disk.dir());
    }
    let import = sandbox.make_dir("import");
    let path = import.join("image");
    File::create(&path)
        .unwrap()
        .write_all_at(&vec![1; 64 << 10], 0)
        .unwrap();
    let options = |disk: &Disk| Options::new(disk.dir()).with("--import-dir", &import);
    let manager = Manager::start(&sandbox, &options(&disks[0]));
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (manager, path) = (&manager, &path);
            scope.spawn(move || {
                for number in 0..125 {
                    let name = format!("image-{worker}-{number}");
                    manager.make_image(from_file(&name, path)).unwrap();
                }
            });
        }
    });
    drop(manager);
    let started = |disk: &Disk, images: usize| {
        let start = Instant::now();
        let manager = Manager::start(&sandbox, &options(disk));
        let ready = manager
            .list_images()
            .unwrap()
            .iter()
            .filter(|image| image.progress == 100)
            .count();
        let took = start.elapsed().as_secs_f64() * 1e3;
        assert_eq!(ready, images, "all are ready at the first look");
        took
    };
    let runs = Runs::interleaved(9, || started(&disks[0], 1000), || 1000.0);
    report.add(
        "start-1000-images",
        &runs,
        "the bound",
        "ms",
        Budget::AtMost(1.0),
    );
    let runs = Runs::interleaved(9, || started(&disks[0], 1000), || started(&disks[1], 0));
    report.add(
        "start-1000-images-beside-none",
        &runs,
        "no images",
        "ms",
        Budget::None,
    );
}
