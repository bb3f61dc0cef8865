//! Who uses a loop device, as far as this process can see: for the texts of errors.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::mountinfo::{self, Mount};

/// How many processes are looked at for another mount namespace. A node has some thousands.
const PROCESSES_MAX: usize = 32_768;

/// The users, as a text that goes on after "is still in use": ", mounted at …", ", held by …".
///
/// Holders are devices stacked on it; multipath and LVM on the host like to take whatever appears.
pub fn users(name: &str) -> Result<String> {
    let mut text = String::new();
    for mount in mountinfo::read()? {
        if is_of(&mount, name) {
            let _ = write!(text, ", mounted at {}", mount.point.display());
        }
    }
    let block = Path::new("/sys/block");
    let holders = fs::read_dir(block.join(name).join("holders"));
    for holder in holders.into_iter().flatten().flatten() {
        let holder = holder.file_name();
        let mapper = fs::read_to_string(block.join(&holder).join("dm/name"));
        let _ = write!(text, ", held by {}", holder.to_string_lossy());
        if let Ok(mapper) = mapper {
            let _ = write!(
                text,
                " ({}; if that is multipath, exclude loop devices in multipath.conf)",
                mapper.trim()
            );
        }
    }
    if text.is_empty() {
        text = in_another_namespace(name)
            .unwrap_or_else(|| " by a process, or mounted in another container".to_owned());
    }
    Ok(text)
}

/// A mount namespace that was made while the device was mounted has a copy of that mount.
fn in_another_namespace(name: &str) -> Option<String> {
    let mut seen = HashSet::from([fs::read_link("/proc/self/ns/mnt").ok()?]);
    let processes = fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX);
    for process in processes {
        // Those of others, and what is no process, cannot be read.
        let Ok(namespace) = fs::read_link(process.path().join("ns/mnt")) else {
            continue;
        };
        if !seen.insert(namespace) {
            continue;
        }
        let mounts = mountinfo::read_at(&process.path().join("mountinfo")).unwrap_or_default();
        if let Some(mount) = mounts.iter().find(|mount| is_of(mount, name)) {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!(
                ", mounted at {} in the mount namespace of process {} ({})",
                mount.point.display(),
                process.file_name().display(),
                program.trim()
            ));
        }
    }
    None
}

/// Whether a mount is that of the device's file system, or of its node.
fn is_of(mount: &Mount, name: &str) -> bool {
    mount.source == Path::new("/dev").join(name) || mount.root == Path::new("/").join(name)
}
