//! A hundred claims at once, and what of their time is ours: beside the same pods with a driver that does nothing, and
//! without any volume.

use std::process::ChildStdin;
use std::time::{Duration, Instant};

use e2e::cluster::{Cluster, directory};
use e2e::{Sandbox, programs, wait};
use serde_json::{Value, json};

use crate::examples::nothing_is_left;
use crate::install::tools;
use crate::provisioner::fetch_everywhere;
use crate::registry::BASE_IMAGE;

/// A kubelet takes 110 pods, and some of each node's are there already.
const PODS_A_NODE: usize = 50;
/// The driver of `csi-nothing`.
const NOTHING: &str = "nothing.example.org";
const CLASS: &str = "hundred";

/// From `kubectl apply` to all pods ready, three times: with an emptyDir, with a driver that does nothing, and with
/// volumes of a base image that every disk has.
pub(crate) fn claims_at_once(cluster: &Cluster) {
    let pods = PODS_A_NODE * cluster.nodes();
    fetch_everywhere(cluster);
    let sandbox = Sandbox::new("k8s-hundred");
    let bare = until_all_run(cluster, &sandbox, pods, None);
    let nothing = {
        let _running = do_nothing(cluster);
        class(cluster, &sandbox, NOTHING, &json!({}));
        until_all_run(cluster, &sandbox, pods, Some(CLASS))
    };
    cluster.kubectl(&format!("delete storageclass {CLASS}"));
    cluster.kubectl(&format!("delete csidriver {NOTHING}"));
    class(
        cluster,
        &sandbox,
        "driver.longhorn.io",
        &json!({"baseImage": BASE_IMAGE}),
    );
    let ours = until_all_run(cluster, &sandbox, pods, Some(CLASS));
    cluster.kubectl(&format!("delete storageclass {CLASS}"));
    nothing_is_left(cluster);
    println!("  from apply to {pods} pods ready");
    println!("  emptyDir                        {bare:>10.1?}");
    println!("  a driver that does nothing      {nothing:>10.1?}");
    println!("  volumes of the base image       {ours:>10.1?}");
}

fn class(cluster: &Cluster, sandbox: &Sandbox, driver: &str, parameters: &Value) {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS},
        "provisioner": driver,
        "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": parameters,
    });
    let file = sandbox.write("class.json", class.to_string());
    cluster.kubectl(&format!("apply -f {}", file.display()));
}

/// The time until all pods of a set are ready, which is taken away afterwards. `class`: of their claims; without, each
/// has an emptyDir.
fn until_all_run(
    cluster: &Cluster,
    sandbox: &Sandbox,
    pods: usize,
    class: Option<&str>,
) -> Duration {
    let mut pod = json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "sleeper",
            "image": "busybox:1.36",
            "command": ["sleep", "1000000"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }],
    });
    let mut claims = json!([]);
    match class {
        None => pod["volumes"] = json!([{"name": "data", "emptyDir": {}}]),
        Some(class) => {
            claims = json!([{
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": class,
                    "resources": {"requests": {"storage": "64Mi"}},
                },
            }]);
        }
    }
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "hundred"},
        "spec": {
            "serviceName": "hundred",
            "replicas": pods,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "hundred"}},
            "template": {"metadata": {"labels": {"app": "hundred"}}, "spec": pod},
            "volumeClaimTemplates": claims,
        },
    });
    let file = sandbox.write("set.json", set.to_string());
    let start = Instant::now();
    cluster.kubectl(&format!("apply -f {}", file.display()));
    cluster.kubectl(&format!(
        "wait statefulset/hundred --for=jsonpath={{.status.readyReplicas}}={pods} --timeout=600s"
    ));
    let taken = start.elapsed();
    cluster.kubectl(&format!("delete --wait=false -f {}", file.display()));
    cluster.wait_gone("pods -l app=hundred");
    cluster.kubectl("delete --wait=false pvc -l app=hundred");
    cluster.wait_gone("pvc -l app=hundred");
    cluster.wait_gone("pv");
    taken
}

/// The driver that does nothing, on every node, with a provisioner; all end with what comes back.
fn do_nothing(cluster: &Cluster) -> Vec<ChildStdin> {
    let driver = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": NOTHING},
        "spec": {"attachRequired": false},
    });
    let sandbox = Sandbox::new("k8s-nothing");
    let file = sandbox.write("driver.json", driver.to_string());
    cluster.kubectl(&format!("apply -f {}", file.display()));
    let program = programs::harness("csi-nothing").display().to_string();
    let socket = "/var/lib/kubelet/plugins/nothing/csi.sock";
    let door = "/var/lib/kubelet/plugins_registry/nothing-reg.sock";
    let mut running: Vec<ChildStdin> = (1..=cluster.nodes())
        .map(|node| {
            let name = format!("n{node}");
            cluster.start(node, "nothing", &[&program, &name, socket, door])
        })
        .collect();
    // With the settings of ours. It ends with its standard input too.
    let provisioner = format!(
        "{}/csi-provisioner --kubeconfig={}/admin.kubeconfig --csi-address={socket} --timeout=60s \
         --kube-api-qps=50 --kube-api-burst=100 --extra-create-metadata --immediate-topology=false & \
         cat >/dev/null; kill $!",
        tools(),
        directory().display()
    );
    running.push(cluster.start(1, "nothing-provisioner", &["sh", "-c", &provisioner]));
    wait::until("the driver is registered on every node", || {
        let nodes = cluster.kubectl("get csinodes -o json");
        (nodes.matches(NOTHING).count() >= cluster.nodes()).then_some(())
    });
    running
}
