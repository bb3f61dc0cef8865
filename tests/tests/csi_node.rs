//! The plugin and the input of callers: paths (150), flags (147), the context that a
//! PersistentVolume returns (152); and the condition of a volume whose disk is nearly full (142).

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use e2e::csi::{claim, mounted, refused};
use e2e::{FileSystem, Need, Node, Sandbox, block_on, command, leftovers, needs};
use proto::csi::v1 as pb;
use proto::csi::v1::volume_capability::AccessType;
use tonic::Code;

const MIB: u64 = 1 << 20;

#[test]
fn row_150_nothing_is_mounted_outside_of_the_kubelets_directory() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-paths");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let mut made = plugin.provision(&claim("pvc-1", 64 * MIB, &[])).unwrap();
    plugin.attach(&mut made).unwrap();
    let outside = sandbox.make_dir("outside");
    symlink(&outside, plugin.kubelet_dir().join("link")).unwrap();
    let stage = |path: &Path| {
        let request = pb::NodeStageVolumeRequest {
            volume_id: made.volume.volume_id.clone(),
            staging_target_path: path.display().to_string(),
            volume_capability: made.request.volume_capabilities.first().cloned(),
            volume_context: made.volume.volume_context.clone(),
            publish_context: made.publish_context.clone(),
            ..Default::default()
        };
        block_on(plugin.node().node_stage_volume(request))
    };
    for path in [
        outside.join("globalmount"),
        plugin.kubelet_dir().join("link/globalmount"),
    ] {
        refused(
            stage(&path),
            Code::InvalidArgument,
            &["kubelet's directory"],
        );
    }
    plugin.stage(&made).unwrap();
    let publish = |path: &Path| {
        let request = pb::NodePublishVolumeRequest {
            volume_id: made.volume.volume_id.clone(),
            staging_target_path: plugin.staging(&made).display().to_string(),
            target_path: path.display().to_string(),
            volume_capability: made.request.volume_capabilities.first().cloned(),
            ..Default::default()
        };
        block_on(plugin.node().node_publish_volume(request))
    };
    for path in [
        outside.join("mount"),
        plugin.kubelet_dir().join("link/mount"),
    ] {
        refused(
            publish(&path),
            Code::InvalidArgument,
            &["kubelet's directory"],
        );
    }
    assert!(leftovers::mounts_below(&outside).is_empty());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // Taking away touches nothing there either, and looking finds nothing.
    command::run("mount", ["-t", "tmpfs", "tmpfs", outside.to_str().unwrap()]);
    let unpublish = |path: &Path| {
        let request = pb::NodeUnpublishVolumeRequest {
            volume_id: made.volume.volume_id.clone(),
            target_path: path.display().to_string(),
        };
        block_on(plugin.node().node_unpublish_volume(request))
    };
    refused(
        unpublish(&outside),
        Code::InvalidArgument,
        &["kubelet's directory"],
    );
    let request = pb::NodeGetVolumeStatsRequest {
        volume_id: made.volume.volume_id.clone(),
        volume_path: outside.display().to_string(),
        ..Default::default()
    };
    refused(
        block_on(plugin.node().node_get_volume_stats(request)),
        Code::NotFound,
        &[],
    );
    assert_eq!(leftovers::mounts_below(&outside).len(), 1);
    command::run("umount", [&outside]);
    plugin.unstage(&made).unwrap();
    plugin.detach(&made).unwrap();
    plugin.delete(&made).unwrap();
}

#[test]
fn row_147_flags_that_cannot_go_with_the_volume_are_refused_before_it_is_made() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-flags");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    for (fs_type, flag) in [
        ("ext4", "nouuid"),
        ("", "compress=zstd:1"),
        ("xfs", "data=journal"),
    ] {
        let mut request = claim("pvc-1", 320 * MIB, &[]);
        let mut capability = mounted(fs_type);
        if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
            mount.mount_flags = vec![flag.to_owned()];
        }
        request.volume_capabilities = vec![capability];
        refused(
            node.plugin.provision(&request),
            Code::InvalidArgument,
            &[flag, "parameters.md"],
        );
    }
    node.assert_empty(&sandbox);
}

#[test]
fn row_152_the_context_that_a_persistent_volume_gives_back_is_confirmed() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-context");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let made = node
        .plugin
        .provision(&claim("pvc-1", 64 * MIB, &[]))
        .unwrap();
    let confirmed = |key: &str| {
        let mut volume_context = made.volume.volume_context.clone();
        volume_context.insert(
            key.to_owned(),
            "1700000000000-1234-driver.longhorn.io".to_owned(),
        );
        let request = pb::ValidateVolumeCapabilitiesRequest {
            volume_id: made.volume.volume_id.clone(),
            volume_capabilities: made.request.volume_capabilities.clone(),
            volume_context,
            ..Default::default()
        };
        let mut controller = node.plugin.controller();
        let validated = block_on(controller.validate_volume_capabilities(request));
        validated.unwrap().into_inner().confirmed.is_some()
    };
    assert!(confirmed("storage.kubernetes.io/csiProvisionerIdentity"));
    assert!(!confirmed("another"));
    node.plugin.delete(&made).unwrap();
}

#[test]
fn row_142_a_disk_that_is_nearly_full_is_told_by_the_node() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("csi-condition");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    let mut made = plugin.provision(&claim("pvc-1", 64 * MIB, &[])).unwrap();
    let target = plugin.run_pod(&mut made, "pod").unwrap();
    let condition = || {
        let request = pb::NodeGetVolumeStatsRequest {
            volume_id: made.volume.volume_id.clone(),
            volume_path: target.display().to_string(),
            ..Default::default()
        };
        let reply = block_on(plugin.node().node_get_volume_stats(request)).unwrap();
        reply.into_inner().volume_condition.unwrap()
    };
    assert!(!condition().abnormal, "{:?}", condition());
    let disk = node.disk.dir();
    let stat = rustix::fs::statvfs(disk).unwrap();
    let filler = disk.join("filler");
    let length = (stat.f_bavail * stat.f_frsize).saturating_sub(2 * MIB);
    let file = File::create(&filler).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).unwrap();
    let full = condition();
    assert!(
        full.abnormal && full.message.contains("nearly full"),
        "{full:?}"
    );
    drop(file);
    fs::remove_file(&filler).unwrap();
    command::run("sync", ["-f", disk.to_str().unwrap()]);
    assert!(!condition().abnormal, "{:?}", condition());
    plugin.end_pod(&made, "pod").unwrap();
    plugin.delete(&made).unwrap();
}
