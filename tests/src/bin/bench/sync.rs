//! Copies of an image from manager to manager, beside `cp` and `sync` of the same file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::fan_out::FanOut;
use e2e::manager::{Options, from_file, from_peers, init_disk};
use e2e::noise::noise;
use e2e::{Disk, FileSystem, Manager, Sandbox, command};

use crate::cost::{Cost, Transfers};
use crate::load::warm_memory;
use crate::report::{Budget, Report, Runs};

pub(crate) const MIB: u64 = 1 << 20;
const RUNS: usize = 5;
const UUID: &str = "0123abcd";

/// Two disks with a manager each.
pub(crate) struct Site {
    from: Manager,
    to: Manager,
    disks: [Disk; 2],
    import: PathBuf,
    _sandbox: Sandbox,
}

/// Managers of the nodes n1 and n2 with the options that are told for a node and a disk.
pub(crate) fn site(options: impl Fn(&str, &Path) -> Options) -> Site {
    let sandbox = Sandbox::new("bench-sync");
    let import = sandbox.make_dir("import");
    let disks =
        ["first", "second"].map(|name| Disk::new(&sandbox, name, FileSystem::Xfs, 12 << 30));
    let start = |node: &str, disk: &Disk| {
        init_disk(disk.dir());
        let mut options = options(node, disk.dir()).with("--import-dir", &import);
        node.clone_into(&mut options.name);
        Manager::start(&sandbox, &options)
    };
    Site {
        from: start("n1", &disks[0]),
        to: start("n2", &disks[1]),
        disks,
        import,
        _sandbox: sandbox,
    }
}

fn make(manager: &Manager, name: &str, path: &Path) {
    let mut request = from_file(name, path);
    request.uuid = UUID.into();
    let image = manager.make_image(request).unwrap();
    assert_eq!(image.progress, 100, "{image:?}");
}

impl Site {
    /// A file with `data` MiB of noise, one each `step` bytes of the file in pieces of `piece` bytes.
    pub(crate) fn file(
        &self,
        name: &str,
        size: u64,
        pieces: impl Iterator<Item = (u64, u64)>,
    ) -> PathBuf {
        let path = self.import.join(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (at, length) in pieces {
            let bytes = noise(at, length);
            file.write_all_at(&bytes, at).unwrap();
        }
        make(&self.from, name, &path);
        path
    }

    /// Seconds of a copy, from the request to ready.
    pub(crate) fn copy(&self, name: &str) -> f64 {
        warm_memory();
        self.cost(name).seconds
    }

    /// What a copy takes of both managers.
    fn cost(&self, name: &str) -> Cost {
        let cost = Cost::of_processes(&[&self.from.process, &self.to.process], || {
            let request = from_peers(name, UUID, &[self.from.sync_address()]);
            let image = self.to.ready_image(request).unwrap();
            assert_eq!(image.progress, 100, "{image:?}");
        });
        self.to.delete_image(name).unwrap();
        cost
    }

    /// `cp` and `sync` of the image's file to the other disk.
    fn cp(&self, name: &str) -> Cost {
        let images = self.disks[0].dir().join("backing-images");
        let from = images.join(format!("{name}-{UUID}")).join("backing");
        let to = self.disks[1].dir().join("copied");
        let cost = Cost::of_commands(|| {
            command::run("cp", [&from, &to]);
            command::run("sync", [&to]);
        });
        std::fs::remove_file(to).unwrap();
        cost
    }
}

/// A manager without certificates.
fn plain(_: &str, disk: &Path) -> Options {
    Options::new(disk)
}

pub(crate) fn dense(mebibytes: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..mebibytes).map(|n| (n * MIB, MIB))
}

/// 2 GiB of noise.
pub(crate) fn peer_copy(report: &mut Report) {
    let site = site(plain);
    site.file("dense", 2048 * MIB, dense(2048));
    let runs = Transfers::interleaved(RUNS, || site.cost("dense"), || site.cp("dense"));
    runs.report(report, "peer-copy-random", 2048 * MIB, "cp + sync");
}

/// Holes: 100 MiB in 8 GiB beside 100 MiB, and 4 KiB of data, 4 KiB of hole beside the same data.
pub(crate) fn shapes(report: &mut Report) {
    let site = site(plain);
    site.file("small", 100 * MIB, dense(100));
    site.file("sparse", 8192 * MIB, (0..100).map(|n| (n * 80 * MIB, MIB)));
    let runs = Runs::interleaved(RUNS, || site.copy("sparse"), || site.copy("small"));
    let beside = "the copy of 100 MiB";
    let budget = Budget::AtMost(1.5);
    report.add("peer-copy-sparse", &runs, beside, "s", budget);
    let pieces = (0..128 * MIB / 4096).map(|n| (n * 8192, 4096));
    site.file("fragmented", 256 * MIB, pieces);
    site.file("whole", 128 * MIB, dense(128));
    let runs = Runs::interleaved(RUNS, || site.copy("fragmented"), || site.copy("whole"));
    let beside = "the same data in one piece";
    let budget = Budget::AtMost(3.0);
    report.add("peer-copy-fragmented", &runs, beside, "s", budget);
}

/// The least that a copy takes: one sector.
pub(crate) fn tiny(report: &mut Report) {
    let site = site(plain);
    site.file("tiny", 512, std::iter::once((0, 512)));
    let runs = Runs::interleaved(20, || 1e3 * site.copy("tiny"), || 50.0);
    let budget = Budget::AtMost(1.0);
    report.add("peer-copy-tiny", &runs, "50 ms", "ms", budget);
}

/// Eight disks get an image, each over a link of its own, beside one.
pub(crate) fn fan_out(report: &mut Report) {
    let site = FanOut::new("bench-fan-out", 8, 200, 96);
    let spread = |count| {
        let (copies, took) = site.spread(count);
        assert!(copies.iter().all(|copy| copy.progress == 100), "{copies:?}");
        site.forget(count);
        took.as_secs_f64()
    };
    let runs = Runs::interleaved(3, || spread(8), || spread(1));
    let beside = "one receiver";
    report.add("fan-out-8", &runs, beside, "s", Budget::AtMost(2.0));
}
