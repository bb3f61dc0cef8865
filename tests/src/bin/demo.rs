//! `make demo`: the main job, from a directory to two pods' volumes, with nothing faked but the pods.
//!
//! It reports its steps in a dozen lines, and ends with an error at the first failed expectation.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program for people"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use e2e::baseimage::{Build, PARTY_WIZARD, WIZARD, web_page};
use e2e::certificates::Authority;
use e2e::csi::{Claim, Plugin, claim};
use e2e::manager::{NODE, Options, init_disk};
use e2e::ui::Ui;
use e2e::web::Nginx;
use e2e::{Disk, FileSystem, Manager, Need, Registry, Sandbox, needs};

const MIB: u64 = 1 << 20;

/// A pushed base image and its virtual size.
struct BaseImage {
    reference: String,
    size: u64,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a panic without words");
        eprintln!("demo: this is not so: {message}");
    }));
    survive_interrupts();
    let start = Instant::now();
    // Guards clean up on the way out of a panic.
    let done = std::panic::catch_unwind(|| {
        let sandbox = Sandbox::new("demo");
        match needs::missing(&[Need::Root, Need::LoopMount]) {
            None => whole_way(&sandbox, asked_for_ui()),
            Some(missing) => without_mounts(&sandbox, &missing),
        }
    });
    if done.is_err() {
        return ExitCode::FAILURE;
    }
    say(
        "done",
        &format!("in {:.1} s", start.elapsed().as_secs_f64()),
    );
    ExitCode::SUCCESS
}

/// Ctrl-C ends the servers, which are of the same process group: the next step fails, and the guards
/// of this program clean up.
fn survive_interrupts() {
    std::thread::spawn(|| e2e::block_on(async { while tokio::signal::ctrl_c().await.is_ok() {} }));
}

fn say(what: &str, words: &str) {
    println!("{what:>9}  {words}");
}

/// `UI=1`: the demo ends with a UI that runs until Ctrl-C.
fn asked_for_ui() -> bool {
    std::env::var("UI").is_ok_and(|value| !["", "0"].contains(&value.as_str()))
}

/// A UI over what the demo has made, for as long as somebody looks at it.
fn show_ui(
    sandbox: &Sandbox,
    manager: &Manager,
    plugin: &Plugin,
    authority: &Authority,
    image: &str,
) {
    let certificates = authority.issue("ui/demo").display().to_string();
    let (managers, nodes) = (
        manager.address().to_string(),
        format!("unix:{}", plugin.node_socket().display()),
    );
    let arguments = [
        "--auth",
        "none",
        "--manager",
        &managers,
        "--node-service",
        &nodes,
        "--certificates",
        &certificates,
    ];
    let mut ui = Ui::start(sandbox, "ui", &arguments, &[]);
    say(
        "ui",
        &format!("{}/ with the image {image}; Ctrl-C ends it", ui.url()),
    );
    // Ctrl-C reaches it too, and the guards of this program clean up.
    while !ui.has_ended() {
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Everything, with mounts.
fn whole_way(sandbox: &Sandbox, with_ui: bool) {
    let disk = make_disk(sandbox);
    let registry = start_registry(sandbox);
    let small = push(sandbox, &registry, 64 * MIB);
    let large = push(sandbox, &registry, 4096 * MIB);

    init_disk(disk.dir());
    let authority = Authority::new(sandbox, "authority");
    let options = Options::new(disk.dir()).with_registry(&registry);
    let manager = Manager::start(sandbox, &options.trusting(&authority, NODE));
    let certificates = authority.issue("controller/demo").display().to_string();
    let more = ["--certificates", &certificates];
    let plugin = Plugin::start_as(sandbox, &manager, disk.dir(), "", &more);
    let address = manager.address();
    say(
        "programs",
        &format!(
            "the manager serves the disk at {address}, the CSI plugin beside it; mutual TLS between them"
        ),
    );

    let mut claims: Vec<Claim> = ["web-0", "web-1"]
        .map(|name| provision(&plugin, name, &small))
        .into();
    let targets: Vec<PathBuf> = claims
        .iter_mut()
        .map(|claim| run_pod(&plugin, claim))
        .collect();
    say(
        "volumes",
        "web-0, web-1: CreateVolume, ControllerPublish, NodeStage, NodePublish",
    );

    serve_both(sandbox, &targets);
    show_isolation(&targets);
    show_constant_time(&plugin, &manager, [&small, &large]);
    show_space(&disk, &manager);
    if with_ui {
        show_ui(sandbox, &manager, &plugin, &authority, &small.reference);
        // Ctrl-C has ended the servers: what is left the guards take away.
        return;
    }

    for claim in &claims {
        let ended = plugin
            .end_pod(claim, &pod_of(claim))
            .and_then(|()| plugin.delete(claim));
        ended.unwrap_or_else(|status| panic!("{} goes away: {status}", claim.request.name));
    }
    sandbox.assert_nothing_attached(disk.dir().join("volumes").as_path());
    sandbox.assert_nothing_attached(plugin.kubelet_dir());
    let volumes = manager
        .list_volumes()
        .expect("the manager lists its volumes");
    assert!(
        volumes.is_empty(),
        "all volumes are deleted, but there is {volumes:?}"
    );
    say(
        "clean up",
        "both pods ended, all volumes deleted; no mount, no loop device is left",
    );
}

fn make_disk(sandbox: &Sandbox) -> Disk {
    let (file_system, words) = match needs::missing(&[Need::FileSystem("xfs")]) {
        None => (
            FileSystem::Xfs,
            "XFS, where a volume is a clone of its image".to_owned(),
        ),
        Some(missing) => (
            FileSystem::Ext4,
            format!("ext4, for want of {missing}: volumes are sparse copies"),
        ),
    };
    let disk = Disk::new(sandbox, "disk", file_system, 8 << 30);
    say("disk", &format!("a file of 8 GiB with {words}"));
    disk
}

fn start_registry(sandbox: &Sandbox) -> Registry {
    let registry = Registry::start(sandbox);
    let address = registry.address();
    say(
        "registry",
        &format!("docker-registry at {address} with TLS and a password"),
    );
    registry
}

/// Builds the documentation's web page into a base image of this size, and pushes it.
fn push(sandbox: &Sandbox, registry: &Registry, size: u64) -> BaseImage {
    let page = web_page(sandbox);
    let mebibytes = format!("{}Mi", size / MIB);
    let build = Build {
        from: Some(&page),
        fs: Some("ext4"),
        size: Some(&mebibytes),
        options: &[],
    };
    let start = Instant::now();
    let reference = build.push(
        registry,
        &format!("demo/party:{}", mebibytes.to_lowercase()),
    );
    let took = start.elapsed().as_secs_f64();
    say(
        "image",
        &format!("{mebibytes}B of ext4 with {WIZARD}, built and pushed in {took:.1} s"),
    );
    BaseImage { reference, size }
}

fn provision(plugin: &Plugin, name: &str, image: &BaseImage) -> Claim {
    // The parameters of the original documentation's StorageClass.
    let parameters = [
        ("numberOfReplicas", "3"),
        ("staleReplicaTimeout", "30"),
        ("fromBackup", ""),
        ("baseImage", image.reference.as_str()),
    ];
    plugin
        .provision(&claim(name, image.size, &parameters))
        .unwrap_or_else(|status| panic!("CreateVolume {name}: {status}"))
}

fn pod_of(claim: &Claim) -> String {
    format!("pod-of-{}", claim.request.name)
}

fn run_pod(plugin: &Plugin, claim: &mut Claim) -> PathBuf {
    let pod = pod_of(claim);
    plugin
        .run_pod(claim, &pod)
        .unwrap_or_else(|status| panic!("{pod} gets its volume: {status}"))
}

/// A web server on each volume gives the file that went into the image.
fn serve_both(sandbox: &Sandbox, targets: &[PathBuf]) {
    let wizard = PARTY_WIZARD;
    for (number, target) in targets.iter().enumerate() {
        let nginx = Nginx::serve(sandbox, &number.to_string(), target);
        let fetched = nginx.fetch(&format!("/{WIZARD}"));
        assert!(
            fetched == wizard,
            "nginx on {} serves the wizard's bytes",
            target.display()
        );
        assert!(
            !nginx.fetch("/index.html").is_empty(),
            "index.html has content"
        );
    }
    let size = wizard.len();
    say(
        "web",
        &format!("an nginx on each: GET /{WIZARD} gives the same {size} bytes"),
    );
}

/// What is written to one volume is not in the other.
fn show_isolation(targets: &[PathBuf]) {
    let (first, second) = (targets[0].join(WIZARD), targets[1].join(WIZARD));
    let overwrite = || {
        let mut file = File::create(&first)?;
        std::io::Write::write_all(&mut file, b"the wizard has left")?;
        file.sync_all()
    };
    overwrite().unwrap_or_else(|error| panic!("{} is writable: {error}", first.display()));
    let other = fs::read(&second);
    let other = other.unwrap_or_else(|error| panic!("{} is readable: {error}", second.display()));
    assert!(
        other == PARTY_WIZARD,
        "a write to one volume is not in the other"
    );
    say("isolation", "a write to web-0 is in web-0 only");
}

/// A volume of 4 GiB is made as fast as one of 64 MiB.
fn show_constant_time(plugin: &Plugin, manager: &Manager, images: [&BaseImage; 2]) {
    let medians = images.map(|image| {
        let mut times: Vec<Duration> = Vec::new();
        for round in 0..10 {
            let name = format!("timed-{}-{round}", image.size / MIB);
            let start = Instant::now();
            let claim = provision(plugin, &name, image);
            // The first one pulls the image and makes its raw form.
            if round > 0 {
                times.push(start.elapsed());
            }
            plugin
                .delete(&claim)
                .unwrap_or_else(|status| panic!("DeleteVolume: {status}"));
        }
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    });
    let reflink = manager.disk().is_ok_and(|disk| disk.reflink);
    let how = if reflink { "a clone" } else { "a sparse copy" };
    let [small, large] = medians;
    let words = format!("CreateVolume ({how}): {small:.1} ms for 64 MiB, {large:.1} ms for 4 GiB");
    say("time", &words);
}

fn show_space(disk: &Disk, manager: &Manager) {
    let volumes = manager
        .list_volumes()
        .expect("the manager lists its volumes");
    let real: u64 = volumes.iter().map(|volume| volume.real_size).sum();
    let (count, used) = (volumes.len(), disk.used() / MIB);
    let words = format!(
        "{count} volumes hold {} KiB each beside two images; the disk has {used} MiB in use",
        real / 1024 / volumes.len().max(1) as u64
    );
    say("space", &words);
}

/// Without mounts: the same images and volumes in a plain directory, looked at from outside.
fn without_mounts(sandbox: &Sandbox, missing: &str) {
    say(
        "machine",
        &format!("has no {missing}: volumes in a plain directory, without mounts"),
    );
    let registry = start_registry(sandbox);
    let pushed = push(sandbox, &registry, 64 * MIB);
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let manager = Manager::start(sandbox, &Options::new(&disk).with_registry(&registry));
    let request = e2e::manager::from_registry("party", &pushed.reference);
    let image = manager
        .make_image(request)
        .unwrap_or_else(|status| panic!("the pull: {status}"));
    assert!(
        image.progress == 100,
        "the image is ready: {}",
        image.message
    );
    let checksum = image.current_checksum.get(..16).unwrap_or_default();
    say(
        "manager",
        &format!("pulled {} bytes, SHA-512 {checksum}…", image.size),
    );
    let files = ["web-0", "web-1"].map(|name| volume_file(&manager, &disk, name));
    let wizard = PARTY_WIZARD;
    for file in &files {
        assert!(
            contains(file, wizard),
            "{} holds the wizard",
            file.display()
        );
    }
    say("volumes", "web-0 and web-1 hold the wizard's bytes");
    let overwrite = File::options()
        .write(true)
        .open(&files[0])
        .and_then(|file| std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xff; 64 << 20], 0));
    overwrite.unwrap_or_else(|error| panic!("{} is writable: {error}", files[0].display()));
    assert!(
        contains(&files[1], wizard),
        "a write to one volume is not in the other"
    );
    say("isolation", "web-0 is overwritten; web-1 still holds them");
}

fn volume_file(manager: &Manager, disk: &Path, name: &str) -> PathBuf {
    let volume = manager.create_volume(name, "party", 0);
    let volume = volume.unwrap_or_else(|status| panic!("volume {name}: {status}"));
    disk.join(
        &volume
            .replicas
            .first()
            .expect("a volume has a replica")
            .path,
    )
}

fn contains(file: &Path, needle: &[u8]) -> bool {
    let bytes = fs::read(file);
    let bytes = bytes.unwrap_or_else(|error| panic!("{} is readable: {error}", file.display()));
    // A file system aligns a file's data to its blocks.
    (0..bytes.len())
        .step_by(1024)
        .any(|at| bytes[at..].starts_with(needle))
}
