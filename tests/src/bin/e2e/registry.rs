//! What the registries of the cluster hold: the base images that the examples name.

use std::fs;
use std::path::Path;

use e2e::Sandbox;
use e2e::baseimage::{Build, web_page};
use e2e::cluster::{Cluster, OPEN_REGISTRY, PRIVATE_REGISTRY, pack_images};
use e2e::command::run;
use e2e::programs;

/// What the examples call the base image.
pub(crate) const BASE_IMAGE: &str = "rancher/longhorn-test:baseimage-ext4";
/// The same files as the base image's, for an init container.
const CONTENT: &str = "rancher/longhorn-test:content";
const GUEST: &str = "rancher/vm-ubuntu:16.04.4-server-amd64";
const PRIVATE: &str = "private/site:v1";
/// Who may read the private registry, and the password (`tests/kubernetes/cluster`).
pub(crate) const USER: &str = "site";
/// See [`USER`].
pub(crate) const PASSWORD: &str = "opensesame";

fn skopeo(cluster: &Cluster, arguments: &[&str]) {
    let copy = ["skopeo", "--insecure-policy", "copy"];
    cluster.enter(1, &[&copy[..], arguments].concat());
}

fn push(cluster: &Cluster, from: &str, name: &str) {
    let to = format!("docker://{OPEN_REGISTRY}/{name}");
    skopeo(cluster, &["--dest-tls-verify=false", from, &to]);
}

fn site(sandbox: &Sandbox) -> String {
    let (page, layout) = (web_page(sandbox), sandbox.path("layout"));
    let build = Build {
        from: Some(&page),
        fs: Some("ext4"),
        // The FlexVolume example asks for no more.
        size: Some("32Mi"),
        options: &[],
    };
    Build::into(&build, &format!("oci-layout:{}", layout.display()));
    format!("oci:{}", layout.display())
}

/// The documentation's base image.
pub(crate) fn push_base_image(cluster: &Cluster) {
    let sandbox = Sandbox::new("k8s-base-image");
    push(cluster, &site(&sandbox), BASE_IMAGE);
}

/// The same in the registry that wants a password.
pub(crate) fn push_private(cluster: &Cluster) {
    let sandbox = Sandbox::new("k8s-private");
    let authority = cluster.get("configmap kube-root-ca.crt");
    let authority = authority["data"]["ca.crt"].as_str().unwrap();
    let file = sandbox.write("certificates/ca.crt", authority);
    let certificates = file.parent().unwrap().display().to_string();
    let to = format!("docker://{PRIVATE_REGISTRY}/{PRIVATE}");
    let login = format!("--dest-creds={USER}:{PASSWORD}");
    let arguments = [
        "--dest-cert-dir",
        &certificates,
        &login,
        &site(&sandbox),
        &to,
    ];
    skopeo(cluster, &arguments);
}

/// The disk of a virtual machine: partitioned.
pub(crate) fn push_guest(cluster: &Cluster) {
    let sandbox = Sandbox::new("k8s-guest");
    let (disk, layout) = (sandbox.path("disk.raw"), sandbox.path("layout"));
    fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let script = sandbox.write("partitions", "label: gpt\n,,L\n");
    let partition = format!("sfdisk --quiet {} < {}", disk.display(), script.display());
    run("sh", ["-c", &partition]);
    let build = Build {
        from: Some(&disk),
        fs: None,
        size: None,
        options: &[],
    };
    Build::into(&build, &format!("oci-layout:{}", layout.display()));
    push(cluster, &format!("oci:{}", layout.display()), GUEST);
}

/// The content of the base image as an image for init containers.
pub(crate) fn push_content(cluster: &Cluster, output: &Path) {
    let sandbox = Sandbox::new("k8s-content");
    let inputs = [format!("site={}", web_page(&sandbox).display())];
    let recipes = ["tests/kubernetes/images/content"];
    for archive in pack_images(&programs::package(), &recipes, &inputs, output) {
        push(
            cluster,
            &format!("oci-archive:{}", archive.display()),
            CONTENT,
        );
    }
}
