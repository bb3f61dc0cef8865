//! What goes wrong in a cluster, while a pod writes.

use std::thread;
use std::time::Duration;

use e2e::cluster::Cluster;
use e2e::wait;

use crate::examples::{end, nothing_is_left};

const WRITER: &str = "tests/kubernetes/writer.yaml";
const POD: &str = "writer-0";

/// Starts the writer, and waits until it has written.
fn start(cluster: &Cluster) {
    cluster.apply(WRITER);
    cluster.wait_pod(POD);
    wait::until("the pod has written", || (count(cluster) > 3).then_some(()));
}

fn stop(cluster: &Cluster) {
    cluster.delete(WRITER);
    cluster.kubectl("delete --wait=false pvc data-writer-0");
    nothing_is_left(cluster);
}

/// What the writer has on its disk.
fn count(cluster: &Cluster) -> u64 {
    let output = cluster.try_kubectl(&format!("exec {POD} -- cat /data/count"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or(0)
}

fn goes_on(cluster: &Cluster, what: &str) {
    let before = count(cluster);
    wait::until(&format!("the pod writes on {what}"), || {
        (count(cluster) > before + 3).then_some(())
    });
    let pod = cluster.get(&format!("pod {POD}"));
    let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(restarts, 0, "the pod was restarted {what}");
}

/// Row 101: everything of ours is replaced while a pod writes; then a pod can start and end.
pub(crate) fn row_101_upgrade(cluster: &Cluster) {
    start(cluster);
    for what in [
        "daemonset/longhorn-csi-plugin",
        "daemonset/backing-image-manager",
        "deployment/longhorn-csi-controller",
    ] {
        cluster.kubectl(&format!("-n longhorn-system rollout restart {what}"));
        goes_on(cluster, &format!("while {what} is replaced"));
        cluster.kubectl(&format!(
            "-n longhorn-system rollout status {what} --timeout=120s"
        ));
    }
    cluster.kubectl(&format!("delete pod {POD}"));
    cluster.wait_pod(POD);
    wait::until("the new pod writes", || (count(cluster) > 3).then_some(()));
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

/// Row 98: the API server does not answer for a while.
pub(crate) fn row_98_api_server_gone(cluster: &Cluster) {
    start(cluster);
    let before = count(cluster);
    cluster.enter(1, &["pkill", "-STOP", "kube-apiserver"]);
    thread::sleep(Duration::from_secs(20));
    cluster.enter(1, &["pkill", "-CONT", "kube-apiserver"]);
    wait::until("the pod has written on meanwhile", || {
        (count(cluster) > before + 50).then_some(())
    });
    goes_on(cluster, "after the API server is back");
    stop(cluster);
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
    let acknowledged = count(cluster);
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
        (count(cluster) > acknowledged).then_some(())
    });
    stop(cluster);
}

/// Row 87: accounts may do what they must, and nothing else.
pub(crate) fn row_87_rights(cluster: &Cluster) {
    for (account, verb, what, allowed) in [
        ("backing-image-manager", "get", "pods", "no"),
        ("backing-image-manager", "list", "secrets", "no"),
        ("longhorn-csi-plugin", "get", "nodes", "no"),
        ("longhorn-csi-plugin", "patch", "nodes", "no"),
        ("longhorn-csi-plugin", "list", "secrets", "no"),
        ("longhorn-csi-controller", "list", "secrets", "no"),
        ("longhorn-csi-controller", "patch", "nodes", "no"),
        ("longhorn-csi-controller", "create", "pods", "no"),
        (
            "longhorn-csi-controller",
            "delete",
            "persistentvolumeclaims",
            "no",
        ),
        (
            "longhorn-csi-controller",
            "create",
            "persistentvolumes",
            "yes",
        ),
    ] {
        let line = format!(
            "auth can-i {verb} {what} -A --as=system:serviceaccount:longhorn-system:{account}"
        );
        let said = cluster.try_kubectl(&line).stdout;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        assert_eq!(said, allowed, "{account}: {verb} {what}");
    }
}

/// Row 100: a StatefulSet goes to none and back: the same claim, the same data; and a claim that is
/// deleted at once leaves nothing.
pub(crate) fn row_100_claims_come_and_go(cluster: &Cluster) {
    start(cluster);
    cluster.kubectl("scale statefulset writer --replicas=0");
    cluster.wait_gone(&format!("pod {POD}"));
    cluster.kubectl("scale statefulset writer --replicas=1");
    cluster.wait_pod(POD);
    wait::until("it goes on where it was", || {
        (count(cluster) > 3).then_some(())
    });
    stop(cluster);
    for _ in 0..3 {
        cluster.apply("examples/blank_pvc.yaml");
        cluster.delete("examples/blank_pvc.yaml");
    }
    end(cluster, &[]);
}
