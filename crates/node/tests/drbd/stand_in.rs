//! A `drbdsetup` that keeps what it was told in a file, as far as the node service needs it. It knows no other node: its
//! peers are connected when they are told to be. What the real one would not survive is a violation, which the test
//! looks for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::json;

/// A line of an answer. Standard output is that of the test harness.
macro_rules! answer {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // In one piece, as drbdmeta reads it.
        let line = format!($($text)*) + "\n";
        let mut answers = File::options().write(true).open("/proc/self/fd/3").unwrap();
        answers.write_all(line.as_bytes()).unwrap();
    }};
}

/// In the namespace of the test, where the module's directory is.
pub(crate) const DIRECTORY: &str = "/sys/module/drbd";

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kernel {
    pub(crate) resources: BTreeMap<String, Resource>,
    /// Each command that changes something, in order.
    pub(crate) commands: Vec<Vec<String>>,
    /// What would have broken the real one.
    pub(crate) violations: Vec<String>,
    /// After that many more commands the program that runs it is killed.
    pub(crate) kill_after: Option<usize>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Resource {
    pub(crate) id: u8,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) role: String,
    pub(crate) minor: Option<u32>,
    pub(crate) is_client: bool,
    pub(crate) suspended: bool,
    /// The devices below, and the process that has them open, as the kernel would.
    pub(crate) disk: Option<(String, String, u32)>,
    pub(crate) peers: BTreeMap<u8, Peer>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) bitmap: bool,
    pub(crate) connected: bool,
    pub(crate) paths: Vec<(String, String)>,
    pub(crate) options: Vec<String>,
}

impl Kernel {
    fn path() -> PathBuf {
        Path::new(DIRECTORY).join("state.json")
    }

    pub(crate) fn load() -> Self {
        let bytes = fs::read(Self::path());
        bytes.map_or_else(
            |_| Self::default(),
            |bytes| serde_json::from_slice(&bytes).unwrap(),
        )
    }

    pub(crate) fn store(&self) {
        let work = Self::path().with_extension("new");
        serde_json::to_writer(File::create(&work).unwrap(), self).unwrap();
        fs::rename(work, Self::path()).unwrap();
    }

    /// Ends what a resource holds.
    fn release(resource: &mut Resource) {
        if let Some((_, _, holder)) = resource.disk.take() {
            let pid = rustix::process::Pid::from_raw(i32::try_from(holder).unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.resources.values_mut().for_each(Self::release);
        *self = Self::default();
    }
}

/// Which part this program plays where it was started by itself, with its arguments.
pub(crate) const PART: &str = "DRBD_TEST_PART";
/// What is between them.
pub(crate) const SEPARATOR: &str = "\u{1f}";

/// Holds two devices open until it is killed.
pub(crate) fn hold(paths: &[String]) -> ! {
    let _held: Vec<_> = paths.iter().map(|path| File::open(path).unwrap()).collect();
    loop {
        std::thread::park();
    }
}

/// The exit code of a command, after its output.
pub(crate) fn run(arguments: &[String]) -> i32 {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut kernel = Kernel::load();
    match words[..] {
        [
            "status",
            "--json",
            "--verbose",
            "--statistics",
            ref name @ ..,
        ] => {
            let all: Vec<_> = chosen(&kernel, name)
                .map(|(name, one)| status(name, one))
                .collect();
            answer!("{}", json!(all));
            return if all.is_empty() && !name.is_empty() {
                10
            } else {
                0
            };
        }
        ["events2", "--now", "--statistics", ref name @ ..] => {
            chosen(&kernel, name).for_each(|(name, one)| events(name, one));
            answer!("exists -");
            return 0;
        }
        ["show", "--json", ref name @ ..] => {
            let shown = |(name, one): (&String, &Resource)| {
                json!({"resource": name, "options": {
                    "quorum-minimum-redundancy": one.options.get("--quorum-minimum-redundancy"),
                    "auto-promote": one.options.get("--auto-promote").is_some_and(|is| is == "yes")}})
            };
            let all: Vec<_> = chosen(&kernel, name).map(shown).collect();
            answer!("{}", json!(all));
            return 0;
        }
        // drbdmeta asks so whether the device is attached.
        [minor, "dstate"] => {
            let minor: u32 = minor.parse().unwrap();
            let found = kernel
                .resources
                .values()
                .find(|one| one.minor == Some(minor));
            answer!(
                "{}",
                if found.is_some_and(|one| one.disk.is_some()) {
                    "UpToDate"
                } else {
                    "Unconfigured"
                }
            );
            return 0;
        }
        ["help", ..] => return 0,
        _ => {}
    }
    kernel.commands.push(arguments.to_vec());
    let code = match change(&mut kernel, &words) {
        Ok(()) => 0,
        Err(said) => {
            eprintln!("{said}");
            10
        }
    };
    let is_last = kernel.kill_after == Some(1);
    kernel.kill_after = kernel.kill_after.map(|left| left.saturating_sub(1));
    kernel.store();
    if is_last {
        let parent = rustix::process::getppid().unwrap();
        rustix::process::kill_process(parent, rustix::process::Signal::KILL).unwrap();
    }
    code
}

fn chosen<'a>(
    kernel: &'a Kernel,
    name: &'a [&str],
) -> impl Iterator<Item = (&'a String, &'a Resource)> {
    let all = kernel.resources.iter();
    all.filter(move |(one, _)| name.is_empty() || name == [one.as_str()])
}

fn status(name: &str, one: &Resource) -> serde_json::Value {
    let disk = if one.disk.is_some() {
        "UpToDate"
    } else {
        "Diskless"
    };
    let devices = one.minor.map(|minor| {
        json!({"volume": 0, "minor": minor, "disk-state": disk, "client": one.is_client, "quorum": true,
               "size": if one.disk.is_some() { 65536 } else { 0 }})
    });
    let connection = |(id, peer): (&u8, &Peer)| {
        let state = if peer.connected {
            "Connected"
        } else {
            "StandAlone"
        };
        let disk = if peer.bitmap { "UpToDate" } else { "Diskless" };
        json!({"peer-node-id": id, "name": peer.name, "connection-state": state, "peer-role": "Secondary",
               "peer_devices": [{"volume": 0, "replication-state": "Established", "peer-disk-state": disk,
                                 "peer-client": !peer.bitmap, "out-of-sync": 0}]})
    };
    json!({"name": name, "node-id": one.id, "role": one.role, "suspended": one.suspended,
           "suspended-user": one.suspended, "devices": devices.into_iter().collect::<Vec<_>>(),
           "connections": one.peers.iter().map(connection).collect::<Vec<_>>()})
}

fn events(name: &str, one: &Resource) {
    if let (Some(minor), Some((data, ..))) = (one.minor, &one.disk) {
        answer!(
            "exists device name:{name} volume:0 minor:{minor} backing_dev:{data} disk:UpToDate"
        );
    }
    for (id, peer) in &one.peers {
        for (local, remote) in &peer.paths {
            answer!(
                "exists path name:{name} peer-node-id:{id} conn-name:{} local:{local} peer:{remote}",
                peer.name
            );
        }
    }
}

#[expect(clippy::too_many_lines, reason = "one arm for each command")]
#[expect(clippy::zombie_processes, reason = "it is to outlive this program")]
fn change(kernel: &mut Kernel, words: &[&str]) -> Result<(), String> {
    let split = words
        .iter()
        .skip(1)
        .partition::<Vec<_>, _>(|word| word.starts_with("--"));
    let (options, rest): (Vec<&str>, Vec<&str>) = split;
    let option = |name: &str| {
        let found = options
            .iter()
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned)
    };
    let pairs = || {
        let pair = |option: &&str| {
            option
                .split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        };
        options.iter().filter_map(pair).collect::<BTreeMap<_, _>>()
    };
    let missing = || "Failure: (158) Unknown resource".to_owned();
    if words[0] == "new-resource" {
        let resource = kernel.resources.entry(rest[0].to_owned());
        resource.or_insert_with(|| Resource {
            id: rest[1].parse().unwrap(),
            options: pairs(),
            role: "Secondary".to_owned(),
            ..Resource::default()
        });
        return Ok(());
    }
    // By its name, or by the minor number of its device.
    let minor: Option<u32> = rest[0].parse().ok();
    let mut named = kernel.resources.iter_mut();
    let found = named.find(|(name, one)| *name == rest[0] || minor.is_some() && one.minor == minor);
    let Some((name, resource)) = found.map(|(name, one)| (name.clone(), one)) else {
        return if words[0] == "down" {
            Ok(())
        } else {
            Err(missing())
        };
    };
    let id: Option<u8> = rest.get(1).and_then(|id| id.parse().ok());
    match words[0] {
        "new-minor" if resource.minor.is_some() => return Err("Failure: (161)".to_owned()),
        "new-minor" => {
            resource.minor = Some(rest[1].parse().unwrap());
            resource.is_client = option("--diskless").is_some();
        }
        "new-peer" => {
            let peer = Peer {
                name: option("--_name").unwrap(),
                bitmap: true,
                options: options.iter().map(|&option| option.to_owned()).collect(),
                ..Peer::default()
            };
            if resource.peers.insert(id.unwrap(), peer).is_some() {
                kernel
                    .violations
                    .push(format!("{name}: a peer is added twice"));
            }
        }
        "attach" => {
            if resource.disk.is_some() {
                kernel.violations.push(format!("{name}: attached twice"));
                return Err("Failure: (124) Device is attached to a disk".to_owned());
            }
            let held = [rest[1].to_owned(), rest[2].to_owned()];
            let mut holder = Command::new("/proc/self/exe");
            holder
                .args(["--exact", "plays_its_part", "--nocapture"])
                .env(PART, format!("hold{SEPARATOR}{}", held.join(SEPARATOR)));
            let none = Stdio::null;
            let holder = holder
                .stdin(none())
                .stdout(none())
                .stderr(none())
                .spawn()
                .unwrap();
            // It is to have them before the one who attached them lets go.
            let fds = format!("/proc/{}/fd", holder.id());
            let open = |path: &String| {
                let all = fs::read_dir(&fds).into_iter().flatten().flatten();
                all.filter_map(|fd| fs::read_link(fd.path()).ok())
                    .any(|to| to == Path::new(path))
            };
            while !held.iter().all(open) {
                std::thread::yield_now();
            }
            let [data, metadata] = held;
            resource.disk = Some((data, metadata, holder.id()));
        }
        "detach" => Kernel::release(resource),
        "primary" => "Primary".clone_into(&mut resource.role),
        "secondary" => "Secondary".clone_into(&mut resource.role),
        "resource-options" => resource.options.extend(pairs()),
        "suspend-io" => resource.suspended = true,
        "resume-io" => resource.suspended = false,
        "down" => {
            Kernel::release(resource);
            kernel.resources.remove(&name);
        }
        "del-peer" => drop(resource.peers.remove(&id.unwrap())),
        "forget-peer" if resource.peers.contains_key(&id.unwrap()) => {
            return Err("Failure: (125) Device has a net-config".to_owned());
        }
        "forget-peer" | "resize" | "new-current-uuid" => {}
        other => {
            let peer = resource.peers.get_mut(&id.unwrap()).ok_or_else(missing)?;
            match other {
                "new-path" if peer.paths.iter().any(|path| path.1 == rest[3]) => {
                    return Err("Failure: (173)".to_owned());
                }
                "new-path" => peer.paths.push((rest[2].to_owned(), rest[3].to_owned())),
                "del-path" => peer.paths.retain(|path| path.1 != rest[3]),
                "peer-device-options" => peer.bitmap = option("--bitmap").unwrap() == "yes",
                "connect" if peer.connected => return Err("Failure: (125)".to_owned()),
                "connect" if peer.paths.is_empty() => return Err("Failure: no path".to_owned()),
                "connect" => peer.connected = true,
                "disconnect" => peer.connected = false,
                _ => return Err(format!("unknown command {other}")),
            }
        }
    }
    Ok(())
}
