//! The pod of the iSCSI targets: `longhorn-csi-plugin target`, as an ordinary user.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Need, Process, Sandbox, command, needs, programs, wait};

const USER: &str = "65532";

/// The directory is not in the sandbox: an ordinary user cannot enter that.
struct Pod {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Pod {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let program = dir.path().join("longhorn-csi-plugin");
        // By a program: a file that this process has open for writing could be held by the child of another test
        // between fork and exec (ETXTBSY of execve(2)).
        command::run("cp", [&programs::csi_plugin(), &program]);
        Self { dir, program }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/ctl")
    }

    fn prepare(&self) {
        let status = Command::new(&self.program)
            .args(["target", "prepare", "--owner=65532:65532", "--socket"])
            .arg(self.socket())
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn serve(&self, sandbox: &Sandbox) -> Process {
        let socket = self.socket();
        let words = [
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            "--inh-caps=-all",
        ];
        let words = words.map(str::to_owned).into_iter().chain([
            self.program.display().to_string(),
            "target".to_owned(),
            "serve".to_owned(),
            "--socket".to_owned(),
            socket.display().to_string(),
        ]);
        let mut process =
            Process::spawn(sandbox, "target", Path::new("/usr/bin/setpriv"), words, &[]);
        process.wait_ready(|| self.answers());
        process
    }

    fn answers(&self) -> bool {
        let check = Command::new(&self.program)
            .args(["target", "check", "--socket"])
            .arg(self.socket())
            .output()
            .unwrap();
        check.status.success()
    }

    /// Its tgtd, and of no other.
    fn tgtd(&self) -> Option<i32> {
        let wanted = format!(
            "TGT_IPC_SOCKET={}",
            self.dir.path().join("run/tgtd").display()
        );
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|id: &i32| {
                let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
                environment
                    .split(|byte| *byte == 0)
                    .any(|word| word == wanted.as_bytes())
            })
    }
}

#[test]
fn row_449_a_signal_ends_the_program_and_its_tgtd() {
    needs!(Need::Root, Need::Tool("tgtd"), Need::Tool("setpriv"));
    let (sandbox, pod) = (Sandbox::new("target"), Pod::new());
    pod.prepare();
    // A second start in the same directory, too.
    for _ in 0..2 {
        let mut process = pod.serve(&sandbox);
        let tgtd = pod.tgtd().unwrap();
        let status = fs::read_to_string(format!("/proc/{tgtd}/status")).unwrap();
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(field("Uid:"), [USER; 4]);
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        assert_eq!(field("Seccomp:"), ["2"]);
        // No door is open before somebody has put targets behind it.
        assert!(process.terminate().success(), "{}", process.log());
        assert!(pod.tgtd().is_none());
        assert!(!pod.answers());
        let left: Vec<_> = fs::read_dir(pod.dir.path().join("run")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn row_450_the_program_ends_with_its_tgtd_and_lets_nobody_else_speak() {
    needs!(Need::Root, Need::Tool("tgtd"), Need::Tool("setpriv"));
    let (sandbox, pod) = (Sandbox::new("target"), Pod::new());
    pod.prepare();
    let mut process = pod.serve(&sandbox);
    // The directory keeps others out; were it open, the socket does.
    let run = pod.dir.path().join("run");
    let speak = |user: &str| {
        Command::new("setpriv")
            .args(["--reuid", user, "--regid", user, "--clear-groups"])
            .arg(&pod.program)
            .args(["target", "check", "--socket"])
            .arg(pod.socket())
            .output()
            .unwrap()
    };
    assert!(!speak("12345").status.success());
    let open = |mode| {
        fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(0o755);
    fs::set_permissions(
        pod.socket(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    assert!(!speak("12345").status.success());
    assert!(speak(USER).status.success());
    open(0o700);
    // Nonsense harms nobody.
    let mut stream = UnixStream::connect(pod.socket()).unwrap();
    stream.write_all(&[0xff; 120]).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
    assert!(pod.answers());

    let tgtd = rustix::process::Pid::from_raw(pod.tgtd().unwrap()).unwrap();
    rustix::process::kill_process(tgtd, rustix::process::Signal::KILL).unwrap();
    assert!(!process.wait_end().success());
    assert!(process.log().contains("tgtd ended"), "{}", process.log());
    // And the other way round: no tgtd outlives the program.
    let mut process = pod.serve(&sandbox);
    process.kill_9();
    wait::until("its tgtd is gone", || pod.tgtd().is_none().then_some(()));
}
