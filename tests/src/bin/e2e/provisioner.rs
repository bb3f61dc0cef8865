//! The example of the documentation, and its duration compared with the usual way without base
//! images.

use std::time::{Duration, Instant};

use e2e::baseimage::{PARTY_WIZARD, WIZARD};
use e2e::cluster::Cluster;
use e2e::programs::sources;
use e2e::{Sandbox, wait};
use serde_json::Value;

use crate::examples::nothing_is_left;
use crate::faults::{WRITER, count, writes_past};
use crate::registry::{self, BASE_IMAGE};

const EXAMPLE: &str = "examples/provisioner_with_baseimage.yaml";
const INIT_CONTAINER: &str = "tests/kubernetes/init_container.yaml";

/// Two pods, each with a volume that begins as the base image: with an image that no disk has, then with
/// one that every disk has. Beside them the same pods whose init container copies the content.
pub(crate) fn provisioner(cluster: &Cluster) {
    let cold = until_both_run(cluster, EXAMPLE, "provisioner-baseimage");
    // No pod waits for its kubelet's next report.
    assert_eq!(attachments(cluster), 0);
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

/// Row 561: a running cluster changes to attachments and back, as docs/install.md says it. Pods of before write on, and
/// end and start afterwards; an attachment that nobody needs any more goes with the pod that had it. In between, the
/// example where volumes are attached.
pub(crate) fn row_561_attached_and_back(cluster: &Cluster) {
    const KEPT: &str = "writer-0";
    const MOVED: &str = "writer-1";
    cluster.apply(WRITER);
    cluster.kubectl("scale statefulset writer --replicas=2");
    for pod in [KEPT, MOVED] {
        cluster.wait_pod(pod);
        wait::until("the pod has written", || {
            (count(cluster, pod) > 3).then_some(())
        });
    }
    assert_eq!(attachments(cluster), 0);
    let uids = [KEPT, MOVED].map(|pod| uid(cluster, pod));

    apply_driver(cluster, "tests/kubernetes/attached");
    let changed = Instant::now();
    starts_again(cluster, MOVED);
    // The attach-detach controller looks at pods that run already every 3 minutes, and at any that changes.
    cluster.kubectl(&format!("annotate pod {KEPT} changed=something"));
    wait::until("both are attached", || {
        (attachments(cluster) == 2).then_some(())
    });
    println!(
        "  {:.1?} until running pods are attached",
        changed.elapsed()
    );
    writes_on(cluster, KEPT, &uids[0]);
    let moved = uid(cluster, MOVED);
    fetch_everywhere(cluster);
    let warm = until_both_run(cluster, EXAMPLE, "provisioner-baseimage");
    assert_eq!(attachments(cluster), 4);
    the_service_serves_the_wizard(cluster);
    pods_own_what_they_write(cluster);
    cluster.delete(EXAMPLE);
    cluster.kubectl("delete --wait=false pvc -l app=provisioner-baseimage");
    cluster.wait_gone("pv,pvc -l app=provisioner-baseimage");
    println!("  from apply to both pods ready, attached, warm image: {warm:.1?}");

    apply_driver(cluster, "tests/kubernetes/overlay");
    writes_on(cluster, KEPT, &uids[0]);
    writes_on(cluster, MOVED, &moved);
    // A kubelet that starts anew has forgotten how it mounted what is there.
    for node in 1..=cluster.nodes() {
        cluster.restart_kubelet(node);
    }
    writes_on(cluster, KEPT, &uids[0]);
    writes_on(cluster, MOVED, &moved);
    starts_again(cluster, MOVED);
    let pods = [KEPT, MOVED].map(|pod| (pod, count(cluster, pod)));
    let changed = Instant::now();
    // These start again when that is done: a kubelet that mounts for the next pod before it has let go for the last one
    // goes on telling that the volume is in use, and Kubernetes waits for 6 minutes.
    cluster.kubectl("scale statefulset writer --replicas=0");
    wait::until("no attachment is left", || {
        (attachments(cluster) == 0).then_some(())
    });
    println!(
        "  {:.1?} until the attachments of pods that ended are gone",
        changed.elapsed()
    );
    cluster.kubectl("scale statefulset writer --replicas=2");
    for (pod, written) in pods {
        cluster.wait_pod(pod);
        writes_past(cluster, pod, written);
    }
    cluster.delete(WRITER);
    cluster.kubectl("delete --wait=false pvc -l app=writer");
    nothing_is_left(cluster);
}

fn attachments(cluster: &Cluster) -> usize {
    let all = cluster.get("volumeattachments");
    all["items"].as_array().unwrap().len()
}

fn uid(cluster: &Cluster, pod: &str) -> Value {
    cluster.get(&format!("pod {pod}"))["metadata"]["uid"].clone()
}

/// It is the same pod, it was not restarted, and it writes.
fn writes_on(cluster: &Cluster, pod: &str, before: &Value) {
    let written = count(cluster, pod);
    wait::until(&format!("{pod} writes on"), || {
        (count(cluster, pod) > written + 3).then_some(())
    });
    let now = cluster.get(&format!("pod {pod}"));
    assert_eq!(now["metadata"]["uid"], *before, "{pod} is another pod");
    let restarts = &now["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(*restarts, 0, "{pod} was restarted");
}

/// A pod is deleted, and the next one goes on with what it had written.
fn starts_again(cluster: &Cluster, pod: &str) {
    let written = count(cluster, pod);
    cluster.kubectl(&format!("delete pod {pod}"));
    cluster.wait_pod(pod);
    writes_past(cluster, pod, written);
}

/// As docs/install.md says it: whether volumes are attached cannot be changed of a driver that is there.
pub(crate) fn apply_driver(cluster: &Cluster, overlay: &str) {
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
