//! Installs the project as an operator does, and uninstalls it.

use std::path::PathBuf;

use e2e::cluster::{Cluster, pack_images};
use e2e::programs::{self, sources};
use e2e::{Sandbox, wait};

use crate::examples::nothing_is_mounted;
use crate::registry;
use crate::stranger::Shell;

/// The container images of the programs, and of everything else that a pod of a test runs.
pub(crate) fn pack() -> Vec<PathBuf> {
    let (package, manager) = (programs::package(), programs::manager());
    let target = manager.parent().unwrap().display();
    // A dynamic one runs as well where the nodes are this machine.
    let driver = programs::static_flexvolume().unwrap_or_else(programs::flexvolume);
    let inputs = [
        format!("target={target}"),
        format!("static={}", driver.parent().unwrap().display()),
        format!("k8s={}", tools()),
        format!("tools={}/../../bin", tools()),
    ];
    let output = std::env::temp_dir().join("longhorn-cluster-images");
    let recipes = ["deploy/images", "tests/kubernetes/images"];
    pack_images(&package, &recipes, &inputs, &output)
}

/// Where tests/kubernetes/build puts programs.
pub(crate) fn tools() -> String {
    let tools = std::env::var("TOOLS").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/longhorn-base-image/tools")
    });
    format!("{tools}/k8s/bin")
}

/// Loads the images, and fills the registry.
pub(crate) fn prepare(cluster: &Cluster, images: &[PathBuf]) {
    cluster.load(images);
    // The examples name two versions of one image.
    let nginx = "docker.io/library/nginx";
    cluster.tag(
        &format!("{nginx}:1.27-alpine"),
        &format!("{nginx}:stable-alpine"),
    );
    registry::push_base_image(cluster);
}

/// Applies the CRDs of snapshots and the manifests with every part, and waits for the pods.
pub(crate) fn install(cluster: &Cluster) {
    cluster.kubectl(&format!("apply --server-side -f {}/../crd", tools()));
    let overlay = sources().join("tests/kubernetes/overlay");
    cluster.kubectl(&format!("apply -k {}", overlay.display()));
    is_ready(cluster);
}

/// Waits until every pod of ours is there as it was applied last, and every kubelet knows the plugin.
pub(crate) fn is_ready(cluster: &Cluster) {
    for what in [
        "daemonset/backing-image-manager",
        "daemonset/longhorn-csi-plugin",
        "deployment/longhorn-csi-controller",
    ] {
        let line = format!("-n longhorn-system rollout status {what} --timeout=120s");
        if !cluster.try_kubectl(&line).status.success() {
            eprintln!("{}", cluster.kubectl("-n longhorn-system describe pods"));
            panic!("{what} is not ready");
        }
    }
    wait::until("the plugin is registered on every node", || {
        let nodes = cluster.get("csinodes");
        let registered = nodes["items"].as_array()?.iter().filter(|node| {
            let drivers = node["spec"]["drivers"].as_array();
            drivers.is_some_and(|drivers| {
                drivers
                    .iter()
                    .any(|driver| driver["name"] == "driver.longhorn.io")
            })
        });
        (registered.count() == cluster.nodes()).then_some(())
    });
}

/// The manifests pass the strict validation of the API server: what `kustomize` builds and what the
/// Helm chart renders.
pub(crate) fn manifests_are_what_the_api_server_takes(cluster: &Cluster) {
    let overlay = sources().join("deploy/kustomize/overlays/default");
    let dry = "apply --dry-run=server --validate=strict";
    let said = cluster.kubectl(&format!("{dry} -k {}", overlay.display()));
    assert!(
        said.contains("csidriver.storage.k8s.io/driver.longhorn.io"),
        "{said}"
    );
}

/// The chart passes `helm lint`, and what it renders with every part switched on passes the API server.
#[expect(clippy::too_many_lines, reason = "one chart after the other")]
pub(crate) fn row_219_the_chart_is_checked(cluster: &Cluster) {
    let helm = format!("{}/helm", tools());
    let chart = sources().join("deploy/helm/longhorn-base-image");
    let chart = chart.display().to_string();
    e2e::command::run(&helm, ["lint", "--strict", &chart]);
    let sandbox = Sandbox::new("k8s-chart");
    let node = cluster.get("node n1");
    let version = node["status"]["nodeInfo"]["kubeletVersion"]
        .as_str()
        .unwrap();
    for (name, values) in [
        ("default", ""),
        (
            "everything",
            "flexvolume.enabled=true,rancherAlias.enabled=true,snapshots.enabled=true,groupSnapshots.enabled=true,disks={/mnt/a,/mnt/b},\
             backup.targets[0].name=default,backup.targets[0].address=s3://backups@us-east-1/a/,backup.targets[0].secret=s,\
             ui.enabled=true,ui.ingress.enabled=true,ui.ingress.host=ui.example.org",
        ),
    ] {
        let mut arguments = vec!["template", "release", &chart, "-n", "longhorn-system"];
        arguments.extend(["--kube-version", version]);
        if !values.is_empty() {
            arguments.extend(["--set", values]);
        }
        let rendered = e2e::command::run(&helm, arguments);
        let file = sandbox.write(format!("{name}.yaml"), rendered);
        let dry = "create --dry-run=server --validate=strict";
        // What is installed is in the way of its own name, and only of that.
        let output = cluster.try_kubectl(&format!("{dry} -f {}", file.display()));
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong: Vec<&str> = said
            .lines()
            .filter(|line| !line.contains("already exists"))
            .collect();
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
    let chart = chart.as_str();
    let template = ["template", "release", chart, "--kube-version", version];
    for (values, name) in [
        ("kubeletdir=/x", "kubeletdir"),
        ("logLevel=nonsense", "logLevel"),
        ("disks={/a,/a/}", "disks"),
        ("manager.allowAddresses={10.0.0.0/99}", "allowAddresses"),
        ("groupSnapshots.enabled=true", "snapshots.enabled"),
        ("snapshotMetadata.enabled=true", "snapshots.enabled"),
        (
            "snapshots.enabled=true,snapshotMetadata.enabled=true",
            "snapshotMetadata.caCert",
        ),
        ("certManager.enabled=true", "certManager.issuerRef.name"),
        (
            "tls.existingCA=a,certManager.enabled=true,certManager.issuerRef.name=b",
            "choose one",
        ),
        ("tls.existingCA=A/b", "existingCA"),
        (
            "replication.enabled=true,attachRequired=false",
            "attachRequired: true",
        ),
        ("attachRequired=sometimes", "attachRequired"),
        ("ui.enabled=true,ui.auth.mode=none", "mode"),
        (
            "ui.enabled=true,ui.auth.mode=basic,ui.auth.secret=a",
            "ui.tls.secret",
        ),
        ("ui.enabled=true,ui.auth.mode=header", "ui.auth.secret"),
        ("ui.enabled=true,ui.ingress.enabled=true", "ui.ingress.host"),
        (
            "backup.targets[0].name=a,backup.targets[0].address=vfs:///x",
            "address",
        ),
    ] {
        let refused = e2e::command::output(&helm, template.iter().chain(&["--set", values]));
        assert!(!refused.status.success(), "{values} was taken");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(name), "{values}: {said}");
    }
    for values in [
        "driverName=driver.v2",
        "tls.enabled=false",
        "ui.enabled=true,tls.enabled=false",
        "ui.enabled=true,ui.auth.mode=basic,ui.auth.secret=users,ui.tls.secret=certificate",
        "ui.enabled=true,ui.auth.mode=header,ui.auth.secret=proxy,ui.hosts={ui.example.org}",
        "tls.existingCA=company",
        "certManager.enabled=true,certManager.issuerRef.name=company",
        "manager.env[0].name=HTTPS_PROXY,manager.env[0].value=http://proxy:3128",
        "manager.extraVolumes[0].name=ca,manager.extraVolumeMounts[0].name=ca,manager.extraVolumeMounts[0].mountPath=/ca",
    ] {
        e2e::command::run(&helm, template.iter().chain(&["--set", values]));
    }
    attachments_are_what_they_were();
}

/// Whether volumes are attached where the values do not say it: what the cluster has, else what is needed. Where that
/// cannot be had, the chart fails, and names the command that helps.
fn attachments_are_what_they_were() {
    let shell = Shell::new();
    let rendered = |values: &str| {
        let chart = "deploy/helm/longhorn-base-image --kube-version 1.35.4 --dry-run=server";
        shell.try_run(&format!("helm template release {chart} --set {values}"))
    };
    // Of the driver that is installed, and of one that is not.
    let other = "driverName=other.example.org";
    for (values, attached) in [
        ("logLevel=info".to_owned(), false),
        ("attachRequired=false".to_owned(), false),
        (other.to_owned(), false),
        (format!("{other},attachRequired=true"), true),
        (format!("{other},replication.enabled=true"), true),
        (format!("{other},node.maxVolumesPerNode=9"), true),
    ] {
        let output = rendered(&values);
        let said = e2e::command::words(&output);
        let line = format!("attachRequired: {attached}\n");
        assert!(said.contains(&line), "{values}: {said}");
    }
    for values in ["attachRequired=true", "replication.enabled=true"] {
        let output = rendered(values);
        let said = e2e::command::words(&output);
        let way_out = "kubectl delete csidriver driver.longhorn.io";
        assert!(!output.status.success(), "{values} was taken");
        assert!(said.contains(way_out), "{values}: {said}");
    }
}

/// Takes everything away, and looks for what is left.
pub(crate) fn uninstall(cluster: &Cluster) {
    let overlay = sources().join("tests/kubernetes/overlay");
    cluster.kubectl(&format!(
        "delete --wait=true --timeout=120s -k {}",
        overlay.display()
    ));
    let kinds = "namespaces,clusterroles,clusterrolebindings,csidrivers,storageclasses,volumesnapshotclasses";
    let objects = cluster.kubectl(&format!("get {kinds} -o name"));
    assert!(!objects.contains("longhorn"), "left behind: {objects}");
    for node in 1..=cluster.nodes() {
        nothing_is_mounted(cluster, node);
        let sockets = cluster.enter(node, &["ls", "/var/lib/kubelet/plugins_registry"]);
        assert!(!sockets.contains("longhorn"), "node {node}: {sockets}");
    }
}
