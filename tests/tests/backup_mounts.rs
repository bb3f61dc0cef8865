//! The node plugin keeps targets on shares mounted. No kernel of a test machine has NFS: a program in the place of
//! mount(8) writes down how it is called, and mounts a tmpfs.
//!
//! There is one test here, because what stands for mount(8) does so for the whole program (`scripts/isolate`).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::csi::Plugin;
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Need, Sandbox, command, leftovers, needs, wait};

/// Mounts another file over mount(8), and takes it away when it is dropped.
struct StandIn(PathBuf);

impl StandIn {
    fn new(sandbox: &Sandbox, script: &str) -> Self {
        let mount = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
        let mut mount = mount.iter().map(|dir| Path::new(dir).join("mount"));
        let mount = mount.find(|path| path.is_file()).unwrap();
        let mount = fs::canonicalize(mount).unwrap();
        let real = sandbox.write("real-mount", "");
        let stand_in = sandbox.write("mount", script);
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
        let bind = |source: &Path, target: &Path| {
            let words = ["--bind".as_ref(), source.as_os_str(), target.as_os_str()];
            assert!(
                Command::new("mount")
                    .args(words)
                    .status()
                    .unwrap()
                    .success()
            );
        };
        bind(&mount, &real);
        let guard = Self(mount.clone());
        bind(&stand_in, &mount);
        guard
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // At once: what is killed with the plugin may not have ended yet.
        command::run("umount", ["--lazy".as_ref(), self.0.as_os_str()]);
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one plugin and three shares, each in its turn"
)]
fn a_target_on_a_share_is_mounted_and_a_server_that_hangs_holds_up_nothing() {
    needs!(Need::Root, Need::FileSystem("xfs"));
    let sandbox = Sandbox::new("backup-mounts");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    init_disk(disk.dir());
    let manager = Manager::start(&sandbox, &Options::new(disk.dir()));
    let secret = sandbox.make_dir("secrets/office");
    fs::create_dir_all(&secret).unwrap();
    for (key, value) in [
        ("CIFS_USERNAME", "me"),
        ("CIFS_PASSWORD", "hunter2,of=the tests\n"),
    ] {
        sandbox.write(secret.strip_prefix(sandbox.dir()).unwrap().join(key), value);
    }
    let here = sandbox.dir().display().to_string();
    // The old server refuses 4.2; the dead one hangs; of CIFS the file of credentials is written down too.
    let script = format!(
        r#"#!/bin/sh
printf '%s ' "$@" >> {here}/calls
echo >> {here}/calls
for last; do :; done
case "$*" in
*dead*) exec sleep 1000;;
*nfsvers=4.2*) echo mount.nfs4: Protocol not supported >&2; exit 32;;
*credentials=*) file=${{4##*credentials=}}; stat -c %a $file > {here}/credentials; cat $file >> {here}/credentials;;
esac
exec {here}/real-mount -t tmpfs share "$last"
"#
    );
    let stand_in = StandIn::new(&sandbox, &script);
    let mounts = sandbox.make_dir("mounts");
    let options = [
        (
            "--backup-target",
            "default=s3://bucket@region/path/".to_owned(),
        ),
        (
            "--backup-target",
            "nightly=nfs://old.example:/export/dir".to_owned(),
        ),
        (
            "--backup-target",
            "office=cifs://files.example/share".to_owned(),
        ),
        (
            "--backup-target",
            "gone=nfs://dead.example:/export".to_owned(),
        ),
        ("--backup-mounts", mounts.display().to_string()),
        (
            "--backup-credentials",
            sandbox.path("secrets").display().to_string(),
        ),
    ];
    let options: Vec<&str> = options
        .iter()
        .flat_map(|(option, value)| [*option, value.as_str()])
        .collect();
    let plugin = Plugin::start_as(&sandbox, &manager, disk.dir(), "", &options);
    let nfs = mounts.join("old_example/export/dir");
    let cifs = mounts.join("files_example/share");
    let is_mounted = |point: &Path| leftovers::mounts_below(&mounts).contains(&point.to_owned());
    wait::until("both shares that answer are mounted", || {
        (is_mounted(&nfs) && is_mounted(&cifs)).then_some(())
    });
    let calls = || fs::read_to_string(sandbox.path("calls")).unwrap();
    let (nfs_text, cifs_text) = (nfs.display(), cifs.display());
    let options = "actimeo=1,soft,timeo=300,retry=2,nosuid,nodev,noexec";
    for call in [
        format!("-t nfs4 -o nfsvers=4.2,{options} -- old.example:/export/dir {nfs_text}"),
        format!("-t nfs4 -o nfsvers=4.1,{options} -- old.example:/export/dir {nfs_text}"),
        "-t cifs -o soft,nosuid,nodev,noexec,credentials=".to_owned(),
        format!("-- //files.example/share {cifs_text}"),
    ] {
        assert!(calls().contains(&call), "{call} is not in {}", calls());
    }
    let written = fs::read_to_string(sandbox.path("credentials")).unwrap();
    assert_eq!(written, "600\nusername=me\npassword=hunter2,of=the tests\n");
    // It is there for as long as the attempt takes, and in no log or argument.
    wait::until("the file of credentials is removed", || {
        let state = plugin.node_state();
        let entries = fs::read_dir(state.parent().unwrap()).unwrap();
        let mut names = entries.map(|entry| entry.unwrap().file_name());
        let left = names.any(|name| name.to_string_lossy().contains("credentials"));
        (!left).then_some(())
    });
    assert!(!plugin.process.log().contains("hunter2") && !calls().contains("hunter2"));
    // The server that hangs holds up nothing.
    let made = e2e::csi::claim("source", 64 << 20, &[]);
    let mut made = plugin.provision(&made).unwrap();
    plugin.run_pod(&mut made, "pod").unwrap();
    plugin.end_pod(&made, "pod").unwrap();
    plugin.delete(&made).unwrap();
    drop(plugin);
    drop(stand_in);
    for point in [&nfs, &cifs] {
        command::run("umount", [point.as_os_str()]);
    }
}
