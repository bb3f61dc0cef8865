//! From the release before to this one and back, by Helm, while pods write.

use std::path::Path;
use std::time::Instant;

use e2e::cluster::Cluster;
use e2e::programs::sources;
use e2e::{command, wait};
use serde_json::Value;

use crate::examples::nothing_is_left;
use crate::faults::{WRITER, count, writes_past};
use crate::install::is_ready;
use crate::stranger::{Shell, nothing_of_ours};

const RELEASE: &str = "longhorn-base-image --namespace longhorn-system";
const BLANK: &str = "examples/blank_pvc.yaml";
/// One on each node.
const PODS: [&str; 2] = ["writer-0", "writer-1"];

/// Row 271: the release before speaks plain, this one TLS. Pods of both nodes write through the upgrade and the
/// rollback without an error; with each version new claims are served, and old pods end and start.
pub(crate) fn row_271_helm_upgrade(cluster: &Cluster) {
    let before = command::run(
        &sources()
            .join("tests/kubernetes/before")
            .display()
            .to_string(),
        [""; 0],
    );
    let before = Path::new(before.trim());
    let images = ["backing-image-manager", "longhorn-csi-plugin"];
    cluster.load(&images.map(|name| before.join("images").join(name).with_extension("tar")));
    let shell = Shell::new();
    let chart = before.join("chart");
    shell.run(&format!(
        "helm install {RELEASE} --create-namespace {} --set image.tag=before",
        chart.display()
    ));
    is_ready(cluster);
    // Asked for again when they are missed. That release says "none" of a node whose manager has just started, and
    // its provisioner asks again each minute.
    cluster.kubectl("-n longhorn-system delete csistoragecapacities --all");

    cluster.apply(WRITER);
    cluster.kubectl(&format!(
        "scale statefulset writer --replicas={}",
        cluster.nodes()
    ));
    let pods = &PODS[..cluster.nodes()];
    for pod in pods {
        cluster.wait_pod(pod);
        wait::until("the pod has written", || {
            (count(cluster, pod) > 3).then_some(())
        });
    }
    let writers = Writers {
        cluster,
        before: pods.iter().map(|pod| (*pod, uid(cluster, pod))).collect(),
    };

    // Without values: what the release before was given, a tag of its images, is not for this one.
    let upgrade = format!("helm upgrade {RELEASE} deploy/helm/longhorn-base-image --reset-values");
    writers.write_while("this version is installed", || {
        shell.run(&upgrade);
    });
    // What the release before has, and Kubernetes lets nobody change, is kept; a rollback changes nothing of it either.
    let driver = cluster.get("csidriver driver.longhorn.io");
    assert_eq!(driver["spec"]["attachRequired"], true);
    let [first, others @ ..] = pods else {
        unreachable!()
    };
    is_served(cluster, first);
    // Those that nobody has touched since the first version.
    let writers = Writers {
        cluster,
        before: others.iter().map(|pod| (*pod, uid(cluster, pod))).collect(),
    };
    writers.write_while("the release before is back", || {
        shell.run(&format!("helm rollback {RELEASE}"));
    });
    is_served(cluster, first);

    cluster.delete(WRITER);
    cluster.kubectl("delete --wait=false pvc -l app=writer");
    nothing_is_left(cluster);
    shell.run(&format!("helm uninstall {RELEASE}"));
    // The chart leaves the kind of its records, with all of them; the next step wants a cluster that never had it.
    cluster.kubectl("delete crd replicatedvolumes.baseimage.longhorn.io");
    cluster.kubectl("delete namespace longhorn-system");
    nothing_of_ours(cluster);
}

/// Pods that write, and their uids.
struct Writers<'a> {
    cluster: &'a Cluster,
    before: Vec<(&'static str, Value)>,
}

impl Writers<'_> {
    /// They write while something is done, until all programs of ours are the new ones, and afterwards; none has
    /// failed to, and none is another pod.
    fn write_while(&self, what: &str, act: impl FnOnce()) {
        let start = Instant::now();
        act();
        is_ready(self.cluster);
        println!("  {:.1?} until {what}", start.elapsed());
        for (pod, uid) in &self.before {
            let written = count(self.cluster, pod);
            wait::until(&format!("{pod} writes after {what}"), || {
                (count(self.cluster, pod) > written + 3).then_some(())
            });
            let now = self.cluster.get(&format!("pod {pod}"));
            assert_eq!(
                now["metadata"]["uid"], *uid,
                "{pod} is another pod since {what}"
            );
            let restarts = &now["status"]["containerStatuses"][0]["restartCount"];
            assert_eq!(*restarts, 0, "{pod} could not write while {what}");
        }
    }
}

fn uid(cluster: &Cluster, pod: &str) -> Value {
    cluster.get(&format!("pod {pod}"))["metadata"]["uid"].clone()
}

/// A new claim gets a volume, and goes with it; a pod of old ends, and starts again with what it had written.
fn is_served(cluster: &Cluster, pod: &str) {
    cluster.apply(BLANK);
    let written = count(cluster, pod);
    cluster.kubectl(&format!("delete pod {pod}"));
    cluster.wait_pod(pod);
    writes_past(cluster, pod, written);
    cluster.wait_pod("blank");
    cluster.delete(BLANK);
    cluster.wait_gone("pod blank");
    cluster.wait_gone("pvc blank");
}
