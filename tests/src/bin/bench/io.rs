//! A published volume's I/O, beside a loop device of the same kind on a plain file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::baseimage::Build;
use e2e::csi::{Claim, Plugin, block, claim};
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Registry, Sandbox, command};

use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1024 * MIB;
const RUNS: usize = 5;

struct Devices {
    volume: PathBuf,
    claim: Claim,
    /// A loop device with direct I/O on a plain raw file of the same disk.
    plain: PathBuf,
    plugin: Plugin,
    _manager: Manager,
    _registry: Registry,
    disk: Disk,
    reference: String,
    sandbox: Sandbox,
}

fn devices() -> Devices {
    let sandbox = Sandbox::new("bench-io");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 12 << 30);
    let registry = Registry::start(&sandbox);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()).with_registry(&registry));
    let plugin = Plugin::start(&sandbox, &manager, disk.dir());
    let raw = sandbox.path("content.raw");
    fill(&raw);
    let build = Build {
        from: Some(&raw),
        fs: None,
        size: None,
        options: &["--format", "raw"],
    };
    let reference = build.push(&registry, "bench/io:v1");
    let plain_file = disk.dir().join("plain");
    fill(&plain_file);
    let find = ["--find", "--show", "--direct-io=on"].map(AsRef::as_ref);
    let plain = command::run("losetup", find.into_iter().chain([plain_file.as_os_str()]));
    let plain = PathBuf::from(plain.trim());
    let (claim, volume) = publish(&plugin, &reference, "io");
    Devices {
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

/// A raw volume of the image, as a pod has it.
fn publish(plugin: &Plugin, reference: &str, name: &str) -> (Claim, PathBuf) {
    let mut request = claim(name, SIZE, &[("baseImage", reference)]);
    request.volume_capabilities = vec![block()];
    let mut claim = plugin.provision(&request).unwrap();
    let device = plugin.run_pod(&mut claim, "pod").unwrap();
    (claim, device)
}

impl Drop for Devices {
    fn drop(&mut self) {
        let ended = self
            .plugin
            .end_pod(&self.claim, "pod")
            .and_then(|()| self.plugin.delete(&self.claim));
        drop(ended);
        command::output("losetup", ["--detach".as_ref(), self.plain.as_os_str()]);
        e2e::leftovers::end(self.disk.dir().join("volumes").as_path());
        e2e::leftovers::end(self.sandbox.dir().join("kubelet").as_path());
    }
}

/// Writes every block, in order.
fn fill(path: &Path) {
    let file = File::create(path).unwrap();
    let piece: Vec<u8> = (0..MIB).map(|at| (at % 253) as u8 | 1).collect();
    for at in (0..SIZE).step_by(piece.len()) {
        file.write_all_at(&piece, at).unwrap();
    }
    file.sync_all().unwrap();
}

/// One run of fio on a device: operations (4k) or MB (1M) per second.
fn fio(device: &Path, pattern: &str, block_size: &str, depth: u32, seconds: u32) -> f64 {
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
            &format!("--filename={}", device.display()),
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
    let devices = devices();
    // Blocks already written: a clone's first write to a block is another thing.
    for device in [&devices.volume, &devices.plain] {
        let to = format!("of={}", device.display());
        command::run(
            "dd",
            [
                "if=/dev/zero",
                &to,
                "bs=1M",
                "count=1024",
                "oflag=direct",
                "status=none",
            ],
        );
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
            || fio(&devices.volume, pattern, size, depth, 3),
            || fio(&devices.plain, pattern, size, depth, 3),
        );
        let unit = if size == "4k" { "IO/s" } else { "MB/s" };
        let case = format!("io-{pattern}-{size}-depth-{depth}");
        report.add(
            &case,
            &runs,
            "loop device, plain file",
            unit,
            Budget::AtLeast(0.95),
        );
    }
}

pub(crate) fn first_touch(report: &mut Report) {
    let devices = devices();
    let mut runs = Runs::default();
    for number in 0..RUNS {
        let (claim, fresh) = publish(
            &devices.plugin,
            &devices.reference,
            &format!("fresh-{number}"),
        );
        let ours = fio(&fresh, "randwrite", "4k", 32, 2);
        runs.add(ours, fio(&devices.plain, "randwrite", "4k", 32, 2));
        devices.plugin.end_pod(&claim, "pod").unwrap();
        devices.plugin.delete(&claim).unwrap();
    }
    report.add(
        "first-touch-randwrite-4k-depth-32",
        &runs,
        "loop device, plain file",
        "IO/s",
        Budget::None,
    );
}
