//! The examples, exactly as printed, and what a user sees.

use e2e::baseimage::{PARTY_WIZARD, WIZARD};
use e2e::cluster::Cluster;
use e2e::{Sandbox, wait};

use crate::registry;

/// No volume is left: in the API, on a node, on a disk.
pub(crate) fn nothing_is_left(cluster: &Cluster) {
    cluster.wait_gone("pv,volumeattachments");
    for node in 1..=cluster.nodes() {
        let volumes = "/var/lib/longhorn-base-image/volumes";
        // Of a claim that was deleted while its volume was made there is a volume before there is a PV of it,
        // and the PV is what has the volume deleted.
        wait::until(&format!("node {node} has no volume left"), || {
            let left = cluster.enter(node, &["find", volumes, "-mindepth", "1"]);
            left.is_empty().then_some(())
        });
        nothing_is_mounted(cluster, node);
    }
    cluster.wait_gone("pv,volumeattachments");
    // A release that has no such kind has no records.
    let kind = "get crd replicatedvolumes.baseimage.longhorn.io";
    if cluster.try_kubectl(kind).status.success() {
        cluster.wait_gone("replicatedvolumes");
    }
}

/// No volume of the driver is mounted on a node.
pub(crate) fn nothing_is_mounted(cluster: &Cluster, node: usize) {
    let mounts = cluster.enter(node, &["cat", "/proc/self/mountinfo"]);
    let left: Vec<&str> = mounts
        .lines()
        .filter(|line| line.contains("/var/lib/kubelet/") && line.contains("kubernetes.io/csi"))
        .collect();
    assert!(left.is_empty(), "node {node} has mounts left: {left:#?}");
}

/// Deletes what an example made.
pub(crate) fn end(cluster: &Cluster, files: &[&str]) {
    for file in files {
        cluster.delete(file);
    }
    nothing_is_left(cluster);
}

/// A blank volume is formatted, keeps what is written, and grows while it is used; ext4 does so when it
/// is mounted next, where the machine has not the capability that the kernel wants.
pub(crate) fn blank_expands(cluster: &Cluster) {
    let (blank, xfs) = ("examples/blank_pvc.yaml", "tests/kubernetes/xfs.yaml");
    for (file, name, size, megabytes) in
        [(blank, "blank", "128Mi", 100), (xfs, "xfs", "640Mi", 500)]
    {
        cluster.apply(file);
        cluster.wait_pod(name);
        assert!(!cluster.exec(name, "cat /data/since").trim().is_empty());
        ask_to_grow(cluster, name, size);
        if file == blank && !has_sys_resource() {
            println!("  ext4 grows with the next pod: no CAP_SYS_RESOURCE on this machine");
            claim_condition(cluster, name, "NodeResizeError");
            make_anew(cluster, name);
        }
        has_grown(cluster, name, size);
        claim_event(cluster, name, "VolumeGrown", "the volume has grown from");
        wait::until("the pod sees the larger file system", || {
            let shown = cluster.exec(name, "df -m /data | tail -1");
            let size: u32 = shown.split_whitespace().nth(1)?.parse().ok()?;
            (size > megabytes).then_some(())
        });
        end(cluster, &[file]);
    }
}

/// What `kubectl describe pvc` says of a claim.
pub(crate) fn claim_event(cluster: &Cluster, claim: &str, reason: &str, part: &str) {
    let of = format!("involvedObject.kind=PersistentVolumeClaim,involvedObject.name={claim}");
    wait::until(&format!("{claim} has an event {reason}"), || {
        let notes = cluster.kubectl(&format!(
            "get events --field-selector {of},reason={reason} -o jsonpath={{.items[*].message}}"
        ));
        notes.contains(part).then_some(())
    });
}

fn make_anew(cluster: &Cluster, pod: &str) {
    let sandbox = Sandbox::new("k8s-pod");
    let json = cluster.get(&format!("pod {pod}")).to_string();
    let file = sandbox.write("pod.json", json);
    cluster.kubectl(&format!("replace --force -f {}", file.display()));
    cluster.wait_pod(pod);
}

/// Whether this machine lets root grow an ext4 that is mounted: bit 24 of its capabilities.
fn has_sys_resource() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let capabilities = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
    capabilities & (1 << 24) != 0
}

fn claim_condition(cluster: &Cluster, claim: &str, condition: &str) {
    wait::until(&format!("the claim has the condition {condition}"), || {
        let claim = cluster.get(&format!("pvc {claim}"));
        let mut conditions = claim["status"]["conditions"].as_array()?.iter();
        conditions.find(|one| one["type"] == condition).map(|_| ())
    });
}

fn ask_to_grow(cluster: &Cluster, claim: &str, size: &str) {
    let patch =
        format!("{{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"{size}\"}}}}}}}}");
    cluster.kubectl(&format!("patch pvc {claim} -p {patch}"));
}

fn has_grown(cluster: &Cluster, claim: &str, size: &str) {
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
    ask_to_grow(cluster, "block", "96Mi");
    has_grown(cluster, "block", "96Mi");
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
                == PARTY_WIZARD.len().to_string()
        );
        let written = cluster.exec(pod, "touch /data/x 2>&1 || echo refused");
        assert!(written.contains("refused"), "{written}");
    }
    end(cluster, &[file]);
}

/// A virtual machine's disk: its partition table is the image's, and it is as large as its claim.
pub(crate) fn vm_disk(cluster: &Cluster) {
    let (file, guest) = ("examples/vm_disk.yaml", "tests/kubernetes/guest.yaml");
    registry::push_guest(cluster);
    cluster.apply(file);
    cluster.apply(guest);
    cluster.wait_pod("guest");
    let magic = "dd if=/dev/vda bs=512 skip=1 count=1 2>/dev/null | head -c 8";
    assert_eq!(cluster.exec("guest", magic), "EFI PART");
    let last = "dd if=/dev/vda bs=1M skip=5119 2>/dev/null | wc -c";
    assert_eq!(cluster.exec("guest", last).trim(), "1048576");
    end(cluster, &[guest, file]);
}

/// The documentation's FlexVolume pod and service. Its volume outlives the pod, as always with such
/// drivers, and is deleted by hand.
pub(crate) fn flexvolume(cluster: &Cluster) {
    let file = "examples/flexvolume/example_baseimage.yaml";
    cluster.apply(file);
    cluster.wait_pod("flexvol-baseimage");
    let service = cluster.get("service flexvol-baseimage");
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let url = format!("http://10.99.0.1:{port}/{WIZARD}");
    let served = wait::until("the service answers", || cluster.fetch(1, &url));
    assert!(served == PARTY_WIZARD, "{url} is not the wizard");
    let node = cluster.get("pod flexvol-baseimage")["spec"]["nodeName"].clone();
    cluster.delete(file);
    cluster.wait_gone("pod flexvol-baseimage");
    let manager = "pods -n longhorn-system -l longhorn.io/component=backing-image-manager";
    let on_node = format!("--field-selector=spec.nodeName={}", node.as_str().unwrap());
    let manager = cluster.kubectl(&format!("get {manager} {on_node} -o name"));
    let delete = "backing-image-manager volume delete --name flexvol";
    cluster.kubectl(&format!(
        "-n longhorn-system exec {} -c manager -- {delete}",
        manager.trim()
    ));
    nothing_is_left(cluster);
}
