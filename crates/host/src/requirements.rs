//! What this node must have before any volume can be staged: looked at, never changed.

use std::fs::OpenOptions;
use std::path::Path;

use probe::FsType;
use rustix::io::Errno;
use rustix::mount::FsOpenFlags;

use crate::{Error, Result, filesystem, mountinfo};

/// The least kernel: `mount_setattr(2)` came with it.
const KERNEL: (u32, u32) = (5, 12);

/// Looks at the kernel, its loop devices, this process's right to mount, and the tools for the file
/// system that a blank volume gets.
///
/// # Errors
/// `FailedPrecondition` that names what is missing.
pub fn check() -> Result<()> {
    let release = kernel();
    if version(&release).is_some_and(|version| version < KERNEL) {
        return Err(Error::Requirement {
            why: format!(
                "Linux {}.{} or newer is needed, and this is {release}",
                KERNEL.0, KERNEL.1
            ),
        });
    }
    let control = Path::new("/dev/loop-control");
    let opened = OpenOptions::new().read(true).write(true).open(control);
    opened.map_err(|source| Error::NoLoopDevice {
        why: "/dev/loop-control is needed; load the module loop and give this process the host's \
              /dev, and the right to use it",
        source,
    })?;
    may_mount()?;
    filesystem::tools(FsType::Ext4)
}

/// The release of the kernel, as `uname -r` has it.
pub fn kernel() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
}

/// `major.minor` of a kernel's release; `None` for one that does not begin that way.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn may_mount() -> Result<()> {
    let why = match rustix::mount::fsopen(FsType::Ext4.as_str(), FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => return Ok(()),
        Err(Errno::PERM) => "this process may not mount: it needs CAP_SYS_ADMIN (privileged: true)",
        Err(Errno::NOSYS) => "this kernel, or a filter of system calls, has no fsopen(2)",
        Err(Errno::NODEV) => "the kernel of this node has no ext4; load its module",
        Err(errno) => return Err(Error::io("ask the kernel for", Path::new("ext4"))(errno)),
    };
    Err(Error::Requirement {
        why: why.to_owned(),
    })
}

/// Looks whether mounts below `directory`, the kubelet's, reach the kubelet. Only a directory that
/// was mounted into this process's view can be cut off from it, so one that lies on a larger mount is
/// taken to be seen by both.
///
/// # Errors
/// `FailedPrecondition` that names the mount without propagation.
pub fn check_propagation(directory: &Path) -> Result<()> {
    let mounts = mountinfo::read()?;
    for below in ["plugins/kubernetes.io/csi", "pods"] {
        let Some(mount) = mountinfo::containing(&mounts, &directory.join(below)) else {
            continue;
        };
        if mount.point.starts_with(directory) && mount.shared.is_none() {
            return Err(Error::Requirement {
                why: format!(
                    "{} is mounted without propagation, so that pods would not see their volumes; \
                     set mountPropagation: Bidirectional",
                    mount.point.display()
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.4-rc1"), Some((5, 4)));
        assert!(version("5.9.12").unwrap() < KERNEL);
        assert!(version("5.12.0").unwrap() >= KERNEL);
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn a_mount_of_its_own_below_the_directory_must_be_shared() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let pods = root.path().join("pods");
        std::fs::create_dir(&pods).unwrap();
        check_propagation(root.path()).unwrap();
        let run = |tool: &str, arguments: &[&str]| {
            let status = std::process::Command::new(tool).args(arguments).status();
            status.unwrap().success()
        };
        let text = pods.to_str().unwrap();
        assert!(run("mount", &["-t", "tmpfs", "tmpfs", text]));
        let checked =
            run("mount", &["--make-private", text]).then(|| check_propagation(root.path()));
        let shared = run("mount", &["--make-shared", text]).then(|| check_propagation(root.path()));
        assert!(run("umount", &[text]));
        let error = checked.unwrap().unwrap_err();
        assert_eq!(
            types::Classify::kind(&error),
            types::ErrorKind::FailedPrecondition
        );
        assert!(error.to_string().contains("Bidirectional"), "{error}");
        shared.unwrap().unwrap();
    }
}
