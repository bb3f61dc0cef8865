//! Two tenants on one node: what one of them has, the other does not get, whichever driver is asked
//! and by whatever name.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use e2e::csi::{Claim, claim, of_volume, refused};
use e2e::flexvolume::{Driver, mount_arguments, options_of};
use e2e::{FileSystem, Need, Node, Sandbox, command, needs};
use proto::csi::v1 as csi;
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
    fs::write(&path, record.to_string()).unwrap();
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
    assert!(said.contains("not recorded who made it"), "{said}");
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
        publish_context: Default::default(),
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
    fs::write(target.join("mine"), "alice's").unwrap();
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
