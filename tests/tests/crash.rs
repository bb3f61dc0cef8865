//! Row 58: the manager is killed at every place where its sources say that a step is done.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use e2e::life::{LIFE, Life, state_after};
use e2e::manager::init_disk;
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, documents, needs};

/// Steps that no request of the life takes: `crates/store/tests/crash.rs` kills at them, and
/// `tests/tests/csi_cluster.rs`, `disk_identity.rs` and `uploads.rs` at those of the roster, of a node's record
/// and of uploads.
const ELSEWHERE: [&str; 10] = [
    "store.node_state.",
    "store.roster.",
    "store.adopt.",
    "store.prove.",
    "store.assembly.",
    "store.upload.",
    "store.quarantine.",
    "store.orphans.",
    "store.delete.unlinked",
    // One that becomes a replica: what is left is looked at in crates/volume/src/replica.rs.
    "volume.replica.",
];

/// Where the sources of the daemon say that a step is done.
fn crash_points() -> BTreeSet<String> {
    let mut points = documents::crash_points(&[
        "crates/store/src",
        "crates/volume/src",
        "crates/catalog/src",
    ]);
    points.retain(|point| !ELSEWHERE.iter().any(|area| point.starts_with(area)));
    points
}

#[test]
fn row_58_kill_9_at_every_failpoint_leaves_what_was_acknowledged() {
    needs!(
        Need::Failpoints,
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("qemu-img")
    );
    let points = crash_points();
    assert!(
        points.len() >= 10,
        "the sources have failpoints: {points:?}"
    );
    for point in points {
        killed_at(&point, FileSystem::Xfs);
    }
}

/// Without reflink a volume is made in other steps.
#[test]
fn row_58_kill_9_while_a_volume_is_copied_leaves_what_was_acknowledged() {
    needs!(
        Need::Failpoints,
        Need::Root,
        Need::FileSystem("ext4"),
        Need::Tool("qemu-img")
    );
    for point in crash_points()
        .iter()
        .filter(|point| point.starts_with("volume.create"))
    {
        killed_at(point, FileSystem::Ext4);
    }
}

/// Lives until the failpoint kills the manager, starts it again, looks, and lives on to the end.
fn killed_at(point: &str, file_system: FileSystem) {
    let sandbox = Sandbox::new("crash");
    let life = Life::new(&sandbox);
    let disk = Disk::new(&sandbox, "disk", file_system, 320 << 20);
    init_disk(disk.dir());
    let options = life.options(disk.dir());
    let killed = options.clone().with_failpoint(format!("{point}=return"));
    let mut manager = Manager::start(&sandbox, &killed);
    let mut acknowledged = 0;
    while acknowledged < LIFE.len() && life.request(&manager, LIFE[acknowledged]).is_ok() {
        acknowledged += 1;
    }
    assert!(
        acknowledged < LIFE.len(),
        "no request of the life reaches {point}"
    );
    assert_eq!(
        manager.process.wait_end().signal(),
        Some(9),
        "{point} kills"
    );

    let manager = Manager::start(&sandbox, &options);
    let found = life.observe(&manager, disk.dir());
    let allowed = [state_after(acknowledged), state_after(acknowledged + 1)];
    assert!(
        allowed.contains(&found),
        "{point}: {found:?} is none of {allowed:?}"
    );

    // The request that was cut off is made again, as its caller would, and so are the rest.
    for (at, request) in LIFE.into_iter().enumerate().skip(acknowledged) {
        life.request(&manager, request)
            .unwrap_or_else(|status| panic!("{point}: {request:?}: {status}"));
        assert_eq!(
            life.observe(&manager, disk.dir()),
            state_after(at + 1),
            "{point}: {request:?}"
        );
    }
}
