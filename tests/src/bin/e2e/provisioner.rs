//! The example of the documentation, and its duration compared with the usual way without base
//! images.

use std::time::{Duration, Instant};

use e2e::baseimage::{PARTY_WIZARD, WIZARD};
use e2e::cluster::Cluster;
use e2e::programs::sources;
use e2e::{Sandbox, wait};
use serde_json::json;

use crate::examples::nothing_is_left;
use crate::registry::{self, BASE_IMAGE};

const EXAMPLE: &str = "examples/provisioner_with_baseimage.yaml";
const INIT_CONTAINER: &str = "tests/kubernetes/init_container.yaml";

/// Two pods, each with a volume that begins as the base image: with an image that no disk has, then with
/// one that every disk has. Beside them the same pods whose init container copies the content.
pub(crate) fn provisioner(cluster: &Cluster) {
    let cold = until_both_run(cluster, EXAMPLE, "provisioner-baseimage");
    the_service_serves_the_wizard(cluster);
    pods_own_what_they_write(cluster);
    end(cluster);
    fetch_everywhere(cluster);
    let warm = until_both_run(cluster, EXAMPLE, "provisioner-baseimage");
    end(cluster);
    let sandbox = Sandbox::new("k8s-content-image");
    registry::push_content(cluster, sandbox.dir());
    let [cold_copy, warm_copy] = [(); 2].map(|()| {
        let taken = until_both_run(cluster, INIT_CONTAINER, "init-container");
        cluster.delete(INIT_CONTAINER);
        cluster.wait_gone("pods -l app=init-container");
        taken
    });
    println!("  from apply to both pods ready     cold image   warm image");
    println!("  volumes of the base image         {cold:>10.1?}   {warm:>10.1?}");
    println!("  init container and emptyDir       {cold_copy:>10.1?}   {warm_copy:>10.1?}");
}

/// The example where nothing is attached: no pod waits for its kubelet's next report.
pub(crate) fn unattached(cluster: &Cluster) {
    apply_driver(cluster, "tests/kubernetes/unattached");
    fetch_everywhere(cluster);
    let started = until_both_run(cluster, EXAMPLE, "provisioner-baseimage");
    assert_eq!(cluster.get("volumeattachments")["items"], json!([]));
    the_service_serves_the_wizard(cluster);
    pods_own_what_they_write(cluster);
    let end_begun = Instant::now();
    end(cluster);
    let ended = end_begun.elapsed();
    println!(
        "  from apply to both pods ready, nothing attached: {started:.1?}; and gone: {ended:.1?}"
    );
    apply_driver(cluster, "tests/kubernetes/overlay");
}

/// As docs/install.md says it: whether volumes are attached cannot be changed of a driver that is there.
fn apply_driver(cluster: &Cluster, overlay: &str) {
    cluster.kubectl("delete csidriver driver.longhorn.io");
    let overlay = sources().join(overlay);
    cluster.kubectl(&format!("apply -k {}", overlay.display()));
}

fn until_both_run(cluster: &Cluster, file: &str, set: &str) -> Duration {
    let start = Instant::now();
    cluster.apply(file);
    for number in 0..2 {
        cluster.wait_pod(&format!("{set}-{number}"));
    }
    start.elapsed()
}

fn end(cluster: &Cluster) {
    cluster.delete(EXAMPLE);
    cluster.kubectl("delete --wait=false pvc -l app=provisioner-baseimage");
    nothing_is_left(cluster);
}

/// As an operator does who wants no pod to wait: every disk gets the image before.
pub(crate) fn fetch_everywhere(cluster: &Cluster) {
    let line = "pods -n longhorn-system -l longhorn.io/component=backing-image-manager -o name";
    for pod in cluster.kubectl(&format!("get {line}")).lines() {
        let create = "backing-image-manager backing-image create --wait --registry";
        cluster.kubectl(&format!(
            "-n longhorn-system exec {pod} -c manager -- {create} {BASE_IMAGE}"
        ));
    }
}

pub(crate) fn the_service_serves_the_wizard(cluster: &Cluster) {
    let service = cluster.get("service csi-baseimage");
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    for node in 1..=cluster.nodes() {
        let url = format!("http://10.99.0.{node}:{port}/{WIZARD}");
        // kube-proxy hears of a new service a moment later.
        let served = wait::until("the service answers", || cluster.fetch(node, &url));
        assert!(served == PARTY_WIZARD, "{url} is not the wizard");
    }
    for number in 0..2 {
        let pod = cluster.get(&format!("pod provisioner-baseimage-{number}"));
        let address = pod["status"]["podIP"].as_str().unwrap();
        let url = format!("http://{address}/{WIZARD}");
        assert!(
            cluster.fetch(1, &url) == Some(PARTY_WIZARD.to_vec()),
            "{url}"
        );
    }
}

fn pods_own_what_they_write(cluster: &Cluster) {
    let (zero, one) = ("provisioner-baseimage-0", "provisioner-baseimage-1");
    let file = "/usr/share/nginx/html/mine";
    cluster.exec(zero, &format!("echo zero > {file}; sync"));
    let seen = cluster.exec(one, &format!("cat {file} 2>/dev/null || echo nothing"));
    assert_eq!(seen.trim(), "nothing");
    let uid = |pod: &str| cluster.get(&format!("pod {pod}"))["metadata"]["uid"].clone();
    let before = uid(zero);
    cluster.kubectl(&format!("delete pod {zero}"));
    wait::until("the pod is made anew", || {
        let made = cluster.try_kubectl(&format!("get pod {zero} -o name"));
        (made.status.success() && uid(zero) != before).then_some(())
    });
    cluster.wait_pod(zero);
    assert_eq!(cluster.exec(zero, &format!("cat {file}")).trim(), "zero");
}
