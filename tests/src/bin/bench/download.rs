//! Downloads from a URL, beside `curl` and the tools that unpack.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use e2e::manager::{Options, from_url, init_disk};
use e2e::web::Nginx;
use e2e::{Disk, FileSystem, Manager, Sandbox, command};

use crate::cost::{Cost, Transfers};
use crate::report::Report;

const MIB: u64 = 1 << 20;
const RUNS: usize = 3;
/// Random bytes, which is what the budget is about.
const RANDOM: u64 = 2 << 30;
/// Half text, half noise: packed by xz at some MiB a second, so there is less of it.
const CONTENT: u64 = 256 * MIB;

struct Site {
    manager: Manager,
    nginx: Nginx,
    disk: Disk,
    served: PathBuf,
    _sandbox: Sandbox,
}

fn site() -> Site {
    let sandbox = Sandbox::new("bench-download");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 12 << 30);
    let served = sandbox.make_dir("served");
    init_disk(disk.dir());
    let nginx = Nginx::serve(&sandbox, "bench", &served);
    let options = Options::new(disk.dir()).with("--allow-address", "127.0.0.0/8");
    let manager = Manager::start(&sandbox, &options);
    Site {
        manager,
        nginx,
        disk,
        served,
        _sandbox: sandbox,
    }
}

/// `size` bytes in turns of 1 MiB: noise, and text instead of every second one if `texts`.
fn content(path: &Path, size: u64, texts: bool) {
    let file = File::create(path).unwrap();
    let mut noise = 88_172_645_463_325_252_u64;
    let mut bytes = Vec::with_capacity(1 << 20);
    for piece in 0..size / MIB {
        bytes.clear();
        if texts && piece % 2 == 0 {
            for line in 0_u64.. {
                bytes.extend(format!("{piece} party wizard {line}\n").into_bytes());
                if bytes.len() >= 1 << 20 {
                    break;
                }
            }
        }
        while bytes.len() < 1 << 20 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            bytes.extend(noise.to_le_bytes());
        }
        file.write_all_at(&bytes[..1 << 20], piece * MIB).unwrap();
    }
}

impl Site {
    /// From the request to ready.
    fn download(&self, name: &str) -> Cost {
        let url = self.nginx.url(&format!("/{name}"));
        let cost = Cost::of_processes(&[&self.manager.process], || {
            let image = self.manager.ready_image(from_url("bench", &url)).unwrap();
            assert_eq!(image.progress, 100, "{image:?}");
        });
        self.manager.delete_image("bench").unwrap();
        cost
    }

    /// `curl | unpack > file` and `sync`.
    fn curl(&self, name: &str, unpack: Option<&str>) -> Cost {
        let to = self.disk.dir().join("by-curl");
        let url = self.nginx.url(&format!("/{name}"));
        let cost = Cost::of_commands(|| {
            match unpack {
                None => {
                    let target = to.display().to_string();
                    command::run("curl", ["-sSfo", &target, &url]);
                }
                Some(tool) => piped(&url, tool, &to),
            }
            command::run("sync", [&to]);
        });
        std::fs::remove_file(to).unwrap();
        cost
    }
}

/// `curl URL | TOOL -dc > FILE`, without a shell.
fn piped(url: &str, tool: &str, to: &Path) {
    use std::process::{Command, Stdio};
    let mut curl = Command::new("curl")
        .args(["-sSf", url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let unpacked = Command::new(tool)
        .arg("-dc")
        .stdin(curl.stdout.take().unwrap())
        .stdout(File::create(to).unwrap())
        .status()
        .unwrap();
    assert!(curl.wait().unwrap().success() && unpacked.success());
}

pub(crate) fn run(report: &mut Report) {
    let site = site();
    content(&site.served.join("random"), RANDOM, false);
    let runs = Transfers::interleaved(
        RUNS,
        || site.download("random"),
        || site.curl("random", None),
    );
    runs.report(report, "download-2GiB-random", RANDOM, "curl + sync");
    std::fs::remove_file(site.served.join("random")).unwrap();
    content(&site.served.join("content"), CONTENT, true);
    for (tool, ending) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")] {
        if !command::on_path(tool) {
            continue;
        }
        let file = site.served.join("content");
        command::run(tool, ["-1".as_ref(), "-k".as_ref(), file.as_os_str()]);
        let name = format!("content.{ending}");
        let runs = Transfers::interleaved(
            RUNS,
            || site.download(&name),
            || site.curl(&name, Some(tool)),
        );
        let case = format!("download-{ending}");
        let beside = format!("curl | {tool} + sync");
        runs.report(report, &case, CONTENT, &beside);
    }
}
