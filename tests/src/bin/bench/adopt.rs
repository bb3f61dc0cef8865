//! Adopting files that are on the disk already and that nothing vouches for: each must be read and
//! hashed once.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use e2e::manager::{Options, init_disk};
use e2e::noise::noise;
use e2e::{Disk, FileSystem, Manager, Sandbox, command};

use crate::cost::{Cost, Transfers};
use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
const RUNS: usize = 3;

/// 2 GiB of noise, and 8 GiB with 100 MiB of data, beside `cp` and `sync` of the same file.
pub(crate) fn adopt(report: &mut Report) {
    let dense = |file: &File| {
        for piece in 0..2048 {
            file.write_all_at(&noise(piece, MIB), piece * MIB).unwrap();
        }
    };
    let sparse = |file: &File| {
        file.set_len(8 << 30).unwrap();
        for piece in 0..100 {
            file.write_all_at(&noise(piece, MIB), piece * 80 * MIB)
                .unwrap();
        }
    };
    case(report, "adopt-2GiB", dense, 2 << 30);
    case(report, "adopt-8GiB-sparse", sparse, 0);
}

/// `bytes`: 0 where there is no budget.
fn case(report: &mut Report, name: &str, fill: impl Fn(&File), bytes: u64) {
    let sandbox = Sandbox::new("bench-adopt");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 20 << 30);
    init_disk(disk.dir());
    let source = disk.dir().join("source");
    fill(&File::create(&source).unwrap());
    command::run("sync", ["-f".as_ref(), disk.dir().as_os_str()]);
    let beside = "cp + sync";
    if bytes > 0 {
        let runs = Transfers::interleaved(
            RUNS,
            || adopted(&sandbox, &disk, &source),
            || copied(&disk, &source),
        );
        return runs.report(report, name, bytes, beside);
    }
    let runs = Runs::interleaved(
        RUNS,
        || adopted(&sandbox, &disk, &source).seconds,
        || copied(&disk, &source).seconds,
    );
    report.add(name, &runs, beside, "s", Budget::None);
}

/// From the start of the manager until the image is ready. The file has no sidecar.
fn adopted(sandbox: &Sandbox, disk: &Disk, source: &Path) -> Cost {
    let dir = disk.dir().join("backing-images/adopted-a93b9a55");
    fs::create_dir_all(&dir).unwrap();
    fs::rename(source, dir.join("backing")).unwrap();
    let begun = std::time::Instant::now();
    let manager = Manager::start(sandbox, &Options::new(disk.dir()));
    let image = manager.settled_image("adopted").unwrap();
    let cost = Cost {
        seconds: begun.elapsed().as_secs_f64(),
        processor: manager.process.processor(),
    };
    assert_eq!(image.progress, 100, "{image:?}");
    drop(manager);
    fs::rename(dir.join("backing"), source).unwrap();
    fs::remove_dir_all(dir).unwrap();
    cost
}

fn copied(disk: &Disk, source: &Path) -> Cost {
    let target = disk.dir().join("copy");
    let cost = Cost::of_commands(|| {
        let arguments = ["--sparse=auto", "--reflink=never"].map(AsRef::as_ref);
        let files = [source.as_os_str(), target.as_os_str()];
        command::run("cp", arguments.into_iter().chain(files));
        command::run("sync", [&target]);
    });
    fs::remove_file(target).unwrap();
    cost
}
