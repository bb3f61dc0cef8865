//! A node that had a disk accepts no other in its place until an operator permits it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use e2e::manager::Options;
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, command, needs, programs};

/// `disk init` as the manifests call it, with more of a command line.
fn init(disk: &Path, state: &Path, more: &[&str], failpoints: &str) -> Output {
    Command::new(programs::manager())
        .args(["disk", "init"])
        .arg(disk)
        .arg("--node-state")
        .arg(state)
        .args(more)
        .env("FAILPOINTS", failpoints)
        .output()
        .unwrap()
}

fn uuid(output: &Output) -> String {
    assert!(output.status.success(), "{}", command::words(output));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    said["diskUUID"].as_str().unwrap().to_owned()
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let said = command::words(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Row 158: the machine boots without the disk, and later with another one.
#[test]
fn row_158_an_empty_mount_point_is_no_new_disk() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("disk-identity");
    let state = sandbox.make_dir("node");
    let state_dir = state.clone();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 320 << 20);
    let mount = ["--require-mount"];
    let first = uuid(&init(disk.dir(), &state, &mount, ""));
    assert_eq!(uuid(&init(disk.dir(), &state, &[], "")), first);
    let record = state.join("disks.json");
    let mode = fs::metadata(&record).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "the daemon is another user");
    let options = |disk: &Path| Options::new(disk).with("--node-state", state_dir.clone());
    let manager = Manager::start(&sandbox, &options(disk.dir()));
    manager.create_volume("v", "", 1 << 20).unwrap();
    // Under the manager: what it cannot see it does not deny.
    command::run("umount", [OsString::from("-l"), disk.dir().into()]);
    for refusal in [
        manager.volume("v").map(drop).unwrap_err(),
        manager.volume("unknown").map(drop).unwrap_err(),
        manager.delete_volume("v").unwrap_err(),
        manager.disk().map(drop).unwrap_err(),
    ] {
        assert_eq!(refusal.code(), tonic::Code::FailedPrecondition, "{refusal}");
    }
    drop(manager);

    let empty = disk.dir();
    let said = init(empty, &state, &mount, "");
    refused(&said, &["mount the disk there"]);
    let words = [first.as_str(), "no disk", "--replace"];
    refused(&init(empty, &state, &[], ""), &words);
    assert_eq!(
        fs::read_dir(empty).unwrap().count(),
        0,
        "nothing is written"
    );
    // As if the record of a disk had been copied to where it is not mounted.
    uuid(&command::output(
        &programs::manager().display().to_string(),
        [
            "disk",
            "init",
            "--uuid",
            "other",
            &empty.display().to_string(),
        ],
    ));
    refused(&init(empty, &state, &[], ""), &[&first, "disk other"]);
    let mut daemon = Manager::spawn(&sandbox, &options(empty));
    assert!(!daemon.process.wait_end().success());
    assert!(
        daemon.process.log().contains(&first),
        "{}",
        daemon.process.log()
    );
    refused(
        &init(empty, &state, &["--replace", "another"], ""),
        &[&first],
    );
    let replaced = init(empty, &state, &["--replace", &format!("x,{first}")], "");
    assert_eq!(uuid(&replaced), "other");
    Manager::start(&sandbox, &options(empty));
}

/// Row 158: killed between making a disk and recording it.
#[test]
fn row_158_kill_9_at_each_step_of_disk_init_converges() {
    needs!(Need::Failpoints);
    for point in ["store.node_state.disk_made", "store.node_state.recorded"] {
        let sandbox = Sandbox::new("disk-init-crash");
        let (disk, state) = (sandbox.make_dir("disk"), sandbox.make_dir("node"));
        let killed = init(&disk, &state, &[], &format!("{point}=return"));
        assert_eq!(killed.status.signal(), Some(9), "{point}");
        let made = uuid(&init(&disk, &state, &[], ""));
        fs::rename(&disk, sandbox.path("away")).unwrap();
        fs::create_dir(&disk).unwrap();
        refused(&init(&disk, &state, &[], ""), &[&made]);
    }
}
