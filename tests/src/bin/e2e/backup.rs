//! Backups as an operator has them: scheduled, to an object store, and back into a cluster that has lost all.

use e2e::baseimage::{PARTY_WIZARD, WIZARD};
use e2e::cluster::Cluster;
use e2e::programs::sources;
use e2e::{Sandbox, wait};
use serde_json::Value;

use crate::examples::nothing_is_left;

const STORE: &str = "tests/kubernetes/s3.yaml";
const APPLICATION: &str = "examples/provisioner_with_baseimage.yaml";
const SCHEDULE: &str = "examples/scheduled_backup.yaml";
const RESTORE: &str = "examples/restore_backup.yaml";
/// What the first pod writes after the first backup.
const PAGE: &str = "/usr/share/nginx/html/mine";

/// Row 389: the namespace of an application is deleted with its volumes, and every image with it. Its scheduled
/// backups outlive it: the first volume comes back from the last one, and the application serves what it served.
pub(crate) fn row_389_a_namespace_comes_back(cluster: &Cluster) {
    cluster.apply(STORE);
    cluster.kubectl("-n object-store wait pod/s3 --for=condition=Ready --timeout=60s");
    cluster.kubectl("create namespace site");
    apply_in_site(cluster, APPLICATION);
    for number in 0..2 {
        wait_pod(cluster, number);
    }
    apply_in_site(cluster, SCHEDULE);
    cluster.kubectl("-n site label pvc --all backup=daily");
    back_up(cluster, "first");
    in_first_pod(cluster, &format!("echo zero > {PAGE}; sync"));
    // Of which each claim keeps one.
    cluster.kubectl("-n site set env cronjob/backup KEEP=1");
    back_up(cluster, "second");
    let backups = wait::until("the first backups are gone", || {
        let backups = complete_backups(cluster);
        (backups.len() == 2).then_some(backups)
    });
    let claim = cluster.get("-n site pvc www-provisioner-baseimage-0");
    let volume = claim["spec"]["volumeName"].as_str().unwrap().to_owned();
    let last = backups.iter().find(|backup| backup["volume"] == *volume);
    let last = last.unwrap_or_else(|| panic!("no backup of {volume}: {backups:#?}"));
    assert_eq!(last["incremental"], true, "{last}");
    lose_everything(cluster);
    assert_eq!(
        complete_backups(cluster),
        backups,
        "backups outlive their volumes"
    );
    cluster.kubectl("create namespace site");
    let handle = format!("bak://{volume}/{}", last["name"].as_str().unwrap());
    let written = std::fs::read_to_string(sources().join(RESTORE)).unwrap();
    let sandbox = Sandbox::new("k8s-restore");
    let file = sandbox.write(
        "restore.yaml",
        written.replace("bak://VOLUME/BACKUP", &handle),
    );
    cluster.kubectl(&format!("apply -f {}", file.display()));
    apply_in_site(cluster, APPLICATION);
    for number in 0..2 {
        wait_pod(cluster, number);
    }
    assert_eq!(in_first_pod(cluster, &format!("cat {PAGE}")).trim(), "zero");
    serves_the_wizard(cluster);
    lose_everything(cluster);
    cluster.delete(STORE);
    cluster.kubectl("delete clusterrole,clusterrolebinding backup-expiry");
    cluster.wait_gone("namespace object-store");
}

fn apply_in_site(cluster: &Cluster, file: &str) {
    cluster.kubectl(&format!(
        "-n site apply -f {}",
        sources().join(file).display()
    ));
}

fn wait_pod(cluster: &Cluster, number: usize) {
    let pod = format!("provisioner-baseimage-{number}");
    wait::until(&format!("pod {pod} is made"), || {
        let got = cluster.try_kubectl(&format!("-n site get pod {pod}"));
        got.status.success().then_some(())
    });
    let line = format!("-n site wait pod/{pod} --for=condition=Ready --timeout=180s");
    if !cluster.try_kubectl(&line).status.success() {
        eprintln!(
            "{}",
            cluster.kubectl("-n site describe pods,pvc,volumesnapshots")
        );
        eprintln!("{}", cluster.kubectl("describe volumesnapshotcontents"));
        panic!("pod {pod} is not ready");
    }
}

fn in_first_pod(cluster: &Cluster, command: &str) -> String {
    cluster.exec_in("site", "provisioner-baseimage-0", command)
}

/// What the schedule does at night, now.
fn back_up(cluster: &Cluster, job: &str) {
    cluster.kubectl(&format!("-n site create job {job} --from=cronjob/backup"));
    let line = format!("-n site wait job/{job} --for=condition=complete --timeout=240s");
    if !cluster.try_kubectl(&line).status.success() {
        eprintln!(
            "{}",
            cluster.kubectl(&format!("-n site describe job/{job}"))
        );
        eprintln!("{}", cluster.kubectl(&format!("-n site logs job/{job}")));
        eprintln!("{}", cluster.kubectl("-n site describe volumesnapshots"));
        eprintln!("{}", cluster.kubectl("describe volumesnapshotcontents"));
        panic!("job {job} is not complete");
    }
}

/// What the store has, as a manager lists it.
fn complete_backups(cluster: &Cluster) -> Vec<Value> {
    let manager = "daemonset/backing-image-manager -c manager";
    let list = "backing-image-manager backup list -o json";
    let listed = cluster.kubectl(&format!("-n longhorn-system exec {manager} -- {list}"));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let backups = listed.as_array().unwrap();
    for backup in backups {
        assert_eq!(backup["state"], "complete", "{backup}");
    }
    backups.clone()
}

/// The namespace and all that stood for its backups in the API, then every image of every disk: what a new cluster
/// has is the store.
fn lose_everything(cluster: &Cluster) {
    cluster.kubectl("delete namespace site");
    cluster.kubectl("delete volumesnapshotcontents --all");
    nothing_is_left(cluster);
    let managers = "pods -n longhorn-system -l longhorn.io/component=backing-image-manager -o name";
    for pod in cluster.kubectl(&format!("get {managers}")).lines() {
        let manager = format!("-n longhorn-system exec {pod} -c manager -- backing-image-manager");
        let listed = cluster.kubectl(&format!("{manager} backing-image list"));
        let listed: Value = serde_json::from_str(&listed).unwrap();
        for (name, image) in listed.as_object().unwrap() {
            let uuid = image["uuid"].as_str().unwrap_or_default();
            let delete = format!("backing-image delete --name {name} --uuid {uuid}");
            cluster.kubectl(&format!("{manager} {delete}"));
        }
    }
}

fn serves_the_wizard(cluster: &Cluster) {
    let service = cluster.get("-n site service csi-baseimage");
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let url = format!("http://10.99.0.1:{port}/{WIZARD}");
    let served = wait::until("the service answers", || cluster.fetch(1, &url));
    assert!(served == PARTY_WIZARD, "{url} is not the wizard");
}
