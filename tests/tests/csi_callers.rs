//! Callers as they are: names that no directory could have, and callers that go away.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use e2e::csi::{Plugin, claim, of_snapshot, refused};
use e2e::manager::{Options, init_disk};
use e2e::{Manager, Sandbox, block_on};
use proto::csi::v1 as pb;
use tonic::Code;

const MIB: u64 = 1 << 20;

fn start(name: &str) -> (Sandbox, Manager, Plugin) {
    let sandbox = Sandbox::new(name);
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let manager = Manager::start(&sandbox, &Options::new(&disk));
    let plugin = Plugin::controller_of(&sandbox, "plugin", &[&manager], &[]);
    (sandbox, manager, plugin)
}

#[test]
fn row_161_names_that_csi_allows_are_taken() {
    let (_sandbox, manager, plugin) = start("names");
    let names = [
        "vol[0]",
        "my volume",
        "Datensätze",
        "a/b",
        "pvc:1",
        "../x",
        "plain",
    ];
    let mut ids = HashSet::new();
    for name in names {
        let request = claim(name, 8 * MIB, &[("numberOfReplicas", "1")]);
        let made = plugin.provision(&request).unwrap();
        let again = plugin.provision(&request).unwrap();
        assert_eq!(made.volume, again.volume);
        let id = made.volume.volume_id.clone();
        assert_eq!(id == name, name == "plain", "{id}");
        let validate = pb::ValidateVolumeCapabilitiesRequest {
            volume_id: id.clone(),
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            ..Default::default()
        };
        let valid = block_on(plugin.controller().validate_volume_capabilities(validate));
        assert!(valid.unwrap().into_inner().confirmed.is_some(), "{name}");
        // Whoever takes the id for a name gets no volume of another one.
        if id != name {
            let forged = plugin.provision(&claim(&id, 8 * MIB, &[("numberOfReplicas", "1")]));
            refused(forged.map(drop), Code::AlreadyExists, &[name]);
        }
        let snapshot = plugin.snapshot(&format!("snap of {name}"), &id).unwrap();
        let same = plugin.snapshot(&format!("snap of {name}"), &id).unwrap();
        assert_eq!(snapshot, same);
        let restored = of_snapshot(&format!("from {name}"), 8 * MIB, &snapshot.snapshot_id);
        let restored = plugin.provision(&restored).unwrap();
        plugin.delete(&restored).unwrap();
        plugin.delete_snapshot(&snapshot.snapshot_id).unwrap();
        ids.insert(id);
    }
    let all = block_on(
        plugin
            .controller()
            .list_volumes(pb::ListVolumesRequest::default()),
    );
    let all = all.unwrap().into_inner().entries.into_iter();
    let listed: HashSet<_> = all.map(|entry| entry.volume.unwrap().volume_id).collect();
    assert_eq!(listed, ids);
    let long = "ä".repeat(65);
    for name in ["a\u{7}b", long.as_str()] {
        let refusal = plugin.provision(&claim(name, 8 * MIB, &[]));
        refused(refusal.map(drop), Code::InvalidArgument, &["name"]);
    }
    for volume_id in ids {
        let secrets = std::collections::HashMap::new();
        let request = pb::DeleteVolumeRequest { volume_id, secrets };
        block_on(plugin.controller().delete_volume(request)).unwrap();
    }
    assert_eq!(manager.list_volumes().unwrap(), Vec::new());
}

/// Row 162: what a caller had under way is whole afterwards, and nobody else noticed.
#[test]
fn row_162_a_caller_that_goes_away_takes_nobody_along() {
    let (_sandbox, manager, plugin) = start("goes-away");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let innocent = scope.spawn(|| {
            let mut calls = 0;
            while !over.load(Ordering::Relaxed) {
                let made = plugin
                    .provision_once(&claim("innocent", 8 * MIB, &[]))
                    .unwrap();
                plugin.delete(&made).unwrap();
                calls += 2;
            }
            calls
        });
        for round in 0..10 {
            // Dropping them is what happens to the calls of a process that is killed.
            let calls = (0..100).map(|n| {
                let request = claim(&format!("r{round}-{n}"), 8 * MIB, &[]);
                let mut controller = plugin.controller();
                async move { controller.create_volume(request).await.map(drop) }
            });
            block_on(async {
                let mut begun = tokio::task::JoinSet::new();
                for call in calls {
                    begun.spawn(call);
                }
                begun.join_next().await.unwrap().unwrap().unwrap();
            });
        }
        over.store(true, Ordering::Relaxed);
        assert!(innocent.join().unwrap() > 0);
    });
    for volume in manager.list_volumes().unwrap() {
        let volume = pb::DeleteVolumeRequest {
            volume_id: volume.name,
            ..Default::default()
        };
        e2e::wait::until("what was begun can be deleted", || {
            block_on(plugin.controller().delete_volume(volume.clone())).ok()
        });
    }
}
