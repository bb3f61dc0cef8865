//! The conformance suite of the Kubernetes project, run against the plugin where it is installed:
//! `go install github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.4.0`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;

use e2e::csi::Plugin;
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, command, needs};

/// On the path, or where `go install` puts it.
fn csi_sanity() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let installed = home.map(|home| home.join("go/bin/csi-sanity"));
    command::find("csi-sanity").or_else(|| installed.filter(|path| path.is_file()))
}

/// One run of the suite over volumes of 64 MiB.
fn passes(name: &str, options: &[&str]) {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let Some(program) = csi_sanity() else {
        return needs::skip("csi-sanity");
    };
    let sandbox = Sandbox::new(name);
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    let plugin = Plugin::start(&sandbox, &manager, disk.dir());
    let socket = plugin
        .kubelet_dir()
        .join("plugins/driver.longhorn.io/csi.sock");
    let mut arguments = vec![
        format!("--csi.endpoint=unix://{}", socket.display()),
        format!("--csi.mountdir={}", sandbox.path("mount").display()),
        format!("--csi.stagingdir={}", sandbox.path("staging").display()),
        format!("--csi.testvolumesize={}", 64 << 20),
        format!("--csi.testvolumeexpandsize={}", 128 << 20),
        "--ginkgo.no-color".to_owned(),
    ];
    arguments.extend(options.iter().map(ToString::to_string));
    let output = command::output(&program.display().to_string(), arguments);
    let words = command::words(&output);
    assert!(output.status.success(), "csi-sanity: {words}");
    assert!(words.contains(" 0 Failed"), "csi-sanity ran: {words}");
    sandbox.assert_nothing_attached(&disk.dir().join("volumes"));
    assert_eq!(manager.list_volumes().unwrap(), Vec::new());
}

#[test]
fn row_75_csi_sanity_passes_with_mounted_volumes() {
    passes("sanity-mount", &[]);
}

#[test]
fn row_75_csi_sanity_passes_with_block_volumes() {
    passes("sanity-block", &["--csi.testvolumeaccesstype=block"]);
}
