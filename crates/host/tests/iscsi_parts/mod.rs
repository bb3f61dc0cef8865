//! A tgtd with a directory and a port of its own, and initiators: libiscsi's tools, QEMU, and a few bytes by hand.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use host::target::daemon::{Daemon, prepare};
use host::target::{Chap, Settings, Targets, Wanted};
use types::VolumeName;

pub const MIB: u64 = 1 << 20;
pub const HOST: &str = "iqn.2026-01.org.example:host1";
pub const SECRET: &str = "correct-horse";
/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_mins(5);
/// What qemu-io says when it waits for a command.
const PROMPT: &[u8] = b"qemu-io> ";

pub struct Site {
    dir: tempfile::TempDir,
    pub daemon: Option<Daemon>,
    pub targets: Targets,
    pub portal: SocketAddr,
}

impl Site {
    /// `None`, having said why, where the tests cannot run.
    pub fn new() -> Option<Self> {
        for tool in ["tgtd", "tgtadm", "iscsi-ls", "qemu-io", "strace"] {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .any(|dir| Path::new(dir).join(tool).exists());
            if !found {
                println!("skipped: needs {tool}");
                return None;
            }
        }
        if !run("qemu-img", &["--help"]).1.contains("iscsi") {
            println!("skipped: needs QEMU's driver for iSCSI (qemu-block-extra)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let socket = dir.path().join("run/ctl");
        prepare(&socket, user, rustix::process::getegid().as_raw()).unwrap();
        let portal = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let targets = Targets::new(&Settings {
            socket: socket.clone(),
            portal,
        });
        let daemon = Some(Daemon::start(&socket).unwrap());
        Some(Self {
            dir,
            daemon,
            targets,
            portal,
        })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/ctl")
    }

    /// The node service after a start: it knows what should be there, and not what tgtd was told.
    pub fn restarted(&self) -> Targets {
        Targets::new(&Settings {
            socket: self.socket(),
            portal: self.portal,
        })
    }

    pub fn start(&mut self) {
        self.daemon = Some(Daemon::start(&self.socket()).unwrap());
    }

    /// tgtd's process.
    pub fn tgtd(&self) -> u32 {
        let wanted = format!(
            "TGT_IPC_SOCKET={}",
            self.dir.path().join("run/tgtd").display()
        );
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|id: &u32| {
                let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
                let is_it = |word: &[u8]| word == wanted.as_bytes();
                environment.split(|byte| *byte == 0).any(is_it)
            })
            .unwrap()
    }

    pub fn kill_9(&mut self) {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.tgtd()).unwrap()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        let mut daemon = self.daemon.take().unwrap();
        until("tgtd is dead", || daemon.ended().unwrap());
    }

    /// A volume's file of random bytes, sparse behind them.
    pub fn file(&self, name: &str, size: u64) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut file = File::create(&path).unwrap();
        let random = File::open("/dev/urandom").unwrap();
        std::io::copy(&mut random.take(size.min(4 * MIB)), &mut file).unwrap();
        file.set_len(size).unwrap();
        path
    }

    pub fn wanted(&self, name: &str, size: u64) -> Wanted {
        Wanted {
            volume: VolumeName::new(name).unwrap(),
            file: self.file(name, size),
            size,
            read_only: false,
            initiators: vec![HOST.parse().unwrap()],
            chap: Some(Chap::new(name, SECRET).unwrap()),
        }
    }

    /// The admin program of tgt's own.
    pub fn tgtadm(&self, arguments: &str) -> String {
        let output = Command::new("tgtadm")
            .env("TGT_IPC_SOCKET", self.dir.path().join("run/tgtd"))
            .args(["--lld", "iscsi"])
            .args(arguments.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// QEMU's words for a target.
    pub fn options(&self, wanted: &Wanted, initiator: &str, proof: Option<(&str, &str)>) -> String {
        let proof = proof.map_or(String::new(), |(user, secret)| {
            format!(",user={user},password={secret}")
        });
        format!(
            "driver=iscsi,transport=tcp,portal={},target={},lun=1,initiator-name={initiator}{proof}",
            self.portal,
            Targets::name(&wanted.volume)
        )
    }

    pub fn right(&self, wanted: &Wanted) -> String {
        let user = wanted.volume.as_str();
        self.options(wanted, HOST, Some((user, SECRET)))
    }

    /// What the tools of libiscsi call a target.
    pub fn url(&self, name: &str) -> String {
        let name = format!(
            "{name}%{SECRET}@{}/iqn.2019-10.io.longhorn:{name}",
            self.portal
        );
        format!("iscsi://{name}/1")
    }

    /// The size in bytes, as the target tells it.
    pub fn size(&self, name: &str) -> u64 {
        let said = run("iscsi-readcapacity16", &["-i", HOST, "-s", &self.url(name)]).1;
        let digits = said
            .split(|c: char| !c.is_ascii_digit())
            .find(|word| !word.is_empty());
        digits.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
    }

    /// What `iscsi-ls` shows to an initiator.
    pub fn seen_by(&self, initiator: &str) -> String {
        let url = format!("iscsi://{}", self.portal);
        run("iscsi-ls", &["-i", initiator, &url]).1
    }
}

/// Whether it ended well, and all that it said.
pub fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output: Output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Runs commands of `qemu-io` on a target; `Err`: what it said.
pub fn io(options: &str, commands: &[&str]) -> Result<String, String> {
    let mut arguments = vec!["--image-opts", options];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    let (well, said) = run("qemu-io", &arguments);
    let well = well && !said.contains("failed") && !said.contains("error");
    if well { Ok(said) } else { Err(said) }
}

pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < LONG, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An initiator that writes without a pause.
pub struct Writer {
    qemu: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub written: u64,
}

impl Writer {
    pub fn start(options: &str) -> Self {
        let mut qemu = Command::new("qemu-io")
            .args(["--image-opts", options])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = qemu.stdin.take().unwrap();
        let answers = BufReader::new(qemu.stdout.take().unwrap());
        let mut writer = Self {
            qemu,
            commands,
            answers,
            written: 0,
        };
        writer.answer();
        writer
    }

    /// One write, every fourth with a flush; panics if the initiator sees an error.
    pub fn write(&mut self) {
        let offset = (self.written % 256) * 4096;
        let said = self.command(&format!("write -P 0x5a {offset} 4096"));
        assert!(said.contains("wrote 4096"), "{said}");
        if self.written.is_multiple_of(4) {
            self.command("flush");
        }
        self.written += 1;
    }

    /// Runs a command to its end. qemu-io waits for a line on its input and then reads ahead: a second line that
    /// came with the first would lie in its buffer until a third one comes.
    fn command(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut said = Vec::new();
        while !said.ends_with(PROMPT) {
            let len = self.answers.read_until(b' ', &mut said).unwrap();
            assert!(len > 0, "qemu-io ended: {}", String::from_utf8_lossy(&said));
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains("fail") && !said.contains("error"), "{said}");
        said
    }

    /// Goes on writing while `work` is done, and some writes longer.
    pub fn during<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    self.write();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
            let more = || {
                let so_far = written.load(Ordering::Relaxed);
                until("the initiator goes on", || {
                    let on = written.load(Ordering::Relaxed) > so_far + 50;
                    (on || writing.is_finished()).then_some(())
                });
            };
            more();
            let done = work();
            more();
            stop.store(true, Ordering::Relaxed);
            writing.join().unwrap();
            done
        })
    }

    pub fn end(mut self) {
        writeln!(self.commands, "quit").unwrap();
        assert!(self.qemu.wait().unwrap().success());
    }
}

impl Drop for Writer {
    /// One whose target is gone would try to come back for ever.
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Logs in by hand, with any alias; only where no proof is asked. The session lasts as long as the stream.
pub fn log_in(portal: SocketAddr, target: &str, alias: &[u8]) -> TcpStream {
    let mut text = Vec::new();
    for (key, value) in [
        ("InitiatorName", HOST.as_bytes()),
        ("InitiatorAlias", alias),
        ("TargetName", target.as_bytes()),
        ("SessionType", b"Normal"),
    ] {
        text.extend_from_slice(key.as_bytes());
        text.push(b'=');
        text.extend_from_slice(value);
        text.push(0);
    }
    let mut stream = TcpStream::connect(portal).unwrap();
    // Until the target has no more to say about how the two will speak.
    loop {
        // A login request (RFC 7143 §11.12): immediate, from the operational stage to the full one.
        let mut pdu = vec![0; 48];
        pdu[0] = 0x43;
        pdu[1] = 0x87;
        pdu[5..8].copy_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes()[1..]);
        pdu[8] = 0x80;
        pdu[13] = 7;
        pdu.append(&mut text);
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        stream.write_all(&pdu).unwrap();
        let mut answer = [0; 48];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[36..38], [0, 0], "the login is refused");
        let len = usize::from(answer[6]) << 8 | usize::from(answer[7]);
        let mut said = vec![0; len.next_multiple_of(4)];
        stream.read_exact(&mut said).unwrap();
        if answer[1] & 0x83 == 0x83 {
            return stream;
        }
    }
}
