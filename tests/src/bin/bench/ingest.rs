//! Ways of an image onto the disk: the pull, the packaging, the conversion.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use e2e::baseimage::Build;
use e2e::manager::{Options, from_file, from_registry, init_disk};
use e2e::{Disk, FileSystem, Manager, Registry, Sandbox, command};

use crate::cost::{Cost, Transfers};
use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
/// Bytes of content: half text, half noise, as in the measurements that the budgets come from.
const CONTENT: u64 = 512 * MIB;
const RUNS: usize = 5;

struct Site {
    manager: Manager,
    registry: Registry,
    disk: Disk,
    raw: PathBuf,
    sandbox: Sandbox,
}

fn site() -> Site {
    let sandbox = Sandbox::new("bench-ingest");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 20 << 30);
    let registry = Registry::start(&sandbox);
    init_disk(disk.dir());
    let import = sandbox.make_dir("import");
    let options = Options::new(disk.dir())
        .with_registry(&registry)
        .with("--import-dir", &import);
    let manager = Manager::start(&sandbox, &options);
    let raw = import.join("content.raw");
    content(&raw);
    Site {
        manager,
        registry,
        disk,
        raw,
        sandbox,
    }
}

/// Half text that compresses well, half noise that does not, in turns of 1 MiB.
fn content(path: &Path) {
    let file = File::create(path).unwrap();
    let mut noise = 1_u64;
    for piece in 0..CONTENT / MIB {
        let bytes: Vec<u8> = if piece % 2 == 0 {
            (0..)
                .flat_map(|line| format!("{piece} party wizard {line}\n").into_bytes())
                .take(1 << 20)
                .collect()
        } else {
            std::iter::repeat_with(|| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()
            })
            .flatten()
            .take(1 << 20)
            .collect()
        };
        file.write_all_at(&bytes, piece * MIB).unwrap();
    }
}

impl Site {
    fn push(&self, tag: &str, options: &[&str]) -> String {
        let build = Build {
            from: Some(&self.raw),
            fs: None,
            size: None,
            options,
        };
        build.push(&self.registry, &format!("bench/image:{tag}"))
    }

    /// From the request to ready.
    fn pull(&self, reference: &str) -> Cost {
        let cost = Cost::of_processes(&[&self.manager.process], || {
            let image = from_registry("pulled", reference);
            let image = self.manager.ready_image(image).unwrap();
            assert_eq!(image.progress, 100, "{image:?}");
        });
        self.manager.delete_image("pulled").unwrap();
        cost
    }

    /// curl, gunzip and sync of the largest blob of an image.
    fn curl(&self, tag: &str) -> Cost {
        let registry = self.registry.address();
        let ca = self.registry.ca.display().to_string();
        let user = format!("{}:{}", e2e::registry::USER, e2e::registry::PASSWORD);
        let common = ["--silent", "--fail", "--cacert", &ca, "--user", &user];
        let manifest_url = format!("https://{registry}/v2/bench/image/manifests/{tag}");
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
        let asked = common
            .into_iter()
            .chain(["--header", accept, &manifest_url]);
        let manifest: serde_json::Value =
            serde_json::from_str(&command::run("curl", asked)).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let layer = layers
            .iter()
            .max_by_key(|layer| layer["size"].as_u64())
            .unwrap();
        let blob_url = format!(
            "https://{registry}/v2/bench/image/blobs/{}",
            layer["digest"].as_str().unwrap()
        );
        let (blob, tar) = (
            self.disk.dir().join("blob.gz"),
            self.disk.dir().join("blob"),
        );
        let cost = Cost::of_commands(|| {
            let to = blob.display().to_string();
            command::run(
                "curl",
                common.into_iter().chain(["--output", &to, &blob_url]),
            );
            command::run("gunzip", ["--force".as_ref(), blob.as_os_str()]);
            command::run("sync", [&tar]);
        });
        std::fs::remove_file(tar).unwrap();
        cost
    }
}

pub(crate) fn pull(report: &mut Report) {
    let site = site();
    for format in ["raw", "qcow2"] {
        let tag = format!("{format}-gzip");
        let reference = site.push(&tag, &["--format", format, "--layer-compression", "gzip"]);
        let runs = Transfers::interleaved(RUNS, || site.pull(&reference), || site.curl(&tag));
        let case = format!("pull-{format}-in-gzip");
        runs.report(report, &case, CONTENT, "curl + gunzip + sync");
    }
}

pub(crate) fn packaging(report: &mut Report) {
    let site = site();
    let ours = site.push("default", &[]);
    let documented = site.push(
        "documented",
        &[
            "--format",
            "qcow2",
            "--compress",
            "--layer-compression",
            "gzip",
        ],
    );
    // To the first volume: what a compressed qcow2 saves at the pull it costs at the raw form.
    let to_first_volume = |reference: &str| {
        let start = Instant::now();
        let image = site
            .manager
            .ready_image(from_registry("packaged", reference))
            .unwrap();
        assert_eq!(image.progress, 100, "{image:?}");
        site.manager.create_volume("first", "packaged", 0).unwrap();
        let took = start.elapsed().as_secs_f64();
        site.manager.delete_volume("first").unwrap();
        site.manager.delete_image("packaged").unwrap();
        CONTENT as f64 / 1e6 / took
    };
    let beside = "compressed qcow2 in a gzip layer";
    let runs = Runs::interleaved(
        RUNS,
        || to_first_volume(&ours),
        || to_first_volume(&documented),
    );
    report.add(
        "packaging-to-first-volume",
        &runs,
        beside,
        "MB/s",
        Budget::AtLeast(3.0),
    );
    let rate = |reference: &str| CONTENT as f64 / 1e6 / site.pull(reference).seconds;
    let runs = Runs::interleaved(RUNS, || rate(&ours), || rate(&documented));
    report.add(
        "packaging-to-ready",
        &runs,
        beside,
        "MB/s",
        Budget::AtLeast(2.0),
    );
}

pub(crate) fn convert(report: &mut Report) {
    let site = site();
    for (case, options) in [("convert-plain", &[][..]), ("convert-zlib", &["-c"][..])] {
        let qcow2 = site.sandbox.path("import/content.qcow2");
        let fixed = ["convert", "-f", "raw", "-O", "qcow2"]
            .iter()
            .chain(options)
            .map(AsRef::as_ref);
        command::run(
            "qemu-img",
            fixed.chain([site.raw.as_os_str(), qcow2.as_os_str()]),
        );
        let converted = site.disk.dir().join("converted");
        let runs = Runs::interleaved(
            RUNS,
            || {
                let image = site
                    .manager
                    .make_image(from_file("converted", &qcow2))
                    .unwrap();
                assert_eq!(image.progress, 100, "{image:?}");
                // The first volume makes the raw form; a second one says what the volume itself takes.
                let first = first_volume(&site.manager, "converted");
                let second = first_volume(&site.manager, "converted");
                site.manager.delete_image("converted").unwrap();
                first - second
            },
            || {
                let start = Instant::now();
                let fixed = ["convert", "-f", "qcow2", "-O", "raw"].map(AsRef::as_ref);
                let files = [qcow2.as_os_str(), converted.as_os_str()];
                command::run("qemu-img", fixed.into_iter().chain(files));
                command::run("sync", [&converted]);
                let took = start.elapsed().as_secs_f64();
                std::fs::remove_file(&converted).unwrap();
                took
            },
        );
        report.add(
            case,
            &runs,
            "qemu-img convert and sync",
            "s",
            Budget::AtMost(1.2),
        );
    }
}

fn first_volume(manager: &Manager, image: &str) -> f64 {
    let start = Instant::now();
    manager.create_volume("first", image, 0).unwrap();
    let took = start.elapsed().as_secs_f64();
    manager.delete_volume("first").unwrap();
    took
}
