//! One machine: an emulator with disks in files. Its power is cut by killing the emulator: what the guest has flushed, or
//! given to its disk, is in this machine's memory and stays; what only the guest's memory had is lost.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::network::{control_address, control_port, storage_address, storage_port};
use super::remote::{Ran, Remote, forward};
use super::system::System;
use crate::wait::LONG;
use crate::{FileSystem, Process, Sandbox, command};

/// How a guest is made.
#[derive(Debug, Clone)]
pub struct Shape {
    /// MiB of memory.
    pub memory: u32,
    /// The names of its disks, each mounted at `/disks/NAME`.
    pub disks: Vec<String>,
    /// Bytes of each disk, in a sparse file.
    pub disk_size: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            memory: 384,
            disks: vec!["a".to_owned()],
            disk_size: 2 << 30,
        }
    }
}

/// A machine; it is off at first.
#[derive(Debug)]
pub struct Machine {
    n: u8,
    shape: Shape,
    directory: PathBuf,
    emulator: Option<Process>,
}

impl Machine {
    /// Makes its disks, with XFS on them.
    pub(super) fn new(sandbox: &Sandbox, n: u8, shape: Shape) -> Self {
        let directory = sandbox.make_dir(format!("vm/{n}"));
        let machine = Self {
            n,
            shape,
            directory,
            emulator: None,
        };
        for disk in &machine.shape.disks {
            let file = machine.disk(disk);
            File::create(&file)
                .and_then(|made| made.set_len(machine.shape.disk_size))
                .unwrap_or_else(|error| panic!("make {}: {error}", file.display()));
            FileSystem::Xfs.make_in(&file);
        }
        machine
    }

    /// Its name: that of its node.
    pub fn name(&self) -> String {
        format!("node-{}", self.n)
    }

    /// Its address on the storage network.
    pub fn address(&self) -> Ipv4Addr {
        storage_address(self.n)
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.directory.join(format!("disk-{name}.img"))
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// Switches it on; see [`Self::wait_up`].
    pub(super) fn switch_on(&mut self, sandbox: &Sandbox, system: &System) {
        assert!(self.emulator.is_none(), "{} is on", self.name());
        let n = self.n;
        let words = format!(
            "console=ttyS0 quiet panic=-1 oops=panic no_timer_check nokaslr mitigations=off tsc=unstable \
             vm.name={} vm.storage={}/24 vm.control={}/24 vm.disks={}",
            self.name(),
            self.address(),
            control_address(n),
            // The guest's shell evaluates it.
            self.shape.disks.join("\\ "),
        );
        let (accelerator, processor) = accelerator();
        let card = |id: &str, port: &str, network: u8| {
            [
                "-netdev".to_owned(),
                format!("tap,id={id},ifname={port},script=no,downscript=no"),
                "-device".to_owned(),
                format!(
                    "virtio-net-pci,netdev={id},mac=52:54:00:00:{network:02x}:{n:02x},romfile="
                ),
            ]
        };
        let drive = |file: &Path, options: &str| {
            [
                "-drive".to_owned(),
                format!("file={},format=raw,if=virtio,{options}", file.display()),
            ]
        };
        let mut arguments: Vec<String> = [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-M",
            "q35",
            "-smp",
            "1",
            "-accel",
            accelerator,
            "-cpu",
            processor,
            "-m",
            &self.shape.memory.to_string(),
            "-append",
            &words,
        ]
        .map(str::to_owned)
        .to_vec();
        for (option, file) in [("-kernel", &system.kernel), ("-initrd", &system.initramfs)] {
            arguments.extend([option.to_owned(), file.display().to_string()]);
        }
        let serial = format!("file:{}", self.console().display());
        arguments.extend(["-serial".to_owned(), serial]);
        arguments.extend(drive(&system.programs, "readonly=on"));
        for disk in &self.shape.disks {
            arguments.extend(drive(&self.disk(disk), "cache=writeback,discard=unmap"));
        }
        arguments.extend(card("storage", &storage_port(n), 0));
        arguments.extend(card("control", &control_port(n), 1));
        let program = command::find("qemu-system-x86_64").expect("qemu-system-x86_64");
        let log = format!("emulator-{n}");
        self.emulator = Some(Process::spawn(sandbox, &log, &program, arguments, &[]));
    }

    /// Waits until it answers.
    #[track_caller]
    pub fn wait_up(&mut self) {
        let start = Instant::now();
        loop {
            if self.try_run("true").is_some_and(|ran| ran.is_ok()) {
                break;
            }
            let ended = self.emulator.as_mut().and_then(Process::ended);
            assert!(
                ended.is_none() && start.elapsed() < LONG,
                "{} does not start ({ended:?}):\n{}",
                self.name(),
                self.console_tail()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let said = fs::read_to_string(self.console()).unwrap_or_default();
        let missing: Vec<_> = said
            .lines()
            .filter(|line| line.contains("VM: no"))
            .collect();
        assert!(missing.is_empty(), "{}: {missing:?}", self.name());
    }

    /// Cuts its power.
    pub(super) fn cut_power(&mut self) {
        // Dropping the process kills it.
        let emulator = self.emulator.take();
        assert!(emulator.is_some(), "{} is off", self.name());
    }

    /// Stops its processor, as when the emulator's host is starved; goes on with `true`.
    pub fn set_running(&self, running: bool) {
        let signal = if running {
            rustix::process::Signal::CONT
        } else {
            rustix::process::Signal::STOP
        };
        let emulator = self.emulator.as_ref();
        emulator.expect("it is on").signal(signal);
    }

    /// The end of what the kernel said.
    pub fn console_tail(&self) -> String {
        let said = fs::read(self.console()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn try_run(&self, script: &str) -> Option<Ran> {
        let mut remote = Remote::start(control_address(self.n), &["sh", "-c", script], b"").ok()?;
        remote.wait_within(LONG).cloned()
    }

    /// Starts a program in it.
    #[track_caller]
    pub fn start(&self, words: &[&str]) -> Remote {
        Remote::start(control_address(self.n), words, b"").unwrap_or_else(|error| {
            panic!(
                "{}: {words:?}: {error}\n{}",
                self.name(),
                self.console_tail()
            )
        })
    }

    /// Runs a shell script in it, whatever comes of it.
    #[track_caller]
    pub fn run(&self, script: &str) -> Ran {
        self.start(&["sh", "-c", script]).wait().clone()
    }

    /// Runs a shell script in it and gives what it printed. Panics when it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let ran = self.run(script);
        assert!(ran.is_ok(), "{}: {script}: {ran:?}", self.name());
        ran.output
    }

    /// Writes a file in it.
    #[track_caller]
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let script = format!("mkdir -p \"$(dirname {path})\" && cat >{path}");
        let address = control_address(self.n);
        let mut remote =
            Remote::start(address, &["sh", "-c", &script], bytes).expect("start a command");
        let ran = remote.wait();
        assert!(ran.is_ok(), "{}: put {path}: {ran:?}", self.name());
    }

    /// A socket here that leads to one of the guest, over the network that is always there.
    pub fn socket(&self, path: &str) -> PathBuf {
        let name = path.trim_start_matches('/').replace('/', "-");
        let socket = self.directory.join(name);
        forward(control_address(self.n), path, &socket)
            .unwrap_or_else(|error| panic!("make {}: {error}", socket.display()));
        socket
    }
}

/// By hardware where the processor has it. `VM_ACCEL=tcg` and `VM_ACCEL=kvm` say otherwise: with another provider of
/// /dev/kvm than the processor's own, a kernel as it comes may not start.
fn accelerator() -> (&'static str, &'static str) {
    let wanted = std::env::var("VM_ACCEL").unwrap_or_default();
    let has_kvm = ["kvm_intel", "kvm_amd"]
        .iter()
        .any(|module| Path::new("/sys/module").join(module).exists());
    let is_open = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    match wanted.as_str() {
        "kvm" => ("kvm", "host"),
        "" if has_kvm && is_open => ("kvm", "host"),
        // QEMU 7.2 cannot emulate a 16-byte compare-and-swap on a host that has none, and the kernel's allocator ends
        // at it; five levels of page tables are nothing to us.
        _ => ("tcg,thread=multi", "max,-cx16,-la57"),
    }
}
