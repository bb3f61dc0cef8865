//! Row 76: the plugin is killed at every place where its sources say that a step is done, and the
//! caller makes the same call again.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;

use e2e::baseimage::{Build, PARTY_WIZARD, WIZARD, web_page};
use e2e::csi::{Claim, Plugin, claim, mounted};
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Registry, Sandbox, documents, needs};
use proto::csi::v1::{CreateVolumeRequest, Volume};
use tonic::Status;

const MIB: u64 = 1 << 20;
/// The volume that grows in use.
const GROWING: &str = "growing";
/// How large the image's file system is.
const IMAGE_SIZE: u64 = 64 * MIB;

/// The calls of a volume's life, in the order of the provisioner, the attacher and the kubelet.
#[derive(Debug, Clone, Copy)]
enum Call {
    Create,
    Grow,
    Attach,
    Stage,
    Publish,
    Expand,
    Snapshot,
    DeleteSnapshot,
    Group,
    DeleteGroup,
    Unpublish,
    Unstage,
    Detach,
    Delete,
}

const CALLS: [Call; 14] = [
    Call::Create,
    Call::Grow,
    Call::Attach,
    Call::Stage,
    Call::Publish,
    Call::Expand,
    Call::Snapshot,
    Call::DeleteSnapshot,
    Call::Group,
    Call::DeleteGroup,
    Call::Unpublish,
    Call::Unstage,
    Call::Detach,
    Call::Delete,
];

fn make(plugin: &Plugin, call: Call, claim: &mut Claim) -> Result<(), Status> {
    match call {
        Call::Create => *claim = plugin.provision_once(&claim.request)?,
        // Offline: the file system follows when it is staged.
        Call::Grow => plugin.grow(claim, claim.size() + 16 * MIB)?,
        Call::Attach => plugin.attach(claim)?,
        Call::Stage => drop(plugin.stage(claim)?),
        Call::Publish => drop(plugin.publish(claim, "pod")?),
        Call::Expand if claim.request.name == GROWING => {
            plugin.expand(claim, "pod", claim.size() + 32 * MIB)?;
        }
        Call::Expand => {}
        Call::Snapshot => drop(plugin.snapshot("snap", &claim.volume.volume_id)?),
        Call::DeleteSnapshot => plugin.delete_snapshot("snap")?,
        Call::Group => drop(plugin.group("group", &[&claim.volume.volume_id])?),
        Call::DeleteGroup => plugin.delete_group("group")?,
        Call::Unpublish => plugin.unpublish(claim, "pod")?,
        Call::Unstage => plugin.unstage(claim)?,
        Call::Detach => plugin.detach(claim)?,
        Call::Delete => plugin.delete(claim)?,
    }
    Ok(())
}

#[test]
fn row_76_the_plugin_killed_at_every_failpoint_converges_on_the_same_call() {
    needs!(
        Need::Failpoints,
        Need::Root,
        Need::FileSystem("xfs"),
        Need::FileSystem("btrfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd")
    );
    let sandbox = Sandbox::new("plugin-crash");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    let registry = Registry::start(&sandbox);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()).with_registry(&registry));
    let page = web_page(&sandbox);
    let build = Build {
        from: Some(&page),
        fs: Some("ext4"),
        size: Some("64Mi"),
        options: &[],
    };
    let reference = build.push(&registry, "e2e/crash:v1");
    let lives = [
        claim("from-image", 96 * MIB, &[("baseImage", reference.as_str())]),
        claim("blank", 64 * MIB, &[]),
    ];
    // The kernel lets any root grow btrfs in use, from 256 MiB, and ext4 only with CAP_SYS_RESOURCE.
    let growing = [CreateVolumeRequest {
        volume_capabilities: vec![mounted("btrfs")],
        ..claim(GROWING, 272 * MIB, &[])
    }];
    // The image is there, so that CreateVolume is one call.
    let plugin = Plugin::start(&sandbox, &manager, disk.dir());
    let warm = plugin.provision(&lives[0]).unwrap();
    plugin.delete(&warm).unwrap();
    drop(plugin);

    let points = documents::crash_points(&["csi/src", "crates/host/src"]);
    assert!(points.len() >= 5, "the sources have failpoints: {points:?}");
    let mut killed_nowhere = Vec::new();
    for point in points {
        let mut kills = 0;
        let is_growth = point.starts_with("host.expand.");
        for request in if is_growth { &growing[..] } else { &lives } {
            kills += live(&sandbox, &manager, &disk, &point, request);
            sandbox.assert_nothing_attached(&disk.dir().join("volumes"));
            sandbox.assert_nothing_attached(&sandbox.path("kubelet"));
            assert_eq!(manager.list_volumes().unwrap(), Vec::new(), "{point}");
            let snapshots = manager.list_images().unwrap();
            let snapshots = snapshots
                .iter()
                .filter(|image| !image.source_volume.is_empty());
            assert_eq!(snapshots.count(), 0, "{point}");
        }
        if kills == 0 {
            killed_nowhere.push(point);
        }
    }
    // Of replicated volumes: those of the controller are tried by `csi/tests/replicated_records.rs`, but for the one of
    // a suspended group; `crates/host/tests/crash.rs` says where those of the node are. That of backups is tried by
    // `csi_backups.rs`.
    let elsewhere = [
        "csi.create_snapshot.backup_begun",
        "csi.replicated.",
        "csi.controller_unpublish.recorded",
        "csi.create_snapshot.suspended",
        "host.drbd.",
        "host.format.copied",
        "host.format.marked",
    ];
    killed_nowhere.retain(|point| !elsewhere.iter().any(|area| point.starts_with(area)));
    assert!(
        killed_nowhere.is_empty(),
        "no call reaches {killed_nowhere:?}"
    );
}

/// The whole life of a volume, with a plugin that dies once at `point` and is started again; how often
/// it died.
fn live(
    sandbox: &Sandbox,
    manager: &Manager,
    disk: &Disk,
    point: &str,
    request: &CreateVolumeRequest,
) -> usize {
    let failpoint = format!("{point}=return");
    let mut plugin = Plugin::start_with(sandbox, manager, disk.dir(), &failpoint);
    let mut claim = Claim {
        request: request.clone(),
        volume: Volume::default(),
        publish_context: HashMap::new(),
    };
    let (mut kills, mut size) = (0, 0);
    for call in CALLS {
        if make(&plugin, call, &mut claim).is_err() {
            assert_eq!(
                plugin.process.wait_end().signal(),
                Some(9),
                "{point}: {call:?} fails"
            );
            kills += 1;
            plugin = Plugin::start(sandbox, manager, disk.dir());
            make(&plugin, call, &mut claim)
                .unwrap_or_else(|status| panic!("{point}: {call:?} again: {status}"));
        }
        match call {
            Call::Publish => {
                assert_published_once(&plugin, &claim, point);
                size = file_system_size(&plugin, &claim);
                assert!(size > IMAGE_SIZE, "{point}: grown when it is staged");
            }
            Call::Expand if claim.request.name == GROWING => {
                let grown = file_system_size(&plugin, &claim);
                assert!(grown > size, "{point}: grown in use");
            }
            _ => {}
        }
    }
    kills
}

/// How large the pod sees the file system.
fn file_system_size(plugin: &Plugin, claim: &Claim) -> u64 {
    let stat = rustix::fs::statvfs(plugin.target(claim, "pod")).unwrap();
    stat.f_blocks * stat.f_frsize
}

fn assert_published_once(plugin: &Plugin, claim: &Claim, point: &str) {
    let target = plugin.target(claim, "pod");
    let mounts = e2e::leftovers::mounts_below(plugin.kubelet_dir());
    let (staged, published) = (plugin.staging(claim), &target);
    for place in [&staged, published] {
        let count = mounts.iter().filter(|mount| *mount == place).count();
        assert_eq!(count, 1, "{point}: {} is mounted once", place.display());
    }
    if claim.request.name == "from-image" {
        assert!(
            std::fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD,
            "{point}"
        );
    } else {
        assert!(
            std::fs::read_dir(&target).unwrap().count() <= 1,
            "{point}: at most lost+found"
        );
    }
}
