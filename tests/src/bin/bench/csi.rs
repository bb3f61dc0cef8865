//! The CSI plugin: the conformance suite, how soon a pod has its volume, and many volumes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use e2e::churn::{Held, churn, percentile};
use e2e::csi::claim;
use e2e::{Disk, FileSystem, Node, Sandbox, command};

use crate::report::{Budget, Report, Runs};

const MIB: u64 = 1 << 20;
/// Volumes made for one percentile.
const VOLUMES: usize = 160;
/// What the suite takes with the hostpath driver, the Kubernetes project's own example: published.
const HOSTPATH_SECONDS: f64 = 1.0;

fn node(sandbox: &Sandbox) -> Node {
    let disk = Disk::new(sandbox, "disk", FileSystem::Xfs, 20 << 30);
    Node::start(sandbox, disk, |options| options)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(crate) fn sanity(report: &mut Report) {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let installed = home.map(|home| home.join("go/bin/csi-sanity"));
    let program = command::find("csi-sanity").or(installed.filter(|path| path.is_file()));
    let Some(program) = program else {
        eprintln!("bench: csi-sanity is not installed");
        return;
    };
    let sandbox = Sandbox::new("bench-sanity");
    let node = node(&sandbox);
    let socket = node
        .plugin
        .kubelet_dir()
        .join("plugins/driver.longhorn.io/csi.sock");
    let mut runs = Runs::default();
    for round in 0..3 {
        let arguments = [
            format!("--csi.endpoint=unix://{}", socket.display()),
            format!(
                "--csi.mountdir={}",
                sandbox.path(format!("mount-{round}")).display()
            ),
            format!(
                "--csi.stagingdir={}",
                sandbox.path(format!("staging-{round}")).display()
            ),
            format!("--csi.testvolumesize={}", 64 * MIB),
            format!("--csi.testvolumeexpandsize={}", 128 * MIB),
            "--ginkgo.no-color".to_owned(),
        ];
        let start = Instant::now();
        let said = command::words(&command::output(&program.display().to_string(), arguments));
        assert!(said.contains(" 0 Failed"), "{said}");
        runs.add(start.elapsed().as_secs_f64(), HOSTPATH_SECONDS);
    }
    report.add(
        "csi-sanity",
        &runs,
        "hostpath driver, published",
        "s",
        Budget::None,
    );
    assert_eq!(node.manager.list_volumes().unwrap().len(), 0);
}

/// From CreateVolume to NodePublishVolume of blank volumes of 64 MiB, `at_once` at a time.
fn first_mounts(node: &Node, at_once: usize) -> Vec<Duration> {
    let each = VOLUMES / at_once;
    let run = |worker: usize| {
        let mount = |number: usize| {
            let request = claim(&format!("v-{at_once}-{worker}-{number}"), 64 * MIB, &[]);
            let start = Instant::now();
            let mut claim = node.plugin.provision(&request).unwrap();
            node.plugin.run_pod(&mut claim, "pod").unwrap();
            let took = start.elapsed();
            node.plugin.end_pod(&claim, "pod").unwrap();
            node.plugin.delete(&claim).unwrap();
            took
        };
        (0..each).map(mount).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once)
            .map(|worker| scope.spawn(move || run(worker)))
            .collect();
        workers
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect()
    })
}

/// The same by hand: a sparse file, a file system, a loop mount.
fn by_hand(sandbox: &Sandbox, node: &Node) -> Duration {
    let (file, point) = (node.disk.dir().join("by-hand"), sandbox.make_dir("by-hand"));
    let start = Instant::now();
    std::fs::File::create(&file)
        .unwrap()
        .set_len(64 * MIB)
        .unwrap();
    command::run("mkfs.ext4", ["-qF".as_ref(), file.as_os_str()]);
    command::run("sync", [&file]);
    command::run(
        "mount",
        [
            "-o".as_ref(),
            "loop".as_ref(),
            file.as_os_str(),
            point.as_os_str(),
        ],
    );
    let took = start.elapsed();
    command::run("umount", [&point]);
    std::fs::remove_file(file).unwrap();
    took
}

pub(crate) fn latency(report: &mut Report) {
    let sandbox = Sandbox::new("bench-csi-latency");
    let node = node(&sandbox);
    first_mounts(&node, 16);
    let mut hand: Vec<Duration> = (0..30).map(|_| by_hand(&sandbox, &node)).collect();
    hand.sort_unstable();
    let hand = percentile(&hand, 0.5);
    let mut before = hand;
    for (at_once, beside) in [(1, "by hand: mkfs, mount"), (16, "the same, 1 at a time")] {
        let times = first_mounts(&node, at_once);
        let (middle, worst) = (percentile(&times, 0.5), percentile(&times, 0.99));
        let mut line = |name: &str, ours: Duration, reference: Duration, beside: &str| {
            let mut runs = Runs::default();
            runs.add(milliseconds(ours), milliseconds(reference));
            let case = format!("csi-create-publish-{at_once}-{name}");
            report.add(&case, &runs, beside, "ms", Budget::None);
        };
        line("p50", middle, before, beside);
        line("p99", worst, middle, "its own median");
        before = middle;
    }
}

pub(crate) fn churn_of_500(report: &mut Report) {
    let sandbox = Sandbox::new("bench-churn");
    let node = node(&sandbox);
    churn(&node.plugin, 100);
    let held = || [&node.plugin.process, &node.manager.process].map(Held::by);
    let before = held();
    let times = churn(&node.plugin, 500);
    let after = held();
    let mut line = |case: &str, ours: f64, reference: f64, beside: &str, unit| {
        let mut runs = Runs::default();
        runs.add(ours, reference);
        report.add(case, &runs, beside, unit, Budget::AtMost(1.5));
    };
    for (name, times) in [
        ("create", &times.create),
        ("publish", &times.publish),
        ("unpublish", &times.unpublish),
        ("delete", &times.delete),
    ] {
        let (first, last) = (&times[..100], &times[times.len() - 100..]);
        let [first, last] = [first, last].map(|times| milliseconds(percentile(times, 0.5)));
        line(
            &format!("churn-{name}"),
            last,
            first,
            "the first 100 of 500",
            "ms",
        );
    }
    for ((who, before), after) in ["plugin", "manager"].into_iter().zip(before).zip(after) {
        let mib = |held: Held| held.memory as f64 / MIB as f64;
        line(
            &format!("churn-memory-{who}"),
            mib(after),
            mib(before),
            "before 500 volumes",
            "MiB",
        );
        let count = |held: Held| held.descriptors as f64;
        line(
            &format!("churn-fds-{who}"),
            count(after),
            count(before),
            "before 500 volumes",
            "fds",
        );
    }
}
