//! The conformance suite of the Kubernetes project, run against the plugin where it is installed:
//! `go install github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.4.0`.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "csi_sanity/relay.rs"]
mod relay;

use std::path::{Path, PathBuf};

use e2e::baseimage::{Build, web_page};
use e2e::csi::Plugin;
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Node, Registry, Sandbox, command, needs};

/// On the path, or where `go install` puts it.
fn csi_sanity() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let installed = home.map(|home| home.join("go/bin/csi-sanity"));
    command::find("csi-sanity").or_else(|| installed.filter(|path| path.is_file()))
}

/// The cases that the suite skips, which docs/conformance.md gives the reasons of.
const SKIPPED: usize = 0;

/// The suite, by a client that is told the socket after `scheme`, over volumes of 64 MiB.
fn passes(name: &str, scheme: &str, options: &[&str], base_image: bool) {
    needs!(Need::Root, Need::FileSystem("xfs"));
    if base_image {
        needs!(Need::Tool("docker-registry"), Need::Tool("htpasswd"));
    }
    let Some(program) = csi_sanity() else {
        return needs::skip("csi-sanity");
    };
    let sandbox = Sandbox::new(name);
    let said = run(&sandbox, &program, scheme, options, base_image);
    let expected = [" 0 Failed".to_owned(), format!(" {SKIPPED} Skipped")];
    let passed = expected.iter().all(|words| said.contains(words));
    assert!(passed, "csi-sanity: {said}");
}

/// One run of the suite against a plugin of its own; what it says, with the plugin's log.
fn run(
    sandbox: &Sandbox,
    program: &Path,
    scheme: &str,
    options: &[&str],
    base_image: bool,
) -> String {
    let disk = Disk::new(sandbox, "disk", FileSystem::Xfs, 1 << 30);
    let registry = base_image.then(|| Registry::start(sandbox));
    init_disk(disk.dir());
    let plain = Options::new(disk.dir());
    let started = match &registry {
        Some(registry) => plain.with_registry(registry),
        None => plain,
    };
    let manager = Manager::start(sandbox, &started);
    // Without a limit the suite skips the case that goes beyond it.
    let limit = ["--max-volumes-per-node", "4"];
    let plugin = Plugin::start_as(sandbox, &manager, disk.dir(), "", &limit);
    let node = Node {
        plugin,
        manager,
        disk,
    };
    // What is mounted lies below it.
    let kubelet = node.plugin.kubelet_dir();
    let socket = sandbox.path("relay.sock");
    relay::start(&socket, kubelet.join("plugins/driver.longhorn.io/csi.sock"));
    let mut arguments = vec![
        format!("--csi.endpoint={scheme}{}", socket.display()),
        format!("--csi.mountdir={}", kubelet.join("mount").display()),
        format!("--csi.stagingdir={}", kubelet.join("staging").display()),
        format!("--csi.testvolumesize={}", 64 << 20),
        format!("--csi.testvolumeexpandsize={}", 128 << 20),
        "--csi.testnodevolumeattachlimit".to_owned(),
        "--ginkgo.no-color".to_owned(),
    ];
    let mutable = "numberOfReplicas: \"1\"\nstaleReplicaTimeout: \"30\"\n";
    let mutable = sandbox.write("mutable.yaml", mutable);
    arguments.push(format!(
        "--csi.testvolumemutableparameters={}",
        mutable.display()
    ));
    arguments.extend(options.iter().map(ToString::to_string));
    if let Some(registry) = &registry {
        let page = web_page(sandbox);
        let build = Build {
            from: Some(&page),
            fs: Some("ext4"),
            size: Some("64Mi"),
            options: &[],
        };
        let reference = build.push(registry, "sanity/ext4:v1");
        let parameters = sandbox.write("parameters.yaml", format!("baseImage: \"{reference}\"\n"));
        arguments.push(format!(
            "--csi.testvolumeparameters={}",
            parameters.display()
        ));
    }
    let output = command::output(&program.display().to_string(), arguments);
    if output.status.success() {
        node.assert_empty(sandbox);
    }
    format!("{}\n{}", command::words(&output), node.plugin.process.log())
}

#[test]
fn row_75_csi_sanity_passes_with_mounted_volumes() {
    passes("sanity-mount", "unix://", &[], false);
}

#[test]
fn row_75_csi_sanity_passes_with_block_volumes() {
    // A bare path: this client puts it into `:authority`, as the kubelets before 1.26 did.
    let block = ["--csi.testvolumeaccesstype=block"];
    passes("sanity-block", "", &block, false);
}

#[test]
fn row_75_csi_sanity_passes_with_volumes_of_a_base_image() {
    passes("sanity-image", "unix://", &[], true);
}
