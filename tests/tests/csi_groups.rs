//! Snapshots of groups of volumes: one moment for all of them, or none of them.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use e2e::csi::{Claim, block, claim, refused};
use e2e::{Disk, FileSystem, Need, Node, Sandbox, block_on, needs};
use proto::csi::v1 as csi;
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;

/// Raw volumes of these names, each in a pod's hands, and where.
fn in_pods<const N: usize>(node: &Node, names: [&str; N]) -> [(Claim, PathBuf); N] {
    names.map(|name| {
        let mut request = claim(name, 16 * MIB, &[]);
        request.volume_capabilities = vec![block()];
        let mut claim = node.plugin.provision(&request).unwrap();
        let target = node.plugin.run_pod(&mut claim, "pod").unwrap();
        (claim, target)
    })
}

fn end(node: &Node, devices: &[(Claim, PathBuf)]) {
    for (claim, _) in devices {
        node.plugin.end_pod(claim, "pod").unwrap();
        node.plugin.delete(claim).unwrap();
    }
}

/// The number that a snapshot holds.
fn held_by(node: &Node, group: &csi::VolumeGroupSnapshot, volume: &str) -> u64 {
    let mut snapshots = group.snapshots.iter();
    let of = snapshots
        .find(|one| one.source_volume_id == volume)
        .unwrap();
    let images = fs::read_dir(node.disk.dir().join("backing-images")).unwrap();
    let mut dirs = images.map(|entry| entry.unwrap().path());
    let dir = dirs.find(|dir| {
        let name = dir.file_name().unwrap().to_str().unwrap();
        name.starts_with(&format!("{}-", of.snapshot_id))
    });
    let mut bytes = [0; 8];
    let file = File::open(dir.unwrap().join("backing")).unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap();
    u64::from_le_bytes(bytes)
}

fn get(
    node: &Node,
    id: &str,
    snapshots: &[&str],
) -> Result<Option<csi::VolumeGroupSnapshot>, Status> {
    let request = csi::GetVolumeGroupSnapshotRequest {
        group_snapshot_id: id.into(),
        snapshot_ids: snapshots.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let reply = block_on(node.plugin.groups().get_volume_group_snapshot(request));
    reply.map(|reply| reply.into_inner().group_snapshot)
}

/// What a program writes that must not be lost from now on.
fn write(device: &Path, number: u64) {
    let file = File::options().write(true).open(device).unwrap();
    file.write_all_at(&number.to_le_bytes(), 0).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn a_group_is_taken_found_and_deleted_as_one() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-groups");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let devices = in_pods(&node, ["a", "b", "c"]);
    for ((_, device), number) in devices.iter().zip(1..) {
        write(device, number);
    }
    let taken = plugin.group("group", &["a", "b", "c"]).unwrap();
    assert!(
        taken.ready_to_use && taken.snapshots.len() == 3,
        "{taken:?}"
    );
    for (name, number) in ["a", "b", "c"].into_iter().zip(1..) {
        assert_eq!(held_by(&node, &taken, name), number);
    }
    assert_eq!(plugin.group("group", &["c", "a", "b"]).unwrap(), taken);
    refused(
        plugin.group("group", &["a", "b"]),
        Code::AlreadyExists,
        &["other volumes"],
    );
    refused(
        plugin.group("other", &["a", "nowhere"]),
        Code::NotFound,
        &["nowhere"],
    );
    let id = taken.snapshots[0].snapshot_id.as_str();
    refused(
        plugin.delete_snapshot(id),
        Code::InvalidArgument,
        &["group"],
    );
    assert_eq!(get(&node, "group", &[]).unwrap().unwrap(), taken);
    refused(
        get(&node, "group", &[id]),
        Code::InvalidArgument,
        &["group"],
    );
    refused(get(&node, "nowhere", &[]), Code::NotFound, &[]);

    plugin.delete_group("group").unwrap();
    plugin.delete_group("group").unwrap();
    assert_eq!(node.manager.list_images().unwrap(), Vec::new());
    end(&node, &devices);
}

/// A program that writes to one volume and then to another, over and over, and rests when it is asked to.
struct Writer {
    rest: AtomicBool,
    stop: AtomicBool,
    /// Passed by both sides when the program rests, and when it goes on.
    met: Barrier,
}

impl Writer {
    fn new() -> Self {
        Self {
            rest: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            met: Barrier::new(2),
        }
    }

    fn run(&self, first: &Path, second: &Path) {
        for number in 1.. {
            write(first, number);
            write(second, number);
            if self.rest.load(Ordering::SeqCst) {
                self.met.wait();
                self.met.wait();
            }
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Runs `work` while the program rests.
    fn at_rest<T>(&self, work: impl FnOnce() -> T) -> T {
        self.rest.store(true, Ordering::SeqCst);
        self.met.wait();
        let done = work();
        self.rest.store(false, Ordering::SeqCst);
        self.met.wait();
        done
    }
}

/// Ends the program when the test ends, however it does: nobody waits for one that goes on for ever.
struct Ended<'a>(&'a Writer);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// What was written first is in the snapshots whenever what came after it is.
fn in_order(node: &Node, group: &csi::VolumeGroupSnapshot) {
    let (first, second) = (
        held_by(node, group, "first"),
        held_by(node, group, "second"),
    );
    assert!(
        first == second || first == second + 1,
        "{first} was written before {second}"
    );
    node.plugin.delete_group(&group.group_snapshot_id).unwrap();
}

/// A program that writes to one volume and then to another sees them restored in that order, whenever
/// the snapshots are taken; where there is no moment to take them, there are none.
#[test]
fn the_snapshots_of_a_group_are_of_one_moment_or_there_are_none() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-groups-order");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let devices = in_pods(&node, ["first", "second"]);
    let [(_, first), (_, second)] = &devices;
    let take = |name: &str| node.plugin.group(name, &["first", "second"]);
    let writer = Writer::new();
    thread::scope(|scope| {
        scope.spawn(|| writer.run(first, second));
        let _ended = Ended(&writer);
        for round in 0..3 {
            let taken = writer.at_rest(|| take(&format!("resting-{round}")));
            in_order(&node, &taken.unwrap());
            // Whether there is a moment while the program writes is the machine's to say.
            match take(&format!("writing-{round}")) {
                Ok(taken) => in_order(&node, &taken),
                busy => refused(busy, Code::FailedPrecondition, &["is being written to"]),
            }
        }
    });
    assert_eq!(node.manager.list_images().unwrap(), Vec::new());
    end(&node, &devices);
}

/// The manager is held between one volume and the next, and the program writes meanwhile: there is no moment.
#[test]
fn a_group_that_is_written_to_all_the_time_is_refused_whole() {
    needs!(Need::Root, Need::FileSystem("xfs"), Need::Failpoints);
    let sandbox = Sandbox::new("csi-groups-busy");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    let node = Node::start(&sandbox, disk, |options| {
        options.with_failpoint("volume.cut.synced=sleep(2000)")
    });
    let devices = in_pods(&node, ["first", "second"]);
    let [(_, first), (_, second)] = &devices;
    let writer = Writer::new();
    thread::scope(|scope| {
        scope.spawn(|| writer.run(first, second));
        let _ended = Ended(&writer);
        let busy = node.plugin.group("never", &["first", "second"]);
        refused(
            busy,
            Code::FailedPrecondition,
            &["is being written to", "group"],
        );
    });
    assert!(get(&node, "never", &[]).is_err(), "nothing is left of it");
    assert_eq!(node.manager.list_images().unwrap(), Vec::new());
    end(&node, &devices);
}
