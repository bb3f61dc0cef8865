//! Other mount namespaces and shared mounts: containers that share the directory of the kubelet see
//! our mounts there, and so does every other location where that directory is mounted (143).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use host::staging;
use rig::{MIB, Rig, run, text};
use types::ErrorKind;

/// A process in a mount namespace of its own. It holds on to every other mount of the machine, so it
/// must not live long.
struct Container(Child);

impl Container {
    fn new(propagation: &str) -> Self {
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", propagation, "sleep", "600"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let container = Self(child);
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let deadline = Instant::now() + Duration::from_mins(5);
        while fs::read_link(container.proc("ns/mnt")).unwrap() == own
            || !fs::read_to_string(container.proc("comm"))
                .unwrap()
                .starts_with("sleep")
        {
            assert!(Instant::now() < deadline, "unshare does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        container
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }

    fn sees(&self, path: &Path) -> bool {
        let mounts = fs::read(self.proc("mountinfo")).unwrap();
        let mounts = host::mountinfo::parse(&mounts).unwrap();
        host::mountinfo::at(&mounts, path).is_some()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A namespace of one test would hold on to the volumes of the other.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn mounts_reach_the_containers_that_share_kubelets_directory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(rig) = Rig::new() else { return };
    // As a kubelet directory is mounted into a node plugin with Bidirectional propagation.
    run("mount", &["--bind", text(rig.dir()), text(rig.dir())]);
    run("mount", &["--make-shared", text(rig.dir())]);
    let mounts = host::mountinfo::read().unwrap();
    assert!(
        host::mountinfo::containing(&mounts, &rig.path("x"))
            .unwrap()
            .shared
            .is_some()
    );
    let container = Container::new("slave");
    let volume = rig.volume("shared", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    let target = rig.target("pod");
    rig.stage(&staged);
    staging::publish(&rig.publish_request(&staged, &target)).unwrap();
    assert!(container.sees(&target) && container.sees(&staged.staging_path));
    staging::unpublish(&volume.name, &target).unwrap();
    rig.unstage(&staged);
    assert!(!container.sees(&target) && !container.sees(&staged.staging_path));
    drop(container);
    run("umount", &[text(rig.dir())]);
    rig.assert_clean();
}

#[test]
fn a_namespace_that_holds_on_to_a_volume_is_named() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(rig) = Rig::new() else { return };
    let volume = rig.volume("held", 32 * MIB);
    let staged = rig.mount_request(&volume, None);
    rig.stage(&staged);
    // What is mounted now is copied, and no unmount reaches the copy.
    let container = Container::new("private");
    let error = staging::unstage(&volume.name, &staged.staging_path).unwrap_err();
    let said = types::report(&error).to_string();
    let process = format!("namespace of process {} (sleep)", container.0.id());
    assert!(said.contains(&process), "{said}");
    assert_eq!(types::Classify::kind(&error), ErrorKind::FailedPrecondition);
    // With the namespace ends its copy, and the same call finishes.
    drop(container);
    rig.unstage(&staged);
    rig.assert_clean();
}

/// Runs a test of this program in a mount namespace of its own; `None` inside of it.
fn in_own_namespace(test: &str) -> Option<()> {
    const INSIDE: &str = "HOST_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(status.unwrap().success(), "{test} fails inside");
    Some(())
}

#[test]
fn row_143_a_kubelet_directory_that_is_mounted_twice_is_one_place() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(rig) = Rig::new() else { return };
    let test = "row_143_a_kubelet_directory_that_is_mounted_twice_is_one_place";
    if in_own_namespace(test).is_some() {
        return;
    }
    let (data, kubelet) = (rig.path("data"), rig.path("kl"));
    for directory in [&data, &kubelet] {
        fs::create_dir(directory).unwrap();
    }
    run("mount", &["-t", "tmpfs", "tmpfs", text(&data)]);
    run("mount", &["--make-shared", text(&data)]);
    fs::create_dir(data.join("kubelet")).unwrap();
    run(
        "mount",
        &["--bind", text(&data.join("kubelet")), text(&kubelet)],
    );
    // By the one path, by the other, and where the second only follows the first.
    for (top, propagation) in [
        (kubelet.clone(), "--make-shared"),
        (data.join("kubelet"), "--make-shared"),
        (data.join("kubelet"), "--make-slave"),
    ] {
        run("mount", &[propagation, text(&kubelet)]);
        for block in [false, true] {
            let volume = rig.volume("twice", 32 * MIB);
            let place = |name: &str| {
                let parent = top.join(name);
                fs::create_dir_all(&parent).unwrap();
                parent.join("mount")
            };
            let mut staged = if block {
                rig.block_request(&volume)
            } else {
                rig.mount_request(&volume, None)
            };
            staged.staging_path = place("plugins");
            rig.stage(&staged);
            let publish = |name: &str| staging::PublishRequest {
                single_writer: true,
                ..rig.publish_request(&staged, &place(name))
            };
            staging::publish(&publish("a")).unwrap();
            staging::publish(&publish("a")).unwrap();
            let mounts = host::mountinfo::read().unwrap();
            let repeated = |path: &str| host::mountinfo::at(&mounts, &rig.path(path)).is_some();
            assert!(repeated("kl/a/mount"), "the mount is not repeated");
            // A second target is one, and so is a use of the volume that goes on.
            let error = staging::publish(&publish("b")).unwrap_err();
            assert!(error.to_string().contains("only one target"), "{error}");
            let error = staging::unstage(&volume.name, &staged.staging_path).unwrap_err();
            assert_eq!(types::Classify::kind(&error), ErrorKind::FailedPrecondition);
            staging::unpublish(&volume.name, &place("a")).unwrap();
            staging::unstage(&volume.name, &staged.staging_path).unwrap();
            assert!(rig.loops().is_empty(), "{propagation}");
        }
    }
}
