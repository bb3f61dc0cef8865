//! One node with many volumes: 1,000 volumes and 200 images on one disk, and 32 volumes in pods.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use e2e::csi::{Claim, Plugin, claim};
use e2e::manager::{Options, from_file, init_disk};
use e2e::{Disk, FileSystem, Manager, Process, Sandbox, block_on};
use proto::csi::v1 as csi;
use proto::storage::v1 as pb;

use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
const IMAGES: usize = 200;
const VOLUMES: usize = 1000;
const IN_PODS: usize = 32;
/// What a caller asks for at once.
const PAGE: usize = 100;
/// How many calls are under way while the node is filled.
const AT_ONCE: usize = 8;
/// How long nobody asks for anything.
const IDLE: Duration = Duration::from_secs(30);
/// Of one processor.
const IDLE_CPU_PERCENT: f64 = 0.5;
const MEMORY_MIB: f64 = 64.0;

pub(crate) fn scale(report: &mut Report) {
    let sandbox = Sandbox::new("bench-scale");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 20 << 30);
    init_disk(disk.dir());
    let import = sandbox.make_dir("import");
    let options = Options::new(disk.dir()).with("--import-dir", &import);
    let path = import.join("image");
    let content = File::create(&path).unwrap();
    content.write_all_at(&vec![1; 64 << 10], 0).unwrap();
    let manager = Manager::start(&sandbox, &options);
    each(IMAGES, &|number| {
        let name = format!("image-{number:03}");
        manager.make_image(from_file(&name, &path)).unwrap();
    });
    each(VOLUMES, &|number| {
        let image = format!("image-{:03}", number % IMAGES);
        let name = format!("volume-{number:04}");
        manager.create_volume(&name, &image, 0).unwrap();
    });
    drop(manager);

    let mut start = Runs::default();
    for _ in 0..5 {
        let begun = Instant::now();
        let manager = Manager::start(&sandbox, &options);
        let found = manager.list_volumes().unwrap().len();
        start.add(ms(begun), 2000.0);
        assert_eq!(found, VOLUMES);
    }
    bound(report, "scale-start", &start, "ms");

    let manager = Manager::start(&sandbox, &options);
    let controller = Plugin::controller_of(&sandbox, "controller", &[&manager], &[]);
    let mut pages = Runs::default();
    let mut csi_pages = Runs::default();
    for _ in 0..21 {
        pages.add(page(&manager), 50.0);
        csi_pages.add(csi_page(&controller), 50.0);
    }
    bound(report, "scale-list-page", &pages, "ms");
    bound(report, "scale-csi-list-page", &csi_pages, "ms");

    let plugin = Plugin::start(&sandbox, &manager, disk.dir());
    let claims = in_pods(&plugin);
    let programs = [
        ("manager", &manager.process),
        ("controller", &controller.process),
        ("plugin", &plugin.process),
    ];
    idle(report, programs);
    for claim in claims {
        plugin.end_pod(&claim, "pod").unwrap();
        plugin.delete(&claim).unwrap();
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn bound(report: &mut Report, case: &str, runs: &Runs, unit: &'static str) {
    report.add(case, runs, "the bound", unit, Budget::AtMost(1.0));
}

/// Does something for each number below `count`, some at once.
fn each(count: usize, work: &(impl Fn(usize) + Sync)) {
    thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            scope.spawn(move || (worker..count).step_by(AT_ONCE).for_each(work));
        }
    });
}

/// A page from the middle of the list, of the manager.
fn page(manager: &Manager) -> f64 {
    let request = pb::ListVolumesRequest {
        max_entries: u32::try_from(PAGE).unwrap(),
        after: format!("volume-{:04}", VOLUMES / 2),
        ..Default::default()
    };
    let begun = Instant::now();
    let listed = block_on(manager.volumes().list_volumes(request)).unwrap();
    let took = ms(begun);
    assert_eq!(listed.into_inner().volumes.len(), PAGE);
    took
}

/// The second page, of the CSI controller.
fn csi_page(controller: &Plugin) -> f64 {
    let list = |starting_token: String| {
        let request = csi::ListVolumesRequest {
            max_entries: i32::try_from(PAGE).unwrap(),
            starting_token,
        };
        let listed = block_on(controller.controller().list_volumes(request)).unwrap();
        listed.into_inner()
    };
    let next = list(String::new()).next_token;
    let begun = Instant::now();
    let listed = list(next);
    let took = ms(begun);
    assert_eq!(listed.entries.len(), PAGE);
    took
}

/// Volumes of 64 MiB, mounted for pods.
fn in_pods(plugin: &Plugin) -> Vec<Claim> {
    let one = |number: usize| {
        let request = claim(&format!("in-pod-{number}"), 64 * MIB, &[]);
        let mut claim = plugin.provision(&request).unwrap();
        plugin.run_pod(&mut claim, "pod").unwrap();
        claim
    };
    (0..IN_PODS).map(one).collect()
}

/// Processor time and memory while nobody asks for anything.
fn idle(report: &mut Report, programs: [(&str, &Process); 3]) {
    // What the last calls left to do is no idleness.
    thread::sleep(Duration::from_secs(5));
    let before = programs.map(|(_, process)| process.processor());
    let begun = Instant::now();
    thread::sleep(IDLE);
    let took = begun.elapsed().as_secs_f64();
    for ((who, process), before) in programs.into_iter().zip(before) {
        let used = process.processor() - before;
        let mut cpu = Runs::default();
        cpu.add(used / took * 100.0, IDLE_CPU_PERCENT);
        bound(report, &format!("scale-idle-cpu-{who}"), &cpu, "%");
        let mut memory = Runs::default();
        memory.add(process.memory().1 as f64 / MIB as f64, MEMORY_MIB);
        bound(report, &format!("scale-memory-{who}"), &memory, "MiB");
    }
}
