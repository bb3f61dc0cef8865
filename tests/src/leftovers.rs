//! Mounts and loop devices below a directory: how many there are, and how they end.
//!
//! Loop devices belong to the whole machine. Devices outside the directory belong to other
//! programs.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Mount points and loop devices that live below a directory, described for people.
pub fn below(dir: &Path) -> Vec<String> {
    let mounts = mounts_below(dir)
        .into_iter()
        .map(|path| format!("mount {}", path.display()));
    let loops = loops_below(dir)
        .into_iter()
        .map(|(device, file)| format!("{} on {}", device.display(), file.display()));
    mounts.chain(loops).collect()
}

/// Mount points at or below a directory, in the order in which they were made.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|path| path.starts_with(dir))
        .collect()
}

/// Loop devices whose file is below a directory, also when the file is gone.
pub fn loops_below(dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let backing = backing.trim_end_matches('\n');
            let file = PathBuf::from(backing.strip_suffix(" (deleted)").unwrap_or(backing));
            file.starts_with(dir)
                .then(|| (Path::new("/dev").join(entry.file_name()), file))
        })
        .collect()
}

/// Ends all of them, innermost first: a mount may stand on a loop device that stands on a mount.
pub fn end(dir: &Path) {
    // Each round ends at least one layer; five are more than any test stacks.
    for _ in 0..5 {
        let mounts = mounts_below(dir);
        if mounts.is_empty() && loops_below(dir).is_empty() {
            return;
        }
        for path in mounts.iter().rev() {
            let _ = quiet("umount").arg(path).status();
        }
        // Looked up only now: most have gone with their mounts, and their numbers may be somebody
        // else's by now.
        for (device, _) in loops_below(dir) {
            let _ = quiet("losetup").arg("--detach").arg(device).status();
        }
    }
    for path in mounts_below(dir).iter().rev() {
        let _ = quiet("umount").arg("--lazy").arg(path).status();
    }
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// mountinfo writes space, tab, newline and backslash as three octal digits (proc(5)).
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                plain.push(byte);
                at += 4;
            }
            _ => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape(r"/tmp/a\040b\134c"), PathBuf::from(r"/tmp/a b\c"));
        assert_eq!(unescape(r"/tmp/end\04"), PathBuf::from(r"/tmp/end\04"));
    }

    #[test]
    fn nothing_is_attached_below_a_fresh_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(below(dir.path()), Vec::<String>::new());
    }
}
