//! The official External.Storage suite of Kubernetes (`tests/kubernetes/conformance`).

use e2e::Sandbox;
use e2e::cluster::{Cluster, pack_images};
use e2e::programs::{package, sources};

/// A quarter of the specs, always the same.
pub(crate) fn quarter(cluster: &Cluster) {
    run(cluster, "quarter");
}

/// All specs.
pub(crate) fn all(cluster: &Cluster) {
    run(cluster, "all");
}

fn run(cluster: &Cluster, specs: &str) {
    load_images(cluster);
    let script = sources().join("tests/kubernetes/conformance");
    let said = e2e::command::run(&script.display().to_string(), [specs]);
    for line in said.lines() {
        println!("  {line}");
    }
}

/// The images that the suite's pods run: the same as those of the examples, but for one.
fn load_images(cluster: &Cluster) {
    let sandbox = Sandbox::new("k8s-suite-images");
    let inputs = [format!("k8s={}", crate::install::tools())];
    let recipes = ["tests/kubernetes/images/suite"];
    cluster.load(&pack_images(&package(), &recipes, &inputs, sandbox.dir()));
    let suite = "registry.k8s.io/e2e-test-images";
    for (image, name) in [
        (
            "docker.io/library/busybox:1.36",
            format!("{suite}/busybox:1.37.0-1"),
        ),
        (
            "docker.io/library/nginx:1.27-alpine",
            format!("{suite}/nginx:1.15-4"),
        ),
        (
            "docker.io/library/nginx:1.27-alpine",
            format!("{suite}/nginx:1.14-4"),
        ),
        (
            "registry.k8s.io/pause:3.10",
            "registry.k8s.io/pause:3.10.1".to_owned(),
        ),
    ] {
        cluster.tag(image, &name);
    }
}
