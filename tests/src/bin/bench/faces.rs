//! What Longhorn's faces take: listing very many images, and the time of the smallest operations.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use e2e::longhorn::{fill, spec};
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Sandbox, block_on};

use crate::report::{Budget, Report, Runs};

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// 1,000 ready images by Longhorn's `List`, beside the bound, and beside an empty answer: one round trip.
pub(crate) fn list(report: &mut Report) {
    let sandbox = Sandbox::new("bench-list");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 2 << 30);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    fill(&manager, disk.dir(), 1000);
    drop(manager);
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    let listed = || {
        let begun = Instant::now();
        let images = manager.longhorn_list_all();
        let took = ms(begun);
        assert_eq!(images.len(), 1000);
        took
    };
    let asked = || {
        let begun = Instant::now();
        block_on(manager.longhorn().version_get(())).unwrap();
        ms(begun)
    };
    listed();
    let runs = Runs::interleaved(21, listed, || 20.0);
    report.add(
        "list-1000-images",
        &runs,
        "the bound",
        "ms",
        Budget::AtMost(1.0),
    );
    let runs = Runs::interleaved(21, listed, asked);
    report.add(
        "list-beside-version",
        &runs,
        "a round trip",
        "ms",
        Budget::None,
    );
}

/// From the call to the state in which a tiny image is ready, and to the answer that it is deleted;
/// beside the bound, and beside what the disk takes for the syncs of one new file.
pub(crate) fn latency(report: &mut Report) {
    let sandbox = Sandbox::new("bench-latency");
    let sides = ["a", "b"].map(|name| {
        let disk = Disk::new(&sandbox, name, FileSystem::Xfs, 1 << 30);
        init_disk(disk.dir());
        let mut options = Options::new(disk.dir());
        name.clone_into(&mut options.name);
        (Manager::start(&sandbox, &options), disk)
    });
    let [(a, disk_a), (b, disk_b)] = &sides;
    let file = disk_a.dir().join("backing-images/tiny-00000001/backing");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let written = File::create(&file).unwrap();
    written.write_all_at(&vec![7; 64 << 10], 0).unwrap();
    a.fetch(spec("tiny", "00000001", 64 << 10, ""), "").unwrap();
    a.files().wait_ready(&file.display().to_string());
    let mut sync = Runs::default();
    let mut delete = Runs::default();
    for _ in 0..21 {
        let begun = Instant::now();
        b.sync(spec("tiny", "00000001", 64 << 10, ""), a).unwrap();
        loop {
            let image = b.longhorn_get("tiny", "00000001").unwrap();
            let status = image.status.unwrap();
            match status.state.as_str() {
                "ready" => break,
                "failed" => panic!("{}", status.error_msg),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        sync.add(ms(begun), 50.0);
        let begun = Instant::now();
        b.longhorn_delete("tiny", "00000001").unwrap();
        delete.add(ms(begun), 50.0);
    }
    report.add("tiny-sync", &sync, "the bound", "ms", Budget::AtMost(1.0));
    report.add("delete", &delete, "the bound", "ms", Budget::AtMost(1.0));
    let durable = || {
        let begun = Instant::now();
        let path = disk_b.dir().join("unit");
        let file = File::create(&path).unwrap();
        file.write_all_at(&vec![7; 64 << 10], 0).unwrap();
        file.sync_all().unwrap();
        File::open(disk_b.dir()).unwrap().sync_all().unwrap();
        std::fs::remove_file(&path).unwrap();
        ms(begun)
    };
    let runs = Runs::interleaved(
        11,
        || {
            let path = disk_b.dir().join("backing-images/tiny-00000001/backing");
            let begun = Instant::now();
            b.sync(spec("tiny", "00000001", 64 << 10, ""), a).unwrap();
            b.files().wait_ready(&path.display().to_string());
            let took = ms(begun);
            b.longhorn_delete("tiny", "00000001").unwrap();
            took
        },
        durable,
    );
    report.add(
        "tiny-sync-beside-a-durable-file",
        &runs,
        "one new file, synced",
        "ms",
        Budget::None,
    );
}
