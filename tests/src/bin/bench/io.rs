//! I/O of a mounted volume, beside the same file system on a loop device with direct I/O on a plain file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::baseimage::Build;
use e2e::csi::{Claim, Plugin, claim};
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Registry, Sandbox, command};

use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
/// Of the file that is read and written, in the volume.
const DATA: &str = "data";
const DATA_SIZE: u64 = 1024 * MIB;
const SIZE: u64 = 1280 * MIB;
const RUNS: usize = 5;

struct Rig {
    volume: PathBuf,
    claim: Claim,
    /// Where the reference is mounted.
    plain: PathBuf,
    plugin: Plugin,
    _manager: Manager,
    _registry: Registry,
    disk: Disk,
    reference: String,
    sandbox: Sandbox,
}

fn rig(file_system: FileSystem) -> Rig {
    let sandbox = Sandbox::new("bench-io");
    let disk = Disk::new(&sandbox, "disk", file_system, 12 << 30);
    let registry = Registry::start(&sandbox);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()).with_registry(&registry));
    let plugin = Plugin::start(&sandbox, &manager, disk.dir());
    let raw = sandbox.path("content.raw");
    make_content(&sandbox, &raw);
    let build = Build {
        from: Some(&raw),
        fs: None,
        size: None,
        options: &["--format", "raw"],
    };
    let reference = build.push(&registry, "bench/io:v1");
    let plain_file = disk.dir().join("plain");
    let copy = ["--reflink=never", "--sparse=always"].map(AsRef::as_ref);
    let files = [raw.as_os_str(), plain_file.as_os_str()];
    command::run("cp", copy.into_iter().chain(files));
    // In sectors of a block: this disk, which can share extents, takes direct I/O in no others.
    let attach = ["--find", "--show", "--direct-io=on", "--sector-size=4096"].map(AsRef::as_ref);
    let file = [plain_file.as_os_str()];
    let device = command::run("losetup", attach.into_iter().chain(file));
    let device = device.trim();
    let plain = sandbox.make_dir("plain");
    command::run("mount", [device.as_ref(), plain.as_os_str()]);
    command::run("losetup", ["--detach", device]);
    let (claim, volume) = publish(&plugin, &reference, "io");
    Rig {
        volume,
        claim,
        plain,
        plugin,
        _manager: manager,
        _registry: registry,
        disk,
        reference,
        sandbox,
    }
}

/// A volume of the image, as a pod has it.
fn publish(plugin: &Plugin, reference: &str, name: &str) -> (Claim, PathBuf) {
    let request = claim(name, SIZE, &[("baseImage", reference)]);
    let mut claim = plugin.provision(&request).unwrap();
    let mounted = plugin.run_pod(&mut claim, "pod").unwrap();
    (claim, mounted)
}

impl Drop for Rig {
    fn drop(&mut self) {
        let ended = self
            .plugin
            .end_pod(&self.claim, "pod")
            .and_then(|()| self.plugin.delete(&self.claim));
        drop(ended);
        e2e::leftovers::end(&self.plain);
        e2e::leftovers::end(self.disk.dir().join("volumes").as_path());
        e2e::leftovers::end(self.sandbox.dir().join("kubelet").as_path());
    }
}

/// An ext4 image with one file, whose every block is written.
fn make_content(sandbox: &Sandbox, raw: &Path) {
    let from = sandbox.make_dir("content");
    let file = File::create(from.join(DATA)).unwrap();
    let piece: Vec<u8> = (0..MIB).map(|at| (at % 253) as u8 | 1).collect();
    for at in (0..DATA_SIZE).step_by(piece.len()) {
        file.write_all_at(&piece, at).unwrap();
    }
    File::create(raw).unwrap().set_len(SIZE).unwrap();
    let make = ["-q", "-F", "-b4096", "-d"].map(AsRef::as_ref);
    let arguments = [from.as_os_str(), raw.as_os_str()];
    command::run("mkfs.ext4", make.into_iter().chain(arguments));
    std::fs::remove_dir_all(from).unwrap();
}

/// One run of fio on the file in a mounted volume: operations (4k) or MB (1M) per second.
fn fio(mounted: &Path, pattern: &str, block_size: &str, depth: u32, seconds: u32) -> f64 {
    let output = command::run(
        "fio",
        [
            "--name=bench",
            "--output-format=json",
            "--ioengine=libaio",
            "--direct=1",
            "--time_based",
            "--ramp_time=1",
            "--randrepeat=0",
            "--norandommap",
            &format!("--filename={}", mounted.join(DATA).display()),
            &format!("--size={DATA_SIZE}"),
            &format!("--rw={pattern}"),
            &format!("--bs={block_size}"),
            &format!("--iodepth={depth}"),
            &format!("--runtime={seconds}"),
        ],
    );
    // fio may print a note before the JSON.
    let json = &output[output.find('{').unwrap()..];
    let report: serde_json::Value = serde_json::from_str(json).unwrap();
    let side = &report["jobs"][0][if pattern.contains("read") {
        "read"
    } else {
        "write"
    }];
    if block_size == "4k" {
        side["iops"].as_f64().unwrap()
    } else {
        side["bw_bytes"].as_f64().unwrap() / 1e6
    }
}

pub(crate) fn steady(report: &mut Report) {
    let rig = rig(FileSystem::Xfs);
    // Blocks already written: a clone's first write to a block is another thing.
    for mounted in [&rig.volume, &rig.plain] {
        let to = format!("of={}", mounted.join(DATA).display());
        let options = [
            "bs=1M",
            "count=1024",
            "oflag=direct",
            "conv=notrunc",
            "status=none",
        ];
        command::run("dd", ["if=/dev/zero", &to].into_iter().chain(options));
    }
    let shapes = [
        ("randread", "4k", 1),
        ("randread", "4k", 32),
        ("randwrite", "4k", 1),
        ("randwrite", "4k", 32),
        ("read", "1M", 4),
        ("write", "1M", 4),
    ];
    for (pattern, size, depth) in shapes {
        let runs = Runs::interleaved(
            RUNS,
            || fio(&rig.volume, pattern, size, depth, 3),
            || fio(&rig.plain, pattern, size, depth, 3),
        );
        let unit = if size == "4k" { "IO/s" } else { "MB/s" };
        let case = format!("io-{pattern}-{size}-depth-{depth}");
        report.add(
            &case,
            &runs,
            "loop device on a plain file",
            unit,
            Budget::AtLeast(0.95),
        );
    }
}

/// Why XFS misses its budget: docs/adr/0020-first-touch.md.
pub(crate) fn first_touch(report: &mut Report) {
    for (file_system, case) in [
        (FileSystem::Xfs, "first-touch-randwrite-4k-depth-32"),
        (FileSystem::Btrfs, "first-touch-btrfs"),
    ] {
        let rig = rig(file_system);
        let mut runs = Runs::default();
        for number in 0..RUNS {
            let (claim, fresh) = publish(&rig.plugin, &rig.reference, &format!("fresh-{number}"));
            let ours = fio(&fresh, "randwrite", "4k", 32, 2);
            runs.add(ours, fio(&rig.plain, "randwrite", "4k", 32, 2));
            rig.plugin.end_pod(&claim, "pod").unwrap();
            rig.plugin.delete(&claim).unwrap();
        }
        report.add(
            case,
            &runs,
            "loop device on a plain file",
            "IO/s",
            Budget::AtLeast(0.6),
        );
    }
}
