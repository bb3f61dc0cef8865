//! Two nodes: the manager that has a volume answers for it, a silent manager does not affect the
//! other, and no volume counts as deleted because a manager is silent.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use e2e::csi::{Claim, Plugin, claim, mounted, refused};
use e2e::manager::{Options, init_disk};
use e2e::{Manager, Need, Sandbox, block_on, command, needs, programs, wait};
use proto::csi::v1 as pb;
use proto::storage::v1::GetDiskRequest;
use proto::storage::v1::disks_client::DisksClient;
use rustix::process::Signal;
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;
const NODES: [&str; 2] = ["node-1", "node-2"];

/// Two managers with a disk each.
struct Cluster {
    sandbox: Sandbox,
    managers: [Manager; 2],
    disks: [PathBuf; 2],
}

impl Cluster {
    fn new(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        let disks = NODES.map(|node| {
            let disk = sandbox.make_dir(node);
            init_disk(&disk);
            disk
        });
        let managers =
            [0, 1].map(|n| Manager::start(&sandbox, &Options::new(&disks[n]).on_node(NODES[n])));
        Self {
            sandbox,
            managers,
            disks,
        }
    }

    fn restart(&mut self, n: usize) {
        self.managers[n].process.kill_9();
        let options = Options::new(&self.disks[n]).on_node(NODES[n]);
        self.managers[n] = Manager::start(&self.sandbox, &options);
    }

    fn uuid(&self, n: usize) -> String {
        self.managers[n].disk().unwrap().uuid
    }

    fn controller(&self, name: &str, of: &[usize], more: &[&str]) -> Plugin {
        let managers: Vec<_> = of.iter().map(|n| &self.managers[*n]).collect();
        Plugin::controller_of(&self.sandbox, name, &managers, more)
    }

    /// The disks that a manager knows of, without those that are forgotten.
    fn known(&self, n: usize) -> Vec<String> {
        let mut disks = DisksClient::new(self.managers[n].channel());
        let disk = block_on(disks.get_disk(GetDiskRequest { known_disks: true })).unwrap();
        let known = disk.into_inner().known_disks.into_iter();
        known.filter(|d| !d.forgotten).map(|d| d.uuid).collect()
    }
}

/// An answer, for as long as a caller has patience.
#[track_caller]
fn soon<T>(answer: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    let answer = block_on(async { tokio::time::timeout(wait::LONG, answer).await });
    answer
        .expect("the call waits for a manager that it does not need")
        .map(tonic::Response::into_inner)
}

fn on_node(name: &str, node: &str) -> pb::CreateVolumeRequest {
    let segments = HashMap::from([("driver.longhorn.io/node".to_owned(), node.to_owned())]);
    let topology = vec![pb::Topology { segments }];
    pb::CreateVolumeRequest {
        accessibility_requirements: Some(pb::TopologyRequirement {
            requisite: topology.clone(),
            preferred: topology,
        }),
        ..claim(name, 8 * MIB, &[])
    }
}

fn publish(id: &str, node: &str) -> pb::ControllerPublishVolumeRequest {
    pb::ControllerPublishVolumeRequest {
        volume_id: id.into(),
        node_id: node.into(),
        volume_capability: Some(mounted("")),
        ..Default::default()
    }
}

fn unpublish(id: &str, node: &str) -> pb::ControllerUnpublishVolumeRequest {
    pb::ControllerUnpublishVolumeRequest {
        volume_id: id.into(),
        node_id: node.into(),
        ..Default::default()
    }
}

fn delete(id: &str) -> pb::DeleteVolumeRequest {
    pb::DeleteVolumeRequest {
        volume_id: id.into(),
        ..Default::default()
    }
}

fn get(id: &str) -> pb::ControllerGetVolumeRequest {
    pb::ControllerGetVolumeRequest {
        volume_id: id.into(),
    }
}

/// The listing as a map of names to what their condition says when it is abnormal.
fn listed(plugin: &Plugin) -> Result<HashMap<String, Option<String>>, Status> {
    let all = soon(
        plugin
            .controller()
            .list_volumes(pb::ListVolumesRequest::default()),
    )?;
    let entry = |entry: pb::list_volumes_response::Entry| {
        let condition = entry.status.unwrap().volume_condition.unwrap();
        let message = condition.abnormal.then_some(condition.message);
        (entry.volume.unwrap().volume_id, message)
    };
    Ok(all.entries.into_iter().map(entry).collect())
}

/// Row 156. The frozen manager is never waited for: the plugin would give it an hour.
#[test]
fn row_156_a_frozen_manager_changes_nothing_for_the_others() {
    let cluster = Cluster::new("frozen");
    let plugin = cluster.controller("plugin", &[0, 1], &["--manager-timeout", "3600"]);
    let v1 = plugin.provision(&on_node("v1", NODES[0])).unwrap();
    let v2 = plugin.provision(&on_node("v2", NODES[1])).unwrap();
    plugin.snapshot("s1", "v1").unwrap();
    let healthy = HashMap::from([("v1".to_owned(), None), ("v2".to_owned(), None)]);
    wait::until("both volumes are listed", || {
        (listed(&plugin).unwrap() == healthy).then_some(())
    });
    cluster.managers[1].process.signal(Signal::STOP);

    life_of_the_healthy(&plugin, &v1);
    let all = listed(&plugin).unwrap();
    assert_eq!(all["v1"], None);
    let said = all["v2"].as_ref().unwrap();
    assert!(
        said.contains(NODES[1]) && said.contains("does not answer"),
        "{said}"
    );

    let id = cluster.managers[1].process.id();
    let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    assert!(state.contains(") T "), "it is still frozen: {state}");
    cluster.managers[1].process.signal(Signal::CONT);
    soon(
        plugin
            .controller()
            .delete_volume(delete(&v2.volume.volume_id)),
    )
    .unwrap();
    assert!(!listed(&plugin).unwrap().contains_key("v2"));
}

/// Every call of the controller about what is on the first node.
fn life_of_the_healthy(plugin: &Plugin, v1: &Claim) {
    let controller = || plugin.controller();
    for request in [on_node("new", NODES[0]), claim("anywhere", 8 * MIB, &[])] {
        let made = soon(controller().create_volume(request.clone())).unwrap();
        let again = soon(controller().create_volume(request)).unwrap();
        assert_eq!(made, again);
        let topology = &made.volume.as_ref().unwrap().accessible_topology[0];
        assert!(
            topology.segments.values().all(|node| node == NODES[0]),
            "{made:?}"
        );
    }
    let capability = vec![mounted("")];
    soon(controller().controller_publish_volume(publish("v1", NODES[0]))).unwrap();
    soon(controller().controller_get_volume(get("v1"))).unwrap();
    soon(
        controller().validate_volume_capabilities(pb::ValidateVolumeCapabilitiesRequest {
            volume_id: "v1".into(),
            volume_capabilities: capability,
            ..Default::default()
        }),
    )
    .unwrap();
    plugin.grow(v1, 16 * MIB).unwrap();
    let snapshot = pb::CreateSnapshotRequest {
        name: "s2".into(),
        source_volume_id: "v1".into(),
        ..Default::default()
    };
    soon(controller().controller_unpublish_volume(unpublish("v1", NODES[0]))).unwrap();
    soon(controller().create_snapshot(snapshot)).unwrap();
    for id in ["s1", "s2"] {
        let snapshot_id = id.to_owned();
        let request = pb::ListSnapshotsRequest {
            snapshot_id: snapshot_id.clone(),
            ..Default::default()
        };
        let found = soon(controller().list_snapshots(request)).unwrap();
        assert_eq!(found.entries.len(), 1);
        let secrets = HashMap::new();
        let request = pb::DeleteSnapshotRequest {
            snapshot_id,
            secrets,
        };
        soon(controller().delete_snapshot(request)).unwrap();
    }
    for topology in [None, Some(NODES[0])] {
        let segments =
            |node: &str| HashMap::from([("driver.longhorn.io/node".to_owned(), node.to_owned())]);
        let accessible_topology = topology.map(|node| pb::Topology {
            segments: segments(node),
        });
        let request = pb::GetCapacityRequest {
            accessible_topology,
            ..Default::default()
        };
        let room = soon(controller().get_capacity(request)).unwrap();
        assert!(room.available_capacity > 0);
    }
    soon(plugin.identity().probe(pb::ProbeRequest {})).unwrap();
    for id in ["new", "anywhere"] {
        soon(controller().delete_volume(delete(id))).unwrap();
    }
}

/// Row 155: a manager's pod is replaced, and for a moment its name stands for the others alone.
#[test]
fn row_155_nothing_is_gone_because_its_manager_is_silent() {
    let mut cluster = Cluster::new("roster");
    let whole = cluster.controller("whole", &[0, 1], &[]);
    whole.provision(&on_node("v1", NODES[0])).unwrap();
    whole.provision(&on_node("v2", NODES[1])).unwrap();
    let publish_it = publish("v2", NODES[1]);
    soon(whole.controller().controller_publish_volume(publish_it)).unwrap();
    whole.snapshot("s1", "v1").unwrap();
    let (lost, there) = (cluster.uuid(1), cluster.uuid(0));
    assert_eq!(cluster.known(0), [lost.as_str()], "told before v2 was made");
    cluster.managers[1].process.kill_9();
    drop(whole);
    // What is known is on the other disk: neither this controller nor that manager has seen the lost one.
    cluster.restart(0);
    let half = cluster.controller("half", &[0], &["--manager-timeout", "1"]);
    let controller = || half.controller();
    let words = [lost.as_str(), NODES[1], "disk forget"];
    let unavailable = |result: Result<(), Status>| refused(result, Code::Unavailable, &words);
    unavailable(soon(controller().delete_volume(delete("v2"))).map(drop));
    unavailable(soon(controller().controller_get_volume(get("v2"))).map(drop));
    unavailable(soon(controller().controller_publish_volume(publish("v2", NODES[1]))).map(drop));
    for node in [NODES[1], "unknown", ""] {
        let request = unpublish("v2", node);
        unavailable(soon(controller().controller_unpublish_volume(request)).map(drop));
    }
    unavailable(half.delete_snapshot("s2"));
    unavailable(listed(&half).map(drop));
    // What the other disk alone can answer it answers.
    soon(controller().controller_unpublish_volume(unpublish("v2", NODES[0]))).unwrap();
    half.delete_snapshot("s1").unwrap();
    soon(controller().delete_volume(delete("v1"))).unwrap();

    cluster.restart(1);
    let whole = cluster.controller("whole-again", &[0, 1], &[]);
    assert!(cluster.managers[1].volume("v2").unwrap().published.len() == 1);
    soon(
        whole
            .controller()
            .controller_unpublish_volume(unpublish("v2", NODES[1])),
    )
    .unwrap();
    soon(whole.controller().delete_volume(delete("v2"))).unwrap();
    assert!(cluster.managers[1].volume("v2").is_err());
    soon(whole.controller().delete_volume(delete("v2"))).unwrap();
    // A record that cannot be read is no reason to keep a volume, nor to call it gone.
    whole.provision(&on_node("damaged", NODES[1])).unwrap();
    let record = cluster.disks[1].join("volumes/damaged/volume.cfg");
    let mut file = std::fs::File::create(&record).unwrap();
    std::io::Write::write_all(&mut file, b"{").unwrap();
    let damaged = soon(whole.controller().controller_get_volume(get("damaged")));
    refused(damaged.map(drop), Code::DataLoss, &["volume.cfg"]);
    soon(whole.controller().delete_volume(delete("damaged"))).unwrap();
    assert!(!record.exists());
    wait::until("the second knows the first", || {
        (cluster.known(1) == [there.as_str()]).then_some(())
    });

    // Gone for good: an operator says so.
    cluster.managers[1].process.kill_9();
    unavailable(soon(controller().delete_volume(delete("v2"))).map(drop));
    let said = forget(&cluster, &there);
    assert!(
        !said.status.success(),
        "it answers: {}",
        command::words(&said)
    );
    let said = forget(&cluster, &lost);
    assert!(said.status.success(), "{}", command::words(&said));
    soon(controller().delete_volume(delete("v2"))).unwrap();
    assert_eq!(listed(&half).unwrap(), HashMap::new());
}

fn forget(cluster: &Cluster, uuid: &str) -> std::process::Output {
    disk_command(cluster, &["forget", uuid])
}

/// `disk` of the command line, by the first manager.
fn disk_command(cluster: &Cluster, rest: &[&str]) -> std::process::Output {
    let url = cluster.managers[0].address().to_string();
    let arguments = [&["disk"], rest, &["--url", &url]].concat();
    command::output(&programs::manager().display().to_string(), arguments)
}

/// Row 155: killed where the list of disks is written: it is told again, by two controllers at once.
#[test]
fn row_155_a_manager_killed_while_it_is_told_of_a_disk_is_told_again() {
    needs!(Need::Failpoints);
    let mut cluster = Cluster::new("roster-crash");
    let options = Options::new(&cluster.disks[0]).on_node(NODES[0]);
    cluster.managers[0].process.kill_9();
    let failing = options.with_failpoint("store.roster.written=return");
    cluster.managers[0] = Manager::start(&cluster.sandbox, &failing);
    let one = cluster.controller("one", &[0, 1], &[]);
    let two = cluster.controller("two", &[0, 1], &[]);
    let ended = cluster.managers[0].process.wait_end();
    assert_eq!(ended.signal(), Some(9));
    drop((one, two));
    cluster.restart(0);
    let uuids = [cluster.uuid(0), cluster.uuid(1)];
    let _controllers = ["three", "four"].map(|name| cluster.controller(name, &[0, 1], &[]));
    wait::until("both know the other", || {
        let knows = |n: usize, other: &String| cluster.known(n) == [other.as_str()];
        (knows(0, &uuids[1]) && knows(1, &uuids[0])).then_some(())
    });
}

/// Row 160: records of Kubernetes and of the disks that do not match.
#[test]
fn row_160_an_operator_finds_and_frees_what_kubernetes_has_lost() {
    let mut cluster = Cluster::new("lost");
    let plugin = cluster.controller("plugin", &[0, 1], &[]);
    plugin.provision(&on_node("a", NODES[0])).unwrap();
    plugin.provision(&on_node("b", NODES[1])).unwrap();
    soon(
        plugin
            .controller()
            .controller_publish_volume(publish("b", NODES[1])),
    )
    .unwrap();
    let refusal = soon(
        plugin
            .controller()
            .controller_publish_volume(publish("a", NODES[1])),
    );
    refused(
        refusal,
        Code::FailedPrecondition,
        &["no replica on node node-2"],
    );
    let pv = |handle: &str| {
        serde_json::json!({"metadata": {"name": format!("pv-{handle}")},
            "spec": {"csi": {"driver": "driver.longhorn.io", "volumeHandle": handle}}})
    };
    let listing = serde_json::json!({"kind": "List", "items": [pv("a"), pv("gone")]}).to_string();
    let file = cluster.sandbox.write("pv.json", listing);
    let file = file.display().to_string();
    let compare = |cluster: &Cluster| cluster.managers[0].cli("volume", &["compare", &file]);
    // One manager is not the cluster: it knows of the other disk, and cannot say what is on it.
    let said = compare(&cluster);
    assert!(!said.status.success() && command::words(&said).contains("disk forget"));
    let lost = cluster.uuid(1);
    let disks = disk_command(&cluster, &["list"]);
    assert!(
        command::words(&disks).contains(&lost),
        "{}",
        command::words(&disks)
    );
    cluster.managers[1].process.kill_9();
    assert!(forget(&cluster, &lost).status.success());
    let said = compare(&cluster);
    let found: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(found["withoutPv"], serde_json::json!([]));
    assert_eq!(found["withoutVolume"][0]["volumeHandle"], "gone");
    // The other one, whose VolumeAttachment is gone as well.
    cluster.restart(1);
    let said = cluster.managers[1].cli("volume", &["unpublish", "--name", "b"]);
    assert_eq!(said.status.code(), Some(2), "it is not done by mistake");
    let b = &cluster.managers[1];
    refused(
        b.delete_volume("b"),
        Code::FailedPrecondition,
        &["published"],
    );
    let other = ["unpublish", "--force", "--name", "b", "--node", "node-7"];
    assert!(b.cli("volume", &other).status.success());
    assert_eq!(b.volume("b").unwrap().published.len(), 1);
    let said = b.cli(
        "volume",
        &["unpublish", "--force", "--name", "b", "--node", NODES[1]],
    );
    assert!(said.status.success(), "{}", command::words(&said));
    b.delete_volume("b").unwrap();
}

/// Row 157: a disk was moved to a node of another name.
#[test]
fn row_157_a_disk_that_moved_is_where_it_is() {
    let mut cluster = Cluster::new("moved");
    let plugin = cluster.controller("plugin", &[0], &[]);
    plugin.provision(&on_node("v", NODES[0])).unwrap();
    let elsewhere = publish("v", "node-9");
    let refusal = soon(
        plugin
            .controller()
            .controller_publish_volume(elsewhere.clone()),
    );
    refused(refusal, Code::NotFound, &["node-9"]);
    assert_eq!(cluster.managers[0].volume("v").unwrap().published, []);
    cluster.managers[0].process.kill_9();
    let options = Options::new(&cluster.disks[0]).on_node("node-9");
    cluster.managers[0] = Manager::start(&cluster.sandbox, &options);
    let plugin = cluster.controller("moved", &[0], &[]);
    let there = soon(plugin.controller().controller_get_volume(get("v"))).unwrap();
    let topology = &there.volume.unwrap().accessible_topology[0];
    assert!(topology.segments.values().all(|node| node == "node-9"));
    let refusal = soon(
        plugin
            .controller()
            .controller_publish_volume(publish("v", NODES[0])),
    );
    refused(refusal, Code::NotFound, &["node-1"]);
    assert_eq!(cluster.managers[0].volume("v").unwrap().published, []);
    soon(plugin.controller().controller_publish_volume(elsewhere)).unwrap();
    soon(
        plugin
            .controller()
            .controller_unpublish_volume(unpublish("v", "node-9")),
    )
    .unwrap();
    soon(plugin.controller().delete_volume(delete("v"))).unwrap();
}
