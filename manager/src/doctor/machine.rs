//! The machine around the disk: kernel features, limits of this process, free ports.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::Finding;

/// Files that a busy manager opens: a few for each image and each transfer.
const FILES_LOW: u64 = 1024;
/// Tasks that a busy manager has: up to four for each of eight makings, and the runtime's own.
const TASKS_LOW: u64 = 128;
/// Memory with which eight copies run at once.
const MEMORY_LOW: u64 = 64 << 20;
/// The ports that Longhorn's managers listen on.
const PORTS: [u16; 2] = [8000, 8001];

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![loop_devices(), encryption(), files()];
    findings.extend(control_group());
    findings.push(ports());
    findings
}

fn loop_devices() -> Finding {
    let there = Path::new("/sys/module/loop").exists() || Path::new("/dev/loop-control").exists();
    Finding::either(
        "loop-devices",
        there,
        ["yes", "no"],
        "volumes are attached by loop devices on the node: `modprobe loop` there",
    )
}

/// Whether encrypted clones can be made here.
fn encryption() -> Finding {
    let mapper = fs::read_to_string("/proc/misc").is_ok_and(|text| text.contains("device-mapper"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tool = std::env::split_paths(&path).any(|dir| dir.join("cryptsetup").is_file());
    let found = match (mapper, tool) {
        (true, true) => return Finding::ok("encryption", "device mapper and cryptsetup"),
        (true, false) => "no cryptsetup",
        (false, true) => "no device mapper in this kernel",
        (false, false) => "neither device mapper nor cryptsetup",
    };
    Finding::warning(
        "encryption",
        found,
        "encrypted clones of images are not possible here",
    )
}

fn files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    let found = limit.map_or_else(
        || "no limit".to_owned(),
        |limit| format!("{limit} open files"),
    );
    if limit.is_some_and(|limit| limit < FILES_LOW) {
        return Finding::warning("open-files", found, "allow 1024 or more (ulimit -n)");
    }
    Finding::ok("open-files", found)
}

/// The limits of the control group that this process is in.
fn control_group() -> Vec<Finding> {
    let limit = |file: &str| -> Option<u64> {
        // The innermost limit that there is.
        own_groups()
            .iter()
            .filter_map(|group| {
                fs::read_to_string(group.join(file))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            })
            .min()
    };
    let finding = |name, limit: Option<u64>, low, unit: &str, advice| {
        let found = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("{limit} {unit}"));
        if limit.is_some_and(|limit| limit < low) {
            return Finding::warning(name, found, advice);
        }
        Finding::ok(name, found)
    };
    vec![
        finding(
            "memory",
            limit("memory.max"),
            MEMORY_LOW,
            "bytes",
            "eight copies at once take up to 64 MiB",
        ),
        finding(
            "tasks",
            limit("pids.max"),
            TASKS_LOW,
            "tasks",
            "eight images at once take up to 64 threads",
        ),
    ]
}

/// The directories of the control group and of those around it (version 2).
fn own_groups() -> Vec<PathBuf> {
    const ROOT: &str = "/sys/fs/cgroup";
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = Path::new(ROOT).join(own.unwrap_or_default());
    let groups = path.ancestors().take_while(|dir| dir.starts_with(ROOT));
    groups.map(Path::to_owned).collect()
}

fn ports() -> Finding {
    let taken: Vec<_> = PORTS
        .iter()
        .filter(|port| TcpListener::bind(("127.0.0.1", **port)).is_err())
        .map(ToString::to_string)
        .collect();
    if taken.is_empty() {
        return Finding::ok(
            "ports",
            "8000 and 8001 are free; any client that reaches them has access to all data of the \
             disk: make sure that a network policy is enforced",
        );
    }
    // A daemon that runs has them, and should.
    Finding::ok("ports", format!("{} taken", taken.join(" and ")))
}
