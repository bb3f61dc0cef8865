//! The directory itself: whether it is a disk, which process serves it, how much space it has.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock, statvfs};

use super::Finding;
use store::Disk;
use store::layout::Layout;
use store::space::Space;

/// Less free space than this is told.
const SPACE_LOW: u64 = 1 << 30;
/// Fewer free inodes than this are told: an image takes a handful.
const INODES_LOW: u64 = 1000;

pub(super) fn examine(path: &Path) -> Vec<Finding> {
    let found = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            let advice = "give the directory that the disk is mounted at";
            return vec![Finding::error("directory", "it is not a directory", advice)];
        }
        Err(error) => {
            let advice = "mount the disk there";
            return vec![Finding::error("directory", error.to_string(), advice)];
        }
    };
    let mut findings = vec![Finding::ok(
        "directory",
        format!("owner {}, mode {:o}", found.uid(), found.mode() & 0o7777),
    )];
    findings.push(match Disk::identity(path) {
        Ok(uuid) => Finding::ok("disk", format!("uuid {uuid}")),
        Err(error) => Finding::error(
            "disk",
            types::report(&error).to_string(),
            "if a disk belongs here, mount it; to create a new disk, use `disk init`",
        ),
    });
    findings.push(lock(&Layout::new(path)));
    findings.extend(room(path));
    findings
}

/// Who serves the disk.
fn lock(layout: &Layout) -> Finding {
    let Ok(file) = File::open(layout.lock()) else {
        return Finding::ok("lock", "free");
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Finding::ok("lock", "free"),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let holder = file.metadata().ok().and_then(|meta| holder(meta.ino()));
            let who = holder.map_or_else(
                || "a process of another container or machine".to_owned(),
                |pid| format!("process {pid}{}", name_of(pid)),
            );
            Finding::ok("lock", format!("held by {who}"))
        }
        Err(error) => Finding::warning(
            "lock",
            error.to_string(),
            "this file system does not lock files: nothing keeps two managers apart",
        ),
    }
}

/// The process that holds a flock on the file with this inode, by /proc/locks:
/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`.
fn holder(inode: u64) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let ending = format!(":{inode}");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let at = fields.iter().position(|field| *field == "FLOCK")?;
        let of = fields.get(at + 4)?;
        let pid = fields.get(at + 3)?.parse().ok()?;
        of.ends_with(&ending).then_some(pid)
    })
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.is_empty() {
        return String::new();
    }
    format!(" ({})", name.trim())
}

fn room(path: &Path) -> Vec<Finding> {
    let stat = match statvfs(path) {
        Ok(stat) => stat,
        Err(error) => {
            return vec![Finding::error(
                "space",
                error.to_string(),
                "check the kernel log",
            )];
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let size = stat.f_blocks.saturating_mul(stat.f_frsize);
    let found = format!("{free} of {size} bytes free");
    let space = Space {
        size,
        available: free,
    };
    let space = if space.shortage().is_some() || free < SPACE_LOW {
        let advice = "volumes are thin, and writes to them fail when the disk is full: delete volumes, snapshots or \
                      images, or run fstrim in mounted volumes";
        Finding::warning("space", found, advice)
    } else {
        Finding::ok("space", found)
    };
    // File systems that make inodes as they need them say 0 of 0.
    let inodes = format!("{} of {} inodes free", stat.f_favail, stat.f_files);
    let inodes = if stat.f_files > 0 && stat.f_favail < INODES_LOW {
        Finding::warning("inodes", inodes, "remove small files from this disk")
    } else {
        Finding::ok("inodes", inodes)
    };
    vec![space, inodes]
}
