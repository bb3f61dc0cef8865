//! A manager that sees its disk at `/data`, as Longhorn's pods do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{Files, RawGrpc};
use crate::{Process, Sandbox, command, manager, programs};

/// Runs a program in a mount namespace of its own whose root is the real one but for `/data` and
/// `/host/proc`: $1 is a directory to make the new root in, $2 the disk.
pub(super) const WITH_DATA: &str = r#"set -e
root=$1; disk=$2; shift 2
mount -t tmpfs none "$root"
for entry in /*; do
    name=${entry#/}
    if [ "$name" = data ]; then continue
    elif [ -L "$entry" ]; then cp -P "$entry" "$root/$name"
    elif [ -d "$entry" ]; then mkdir "$root/$name"; mount --rbind "$entry" "$root/$name"
    fi
done
mkdir "$root/data"
mount --bind "$disk" "$root/data"
if [ ! -e "$root/host" ]; then mkdir -p "$root/host/proc"; mount --rbind /proc "$root/host/proc"; fi
exec chroot "$root" "$@""#;

/// A running daemon with fixed ports.
#[derive(Debug)]
pub struct LonghornDaemon {
    /// The process.
    pub process: Process,
    /// Its disk, as this process sees it.
    pub disk: PathBuf,
    /// Its gRPC.
    pub grpc: RawGrpc,
    /// Its sync server.
    pub files: Files,
    address: String,
}

impl LonghornDaemon {
    /// Starts one on a new disk with this uuid: gRPC on `port`, the sync server on the next.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, name: &str, uuid: &str, port: u16, more: &[&str]) -> Self {
        let disk = sandbox.make_dir(format!("disk-{name}"));
        let program = programs::manager();
        let made = command::output(
            &program.display().to_string(),
            [
                "disk".as_ref(),
                "init".as_ref(),
                disk.as_os_str(),
                "--uuid".as_ref(),
                uuid.as_ref(),
            ],
        );
        assert!(made.status.success(), "{}", command::words(&made));
        Self::start_on(sandbox, name, &disk, uuid, port, more)
    }

    /// The same on a disk that is there.
    #[track_caller]
    pub fn start_on(
        sandbox: &Sandbox,
        name: &str,
        disk: &Path,
        uuid: &str,
        port: u16,
        more: &[&str],
    ) -> Self {
        let root = sandbox.make_dir(format!("root-{name}"));
        let address = format!("127.0.0.1:{port}");
        let sync = format!("127.0.0.1:{}", port + 1);
        let mut arguments: Vec<OsString> = [
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            WITH_DATA,
            "sh",
        ]
        .map(OsString::from)
        .to_vec();
        arguments.extend([root.into(), disk.into(), programs::manager().into()]);
        let flags = [
            "daemon",
            "--listen",
            &address,
            "--sync-listen",
            &sync,
            "--disk-uuid",
            uuid,
        ];
        arguments.extend(flags.map(OsString::from));
        arguments.extend(
            ["--node-id", manager::NODE, "--allow-address", "127.0.0.0/8"].map(OsString::from),
        );
        arguments.extend(more.iter().map(OsString::from));
        let unshare = command::find("unshare").expect("unshare(1) is on the path");
        let process = Process::spawn(sandbox, name, &unshare, arguments, &[]);
        let mut daemon = Self {
            process,
            disk: disk.to_owned(),
            grpc: RawGrpc::new(&address),
            files: Files { address: sync },
            address,
        };
        let grpc = daemon.grpc.clone();
        daemon
            .process
            .wait_ready(|| grpc.call("VersionGet", b"").is_ok());
        daemon
    }

    /// Where its gRPC is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The path of an image's file as the daemon sees it, and as this process does.
    pub fn image_file(&self, id: &str) -> (String, PathBuf) {
        let below = format!("backing-images/{id}/backing");
        (format!("/data/{below}"), self.disk.join(below))
    }

    /// Runs the command line against it.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["backing-image", "--url", &self.address];
        all.extend_from_slice(arguments);
        command::output(&programs::manager().display().to_string(), all)
    }
}

/// Runs the ignored test `inner` of this executable in network and mount namespaces of its own, where
/// every port of 127.0.0.1 is free, and passes its verdict on.
#[track_caller]
pub fn in_namespaces(inner: &str) {
    // The programs are built here: there is no network inside.
    programs::manager();
    let executable = std::env::current_exe().expect("this executable has a path");
    let output = Command::new("unshare")
        .args(["-mn", "--propagation", "private", "sh", "-c"])
        .arg("ip link set lo up && exec \"$@\"")
        .arg("sh")
        .arg(executable)
        .args(["--exact", inner, "--ignored", "--nocapture"])
        .env("E2E_NO_BUILD", "1")
        .output()
        .expect("start unshare(1)");
    assert!(output.status.success(), "{}", command::words(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}
