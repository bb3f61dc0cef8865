//! Volumes that ask for several replicas, in a cluster whose kernels have no DRBD: they have one, and say why.

use e2e::cluster::Cluster;
use e2e::programs::sources;
use e2e::wait;

use crate::examples::{claim_event, end};

const FILE: &str = "tests/kubernetes/replicas.yaml";

/// Row 300: a volume of one replica where three were asked for. Its record, its conditions and an Event of its claim say
/// why, where replication is off and where it is on. Row 301: one that requires all of them is not made.
pub(crate) fn row_300_without_drbd_a_volume_says_why(cluster: &Cluster) {
    one_says_why(cluster, false);
    // With replication enabled the plugins get their certificates and are reached in the network of their nodes.
    install(cluster, "tests/kubernetes/replicated");
    let plugins = cluster.get("pods -n longhorn-system -l app=longhorn-csi-plugin");
    for pod in plugins["items"].as_array().unwrap() {
        assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"]);
    }
    one_says_why(cluster, true);
    install(cluster, "tests/kubernetes/overlay");
}

fn install(cluster: &Cluster, overlay: &str) {
    let overlay = sources().join(overlay);
    // Replicated volumes need attachments, and the others do not: docs/replication.md#enable-it.
    cluster.kubectl("delete csidriver driver.longhorn.io");
    cluster.kubectl(&format!("apply -k {}", overlay.display()));
    let plugin = "daemonset/longhorn-csi-plugin";
    cluster.kubectl(&format!(
        "rollout status {plugin} -n longhorn-system --timeout=180s"
    ));
}

/// `attached`: whether the record is told who uses the volume.
fn one_says_why(cluster: &Cluster, attached: bool) {
    cluster.apply(FILE);
    cluster.wait_pod("replicas");
    assert!(
        !cluster
            .exec("replicas", "cat /data/since")
            .trim()
            .is_empty()
    );
    let claim = cluster.get("pvc replicas");
    let volume = claim["spec"]["volumeName"].as_str().unwrap();
    for (condition, value) in [("Available", "true"), ("Healthy", "false")] {
        cluster.kubectl(&format!(
            "wait rv/{volume} --for=condition={condition}={value} --timeout=60s"
        ));
    }
    let table = cluster.kubectl(&format!("get rv {volume}"));
    let mut rows = table.lines().map(|row| row.split_whitespace());
    let head: Vec<_> = rows.next().unwrap().collect();
    assert_eq!(
        head,
        ["NAME", "SIZE", "REPLICAS", "HOLDER", "STATE", "AGE"],
        "{table}"
    );
    let row: Vec<_> = rows.next().unwrap().collect();
    let pod = cluster.get("pod replicas");
    let node = pod["spec"]["nodeName"].as_str().unwrap();
    let holder = attached.then_some(node);
    let expected: Vec<_> = [volume, "64Mi", "1/3"]
        .into_iter()
        .chain(holder)
        .chain(["Degraded"])
        .collect();
    assert_eq!(row[..expected.len()], expected, "{table}");
    // Each node was asked, and this is what it says of itself.
    let why = "nodes n1, n2: this node cannot take part in replicated volumes: the module drbd";
    wait::until(&format!("the record says: {why}"), || {
        let record = cluster.get(&format!("rv {volume}"));
        assert!(record["spec"]["address"].is_null(), "{record}");
        let message = record["status"]["message"].as_str()?;
        (record["status"]["reason"] == "NoDrbd" && message.contains(why)).then_some(())
    });
    claim_event(cluster, "replicas", "VolumeDegraded", "1 of 3 replicas");
    claim_event(
        cluster,
        "replicas-required",
        "ProvisioningFailed",
        "1 of 3 replicas",
    );
    // Nothing of the refused one is anywhere.
    let records = cluster.get("rv");
    assert_eq!(records["items"].as_array().unwrap().len(), 1, "{records}");
    end(cluster, &[FILE]);
    let secrets = cluster.kubectl("get secrets -n longhorn-system -o name");
    assert!(!secrets.contains("replicated-volume"), "{secrets}");
}
