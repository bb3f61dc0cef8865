//! Two tenants on one node: neither gets the data of the other, with any driver and under any name.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use e2e::baseimage::{Build, web_page};
use e2e::csi::{Claim, Plugin, claim, of_snapshot, of_volume, refused};
use e2e::flexvolume::{Driver, mount_arguments, options_of};
use e2e::manager::{Options, from_registry};
use e2e::registry::{OTHER_PASSWORD, OTHER_USER, PASSWORD, USER};
use e2e::{Disk, FileSystem, Manager, Need, Node, Registry, Sandbox, command, needs, wait};
use proto::csi::v1 as csi;
use proto::storage::v1 as pb;
use serde_json::Value;
use tonic::Code;

const MIB: u64 = 1 << 20;
const NAMESPACE: &str = "kubernetes.io/pod.namespace";

/// What the provisioner asks for a claim of this namespace.
fn claim_of(namespace: &str, name: &str, parameters: &[(&str, &str)]) -> csi::CreateVolumeRequest {
    let mut request = claim(name, 64 * MIB, parameters);
    let metadata = [
        ("csi.storage.k8s.io/pvc/name", "data"),
        ("csi.storage.k8s.io/pvc/namespace", namespace),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    request.parameters.extend(metadata);
    request
}

fn mount(driver: &Driver, namespace: &str, volume: &str, options: &[(&str, &str)]) -> String {
    let options: Vec<_> = [(NAMESPACE, namespace)]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    let (_, answer) = driver.mount("pod", volume, &options);
    answer.failure(&[])
}

/// A volume as `volume get` shows it.
fn shown(node: &Node, name: &str) -> Value {
    let output = node.manager.cli("volume", &["get", "--name", name]);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn hand_over(node: &Node, arguments: &[&str]) -> std::process::Output {
    let arguments: Vec<_> = ["hand-over"].iter().chain(arguments).copied().collect();
    node.manager.cli("volume", &arguments)
}

/// Takes what only older versions did not write out of a volume's record.
fn as_an_older_version_wrote_it(disk: &Path, volume: &str, namespace: Option<&str>) {
    let path = disk.join(format!("volumes/{volume}/volume.cfg"));
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("owner").unwrap();
    if let Some(namespace) = namespace {
        record["parameters"][NAMESPACE] = namespace.into();
    }
    serde_json::to_writer(fs::File::create(&path).unwrap(), &record).unwrap();
}

/// The FlexVolume driver does not touch a claim's volume.
fn assert_not_flexvolumes(node: &Node, driver: &Driver, volume: &str) {
    for (namespace, options) in [
        ("bob", &[][..]),
        ("alice", &[]),
        ("bob", &[("size", "256Mi")]),
        (
            "bob",
            &[("share", "read-only"), ("kubernetes.io/readwrite", "ro")],
        ),
    ] {
        let said = mount(driver, namespace, volume, options);
        assert!(said.contains("belongs to a claim of CSI"), "{said}");
    }
    let json = options_of("pod", volume, &[]);
    driver
        .call(["expandvolume", &json, "", "268435456", "67108864"])
        .failure(&["claim of CSI"]);
    let now = node.manager.volume(volume).unwrap();
    assert_eq!((now.size, now.published.len()), (64 * MIB, 0), "{now:?}");
}

#[test]
fn row_195_a_pod_does_not_mount_the_volume_of_another_drivers_claim() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("neighbours-csi");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let driver = Driver::install(&sandbox, &node.manager, node.disk.dir());
    let request = claim_of("alice", "pvc-a", &[]);
    let mut alices = node.plugin.provision(&request).unwrap();
    let owner = &shown(&node, "pvc-a")["owner"];
    assert_eq!(owner["driver"], "csi");
    assert_eq!(
        (&owner["namespace"], &owner["claim"]),
        (&"alice".into(), &"data".into())
    );
    let table = command::words(&node.manager.cli("volume", &["list", "-o", "table"]));
    assert!(table.contains("csi/alice/data"), "{table}");
    assert_not_flexvolumes(&node, &driver, "pvc-a");

    // Nor a claim's volume whose provisioner says nothing, nor one of an older version.
    let silent = node
        .plugin
        .provision(&claim("pvc-s", 64 * MIB, &[]))
        .unwrap();
    assert_not_flexvolumes(&node, &driver, "pvc-s");
    as_an_older_version_wrote_it(node.disk.dir(), "pvc-s", None);
    let said = mount(&driver, "alice", "pvc-s", &[]);
    assert!(said.contains("owner is not recorded"), "{said}");
    // CSI goes on with its own, recorded or not.
    for claim in [&mut alices, &mut silent.clone()] {
        node.plugin.run_pod(claim, "pod").unwrap();
        node.plugin.end_pod(claim, "pod").unwrap();
        node.plugin.provision(&claim.request).unwrap();
        node.plugin.delete(claim).unwrap();
    }
    // A pod that the kubelet tells nothing of has no namespace, and no volume.
    let said = mount(&driver, "", "new", &[("size", "32Mi")]);
    assert!(said.contains(NAMESPACE), "{said}");
    node.assert_empty(&sandbox);
}

#[test]
fn row_196_a_claim_does_not_get_the_volume_of_another_drivers_pod() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("neighbours-flex");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let driver = Driver::install(&sandbox, &node.manager, node.disk.dir());
    // Bob's pod makes a volume by the name that alice's claim will have.
    let bobs = [
        (NAMESPACE, "bob"),
        ("size", "64Mi"),
        ("numberOfReplicas", "1"),
    ];
    driver.mount("pod", "pvc-b", &bobs).1.success();
    driver.unmount("pod", "pvc-b").success();
    let owner = &shown(&node, "pvc-b")["owner"];
    assert_eq!(
        (&owner["driver"], &owner["namespace"]),
        (&"flexvolume".into(), &"bob".into())
    );
    let parameters = [("numberOfReplicas", "1"), ("staleReplicaTimeout", "20")];
    let request = claim_of("alice", "pvc-b", &parameters);
    let made = node.plugin.provision(&request);
    refused(made, Code::AlreadyExists, &["pvc-b", "FlexVolume"]);

    let volume = csi::Volume {
        volume_id: "pvc-b".into(),
        ..Default::default()
    };
    let mut taken = Claim {
        request,
        volume,
        publish_context: HashMap::new(),
    };
    let no = (Code::FailedPrecondition, &["FlexVolume", "hand-over"]);
    refused(node.plugin.attach(&mut taken), no.0, no.1);
    refused(node.plugin.grow(&taken, 128 * MIB), no.0, no.1);
    refused(node.plugin.delete(&taken), no.0, no.1);
    refused(node.plugin.snapshot("snap", "pvc-b"), no.0, no.1);
    refused(node.plugin.group("group", &["pvc-b"]), no.0, no.1);
    let clone = node
        .plugin
        .provision(&of_volume("clone", 64 * MIB, "pvc-b"));
    refused(clone, no.0, no.1);

    // An operator says so, while nothing uses it; an older version's record tells as much.
    as_an_older_version_wrote_it(node.disk.dir(), "pvc-b", Some("bob"));
    refused(node.plugin.attach(&mut taken), no.0, no.1);
    driver
        .mount("pod", "pvc-b", &[(NAMESPACE, "bob")])
        .1
        .success();
    let to_csi = ["--name", "pvc-b", "--to", "csi", "--namespace", "alice"];
    let early = hand_over(&node, &to_csi);
    assert!(
        command::words(&early).contains("published"),
        "{}",
        command::words(&early)
    );
    driver.unmount("pod", "pvc-b").success();
    assert!(hand_over(&node, &to_csi).status.success());
    let said = mount(&driver, "bob", "pvc-b", &[]);
    assert!(said.contains("claim of CSI"), "{said}");
    node.plugin.attach(&mut taken).unwrap();
    node.plugin.detach(&taken).unwrap();
    let to_flexvolume = ["--name", "pvc-b", "--to", "flexvolume"];
    assert!(
        !hand_over(&node, &to_flexvolume).status.success(),
        "for which namespace?"
    );
    node.plugin.delete(&taken).unwrap();
    node.assert_empty(&sandbox);
}

#[test]
fn row_196_an_attached_volume_is_the_namespaces_whose_pod_comes_first() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("neighbours-attach");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let address = node.manager.address().to_string();
    let driver = Driver::install_with(&sandbox, &address, node.disk.dir(), "attach = true");
    let device = "/dev/longhorn/pv";
    let global = driver
        .kubelet_dir()
        .join("plugins/kubernetes.io/flexvolume/rancher.io/longhorn/mounts/pv");
    fs::create_dir_all(&global).unwrap();
    let global = global.display().to_string();
    // The controller's calls and the device's tell of no pod.
    let mut options: Value =
        serde_json::from_str(&options_of("pod", "pv", &[("size", "64Mi")])).unwrap();
    for key in ["name", "namespace", "uid"] {
        options
            .as_object_mut()
            .unwrap()
            .remove(&format!("kubernetes.io/pod.{key}"));
    }
    let json = options.to_string();
    let up = |driver: &Driver| {
        driver.call(["attach", &json, e2e::manager::NODE]).success();
        driver
            .call(["mountdevice", &global, device, &json])
            .success();
    };
    let down = |driver: &Driver| {
        driver.call(["unmountdevice", &global]).success();
        driver.call(["detach", "pv", e2e::manager::NODE]).success();
    };
    up(&driver);
    let target = driver.target("pod", "pv");
    let alices = options_of("pod", "pv", &[(NAMESPACE, "alice")]);
    driver.call(mount_arguments(&target, &alices)).success();
    let mut mine = fs::File::create(target.join("mine")).unwrap();
    mine.write_all(b"alice's").unwrap();
    drop(mine);
    assert_eq!(shown(&node, "pv")["owner"]["namespace"], "alice");
    driver.unmount("pod", "pv").success();
    down(&driver);

    up(&driver);
    let said = mount(&driver, "bob", "pv", &[]);
    assert!(
        said.contains("\"alice\"") && said.contains("\"bob\""),
        "{said}"
    );
    assert!(!target.join("mine").exists());
    driver.call(mount_arguments(&target, &alices)).success();
    assert_eq!(fs::read(target.join("mine")).unwrap(), b"alice's");
    driver.unmount("pod", "pv").success();
    down(&driver);
    // Nor does a controller attach another driver's.
    let claims = node
        .plugin
        .provision(&claim("pvc-a", 64 * MIB, &[]))
        .unwrap();
    let json = json.replace("\"pv\"", "\"pvc-a\"");
    driver
        .call(["attach", &json, e2e::manager::NODE])
        .failure(&["claim of CSI"]);
    node.plugin.delete(&claims).unwrap();
    node.manager.delete_volume("pv").unwrap();
    driver.assert_nothing_left(&sandbox, node.disk.dir());
    node.assert_empty(&sandbox);
}

const ALICE: (&str, &str) = (USER, PASSWORD);
const WITCH: (&str, &str) = (OTHER_USER, OTHER_PASSWORD);
const BOB: (&str, &str) = (USER, "guessed-wrong");

/// A claim of an image, with the pull secret that the provisioner hands over.
fn with_secret(name: &str, image: &str, login: Option<(&str, &str)>) -> csi::CreateVolumeRequest {
    let mut request = claim(name, 64 * MIB, &[("baseImage", image)]);
    if let Some((user, password)) = login {
        let secrets = [("username", user), ("password", password)];
        let secrets = secrets.map(|(key, value)| (key.to_owned(), value.to_owned()));
        request.secrets = secrets.into();
    }
    request
}

fn push(sandbox: &Sandbox, registry: &Registry, name: &str) -> String {
    let build = Build {
        from: Some(&web_page(sandbox)),
        fs: Some("ext4"),
        size: Some("64Mi"),
        options: &[],
    };
    build.push(registry, name)
}

/// A node whose manager knows no password, and a registry that wants one.
fn private(sandbox: &Sandbox, failpoint: &str) -> (Node, Registry) {
    let disk = Disk::new(sandbox, "disk", FileSystem::Xfs, 1 << 30);
    let registry = Registry::start(sandbox);
    let node = Node::start(sandbox, disk, |options| {
        options
            .with("--registry-config", &registry.registry_config)
            .with("--allow-address", "127.0.0.0/8")
            .with_failpoint(failpoint)
    });
    (node, registry)
}

fn needs_registry() -> [Need; 4] {
    [
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd"),
    ]
}

#[test]
fn row_197_a_private_image_is_given_to_who_may_pull_it() {
    let [root, xfs, registry, htpasswd] = needs_registry();
    needs!(root, xfs, registry, htpasswd);
    let sandbox = Sandbox::new("neighbours-image");
    let (mut node, mut registry) = private(&sandbox, "");
    let image = push(&sandbox, &registry, "priv/site:v1");
    let make =
        |node: &Node, name: &str, login| node.plugin.provision(&with_secret(name, &image, login));
    let unauthenticated = (Code::Unauthenticated, &["priv/site"]);
    // Before it is there, and after alice has pulled it: bob and carol get the same answer.
    for round in ["before", "after"] {
        for (name, login) in [("bob", Some(BOB)), ("carol", None)] {
            let made = make(&node, name, login);
            refused(made, unauthenticated.0, unauthenticated.1);
            assert!(node.manager.volume(name).is_err(), "{round}");
        }
        make(&node, &format!("alice-{round}"), Some(ALICE)).unwrap();
    }
    let asked = registry.requests(&["/manifests/"]);
    make(&node, "alice-again", Some(ALICE)).unwrap();
    assert_eq!(
        registry.requests(&["/manifests/"]),
        asked,
        "her pull has proven it"
    );
    let pulled = registry.requests(&["GET", "/blobs/"]);
    make(&node, "witch", Some(WITCH)).unwrap();
    assert_eq!(
        registry.requests(&["GET", "/blobs/"]),
        pulled,
        "nothing is pulled again"
    );
    // The other ways to the same image.
    let create = ["create", "--registry", &image];
    let words = command::words(&node.manager.cli("backing-image", &create));
    assert!(words.contains("was pulled with credentials"), "{words}");
    let driver = Driver::install(&sandbox, &node.manager, node.disk.dir());
    let said = mount(&driver, "carol", "flex", &[("baseImage", &image)]);
    assert!(said.contains("was pulled with credentials"), "{said}");
    assert!(node.manager.volume("flex").is_err());
    // Copies of a volume are of who has the volume.
    let snapshot = node.plugin.snapshot("snap", "alice-after").unwrap();
    node.plugin
        .provision(&of_volume("clone", 64 * MIB, "alice-after"))
        .unwrap();

    goes_on_without_the_registry(
        &sandbox,
        &mut node,
        &mut registry,
        &image,
        &snapshot.snapshot_id,
    );
}

/// Who has proven it goes on, also after a new start; others wait for the registry.
fn goes_on_without_the_registry(
    sandbox: &Sandbox,
    node: &mut Node,
    registry: &mut Registry,
    image: &str,
    snapshot: &str,
) {
    let make =
        |node: &Node, name: &str, login| node.plugin.provision(&with_secret(name, image, login));
    let anew = |node: &mut Node, options: &Options| {
        node.manager.process.kill_9();
        node.manager = Manager::start(sandbox, options);
        node.plugin.process.kill_9();
        node.plugin = Plugin::start(sandbox, &node.manager, node.disk.dir());
    };
    registry.stop();
    let options = Options::new(node.disk.dir())
        .with("--registry-config", &registry.registry_config)
        .with("--allow-address", "127.0.0.0/8");
    anew(node, &options);
    make(node, "alice-alone", Some(ALICE)).unwrap();
    make(node, "witch-alone", Some(WITCH)).unwrap();
    for (name, login) in [("bob", Some(BOB)), ("carol", None)] {
        let made = node.plugin.provision_once(&with_secret(name, image, login));
        refused(made, Code::Unavailable, &["priv/site"]);
    }
    node.plugin
        .provision(&of_snapshot("restored", 64 * MIB, snapshot))
        .unwrap();
    for image in fs::read_dir(node.disk.dir().join("backing-images")).unwrap() {
        for file in ["backing.access", "backing.cfg"] {
            let text = fs::read(image.as_ref().unwrap().path().join(file)).unwrap_or_default();
            let text = String::from_utf8(text).unwrap();
            assert!(!text.contains(PASSWORD) && !text.contains(USER), "{text}");
        }
    }
    // Where the operator says that all who may ask may have all.
    anew(node, &options.with("--verify-image-access", "never"));
    make(node, "carol", None).unwrap();
}

#[test]
fn row_197_who_waits_for_the_pull_of_another_proves_it_too() {
    let [root, xfs, registry, htpasswd] = needs_registry();
    needs!(root, xfs, registry, htpasswd, Need::Failpoints);
    let sandbox = Sandbox::new("neighbours-join");
    let (node, registry) = private(&sandbox, "store.seal.synced=sleep(5000)");
    let image = push(&sandbox, &registry, "priv/slow:v1");
    let mut request = from_registry("", &image);
    if let Some(pb::source::Source::Registry(source)) = request
        .source
        .as_mut()
        .and_then(|source| source.source.as_mut())
    {
        source.docker_config_json = fs::read(&registry.docker_config).unwrap();
    }
    request.for_volumes = true;
    let begun = node.manager.create_image(request).unwrap();
    assert_ne!(begun.state(), pb::State::Ready);
    let carols = node.plugin.provision(&with_secret("carol", &image, None));
    refused(carols, Code::Unauthenticated, &["priv/slow"]);
    assert!(node.manager.volume("carol").is_err());
    assert_eq!(
        node.manager.image(&begun.name).unwrap().state(),
        pb::State::Ready
    );
    node.plugin
        .provision(&with_secret("alice", &image, Some(ALICE)))
        .unwrap();
}

#[test]
fn row_200_a_secret_is_not_to_be_read_while_its_call_waits() {
    needs!(Need::Root);
    let sandbox = Sandbox::new("neighbours-argv");
    let disk = sandbox.make_dir("disk");
    let driver = Driver::install_with(&sandbox, "127.0.0.1:1", &disk, "");
    let lock = sandbox.write("state/locks/volume-v", "");
    let held = fs::File::open(lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let secret = "c2VjcmV0LW9mLWFsaWNl";
    let secret = ("kubernetes.io/secret/password", secret);
    let user = ("kubernetes.io/secret/username", "YWxpY2U=");
    let image = ("baseImage", "registry.example/a:1");
    let json = options_of("pod", "v", &[("size", "32Mi"), image, user, secret]);
    let target = driver.target("pod", "v");
    let waiting = driver
        .command(mount_arguments(&target, &json))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait::until("the call waits", || {
        let locks = fs::read_dir(driver.state_dir().join("locks")).unwrap();
        (locks.count() == 2).then_some(())
    });
    let shown = fs::read(format!("/proc/{}/cmdline", waiting.id())).unwrap();
    let shown = String::from_utf8_lossy(&shown);
    assert!(
        !shown.contains(secret.1) && !shown.contains("secret"),
        "{shown}"
    );
    let words = shown.split('\0').collect::<Vec<_>>();
    assert_eq!(
        words[1..3],
        ["mount", &target.display().to_string()],
        "what it does is shown"
    );
    let pid = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    waiting.wait_with_output().unwrap();
}
