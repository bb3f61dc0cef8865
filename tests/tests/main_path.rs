//! The main job: from a pushed base image to pods' volumes and back to nothing, through real CSI
//! calls, on each kind of disk.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use e2e::baseimage::{Build, PARTY_WIZARD, WIZARD, web_page};
use e2e::csi::{Claim, Plugin, block, claim};
use e2e::manager::Options;
use e2e::programs::sources;
use e2e::web::Nginx;
use e2e::{Disk, FileSystem, Manager, Need, Node, Registry, Sandbox, documents, needs};

const MIB: u64 = 1 << 20;

struct Cluster {
    node: Node,
    registry: Registry,
}

impl Cluster {
    fn new(sandbox: &Sandbox, file_system: FileSystem) -> Self {
        let disk = Disk::new(sandbox, "disk", file_system, 1 << 30);
        let registry = Registry::start(sandbox);
        let node = Node::start(sandbox, disk, |options| options.with_registry(&registry));
        Self { node, registry }
    }

    fn push(&self, sandbox: &Sandbox, fs: &str, size: &str) -> String {
        let page = web_page(sandbox);
        let build = Build {
            from: Some(&page),
            fs: Some(fs),
            size: Some(size),
            options: &[],
        };
        build.push(&self.registry, &format!("e2e/{fs}:v1"))
    }
}

fn from_image(name: &str, size: u64, reference: &str) -> proto::csi::v1::CreateVolumeRequest {
    claim(
        name,
        size,
        &[
            ("numberOfReplicas", "1"),
            ("staleReplicaTimeout", "30"),
            ("baseImage", reference),
        ],
    )
}

fn assert_serves(sandbox: &Sandbox, name: &str, target: &Path) {
    let nginx = Nginx::serve(sandbox, name, target);
    assert!(nginx.fetch(&format!("/{WIZARD}")) == PARTY_WIZARD);
}

fn two_pods_of_one_image(disk: FileSystem, image: &'static str, image_size: &'static str) {
    needs!(
        Need::Root,
        Need::FileSystem(disk.name()),
        Need::FileSystem(image),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd"),
        Need::Tool("nginx")
    );
    let sandbox = Sandbox::new("main-path");
    let cluster = Cluster::new(&sandbox, disk);
    let reference = cluster.push(&sandbox, image, image_size);
    let mut claims: Vec<Claim> = ["a", "b"]
        .map(|name| {
            cluster
                .node
                .plugin
                .provision(&from_image(name, 512 * MIB, &reference))
                .unwrap()
        })
        .into();
    let targets: Vec<_> = claims
        .iter_mut()
        .map(|claim| cluster.node.plugin.run_pod(claim, "pod").unwrap())
        .collect();
    for (number, target) in targets.iter().enumerate() {
        assert_serves(&sandbox, &number.to_string(), target);
        let stat = rustix::fs::statvfs(target.as_path()).unwrap();
        assert!(
            stat.f_blocks * stat.f_frsize > 400 * MIB,
            "the file system grew to the volume's size"
        );
    }
    File::create(targets[0].join(WIZARD))
        .unwrap()
        .write_all(b"gone")
        .unwrap();
    assert!(
        fs::read(targets[1].join(WIZARD)).unwrap() == PARTY_WIZARD,
        "volumes are separate"
    );
    for claim in &claims {
        cluster.node.plugin.end_pod(claim, "pod").unwrap();
    }
    // What a pod wrote is there for the next pod.
    let target = cluster.node.plugin.run_pod(&mut claims[0], "next").unwrap();
    assert_eq!(fs::read(target.join(WIZARD)).unwrap(), b"gone");
    cluster.node.plugin.end_pod(&claims[0], "next").unwrap();
    for claim in &claims {
        cluster.node.plugin.delete(claim).unwrap();
    }
    cluster.node.assert_empty(&sandbox);
}

#[test]
fn two_pods_of_an_ext4_image_on_an_xfs_disk() {
    two_pods_of_one_image(FileSystem::Xfs, "ext4", "64Mi");
}

#[test]
fn two_pods_of_an_xfs_image_on_an_ext4_disk() {
    two_pods_of_one_image(FileSystem::Ext4, "xfs", "320Mi");
}

#[test]
fn a_btrfs_image_on_a_btrfs_disk_serves_a_pod() {
    needs!(
        Need::Root,
        Need::FileSystem("btrfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd"),
        Need::Tool("nginx")
    );
    let sandbox = Sandbox::new("main-path");
    let cluster = Cluster::new(&sandbox, FileSystem::Btrfs);
    let reference = cluster.push(&sandbox, "btrfs", "128Mi");
    let mut claim = cluster
        .node
        .plugin
        .provision(&from_image("a", 256 * MIB, &reference))
        .unwrap();
    let target = cluster.node.plugin.run_pod(&mut claim, "pod").unwrap();
    assert_serves(&sandbox, "btrfs", &target);
    cluster.node.plugin.end_pod(&claim, "pod").unwrap();
    cluster.node.plugin.delete(&claim).unwrap();
    cluster.node.assert_empty(&sandbox);
}

/// The kernel is the data path: no program of ours is needed while a pod runs.
#[test]
fn a_mounted_volume_outlives_every_program_of_ours() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd"),
        Need::Tool("nginx")
    );
    let sandbox = Sandbox::new("main-path");
    let mut cluster = Cluster::new(&sandbox, FileSystem::Xfs);
    let reference = cluster.push(&sandbox, "ext4", "64Mi");
    let mut claim = cluster
        .node
        .plugin
        .provision(&from_image("a", 128 * MIB, &reference))
        .unwrap();
    let target = cluster.node.plugin.run_pod(&mut claim, "pod").unwrap();
    cluster.node.plugin.process.kill_9();
    cluster.node.manager.process.kill_9();
    cluster.registry.stop();

    assert_serves(&sandbox, "alone", &target);
    let mut file = File::create(target.join("written-alone")).unwrap();
    file.write_all(&vec![7; 100_000]).unwrap();
    file.sync_all().unwrap();

    cluster.node.manager = Manager::start(&sandbox, &Options::new(cluster.node.disk.dir()));
    cluster.node.plugin = Plugin::start(&sandbox, &cluster.node.manager, cluster.node.disk.dir());
    // The kubelet asks again after its own restart; the volume stays as it is.
    cluster.node.plugin.stage(&claim).unwrap();
    cluster.node.plugin.publish(&claim, "pod").unwrap();
    assert_eq!(
        fs::read(target.join("written-alone")).unwrap(),
        vec![7; 100_000]
    );
    drop(file);
    cluster.node.plugin.end_pod(&claim, "pod").unwrap();
    cluster.node.plugin.delete(&claim).unwrap();
    cluster.node.assert_empty(&sandbox);
}

#[test]
fn a_raw_block_volume_holds_its_image() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd")
    );
    let sandbox = Sandbox::new("main-path");
    let cluster = Cluster::new(&sandbox, FileSystem::Xfs);
    let reference = cluster.push(&sandbox, "ext4", "64Mi");
    let mut request = from_image("a", 64 * MIB, &reference);
    request.volume_capabilities = vec![block()];
    let mut claim = cluster.node.plugin.provision(&request).unwrap();
    let device = cluster.node.plugin.run_pod(&mut claim, "pod").unwrap();
    let kind = e2e::command::run(
        "blkid",
        [
            "-p",
            "-o",
            "value",
            "-s",
            "TYPE",
            &device.display().to_string(),
        ],
    );
    assert_eq!(kind.trim(), "ext4");
    let size = e2e::command::run("blockdev", ["--getsize64", &device.display().to_string()]);
    assert_eq!(size.trim(), (64 * MIB).to_string());
    cluster.node.plugin.end_pod(&claim, "pod").unwrap();
    cluster.node.plugin.delete(&claim).unwrap();
    cluster.node.assert_empty(&sandbox);
}

/// The StorageClass that users copy, with the image in a registry of ours.
#[test]
fn the_example_storage_class_makes_a_volume() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd")
    );
    let sandbox = Sandbox::new("example");
    let cluster = Cluster::new(&sandbox, FileSystem::Xfs);
    let reference = cluster.push(&sandbox, "ext4", "64Mi");
    let example = documents::read(&sources().join("examples/provisioner_with_baseimage.yaml"));
    let mut parameters = documents::storage_class_parameters(&example);
    let base_image = parameters
        .iter_mut()
        .find(|(key, _)| key == "baseImage")
        .unwrap();
    base_image.1 = reference;
    let borrowed: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let mut claim = cluster
        .node
        .plugin
        .provision(&claim("pvc", 1 << 30, &borrowed))
        .unwrap();
    let target = cluster.node.plugin.run_pod(&mut claim, "pod").unwrap();
    assert!(fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD);
    let volume = &cluster.node.manager.list_volumes().unwrap()[0];
    assert_eq!(
        (
            volume.size,
            volume.number_of_replicas,
            volume.stale_replica_timeout
        ),
        (1 << 30, 3, 30)
    );
    assert!(
        !volume.degraded.is_empty(),
        "one disk holds one replica of three, and says so"
    );
    cluster.node.plugin.end_pod(&claim, "pod").unwrap();
    cluster.node.plugin.delete(&claim).unwrap();
    cluster.node.assert_empty(&sandbox);
}

/// Row 21: fifty volumes of one image that no disk has yet.
#[test]
fn row_21_fifty_claims_of_a_new_image_cause_one_download() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd")
    );
    let sandbox = Sandbox::new("single-flight");
    let cluster = Cluster::new(&sandbox, FileSystem::Xfs);
    let reference = cluster.push(&sandbox, "ext4", "64Mi");
    let before = cluster.registry.requests(&["GET", "/blobs/sha256:"]);
    let claims: Vec<Claim> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..50)
            .map(|number| {
                let (plugin, reference) = (&cluster.node.plugin, &reference);
                let request = from_image(&format!("pvc-{number}"), 64 * MIB, reference);
                scope.spawn(move || plugin.provision(&request).unwrap())
            })
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    assert_eq!(cluster.node.manager.list_images().unwrap().len(), 1);
    assert_eq!(cluster.node.manager.list_volumes().unwrap().len(), 50);
    let downloads = cluster
        .registry
        .requests(&["GET", "/blobs/sha256:", "\" 200 "])
        - before;
    assert!(
        (1..=2).contains(&downloads),
        "the layer and at most the config, once each: {downloads}"
    );
    for claim in &claims {
        cluster.node.plugin.delete(claim).unwrap();
    }
    cluster.node.assert_empty(&sandbox);
}
