//! What the node plugin and its tools may do (246): everything that volumes need with four capabilities, on a disk
//! of another user, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::csi::{Plugin, block, claim, mounted};
use e2e::{FileSystem, Need, Node, Process, Sandbox, command, needs};

const MIB: u64 = 1 << 20;
/// `CAP_CHOWN` (0), `CAP_DAC_OVERRIDE` (1), `CAP_SYS_ADMIN` (21), `CAP_SYS_RESOURCE` (24): linux/capability.h.
const NODE: u64 = 1 | (1 << 1) | (1 << 21) | (1 << 24);

/// `CAP_SYS_RESOURCE`, without which no ext4 grows in use.
const RESOURCE: u64 = 1 << 24;

/// Those of them that this machine gives to root at all.
fn given() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let sets = confinement(&status);
    let (_, bounding) = sets.iter().find(|(name, _)| name == "CapBnd:").unwrap();
    NODE & bounding
}

/// The lines of /proc/…/status that tell what a thread may do.
fn confinement(status: &str) -> Vec<(String, u64)> {
    let field = |name: &str, radix: u32| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        (
            name.to_owned(),
            u64::from_str_radix(line.trim(), radix).unwrap(),
        )
    };
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(|name| field(name, 16));
    let others = ["NoNewPrivs:", "Seccomp:"].map(|name| field(name, 10));
    sets.into_iter().chain(others).collect()
}

fn expected(capabilities: u64) -> Vec<(String, u64)> {
    let sets = [
        ("CapInh:", 0),
        ("CapPrm:", capabilities),
        ("CapEff:", capabilities),
        ("CapBnd:", capabilities),
        ("CapAmb:", 0),
        ("NoNewPrivs:", 1),
        // SECCOMP_MODE_FILTER
        ("Seccomp:", 2),
    ];
    sets.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

#[track_caller]
fn assert_confined(process: &Process, capabilities: u64) {
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let mut seen = 0;
    for thread in threads {
        // One may end meanwhile.
        if let Ok(status) = fs::read_to_string(thread.unwrap().path().join("status")) {
            assert_eq!(confinement(&status), expected(capabilities), "{status}");
            seen += 1;
        }
    }
    assert!(seen > 1, "it has threads");
    assert!(
        process.log().contains("confined: capabilities"),
        "{}",
        process.log()
    );
    assert!(!process.log().contains("not confined"), "{}", process.log());
}

/// The children of a process at this moment.
fn children(process: u32) -> Vec<Tool> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let mut found = Vec::new();
    for task in tasks.into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children"));
        for child in children.unwrap_or_default().split_whitespace() {
            let read = |name| fs::read_to_string(format!("/proc/{child}/{name}"));
            if let (Ok(name), Ok(status)) = (read("comm"), read("status"))
                && status.contains("Seccomp:")
            {
                found.push((name.trim().to_owned(), confinement(&status)));
            }
        }
    }
    found
}

/// A tool, and what it may do.
type Tool = (String, Vec<(String, u64)>);

/// Says that the work is done, also when it has failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The tools that the plugin runs while `work` goes on: their names and what each may do.
fn tools(plugin: u32, work: impl FnOnce()) -> BTreeSet<Tool> {
    let (done, found) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                found.lock().unwrap().extend(children(plugin));
            }
        });
        let _done = Done(&done);
        work();
    });
    found.into_inner().unwrap()
}

/// The whole life of a volume on a disk that is not root's.
fn live(plugin: &Plugin, disk: &Path, fs_type: &str, size: u64) {
    let name = format!("confined-{fs_type}");
    let mut request = claim(&name, size, &[]);
    let is_block = fs_type == "block";
    request.volume_capabilities = vec![if is_block { block() } else { mounted(fs_type) }];
    let mut made = plugin.provision(&request).unwrap();
    plugin.attach(&mut made).unwrap();
    // As a manager leaves it that is not root, which this one is.
    let volumes = disk.join("volumes");
    command::run("chown", ["-R", "65534:65534", volumes.to_str().unwrap()]);
    command::run("chmod", ["-R", "u=rwX,go=", volumes.to_str().unwrap()]);
    plugin.stage(&made).unwrap();
    let target = plugin.publish(&made, "pod").unwrap();
    if !is_block {
        fs::File::create(target.join("file")).unwrap();
    }
    let size = made.size() + 64 * MIB;
    let grows = fs_type != "ext4" || given() & RESOURCE != 0;
    let blocks = || rustix::fs::statvfs(&target).unwrap().f_blocks;
    let before = blocks();
    if grows {
        plugin.expand(&made, "pod", size).unwrap();
        assert!(is_block || blocks() > before, "{name} has grown");
    }
    plugin.unpublish(&made, "pod").unwrap();
    plugin.unstage(&made).unwrap();
    // Once more with what the first time has left: checkers run now.
    plugin.stage(&made).unwrap();
    plugin.unstage(&made).unwrap();
    plugin.detach(&made).unwrap();
    plugin.delete(&made).unwrap();
}

#[test]
fn row_246_the_plugin_and_its_tools_have_four_capabilities_and_do_everything() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::FileSystem("btrfs")
    );
    let sandbox = Sandbox::new("confined");
    let node = Node::new(&sandbox, FileSystem::Xfs);
    let plugin = &node.plugin;
    assert_confined(&plugin.process, given());
    let seen = tools(plugin.process.id(), || {
        for (fs_type, size) in [("ext4", 128), ("xfs", 320), ("btrfs", 288), ("block", 64)] {
            live(plugin, node.disk.dir(), fs_type, size * MIB);
        }
    });
    let names: BTreeSet<_> = seen.iter().map(|(name, _)| name.as_str()).collect();
    // The fastest of them may come and go between two looks.
    assert!(
        names.iter().any(|name| name.starts_with("mkfs.")),
        "{names:?}"
    );
    for (name, held) in &seen {
        assert_eq!(*held, expected(given()), "{name}");
    }
    assert_confined(&plugin.process, given());
    node.assert_empty(&sandbox);

    let controller = Plugin::controller_of(&sandbox, "controller", &[&node.manager], &[]);
    assert_confined(&controller.process, 0);
}
