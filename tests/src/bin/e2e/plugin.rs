//! `kubectl longhorn-image` on the cluster, with the rights and the kubeconfig of an administrator.

use e2e::cluster::Cluster;
use e2e::documents::commands;
use e2e::{Sandbox, wait};

use crate::examples::{claim_event, end, nothing_is_left};
use crate::stranger::Shell;

const DOCUMENT: &str = "docs/kubectl.md";
const WHY: &str = "tests/kubernetes/why.yaml";

/// The commands of the document, as they are printed; then the sentence for each kind of claim that waits.
pub(crate) fn row_503_the_plugin_of_kubectl(cluster: &Cluster) {
    let shell = Shell::with_plugin();
    for command in commands(DOCUMENT, "## A tour") {
        println!("{}", shell.run(&command));
    }
    nothing_is_left(cluster);
    claims_say_what_they_wait_for(cluster, &shell);
    a_bundle_is_written(&shell);
}

fn claims_say_what_they_wait_for(cluster: &Cluster, shell: &Shell) {
    cluster.apply(WHY);
    for (claim, part) in [
        ("why-first-consumer", "its first consumer"),
        ("why-no-image", "no-such-tag"),
        ("why-wrong-fs", "xfs"),
        ("why-no-room", "free space, or add a disk"),
    ] {
        wait::until(&format!("{claim} says what it waits for"), || {
            let output = shell.try_run(&format!("kubectl longhorn-image why {claim}"));
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let found = output.status.code() == Some(3) && said.contains(part);
            println!("  {}{}", said, String::from_utf8_lossy(&output.stderr));
            found.then_some(())
        });
    }
    claim_event(cluster, "why-no-image", "ImageFailed", "no-such-tag");
    end(cluster, &[WHY]);
    let blank = "examples/blank_pvc.yaml";
    cluster.apply(blank);
    cluster.wait_pod("blank");
    let said = shell.run("kubectl longhorn-image why blank");
    assert!(said.contains("waits for nothing: pod blank"), "{said}");
    end(cluster, &[blank]);
}

fn a_bundle_is_written(shell: &Shell) {
    let sandbox = Sandbox::new("k8s-dump");
    let file = sandbox.path("bundle.tar.gz").display().to_string();
    println!(
        "{}",
        shell.run(&format!("kubectl longhorn-image dump {file}"))
    );
    let names = shell.run(&format!("tar tzf {file}"));
    for part in [
        "kubernetes/persistentvolumes.json",
        "/manager.log",
        "disks/",
        "nodes/n1.json",
    ] {
        assert!(names.contains(part), "{part} is not among {names}");
    }
    let secret = shell.run("kubectl -n longhorn-system get secret longhorn-base-image-ca -o jsonpath={.data.tls\\\\.key}");
    let all = shell.run(&format!("tar xzOf {file}"));
    assert!(!all.contains("PRIVATE KEY") && (secret.is_empty() || !all.contains(secret.trim())));
}
