//! Volumes that ask for several replicas, on nodes without DRBD, with the real API server: each has one replica and says
//! why; its record, its Events and its lists agree; and nothing is left of what was refused or deleted.
#![allow(clippy::unwrap_used, reason = "a test")]

use e2e::csi::{Claim, Plugin, block, claim, refused};
use e2e::kube_api::KubeApi;
use e2e::manager::{Options, init_disk};
use e2e::{Manager, Need, Sandbox, block_on, needs, wait};
use proto::csi::v1 as pb;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt as _;

use tonic::{Code, Status};

const MIB: u64 = 1 << 20;

/// A node with a disk, and a controller in a cluster.
struct Cluster {
    api: KubeApi,
    controller: Plugin,
    node: Plugin,
    manager: Manager,
    sandbox: Sandbox,
}

impl Cluster {
    /// `None`: something is missing, and said so.
    fn start(name: &str) -> Option<Self> {
        let missing = needs::missing(&[Need::Root, Need::LoopMount]);
        if let Some(missing) = missing.or_else(KubeApi::missing) {
            needs::skip(&missing);
            return None;
        }
        let sandbox = Sandbox::new(name);
        let disk = sandbox.make_dir("disk");
        init_disk(&disk);
        let manager = Manager::start(&sandbox, &Options::new(&disk));
        let node = Plugin::start(&sandbox, &manager, &disk);
        let api = KubeApi::start(&sandbox);
        let controller = Self::controller(&sandbox, &api, &manager, &node);
        Some(Self {
            api,
            controller,
            node,
            manager,
            sandbox,
        })
    }

    fn controller(sandbox: &Sandbox, api: &KubeApi, manager: &Manager, node: &Plugin) -> Plugin {
        Self::killed_at(sandbox, api, manager, node, "")
    }

    /// A controller that is killed at a failpoint.
    fn killed_at(
        sandbox: &Sandbox,
        api: &KubeApi,
        manager: &Manager,
        node: &Plugin,
        failpoints: &str,
    ) -> Plugin {
        let service = format!("unix:{}", node.node_socket().display());
        let account = api.account().display().to_string();
        let more = ["--node-service", &service, "--account-dir", &account];
        let mut environment = api.environment().to_vec();
        environment.push(("FAILPOINTS", failpoints.to_owned()));
        Plugin::controller_in(sandbox, "controller", &[manager], &more, &environment)
    }

    fn record(&self, volume: &str) -> Option<Value> {
        let found = self.api.kubectl(
            &["get", "rv", volume, "--ignore-not-found", "-o", "json"],
            "",
        );
        (!found.is_empty()).then(|| serde_json::from_str(&found).unwrap())
    }

    /// The record once its status says something.
    fn seen(&self, volume: &str) -> Value {
        wait::until("the record has a status", || {
            let record = self.record(volume)?;
            (!record["status"].is_null()).then_some(record)
        })
    }

    fn condition(&self, volume: &str) -> pb::VolumeCondition {
        let request = pb::ListVolumesRequest::default();
        let list = block_on(self.controller.controller().list_volumes(request)).unwrap();
        let mut entries = list.into_inner().entries.into_iter();
        let entry = entries.find(|one| one.volume.as_ref().unwrap().volume_id == volume);
        entry.unwrap().status.unwrap().volume_condition.unwrap()
    }

    fn publish(&self, claim: &mut Claim) -> Result<(), Status> {
        let request = pb::ControllerPublishVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            node_id: e2e::manager::NODE.into(),
            volume_capability: claim.request.volume_capabilities.first().cloned(),
            volume_context: claim.volume.volume_context.clone(),
            ..Default::default()
        };
        let reply = block_on(
            self.controller
                .controller()
                .controller_publish_volume(request),
        )?;
        claim.publish_context = reply.into_inner().publish_context;
        Ok(())
    }
}

fn asked(name: &str, size: u64, parameters: &[(&str, &str)]) -> pb::CreateVolumeRequest {
    let three = [("numberOfReplicas", "3"), ("staleReplicaTimeout", "20")];
    let mut request = claim(name, size, &[&three, parameters].concat());
    request.volume_capabilities = vec![block()];
    request
}

#[test]
fn row_300_without_drbd_a_volume_has_one_replica_and_says_why() {
    let Some(mut cluster) = Cluster::start("replicated-records") else {
        return;
    };
    let controller = &cluster.controller;
    let request = asked("pvc-one", 8 * MIB, &[]);
    let mut made = controller.provision(&request).unwrap();
    // A lost file of a volume that somebody may have written to is not made anew.
    let record = cluster.record("pvc-one").unwrap();
    assert_eq!(record["spec"]["initialized"], true, "{record}");
    let again = controller.provision(&request).unwrap();
    assert_eq!(made.volume, again.volume);
    // Its node alone reaches it.
    assert_eq!(made.volume.accessible_topology.len(), 1);
    let other = asked("pvc-one", 64 * MIB, &[]);
    refused(
        controller.provision_once(&other),
        Code::AlreadyExists,
        &["pvc-one"],
    );

    let record = cluster.seen("pvc-one");
    assert_eq!(record["spec"]["members"].as_array().unwrap().len(), 1);
    assert_eq!(record["spec"]["numberOfReplicas"], 3);
    assert!(record["spec"]["address"].is_null(), "{record}");
    let text = record["status"].to_string();
    assert!(text.contains("1 of 3 replicas"), "{text}");
    let condition = wait::until("the list knows it", || {
        let condition = cluster.condition("pvc-one");
        condition.abnormal.then_some(condition)
    });
    assert!(condition.message.contains("1 of 3"), "{condition:?}");
    wait::until("an Event says so", || {
        let events = ["get", "events", "-A", "-o", "jsonpath={.items[*].message}"];
        let said = cluster.api.kubectl(&events, "");
        said.contains("1 of 3 replicas").then_some(())
    });

    // Used like any other, and nothing else becomes of it meanwhile.
    cluster.publish(&mut made).unwrap();
    let holder = &cluster.record("pvc-one").unwrap()["spec"]["holder"];
    assert_eq!(holder, e2e::manager::NODE);
    cluster.node.stage(&made).unwrap();
    let device = cluster.node.publish(&made, "pod").unwrap();
    std::fs::metadata(&device).unwrap();
    let delete = |id: &str| {
        let volume_id = id.to_owned();
        let request = pb::DeleteVolumeRequest {
            volume_id,
            ..Default::default()
        };
        block_on(cluster.controller.controller().delete_volume(request))
    };
    refused(delete("pvc-one"), Code::FailedPrecondition, &["published"]);
    cluster.node.unpublish(&made, "pod").unwrap();
    cluster.node.unstage(&made).unwrap();
    controller.detach(&made).unwrap();
    assert!(cluster.record("pvc-one").unwrap()["spec"]["holder"].is_null());

    controller.grow(&made, 16 * MIB).unwrap();
    assert_eq!(cluster.record("pvc-one").unwrap()["spec"]["size"], 16 * MIB);
    assert_eq!(cluster.manager.list_volumes().unwrap()[0].size, 16 * MIB);
    delete("pvc-one").unwrap();
    delete("pvc-one").unwrap();
    wait::until("the record is gone", || {
        cluster.record("pvc-one").is_none().then_some(())
    });
    assert_eq!(cluster.manager.list_volumes().unwrap(), Vec::new());

    // A controller that is killed between its steps, and another one.
    cluster.controller.process.kill_9();
    cluster.controller = Cluster::controller(
        &cluster.sandbox,
        &cluster.api,
        &cluster.manager,
        &cluster.node,
    );
    cluster
        .controller
        .provision(&asked("pvc-two", MIB, &[]))
        .unwrap();
}

#[test]
fn row_301_who_requires_all_replicas_gets_a_refusal_and_nothing_is_left() {
    let Some(cluster) = Cluster::start("require-replicas") else {
        return;
    };
    let request = asked("pvc-all", MIB, &[("requireReplicas", "true")]);
    refused(
        cluster.controller.provision(&request),
        Code::ResourceExhausted,
        &["1 of 3 replicas"],
    );
    assert!(cluster.record("pvc-all").is_none());
    assert_eq!(cluster.manager.list_volumes().unwrap(), Vec::new());
    let secrets = cluster.api.kubectl(&["get", "secrets", "-o", "name"], "");
    assert!(!secrets.contains("pvc-all"), "{secrets}");
    // One replica needs no record.
    let mut request = asked("pvc-single", MIB, &[]);
    request
        .parameters
        .insert("numberOfReplicas".to_owned(), "1".to_owned());
    cluster.controller.provision(&request).unwrap();
    assert!(cluster.record("pvc-single").is_none());
}

#[test]
fn row_302_a_controller_killed_at_any_step_leaves_what_the_next_one_goes_on_from() {
    let Some(mut cluster) = Cluster::start("replicated-killed") else {
        return;
    };
    if let Some(missing) = needs::missing(&[Need::Failpoints]) {
        return needs::skip(&missing);
    }
    for point in [
        "csi.replicated.begun",
        "csi.replicated.file_made",
        "csi.replicated.changed",
        "csi.replicated.expanding",
        "csi.controller_unpublish.recorded",
        "csi.replicated.deleting",
        "csi.replicated.secret_removed",
    ] {
        let name = point.replace(['.', '_'], "-");
        let request = asked(&name, 8 * MIB, &[]);
        let start = |cluster: &Cluster, failpoints: &str| {
            let Cluster {
                sandbox,
                api,
                manager,
                node,
                ..
            } = cluster;
            Cluster::killed_at(sandbox, api, manager, node, failpoints)
        };
        cluster.controller.process.terminate();
        cluster.controller = start(&cluster, &format!("{point}=return"));
        // Each call as its caller makes it: again after the controller was killed, to the next one.
        let mut kills = 0;
        let mut life = |cluster: &mut Cluster, call: &dyn Fn(&mut Cluster) -> bool| {
            if !call(cluster) {
                kills += 1;
                assert_eq!(cluster.controller.process.wait_end().signal(), Some(9));
                cluster.controller = start(cluster, "");
                assert!(call(cluster), "{point}");
            }
        };
        let claims = std::cell::RefCell::new(None);
        life(&mut cluster, &|cluster| {
            loop {
                match cluster.controller.provision_once(&request) {
                    Ok(made) => {
                        claims.replace(Some(made));
                        return true;
                    }
                    Err(status) if status.code() == Code::Aborted => {}
                    Err(_) => return false,
                }
            }
        });
        let mut claim = claims.take().unwrap();
        life(&mut cluster, &|cluster| {
            let mut claim = claim.clone();
            cluster.publish(&mut claim).is_ok()
        });
        cluster.publish(&mut claim).unwrap();
        life(&mut cluster, &|cluster| {
            cluster.controller.detach(&claim).is_ok()
        });
        life(&mut cluster, &|cluster| {
            cluster.controller.grow(&claim, 16 * MIB).is_ok()
        });
        life(&mut cluster, &|cluster| {
            cluster.controller.delete(&claim).is_ok()
        });
        assert_eq!(kills, 1, "{point} is reached once");
        wait::until("the record is gone", || {
            cluster.record(&name).is_none().then_some(())
        });
        assert_eq!(
            cluster.manager.list_volumes().unwrap(),
            Vec::new(),
            "{point}"
        );
    }
}
