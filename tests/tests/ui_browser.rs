//! The web UI in Debian's Chromium, with the real manager, plugin and registry: `tests/browser/ui.cjs` has the checks. With
//! `PICTURES=DIR` the screenshots of docs/ui.md are written there.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use e2e::baseimage::{Build, web_page};
use e2e::csi::{Claim, Plugin, claim, mounted};
use e2e::manager::{Options, init_disk};
use e2e::programs::{self, sources};
use e2e::ui::Ui;
use e2e::{Disk, FileSystem, Manager, Need, Process, Registry, Sandbox, command, needs, ports};
use proto::csi::v1 as pb;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const INITIATOR: &str = "iqn.2026-01.org.example:host";
const PASSWORD: &str = "correct horse";

/// Where `scripts/deps test` puts the packages of tests/browser.
fn packages() -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let tools = std::env::var_os("TOOLS").map(PathBuf::from);
    let tools = tools.unwrap_or_else(|| home.join(".cache/longhorn-base-image/tools"));
    tools.join("browser")
}

fn users(sandbox: &Sandbox) -> String {
    use std::io::Write as _;
    let mut child = Command::new(programs::ui())
        .args(["--hash-password", "ada"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(PASSWORD.as_bytes())
        .unwrap();
    let line = child.wait_with_output().unwrap().stdout;
    sandbox.write("users", line).display().to_string()
}

/// Runs the checks of one phase.
fn browse(sandbox: &Sandbox, config: &Value) {
    let config = sandbox.write("browser.json", config.to_string());
    let script = sources().join("tests/browser/ui.cjs");
    let output = Command::new("node")
        .arg(script)
        .arg(config)
        .env("HOME", sandbox.make_dir("home"))
        .env("TMPDIR", sandbox.make_dir("browser-tmp"))
        .output()
        .unwrap();
    let words = command::words(&output);
    println!("{}{words}", String::from_utf8_lossy(&output.stdout));
    assert!(
        output.status.success(),
        "{}{words}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one thing after the other")]
fn row_486_people_do_in_a_browser_what_the_documentation_says() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::FileSystem("ext4"),
        Need::Tool("chromium"),
        Need::Tool("node"),
        Need::Tool("tgtd"),
        Need::Tool("qemu-img"),
        Need::Tool("debugfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd")
    );
    if !packages().join("node_modules/playwright-core").exists() {
        return needs::skip("the packages of tests/browser: run scripts/deps test");
    }
    let sandbox = Sandbox::new("ui-browser");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 2 << 30);
    init_disk(disk.dir());
    let registry = Registry::start(&sandbox);
    let page = web_page(&sandbox);
    let push = |name: &str, size| {
        let build = Build {
            from: Some(&page),
            fs: Some("ext4"),
            size: Some(size),
            options: &[],
        };
        build.push(&registry, name)
    };
    let (image, second) = (
        push("rancher/longhorn-test:baseimage-ext4", "64Mi"),
        push("e2e/second:v1", "96Mi"),
    );
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()).with_registry(&registry));
    // The pod of the targets.
    let private = sandbox.make_dir("target");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let socket = private.join("ctl").display().to_string();
    let serve = ["target", "serve", "--socket", &socket];
    let mut tgtd = Process::spawn(&sandbox, "target", &programs::csi_plugin(), serve, &[]);
    tgtd.wait_ready(|| {
        let check = ["target", "check", "--socket", &socket];
        Command::new(programs::csi_plugin())
            .args(check)
            .output()
            .unwrap()
            .status
            .success()
    });
    let portal = ports::free().to_string();
    let more = ["--target-socket", &socket, "--target-portal", &portal];
    let plugin = Plugin::start_as(&sandbox, &manager, disk.dir(), "", &more);
    let (managers, nodes) = (
        manager.address().to_string(),
        format!("unix:{}", plugin.node_socket().display()),
    );
    let cluster = [
        "--manager",
        managers.as_str(),
        "--node-service",
        nodes.as_str(),
    ];
    let ui = Ui::start(
        &sandbox,
        "ui",
        &[&cluster[..], &["--auth", "none"]].concat(),
        &[],
    );
    let users = users(&sandbox);
    let guarded = [&cluster[..], &["--auth", "basic", "--users", &users]].concat();
    let guarded = Ui::start(&sandbox, "guarded", &guarded, &[]);

    let file = e2e::baseimage::raw_ext4(&sandbox, "upload.raw", 8 * MIB);
    let pictures = std::env::var_os("PICTURES").map(PathBuf::from);
    let pictures = pictures.unwrap_or_else(|| sandbox.make_dir("pictures"));
    let found = sandbox.path("found.json");
    let mut config = json!({
        "phase": 1, "packages": packages(), "chromium": command::find("chromium").unwrap(), "url": ui.url(),
        "guarded": guarded.url(), "password": PASSWORD, "image": image, "second": second, "file": file,
        "initiator": INITIATOR, "pictures": pictures, "found": found,
    });
    browse(&sandbox, &config);

    // What came in pieces is what was sent.
    let uploaded = manager.summed_image("uploaded");
    let sum = command::run("sha512sum", [&file]);
    assert!(
        uploaded.current_checksum.contains(&sum[..128]),
        "{uploaded:?}"
    );

    // An initiator writes a file into the volume, without a kernel's help.
    let target: Value = serde_json::from_slice(&fs::read(&found).unwrap()).unwrap();
    let text = |key: &str| target[key].as_str().unwrap().to_owned();
    let device = format!(
        "driver=iscsi,transport=tcp,portal={},target={},lun=1,user={},password={},initiator-name={INITIATOR}",
        text("portal"),
        text("iqn"),
        text("user"),
        text("secret"),
    );
    let copy = sandbox.path("copy.raw").display().to_string();
    command::run(
        "qemu-img",
        ["convert", "--image-opts", &device, "-O", "raw", &copy],
    );
    let words = sandbox
        .write("words", "of an initiator")
        .display()
        .to_string();
    command::run(
        "debugfs",
        ["-w", "-R", &format!("write {words} words"), &copy],
    );
    let write = [
        "convert",
        "-n",
        "-f",
        "raw",
        &copy,
        "--target-image-opts",
        &device,
    ];
    command::run("qemu-img", write);

    config["phase"] = 2.into();
    browse(&sandbox, &config);

    // And a pod finds it.
    let mut request = claim("target", 64 * MIB, &[]);
    request.volume_capabilities = vec![mounted("ext4")];
    let volume = pb::Volume {
        volume_id: "target".to_owned(),
        ..pb::Volume::default()
    };
    let mut claim = Claim {
        request,
        volume,
        publish_context: std::collections::HashMap::default(),
    };
    let pod = plugin.run_pod(&mut claim, "pod").unwrap();
    assert_eq!(
        fs::read_to_string(pod.join("words")).unwrap(),
        "of an initiator"
    );
    plugin.end_pod(&claim, "pod").unwrap();
    drop(plugin);
    // In order: tgtd does not end by itself.
    assert!(tgtd.terminate().success(), "{}", tgtd.log());
}
