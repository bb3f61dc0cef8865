//! The plugin in a cluster that attaches nothing (`attachRequired: false`): the manager is not
//! informed that a volume is in use, and still knows it from the kernel.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::Write as _;

use e2e::csi::{Plugin, claim, refused};
use e2e::{FileSystem, Need, Node, Sandbox, block_on, command, needs};
use proto::storage::v1 as pb;
use rustix::fs::{FlockOperation, flock};
use tonic::Code;

const MIB: u64 = 1 << 20;

/// On a disk that can share extents, and on one that cannot.
#[test]
fn a_volume_in_use_is_not_deleted_and_not_copied() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    for (file_system, is_cut) in [(FileSystem::Xfs, true), (FileSystem::Ext4, false)] {
        let sandbox = Sandbox::new("csi-unattached");
        let mut node = Node::new(&sandbox, file_system);
        let volume = node.plugin.provision(&claim("volume", 64 * MIB, &[]));
        let volume = volume.unwrap();
        node.plugin.stage(&volume).unwrap();
        let target = node.plugin.publish(&volume, "pod").unwrap();
        let mut file = File::create(target.join("written")).unwrap();
        file.write_all(b"something").unwrap();
        drop(file);
        // Whoever attached it may be gone: the device is there.
        node.plugin.process.kill_9();
        node.plugin = Plugin::start(&sandbox, &node.manager, node.disk.dir());
        refused(
            node.plugin.delete(&volume),
            Code::FailedPrecondition,
            &["volume", "loop device"],
        );
        let snapshot = node.plugin.snapshot("in-use", "volume");
        if is_cut {
            node.plugin
                .delete_snapshot(&snapshot.unwrap().snapshot_id)
                .unwrap();
        } else {
            let words = ["volume", "being written to", "cannot share extents"];
            refused(snapshot, Code::FailedPrecondition, &words);
        }

        node.plugin.unpublish(&volume, "pod").unwrap();
        refused(
            node.plugin.delete(&volume),
            Code::FailedPrecondition,
            &["loop device"],
        );
        node.plugin.unstage(&volume).unwrap();
        let snapshot = node.plugin.snapshot("unused", "volume").unwrap();
        node.plugin.delete_snapshot(&snapshot.snapshot_id).unwrap();
        node.plugin.delete(&volume).unwrap();
        node.assert_empty(&sandbox);
    }
}

#[test]
fn a_volume_that_is_being_copied_or_deleted_is_not_used() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-unattached-held");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let volume = node.plugin.provision(&claim("volume", 64 * MIB, &[]));
    let volume = volume.unwrap();
    let file = File::open(node.disk.dir().join("volumes/volume/volume")).unwrap();
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    refused(
        node.plugin.stage(&volume),
        Code::Aborted,
        &["volume", "try again"],
    );
    drop(file);
    node.plugin.stage(&volume).unwrap();
    node.plugin.unstage(&volume).unwrap();
    node.plugin.delete(&volume).unwrap();
    node.assert_empty(&sandbox);
}

/// Whoever lists volumes sees who uses one, though nothing is published.
#[test]
fn a_volume_in_use_is_shown_as_such() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-unattached-shown");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let volume = node.plugin.provision(&claim("volume", 64 * MIB, &[]));
    let volume = volume.unwrap();
    let shown = || {
        let volumes = node.manager.list_volumes().unwrap();
        assert!(volumes[0].published.is_empty(), "{volumes:?}");
        volumes[0].in_use
    };
    assert!(!shown());
    node.plugin.stage(&volume).unwrap();
    assert!(shown());
    let table = command::words(&node.manager.cli("volume", &["list", "-o", "table"]));
    assert!(table.contains("IN USE") && table.contains("yes"), "{table}");
    node.plugin.unstage(&volume).unwrap();
    assert!(!shown());
    node.plugin.delete(&volume).unwrap();
    node.assert_empty(&sandbox);
}

/// Row 562: what makes a volume a replica comes between DRBD and whoever would write past it, in both orders.
#[test]
fn row_562_a_replica_is_used_through_drbd_alone() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-unattached-replica");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let volume = node.plugin.provision(&claim("volume", 64 * MIB, &[]));
    let volume = volume.unwrap();
    let prepare = || {
        let mut volumes = node.manager.volumes();
        let request = pb::GetVolumeRequest {
            name: "volume".to_owned(),
        };
        block_on(volumes.prepare_replica(request))
    };
    node.plugin.stage(&volume).unwrap();
    refused(
        prepare(),
        Code::FailedPrecondition,
        &["volume", "loop device", "pod"],
    );
    assert!(!node.disk.dir().join("volumes/volume/drbd").exists());
    node.plugin.unstage(&volume).unwrap();
    assert!(prepare().unwrap().into_inner().is_replica);
    refused(
        node.plugin.stage(&volume),
        Code::FailedPrecondition,
        &["volume", "replica", "attachRequired: true"],
    );
    node.plugin.delete(&volume).unwrap();
    node.assert_empty(&sandbox);
}
