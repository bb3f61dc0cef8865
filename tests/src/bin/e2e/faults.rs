//! What goes wrong in a cluster, while a pod writes.

use std::thread;
use std::time::Duration;

use e2e::cluster::Cluster;
use e2e::programs::sources;
use e2e::{Sandbox, wait};

use crate::examples::{end, nothing_is_left};

/// A StatefulSet of one pod that counts on its volume.
pub(crate) const WRITER: &str = "tests/kubernetes/writer.yaml";
const POD: &str = "writer-0";

/// Starts the writer, and waits until it has written.
fn start(cluster: &Cluster) {
    cluster.apply(WRITER);
    cluster.wait_pod(POD);
    wait::until("the pod has written", || {
        (count(cluster, POD) > 3).then_some(())
    });
}

fn stop(cluster: &Cluster) {
    cluster.delete(WRITER);
    cluster.kubectl("delete --wait=false pvc data-writer-0");
    nothing_is_left(cluster);
}

/// What a writer has on its disk.
pub(crate) fn count(cluster: &Cluster, pod: &str) -> u64 {
    let output = cluster.try_kubectl(&format!("exec {pod} -- cat /data/count"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or(0)
}

/// Waits until the pod has written on from what it had written before.
pub(crate) fn writes_past(cluster: &Cluster, pod: &str, written: u64) {
    wait::until("the pod goes on where it was", || {
        (count(cluster, pod) > written).then_some(())
    });
}

fn goes_on(cluster: &Cluster, what: &str) {
    let before = count(cluster, POD);
    wait::until(&format!("the pod writes on {what}"), || {
        (count(cluster, POD) > before + 3).then_some(())
    });
    let pod = cluster.get(&format!("pod {POD}"));
    let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(restarts, 0, "the pod was restarted {what}");
}

/// Row 101: everything of ours is replaced by a new version, and by the old one again, while a pod
/// writes; then a pod can start and end.
pub(crate) fn row_101_upgrade(cluster: &Cluster) {
    start(cluster);
    for what in [
        "daemonset/longhorn-csi-plugin",
        "daemonset/backing-image-manager",
        "deployment/longhorn-csi-controller",
    ] {
        for (how, version) in [
            (format!("set env {what} E2E_VERSION=2"), "new"),
            (format!("rollout undo {what}"), "old"),
        ] {
            cluster.kubectl(&format!("-n longhorn-system {how}"));
            goes_on(cluster, &format!("while {what} becomes the {version} one"));
            cluster.kubectl(&format!(
                "-n longhorn-system rollout status {what} --timeout=120s"
            ));
        }
    }
    cluster.kubectl(&format!("delete pod {POD}"));
    cluster.wait_pod(POD);
    wait::until("the new pod writes", || {
        (count(cluster, POD) > 3).then_some(())
    });
    stop(cluster);
}

/// Row 101: a kubelet starts anew while a pod writes; a drained node gives its pod back when it may.
pub(crate) fn row_101_kubelet_and_drain(cluster: &Cluster) {
    start(cluster);
    let pod = cluster.get(&format!("pod {POD}"));
    let node = pod["spec"]["nodeName"].as_str().unwrap();
    let number = node.trim_start_matches('n').parse().unwrap();
    cluster.restart_kubelet(number);
    goes_on(cluster, "after the kubelet has started anew");
    let before = count(cluster, POD);
    cluster.kubectl(&format!(
        "drain {node} --ignore-daemonsets --delete-emptydir-data --force --timeout=120s"
    ));
    wait::until("the volume is given back", || {
        let mounts = cluster.enter(number, &["cat", "/proc/self/mountinfo"]);
        (!mounts.contains("kubernetes.io/csi")).then_some(())
    });
    cluster.kubectl(&format!("uncordon {node}"));
    cluster.wait_pod(POD);
    writes_past(cluster, POD, before);
    stop(cluster);
}

/// Row 101: with all programs of ours gone the pod goes on, and takes its volume with it when it ends
/// after they are back.
pub(crate) fn row_101_everything_gone(cluster: &Cluster) {
    start(cluster);
    let nowhere = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":"where"}}}}}"#;
    let daemons = ["longhorn-csi-plugin", "backing-image-manager"];
    for name in daemons {
        cluster.kubectl(&format!(
            "-n longhorn-system patch daemonset {name} -p {nowhere}"
        ));
    }
    cluster.wait_gone("pods -n longhorn-system -l app=longhorn-csi-plugin");
    cluster.wait_gone("pods -n longhorn-system -l longhorn.io/component=backing-image-manager");
    goes_on(cluster, "while no program of ours runs");
    let back = r#"[{"op":"remove","path":"/spec/template/spec/nodeSelector/no"}]"#;
    for name in daemons {
        cluster.kubectl(&format!(
            "-n longhorn-system patch daemonset {name} --type=json -p {back}"
        ));
        cluster.kubectl(&format!(
            "-n longhorn-system rollout status daemonset/{name} --timeout=120s"
        ));
    }
    stop(cluster);
}

/// Row 98: the API server does not answer for a while, in the middle of making a volume: the writer
/// writes on, and there is one volume for the claim.
pub(crate) fn row_98_api_server_gone(cluster: &Cluster) {
    start(cluster);
    let before = count(cluster, POD);
    cluster.apply("examples/blank_pvc.yaml");
    cluster.enter(1, &["pkill", "-STOP", "kube-apiserver"]);
    thread::sleep(Duration::from_secs(20));
    cluster.enter(1, &["pkill", "-CONT", "kube-apiserver"]);
    wait::until("the pod has written on meanwhile", || {
        (count(cluster, POD) > before + 50).then_some(())
    });
    goes_on(cluster, "after the API server is back");
    cluster.wait_pod("blank");
    assert_eq!(volumes(cluster), (2, 2));
    cluster.delete("examples/blank_pvc.yaml");
    stop(cluster);
}

/// How many volumes the API knows, and how many the disks hold.
fn volumes(cluster: &Cluster) -> (usize, usize) {
    let known = cluster.kubectl("get pv -o name").lines().count();
    let held = (1..=cluster.nodes()).map(|node| {
        let volumes = "/var/lib/longhorn-base-image/volumes";
        let held = cluster.enter(node, &["find", volumes, "-mindepth", "1", "-maxdepth", "1"]);
        held.lines().count()
    });
    (known, held.sum())
}

/// Row 99: the provisioner and the attacher that lead are frozen in the middle of their work, others take
/// it over, and then there are two of each for a moment.
pub(crate) fn row_99_leaders_change(cluster: &Cluster) {
    let many = "tests/kubernetes/many.yaml";
    let lease =
        "get lease driver-longhorn-io -n longhorn-system -o jsonpath={.spec.holderIdentity}";
    let leader = cluster.kubectl(lease);
    let pods = cluster.get("pods -n longhorn-system -l app=longhorn-csi-controller");
    let led = pods["items"].as_array().unwrap().iter().find(|pod| {
        let name = pod["metadata"]["name"].as_str();
        name.is_some_and(|name| leader.starts_with(name))
    });
    let led = led.unwrap_or_else(|| panic!("{leader} is no pod of the controller"));
    let name = led["metadata"]["name"].as_str().unwrap();
    let node = led["spec"]["nodeName"].as_str().unwrap();
    let node = node.trim_start_matches('n').parse().unwrap();
    let signal = |signal: &str| {
        // By the host name, which is the pod's: the other controller may be on the same node.
        let each = format!(
            "for pid in $(pgrep -x 'csi-provisioner|csi-attacher'); do \
             [ \"$(nsenter -t $pid -u hostname)\" = {name} ] && kill -{signal} $pid; done; true"
        );
        cluster.enter(node, &["sh", "-c", &each]);
    };
    cluster.apply(many);
    wait::until("the first volume is made", || {
        (volumes(cluster).1 > 0).then_some(())
    });
    signal("STOP");
    wait::until("another leads", || {
        (cluster.kubectl(lease) != leader).then_some(())
    });
    for number in 0..4 {
        cluster.wait_pod(&format!("many-{number}"));
    }
    signal("CONT");
    wait::until("the one that led has noticed", || {
        let line = "-n longhorn-system rollout status deployment/longhorn-csi-controller";
        cluster.try_kubectl(line).status.success().then_some(())
    });
    assert_eq!(volumes(cluster), (4, 4));
    cluster.delete(many);
    cluster.kubectl("delete --wait=false pvc -l app=many");
    nothing_is_left(cluster);
}

/// Row 94: the plug of the writer's node is pulled; when it is back, so is the pod, with all that it had
/// synced.
pub(crate) fn row_94_power_cut(cluster: &Cluster) {
    if cluster.nodes() < 2 {
        println!("  skipped: needs two nodes");
        return;
    }
    // Node 1 has the control plane: the writer is to live on the other.
    cluster.kubectl("cordon n1");
    start(cluster);
    cluster.kubectl("uncordon n1");
    let acknowledged = count(cluster, POD);
    cluster.power(2, false);
    wait::until("the cluster knows", || {
        let node = cluster.get("node n2");
        let conditions = node["status"]["conditions"].as_array()?.clone();
        let ready = conditions.iter().find(|one| one["type"] == "Ready")?;
        (ready["status"] != "True").then_some(())
    });
    cluster.power(2, true);
    cluster.wait_pod(POD);
    wait::until("the pod writes again", || {
        (count(cluster, POD) > acknowledged).then_some(())
    });
    stop(cluster);
}

/// Row 100: a StatefulSet goes to none and back: the same claim, the same data; a claim that is deleted
/// while its volume is made leaves nothing; nor does one that goes with its namespace.
pub(crate) fn row_100_claims_come_and_go(cluster: &Cluster) {
    start(cluster);
    cluster.kubectl("scale statefulset writer --replicas=0");
    cluster.wait_gone(&format!("pod {POD}"));
    cluster.kubectl("scale statefulset writer --replicas=1");
    cluster.wait_pod(POD);
    writes_past(cluster, POD, 3);
    stop(cluster);
    let blank = "examples/blank_pvc.yaml";
    for _ in 0..3 {
        cluster.apply(blank);
        cluster.delete(blank);
    }
    end(cluster, &[]);
    cluster.kubectl("create namespace going");
    let file = sources().join(blank);
    cluster.kubectl(&format!("-n going apply -f {}", file.display()));
    cluster.kubectl("-n going wait pod/blank --for=condition=Ready --timeout=120s");
    cluster.kubectl("delete --wait=false namespace going");
    cluster.wait_gone("namespace going");
    end(cluster, &[]);
}

/// Row 155: claims are deleted in the moments in which managers are replaced. Whoever does not answer then may
/// have the volume: it is deleted later, and none stays on a disk.
pub(crate) fn row_155_managers_replaced(cluster: &Cluster) {
    let claims: Vec<String> = (0..16).map(|number| format!("replaced-{number}")).collect();
    let items = claims.iter().map(|name| {
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "longhorn-xfs-immediate",
                "resources": {"requests": {"storage": "320Mi"}},
            },
        })
    });
    let list =
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>()});
    let sandbox = Sandbox::new("k8s-replaced");
    let file = sandbox.write("claims.json", list.to_string());
    cluster.kubectl(&format!("apply -f {}", file.display()));
    let bound = format!(
        "wait --for=jsonpath={{.status.phase}}=Bound --timeout=120s pvc {}",
        claims.join(" ")
    );
    cluster.kubectl(&bound);
    let managers = "pods -n longhorn-system -l longhorn.io/component=backing-image-manager";
    cluster.kubectl(&format!("delete --wait=false {managers}"));
    cluster.kubectl(&format!("delete --wait=false -f {}", file.display()));
    end(cluster, &[]);
}
