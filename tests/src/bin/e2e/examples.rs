//! The examples, exactly as printed, and what a user sees.

use std::time::Instant;

use e2e::baseimage::WIZARD;
use e2e::cluster::Cluster;
use e2e::{gif, wait};

const PROVISIONER: &str = "examples/provisioner_with_baseimage.yaml";

/// The documentation's example: two pods, each with a volume that begins as the base image.
pub(crate) fn provisioner(cluster: &Cluster) {
    for temperature in ["cold", "warm"] {
        let start = Instant::now();
        cluster.apply(PROVISIONER);
        for pod in ["provisioner-baseimage-0", "provisioner-baseimage-1"] {
            cluster.wait_pod(pod);
        }
        println!(
            "  both pods ready, {temperature} image: {:.1?}",
            start.elapsed()
        );
        if temperature == "cold" {
            the_service_serves_the_wizard(cluster);
            pods_own_what_they_write(cluster);
        }
        cluster.delete(PROVISIONER);
        cluster.kubectl("delete --wait=false pvc -l app=provisioner-baseimage");
        nothing_is_left(cluster);
    }
}

fn the_service_serves_the_wizard(cluster: &Cluster) {
    let service = cluster.get("service csi-baseimage");
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    for node in 1..=cluster.nodes() {
        let url = format!("http://10.99.0.{node}:{port}/{WIZARD}");
        // kube-proxy hears of a new service a moment later.
        let served = wait::until("the service answers", || cluster.fetch(node, &url));
        assert!(served == gif::party_wizard(), "{url} is not the wizard");
    }
    for number in 0..2 {
        let pod = cluster.get(&format!("pod provisioner-baseimage-{number}"));
        let address = pod["status"]["podIP"].as_str().unwrap();
        let url = format!("http://{address}/{WIZARD}");
        assert!(cluster.fetch(1, &url) == Some(gif::party_wizard()), "{url}");
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

/// No volume is left: in the API, on a node, on a disk.
pub(crate) fn nothing_is_left(cluster: &Cluster) {
    cluster.wait_gone("pv,volumeattachments");
    for node in 1..=cluster.nodes() {
        let volumes = "/var/lib/longhorn-base-image/volumes";
        let left = cluster.enter(node, &["find", volumes, "-mindepth", "1"]);
        assert!(left.is_empty(), "node {node} has volumes left: {left}");
        let mounts = cluster.enter(node, &["cat", "/proc/self/mountinfo"]);
        assert!(
            !mounts.contains("kubernetes.io/csi"),
            "node {node}: {mounts}"
        );
    }
}

/// Deletes what an example made.
pub(crate) fn end(cluster: &Cluster, files: &[&str]) {
    for file in files {
        cluster.delete(file);
    }
    nothing_is_left(cluster);
}

/// A blank volume is formatted, keeps what is written, and grows while it is used.
pub(crate) fn blank_expands(cluster: &Cluster) {
    let file = "examples/blank_pvc.yaml";
    cluster.apply(file);
    cluster.wait_pod("blank");
    assert!(!cluster.exec("blank", "cat /data/since").trim().is_empty());
    grow(cluster, "blank", "128Mi");
    wait::until("the pod sees the larger file system", || {
        let shown = cluster.exec("blank", "df -m /data | tail -1");
        let size: u32 = shown.split_whitespace().nth(1)?.parse().ok()?;
        (size > 100).then_some(())
    });
    end(cluster, &[file]);
}

fn grow(cluster: &Cluster, claim: &str, size: &str) {
    let patch =
        format!("{{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"{size}\"}}}}}}}}");
    cluster.kubectl(&format!("patch pvc {claim} -p {patch}"));
    wait::until("the claim has grown", || {
        let claim = cluster.get(&format!("pvc {claim}"));
        (claim["status"]["capacity"]["storage"] == size).then_some(())
    });
}

/// A block device: nobody formats it, and it keeps its bytes when the pod goes.
pub(crate) fn block(cluster: &Cluster) {
    let file = "examples/block_pvc.yaml";
    cluster.apply(file);
    cluster.wait_pod("block");
    let read = "dd if=/dev/xvda bs=9 count=1 2>/dev/null";
    wait::until("the bytes are there", || {
        (cluster.exec("block", read) == "raw bytes").then_some(())
    });
    grow(cluster, "block", "96Mi");
    wait::until("the device is larger", || {
        let size = cluster.exec("block", "dd if=/dev/xvda of=/dev/null bs=1M 2>&1 | head -1");
        size.starts_with("96+0").then_some(())
    });
    end(cluster, &[file]);
}

/// A restored volume holds what the snapshot saw, not what came later.
pub(crate) fn snapshot_and_restore(cluster: &Cluster) {
    let (blank, file) = ("examples/blank_pvc.yaml", "examples/snapshot_restore.yaml");
    cluster.apply(blank);
    cluster.wait_pod("blank");
    let since = wait::until("the pod has written", || {
        let said = cluster.exec("blank", "cat /data/since");
        (!said.is_empty()).then_some(said)
    });
    cluster.exec("blank", "sync");
    cluster.apply(file);
    wait::until("the snapshot is ready", || {
        let snapshot = cluster.get("volumesnapshot blank");
        (snapshot["status"]["readyToUse"] == true).then_some(())
    });
    cluster.exec("blank", "echo later > /data/since; sync");
    cluster.wait_pod("restored");
    assert_eq!(cluster.exec("restored", "cat /data/since"), since);
    end(cluster, &[file, blank]);
}

/// A clone holds what its source held.
pub(crate) fn clone(cluster: &Cluster) {
    let (blank, file) = ("examples/blank_pvc.yaml", "examples/clone.yaml");
    cluster.apply(blank);
    cluster.wait_pod("blank");
    let since = wait::until("the pod has written", || {
        let said = cluster.exec("blank", "cat /data/since");
        (!said.is_empty()).then_some(said)
    });
    cluster.exec("blank", "sync");
    cluster.apply(file);
    cluster.wait_pod("clone");
    assert_eq!(cluster.exec("clone", "cat /data/since"), since);
    end(cluster, &[file, blank]);
}

/// Many pods read one volume.
pub(crate) fn shared_dataset(cluster: &Cluster) {
    let file = "examples/shared_dataset.yaml";
    cluster.apply(file);
    let line = "rollout status deployment/readers --timeout=120s";
    let status = cluster.try_kubectl(line);
    assert!(
        status.status.success(),
        "{}",
        cluster.kubectl("describe pods -l app=readers")
    );
    for pod in cluster.get("pods -l app=readers")["items"]
        .as_array()
        .unwrap()
    {
        let pod = pod["metadata"]["name"].as_str().unwrap();
        assert!(
            cluster
                .exec(pod, "cat /data/guests/hd/party-wizard.gif | wc -c")
                .trim()
                == gif::party_wizard().len().to_string()
        );
        let written = cluster.exec(pod, "touch /data/x 2>&1 || echo refused");
        assert!(written.contains("refused"), "{written}");
    }
    end(cluster, &[file]);
}

/// A claim without its secret says why it waits; nothing is stored of one.
pub(crate) fn private_registry(cluster: &Cluster) {
    let file = "examples/private_registry.yaml";
    let said = cluster.kubectl(&format!(
        "apply --dry-run=server --validate=strict -f {}",
        e2e::programs::sources().join(file).display()
    ));
    assert!(
        said.contains("storageclass.storage.k8s.io/private-site"),
        "{said}"
    );
}

/// The documentation's FlexVolume pod and service.
pub(crate) fn flexvolume(cluster: &Cluster) {
    let file = "examples/flexvolume/example_baseimage.yaml";
    if !e2e::programs::sources().join(file).exists() {
        println!("  skipped: {file} is not there yet");
        return;
    }
    cluster.apply(file);
    cluster.wait_pod("flexvol-baseimage");
    let service = cluster.get("service flexvol-baseimage");
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let url = format!("http://10.99.0.1:{port}/{WIZARD}");
    let served = wait::until("the service answers", || cluster.fetch(1, &url));
    assert!(served == gif::party_wizard(), "{url} is not the wizard");
    cluster.delete(file);
    cluster.wait_gone("pod flexvol-baseimage");
}
