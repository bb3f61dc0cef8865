//! Row 76: the plugin is killed at every place where its sources say that a step is done, and the
//! caller makes the same call again.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::process::ExitStatusExt;

use e2e::baseimage::{Build, WIZARD, web_page};
use e2e::csi::{Claim, Plugin, claim};
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Registry, Sandbox, documents, gif, needs};
use tonic::Status;

const MIB: u64 = 1 << 20;

/// The calls of a volume's life, in the order of the provisioner, the attacher and the kubelet.
#[derive(Debug, Clone, Copy)]
enum Call {
    Create,
    Attach,
    Stage,
    Publish,
    Snapshot,
    DeleteSnapshot,
    Group,
    DeleteGroup,
    Unpublish,
    Unstage,
    Detach,
    Delete,
}

const CALLS: [Call; 12] = [
    Call::Create,
    Call::Attach,
    Call::Stage,
    Call::Publish,
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
        Call::Attach => plugin.attach(claim)?,
        Call::Stage => drop(plugin.stage(claim)?),
        Call::Publish => drop(plugin.publish(claim, "pod")?),
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
    let requests = [
        claim("from-image", 96 * MIB, &[("baseImage", reference.as_str())]),
        claim("blank", 64 * MIB, &[]),
    ];
    // The image is there, so that CreateVolume is one call.
    let plugin = Plugin::start(&sandbox, &manager, disk.dir());
    let warm = plugin.provision(&requests[0]).unwrap();
    plugin.delete(&warm).unwrap();
    drop(plugin);

    let points = documents::crash_points(&["csi/src", "host/src"]);
    assert!(points.len() >= 5, "the sources have failpoints: {points:?}");
    let mut killed_nowhere = Vec::new();
    for point in points {
        let mut kills = 0;
        for request in &requests {
            let failpoint = format!("{point}=return");
            let mut plugin = Plugin::start_with(&sandbox, &manager, disk.dir(), &failpoint);
            let mut claim = Claim {
                request: request.clone(),
                volume: proto::csi::v1::Volume::default(),
                publish_context: std::collections::HashMap::new(),
            };
            for call in CALLS {
                if make(&plugin, call, &mut claim).is_err() {
                    assert_eq!(
                        plugin.process.wait_end().signal(),
                        Some(9),
                        "{point}: {call:?} fails"
                    );
                    kills += 1;
                    plugin = Plugin::start(&sandbox, &manager, disk.dir());
                    make(&plugin, call, &mut claim)
                        .unwrap_or_else(|status| panic!("{point}: {call:?} again: {status}"));
                }
                if let Call::Publish = call {
                    assert_published_once(&plugin, &claim, &point);
                }
            }
            drop(plugin);
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
    // Only these lie on the way of an error, which this life does not meet.
    killed_nowhere.retain(|point| !point.starts_with("host.undo."));
    assert!(
        killed_nowhere.is_empty(),
        "no call reaches {killed_nowhere:?}"
    );
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
            std::fs::read(target.join(WIZARD)).unwrap() == gif::party_wizard(),
            "{point}"
        );
    } else {
        assert!(
            std::fs::read_dir(&target).unwrap().count() <= 1,
            "{point}: at most lost+found"
        );
    }
}
