//! The node service with a stand-in for `drbdsetup`, and the real `drbdmeta`: the life of a replica, killed after each
//! command.
//!
//! This program is several: it runs each case in a mount namespace of its own, in which it is also found as
//! `drbdsetup`, and starts itself as the node service, which it kills.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a test"
)]

mod stand_in;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use client::Cluster;
use node::{ExposeSettings, Service, Settings};
use proto::node::v1 as wire;
use proto::node::v1::node_server::Node as _;
use stand_in::{DIRECTORY, Kernel, PART, SEPARATOR};
use trust::Dialer;
use types::NodeId;

const SECRET: &str = "geheim-0123456789";
const NAME: &str = "longhorn-v";

/// What this program is where it was started by itself; nothing else.
#[test]
fn plays_its_part() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    let all: Vec<String> = part.split(SEPARATOR).map(str::to_owned).collect();
    match all[0].as_str() {
        "drbdsetup" => std::process::exit(stand_in::run(&all[1..])),
        "hold" => stand_in::hold(&all[1..]),
        "serve" => serve(Path::new(&all[1]), &all[2]),
        other => panic!("{other} is no part"),
    }
}

/// Runs a case where this program is `drbdsetup`.
fn case(name: &str, run: fn(&Path)) {
    const CASE: &str = "DRBD_TEST_CASE";
    if let Some(root) = std::env::var_os(CASE) {
        fs::create_dir_all(DIRECTORY).unwrap();
        run(Path::new(&root));
        return;
    }
    let is_root = rustix::process::geteuid().is_root();
    let tools = ["/usr/sbin/drbdsetup", "/usr/sbin/drbdmeta"].map(Path::new);
    if !is_root || !tools.iter().all(|tool| tool.exists()) {
        println!("skipped: needs root and drbd-utils");
        return;
    }
    let sandbox = tempfile::tempdir().unwrap();
    let root = sandbox.path();
    for directory in ["module/drbd", "disk/volumes/v", "state"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    write(&root.join("module/drbd/version"), "9.3.3\n");
    let disk = r#"{"diskUUID":"disk-a"}"#;
    write(&root.join("disk/longhorn-disk.cfg"), disk);
    let program = std::env::current_exe().unwrap();
    // What it answers is apart from what the harness prints.
    let tool = format!(
        "#!/bin/sh\nexec 3>&1 >/dev/null\nIFS={SEPARATOR}\n{PART}=\"drbdsetup$IFS$*\" exec {} --exact plays_its_part \
         --nocapture\n",
        program.display()
    );
    write(&root.join("drbdsetup"), &tool);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(root.join("drbdsetup"), mode).unwrap();
    let script = "mount --make-rprivate / && mount --bind \"$1/drbdsetup\" /usr/sbin/drbdsetup && \
                  mount --bind \"$1/module\" /sys/module && exec \"$0\" --exact \"$2\" --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", script])
        .args([program.as_path(), root, Path::new(name)])
        .env(CASE, root)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && words.contains("1 passed"),
        "{words}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn write(path: &Path, text: &str) {
    use std::io::Write as _;
    File::create(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

/// A volume without a trace of DRBD.
fn reset(root: &Path) {
    let mut kernel = Kernel::load();
    kernel.clear();
    kernel.store();
    let _ = fs::remove_dir_all(root.join("state"));
    let volume = root.join("disk/volumes/v");
    for (name, size) in [("volume", 64 << 20), ("drbd", 9 << 20)] {
        let path = volume.join(name);
        let _ = fs::remove_file(&path);
        // A loop device that is going away still has the old one.
        File::create(path).unwrap().set_len(size).unwrap();
    }
}

fn member(id: u32, node: &str, disk: &str, create: bool) -> wire::ReplicaMember {
    wire::ReplicaMember {
        id,
        node_id: node.to_owned(),
        address: format!("10.77.0.{id}"),
        disk_uuid: disk.to_owned(),
        create,
        ..Default::default()
    }
}

/// The layouts that this node gets one after the other.
fn layout(generation: u64) -> wire::ReplicaLayout {
    let create = generation == 1;
    let third = match generation {
        1 => member(3, "c", "disk-c", create),
        // It was replaced, and another came that has none.
        _ => member(4, "d", "", false),
    };
    let mut second = member(2, "b", "disk-b", create);
    if generation == 4 {
        "10.77.1.2".clone_into(&mut second.address);
    }
    wire::ReplicaLayout {
        volume: "v".to_owned(),
        generation,
        size: 64 << 20,
        minor: 1000,
        port: 7000,
        members: vec![member(1, "a", "disk-a", create), second, third],
        holder: if generation == 3 { "b" } else { "a" }.to_owned(),
        ..Default::default()
    }
}

/// The node service in a process of its own: does one thing, or what it does by itself.
fn serve(root: &Path, what: &str) {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let settings = Settings {
            node_id: NodeId::new("a").unwrap(),
            version: "test",
            disks: host::Disks::new(vec![root.join("disk")]),
            kubelet_dir: root.to_owned(),
            records: root.join("state/attachments"),
            replicas: root.join("state/replicas"),
            storage: None,
            expose: ExposeSettings {
                records: root.join("exposed"),
                names: root.join("dev"),
                managers: Cluster::new([], &Dialer::Plain).unwrap(),
                targets: None,
            },
        };
        let service = Service::new(settings, |_, _, _| {});
        let volume = || wire::ReplicaRequest {
            volume: "v".to_owned(),
        };
        let done = match what {
            "keep" => {
                tokio::spawn(service.clone().keep_replicas());
                tokio::time::sleep(Duration::from_hours(1)).await;
                Ok(())
            }
            "remove" => service
                .remove_replica(tonic::Request::new(volume()))
                .await
                .map(drop),
            "suspend" => {
                let request = wire::SuspendVolumeRequest {
                    volume: "v".to_owned(),
                    seconds: 60,
                };
                service
                    .suspend_volume(tonic::Request::new(request))
                    .await
                    .map(drop)
            }
            generation => {
                let request = wire::PutReplicaRequest {
                    layout: Some(layout(generation.parse().unwrap())),
                    shared_secret: SECRET.to_owned(),
                };
                service
                    .put_replica(tonic::Request::new(request))
                    .await
                    .map(drop)
            }
        };
        if let Err(status) = done {
            eprintln!("failed: {:?}: {}", status.code(), status.message());
            std::process::exit(1);
        }
    });
}

fn command(root: &Path, what: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    let part = ["serve", root.to_str().unwrap(), what].join(SEPARATOR);
    command
        .args(["--exact", "plays_its_part", "--nocapture"])
        .env(PART, part);
    command
}

#[track_caller]
fn told(root: &Path, what: &str) -> Output {
    let output = command(root, what).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!log.contains(SECRET), "the log shows the secret: {log}");
    output
}

#[track_caller]
fn done(root: &Path, what: &str) {
    let output = told(root, what);
    assert!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Lets the service do what it does by itself until the kernel has what is expected.
#[track_caller]
fn kept_until(root: &Path, what: &str, is_there: impl Fn(&Kernel) -> bool) {
    let log = root.join("keep.log");
    let mut service = command(root, "keep")
        .stderr(File::create(&log).unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_there(&Kernel::load()) {
        let log = || fs::read_to_string(&log).unwrap();
        assert!(
            Instant::now() < deadline,
            "{what}: {:#?}\n{}",
            Kernel::load(),
            log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    service.kill().unwrap();
    service.wait().unwrap();
    let log = fs::read_to_string(&log).unwrap();
    assert!(!log.contains(SECRET), "the log shows the secret: {log}");
}

/// Whether the kernel has what the layout of a generation says.
fn has(kernel: &Kernel, generation: u64) -> bool {
    let Some(resource) = kernel.resources.get(NAME) else {
        return false;
    };
    let layout = layout(generation);
    let peers = layout.members.iter().filter(|member| member.node_id != "a");
    let fits = |member: &wire::ReplicaMember| {
        let peer = resource.peers.get(&u8::try_from(member.id).unwrap());
        let ends = (
            "ipv4:10.77.0.1:7000".to_owned(),
            format!("ipv4:{}:7000", member.address),
        );
        peer.is_some_and(|peer| {
            peer.connected
                && peer.name == member.node_id
                && peer.bitmap != member.disk_uuid.is_empty()
                && peer.paths == [ends]
                && peer.options.contains(&format!("--shared-secret={SECRET}"))
        })
    };
    let role = if generation == 3 {
        "Secondary"
    } else {
        resource.role.as_str()
    };
    resource.id == 1
        && resource.minor == Some(1000)
        && resource.disk.is_some()
        && resource.role == role
        && resource.peers.len() == 2
        && peers.clone().all(fits)
}

#[track_caller]
fn no_violation() {
    let kernel = Kernel::load();
    assert_eq!(
        kernel.violations,
        Vec::<String>::new(),
        "{:#?}",
        kernel.commands
    );
}

#[test]
fn row_320_killed_after_each_command_a_replica_converges() {
    case(
        "row_320_killed_after_each_command_a_replica_converges",
        killed_after_each_command_a_replica_converges,
    );
}

fn killed_after_each_command_a_replica_converges(root: &Path) {
    for (generation, least) in [(1, 9), (2, 6)] {
        for after in 1.. {
            reset(root);
            for before in 1..generation {
                done(root, &before.to_string());
                assert!(has(&Kernel::load(), before));
            }
            let mut kernel = Kernel::load();
            kernel.kill_after = Some(after);
            kernel.store();
            let output = told(root, &generation.to_string());
            if output.status.success() {
                assert!(after > least, "{after} commands are few");
                assert!(has(&Kernel::load(), generation), "{:#?}", Kernel::load());
                break;
            }
            kept_until(
                root,
                &format!("killed after {after} of {generation}"),
                |kernel| has(kernel, generation),
            );
            no_violation();
        }
    }
    reset(root);
    done(root, "1");
    let mut kernel = Kernel::load();
    kernel.kill_after = Some(1);
    kernel.store();
    assert!(!told(root, "remove").status.success());
    for _ in 0..2 {
        done(root, "remove");
    }
    assert!(Kernel::load().resources.is_empty());
    assert_eq!(
        fs::read_dir(root.join("state/replicas")).unwrap().count(),
        0
    );
}

#[test]
fn row_321_what_a_node_is_told_is_kept_and_no_older_layout_is_taken() {
    case(
        "row_321_what_a_node_is_told_is_kept_and_no_older_layout_is_taken",
        what_a_node_is_told_is_kept_and_no_older_layout_is_taken,
    );
}

fn what_a_node_is_told_is_kept_and_no_older_layout_is_taken(root: &Path) {
    reset(root);
    // Of a replica that was there once, metadata are not made again.
    let lost = told(root, "2");
    assert!(String::from_utf8_lossy(&lost.stderr).contains("DataLoss"));
    reset(root);
    done(root, "1");
    done(root, "2");
    for _ in 0..2 {
        let older = told(root, "1");
        assert!(String::from_utf8_lossy(&older.stderr).contains("FailedPrecondition"));
        done(root, "2");
    }
    // After a reboot the kernel has nothing.
    let mut kernel = Kernel::load();
    kernel.clear();
    kernel.store();
    kept_until(root, "after a reboot", |kernel| has(kernel, 2));
    no_violation();
    let metadata = fs::read(root.join("disk/volumes/v/drbd")).unwrap();
    assert_eq!(
        metadata[0x3c..0x40],
        [0x83, 0x74, 0x02, 0x6d],
        "made once, and kept"
    );
}

#[test]
fn row_322_a_node_lets_go_before_it_does_anything_else() {
    case(
        "row_322_a_node_lets_go_before_it_does_anything_else",
        a_node_lets_go_before_it_does_anything_else,
    );
}

fn a_node_lets_go_before_it_does_anything_else(root: &Path) {
    reset(root);
    done(root, "1");
    let mut kernel = Kernel::load();
    let resource = kernel.resources.get_mut(NAME).unwrap();
    "Primary".clone_into(&mut resource.role);
    resource
        .peers
        .values_mut()
        .for_each(|peer| peer.connected = false);
    kernel.commands.clear();
    kernel.store();
    done(root, "3");
    let kernel = Kernel::load();
    assert_eq!(kernel.commands[0], ["secondary", "--force", NAME]);
    assert!(has(&kernel, 3), "{kernel:#?}");
}

#[test]
fn row_323_stopped_writes_go_on_when_the_process_that_stopped_them_is_gone() {
    case(
        "row_323_stopped_writes_go_on_when_the_process_that_stopped_them_is_gone",
        stopped_writes_go_on_when_the_process_that_stopped_them_is_gone,
    );
}

fn stopped_writes_go_on_when_the_process_that_stopped_them_is_gone(root: &Path) {
    reset(root);
    done(root, "1");
    done(root, "suspend");
    assert!(Kernel::load().resources[NAME].suspended);
    kept_until(root, "stopped", |kernel| !kernel.resources[NAME].suspended);
}

#[test]
fn a_peer_with_another_address_is_reached_there() {
    case("a_peer_with_another_address_is_reached_there", |root| {
        reset(root);
        done(root, "1");
        done(root, "2");
        done(root, "4");
        kept_until(root, "moved", |kernel| has(kernel, 4));
        no_violation();
    });
}
