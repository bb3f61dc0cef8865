//! The FlexVolume executable: how long the kubelet waits for each call, and what is installed on
//! each host.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use e2e::baseimage::raw_ext4;
use e2e::flexvolume::{Answer, Driver};
use e2e::manager::{Options, from_file, init_disk};
use e2e::{Disk, FileSystem, Manager, Sandbox, programs};

use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
const RUNS: usize = 15;

/// The first driver's `init` without its checks: what a shell takes to say the same.
const SHELL: &str = "#!/bin/bash\nset -e\ncase \"$1\" in\ninit) echo '{\"status\": \"Success\", \
                     \"capabilities\": {\"attach\": false}}' ;;\nesac\n";

fn milliseconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

pub(crate) fn calls(report: &mut Report) {
    let sandbox = Sandbox::new("bench-flexvolume");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 4 << 30);
    init_disk(disk.dir());
    let import = sandbox.make_dir("import");
    let options = Options::new(disk.dir()).with("--import-dir", &import);
    let manager = Manager::start(&sandbox, &options);
    let image = raw_ext4(&sandbox, "import/site", 64 * MIB);
    let image = manager.make_image(from_file("site", &image)).unwrap();
    assert_eq!(image.progress, 100, "{image:?}");
    manager.create_volume("site", "site", 0).unwrap();
    // It was made by hand, for no pod.
    let words = "hand-over --name site --to flexvolume --namespace default";
    let words: Vec<&str> = words.split(' ').collect();
    assert!(manager.cli("volume", &words).status.success());
    let driver = Driver::install(&sandbox, &manager, disk.dir());
    // What hosts get is the static one.
    if let Some(executable) = programs::static_flexvolume() {
        std::fs::copy(executable, driver.executable()).unwrap();
    }
    init(report, &sandbox, &driver);

    let (mut mounts, mut unmounts) = (Runs::default(), Runs::default());
    for _ in 0..RUNS {
        mounts.add(
            milliseconds(|| drop(driver.mount("pod", "site", &[]).1.success())),
            100.0,
        );
        unmounts.add(
            milliseconds(|| drop(driver.unmount("pod", "site").success())),
            100.0,
        );
    }
    report.add(
        "flexvolume-mount",
        &mounts,
        "the bound",
        "ms",
        Budget::AtMost(1.0),
    );
    report.add(
        "flexvolume-unmount",
        &unmounts,
        "the bound",
        "ms",
        Budget::AtMost(1.0),
    );

    let (ours, what) = match programs::static_flexvolume() {
        Some(path) => (path, "the static executable"),
        None => (
            programs::flexvolume(),
            "dynamic: run `make flexvolume` first",
        ),
    };
    let mut size = Runs::default();
    size.add(mib(&ours), 8.0);
    let beside = format!("8 MiB; {what}");
    report.add(
        "flexvolume-size",
        &size,
        &beside,
        "MiB",
        Budget::AtMost(1.0),
    );
}

fn mib(path: &Path) -> f64 {
    std::fs::metadata(path).unwrap().len() as f64 / MIB as f64
}

fn init(report: &mut Report, sandbox: &Sandbox, driver: &Driver) {
    let executable = driver.executable();
    let shell = sandbox.write("shell-driver", SHELL);
    std::fs::set_permissions(&shell, PermissionsExt::from_mode(0o755)).unwrap();
    let run = |path: &Path, argument: &str| {
        let output = Command::new(path).arg(argument).output().unwrap();
        assert!(output.status.success());
        output
    };
    let ours = || milliseconds(|| drop(Answer::of(&run(executable, "init")).success()));
    let beside = |path: PathBuf| move || milliseconds(|| drop(run(&path, "init")));
    let runs = Runs::interleaved(RUNS * 3, ours, || 10.0);
    report.add(
        "flexvolume-init",
        &runs,
        "the bound",
        "ms",
        Budget::AtMost(1.0),
    );
    let runs = Runs::interleaved(RUNS * 3, ours, beside("/bin/true".into()));
    report.add(
        "flexvolume-init-beside-true",
        &runs,
        "/bin/true",
        "ms",
        Budget::None,
    );
    let runs = Runs::interleaved(RUNS * 3, ours, beside(shell));
    report.add(
        "flexvolume-init-beside-shell",
        &runs,
        "a bash driver",
        "ms",
        Budget::AtMost(2.0),
    );
}
