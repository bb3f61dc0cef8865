//! The requirements of a test on the machine, and how to detect them.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::command;

/// One thing that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// User id 0.
    Root,
    /// A free loop device, and the right to mount.
    LoopMount,
    /// A file system that the kernel can mount and that can be made: xfs, ext4, btrfs.
    FileSystem(&'static str),
    /// FUSE mounts.
    Fuse,
    /// A program on the path.
    Tool(&'static str),
    /// Programs built with failpoints.
    Failpoints,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::LoopMount => f.write_str("loop devices that can be mounted"),
            Self::FileSystem(name) => write!(f, "the {name} file system"),
            Self::Fuse => f.write_str("/dev/fuse"),
            Self::Tool(name) => f.write_str(name),
            Self::Failpoints => f.write_str("programs built with --features failpoints"),
        }
    }
}

/// The first of these that the machine does not have.
pub fn missing(needs: &[Need]) -> Option<String> {
    needs
        .iter()
        .find(|need| !present(**need))
        .map(ToString::to_string)
}

/// Says that a test is skipped, past the capture of the test's output: who reads a log must see it.
pub fn skip(missing: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: needs {missing}");
}

fn present(need: Need) -> bool {
    match need {
        Need::Root => rustix::process::geteuid().is_root(),
        Need::LoopMount => loop_mounts_work(),
        Need::FileSystem(name) => {
            command::on_path(&format!("mkfs.{name}")) && kernel_mounts(name) && loop_mounts_work()
        }
        Need::Fuse => Path::new("/dev/fuse").exists(),
        Need::Tool(name) => command::on_path(name),
        Need::Failpoints => cfg!(feature = "failpoints"),
    }
}

fn kernel_mounts(name: &str) -> bool {
    let listed = || {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        known
            .lines()
            .any(|line| line.split_whitespace().last() == Some(name))
    };
    if !listed() {
        // A module that is not loaded yet is not listed.
        let _ = Command::new("modprobe")
            .arg(name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    listed()
}

/// Mounts a tiny ext4 once per process: what the permission bits say proves nothing in a container.
fn loop_mounts_work() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let Ok(dir) = tempfile::tempdir() else {
            return false;
        };
        let (image, target) = (dir.path().join("probe.img"), dir.path().join("mnt"));
        let made = fs::File::create(&image)
            .and_then(|file| file.set_len(4 << 20))
            .is_ok()
            && fs::create_dir(&target).is_ok()
            && quietly(
                "mkfs.ext4",
                &["-q".as_ref(), "-F".as_ref(), image.as_os_str()],
            )
            && quietly(
                "mount",
                &[
                    "-o".as_ref(),
                    "loop".as_ref(),
                    image.as_os_str(),
                    target.as_os_str(),
                ],
            );
        made && quietly("umount", &[target.as_os_str()])
    })
}

fn quietly(program: &str, arguments: &[&std::ffi::OsStr]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
