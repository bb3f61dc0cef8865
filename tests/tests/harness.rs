//! Tests of the harness that the other tests rely on.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use e2e::power::{Cut, RecordedDisk};
use e2e::{Disk, FileSystem, Need, Sandbox, needs};

#[test]
fn a_disk_goes_away_with_its_sandbox() {
    needs!(Need::Root, Need::LoopMount, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("disk");
    let dir = sandbox.dir().to_owned();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 320 << 20);
    assert_eq!(
        e2e::leftovers::below(&dir).len(),
        2,
        "a mount and a loop device"
    );
    // A loop device with its file on the disk, as a staged volume has it.
    let file = disk.dir().join("volume");
    File::create(&file).unwrap().set_len(1 << 20).unwrap();
    e2e::command::run("losetup", ["--find".as_ref(), file.as_os_str()]);
    drop(sandbox);
    assert_eq!(e2e::leftovers::below(&dir), Vec::<String>::new());
    assert!(!dir.exists());
}

#[test]
fn a_replayed_power_cut_keeps_what_was_synced_and_only_that() {
    needs!(
        Need::Root,
        Need::LoopMount,
        Need::Fuse,
        Need::Tool("qemu-storage-daemon")
    );
    for file_system in [FileSystem::Xfs, FileSystem::Ext4] {
        let sandbox = Sandbox::new("power");
        let disk = RecordedDisk::new(&sandbox, file_system, 320 << 20, |dir| {
            fs::create_dir(dir.join("before")).unwrap();
        });
        let mut acknowledged = Vec::new();
        for round in 0..3_u8 {
            let mut file = File::create(disk.dir().join(format!("file-{round}"))).unwrap();
            file.write_all(&vec![round + 1; 100_000]).unwrap();
            file.sync_all().unwrap();
            File::open(disk.dir()).unwrap().sync_all().unwrap();
            acknowledged.push(disk.position());
        }
        let recording = disk.finish();
        assert!(recording.entries.iter().any(e2e::power::Entry::is_flush));
        let target = sandbox.path("replayed.img");
        for (round, count) in acknowledged.iter().enumerate() {
            recording.replay(*count, Cut::Dropped(7), &target).unwrap();
            let replayed = Disk::mount(&sandbox, "replayed", target.clone());
            assert!(replayed.dir().join("before").exists());
            for file in 0..=round {
                let bytes = fs::read(replayed.dir().join(format!("file-{file}"))).unwrap();
                assert_eq!(
                    bytes,
                    vec![u8::try_from(file).unwrap() + 1; 100_000],
                    "{file_system:?}"
                );
            }
            replayed.detach();
        }
        recording.replay(0, Cut::Clean, &target).unwrap();
        let replayed = Disk::mount(&sandbox, "replayed", target.clone());
        assert!(
            !replayed.dir().join("file-0").exists(),
            "nothing is there before it was written"
        );
    }
}

#[test]
fn a_registry_wants_its_password_and_writes_down_who_asked() {
    needs!(
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd"),
        Need::Tool("openssl")
    );
    let sandbox = Sandbox::new("registry");
    let registry = e2e::Registry::start(&sandbox);
    let url = format!("https://{}/v2/_catalog", registry.address());
    let ca = registry.ca.display().to_string();
    let ask = |user: &str| {
        let asked = [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--cacert",
            &ca,
            "-u",
            user,
            &url,
        ];
        e2e::command::run("curl", asked)
    };
    assert_eq!(ask("wizard:wrong"), "401");
    assert_eq!(
        ask(&format!(
            "{}:{}",
            e2e::registry::USER,
            e2e::registry::PASSWORD
        )),
        "200"
    );
    e2e::wait::until("the access log is written", || {
        (registry.requests(&["GET", "/v2/_catalog", "\" 200 "]) == 1).then_some(())
    });
    assert_eq!(registry.requests(&["GET", "/blobs/"]), 0);
}

#[test]
fn a_web_server_serves_a_directory_and_ends() {
    needs!(Need::Root, Need::Tool("nginx"));
    let sandbox = Sandbox::new("nginx");
    let page = e2e::baseimage::web_page(&sandbox);
    let nginx = e2e::web::Nginx::serve(&sandbox, "page", &page);
    assert!(nginx.fetch(&format!("/{}", e2e::baseimage::WIZARD)) == e2e::baseimage::PARTY_WIZARD);
}

#[test]
fn row_217_a_cluster_that_cannot_run_is_a_failure() {
    let sandbox = Sandbox::new("no-cluster");
    // A machine whose user is not root: nothing is installed, and no cluster can be made.
    let id = sandbox.write("bin/id", "#!/bin/sh\necho 1000\n");
    fs::set_permissions(&id, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = std::process::Command::new(e2e::programs::sources().join("tests/kubernetes/run"))
        .env("PATH", format!("{}:{path}", id.parent().unwrap().display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("lacks root"), "{said}");
}

/// A clone that is not deep enough: the step helm-upgrade says what to fetch, before anything is built.
#[test]
fn row_271_a_history_without_the_release_before_is_told() {
    let sandbox = Sandbox::new("shallow");
    let script = fs::read(e2e::programs::sources().join("tests/kubernetes/before")).unwrap();
    let script = sandbox.write("tests/kubernetes/before", script);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let tools = sandbox.path("tools");
    e2e::command::run("git", ["init", "-q", &sandbox.dir().display().to_string()]);
    let output = std::process::Command::new(script)
        .env("TOOLS", &tools)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("run git fetch --unshallow"), "{said}");
    assert!(output.stdout.is_empty() && !tools.exists());
}
