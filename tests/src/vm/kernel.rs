//! The kernel that guests boot: one with DRBD 9, and the modules that they load.
//!
//! No registry has DRBD 9, and the project neither contains nor builds it. A module that somebody brought names the
//! kernel that it is for; that kernel is Debian's package, unpacked by `scripts/deps vm` beside the other tools. A machine
//! that has DRBD 9 itself is a source of both.

use std::path::{Path, PathBuf};

use crate::command::{find, output, run};

/// What guests need besides DRBD, and what the kernel has built in is not listed by its package.
const MODULES: &[&str] = &[
    "virtio_blk",
    "virtio_net",
    "squashfs",
    "overlay",
    "loop",
    "xfs",
    "ext4",
    "btrfs",
    "dm_mod",
    "dm_flakey",
    "tls",
    "libcrc32c",
    "crc32c_generic",
    "hmac",
    "sha256_generic",
    "lru_cache",
    "configfs",
];

/// A kernel for guests.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// The compressed image.
    pub(super) image: PathBuf,
    /// Modules in the order in which they load.
    pub(super) modules: Vec<PathBuf>,
}

/// Where everything of this project is that is built or downloaded once.
fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    PathBuf::from(home).join(".cache/longhorn-base-image")
}

impl Kernel {
    /// The kernel to boot; `Err`: what the machine lacks, to be said after "needs".
    pub(super) fn find() -> Result<Self, String> {
        let (drbd, release) = drbd()?;
        let roots = [
            cache().join("vm").join(&release),
            cache().join("drbd/kernel"),
            PathBuf::from("/"),
        ];
        let image = |root: &PathBuf| root.join("boot").join(format!("vmlinuz-{release}"));
        let root = roots.iter().find(|root| image(root).is_file());
        let root = root.ok_or_else(|| {
            format!(
                "DRBD 9: no kernel {release}, which {} is for",
                drbd[0].display()
            )
        })?;
        let mut modules = dependencies(root, &release);
        modules.extend(drbd);
        Ok(Self {
            image: image(root),
            modules,
        })
    }
}

/// The modules of DRBD 9 and the release of the kernel that they are for: named by `DRBD_MODULE`, left in the cache, or
/// this machine's own.
fn drbd() -> Result<(Vec<PathBuf>, String), String> {
    let named = std::env::var("DRBD_MODULE").unwrap_or_default();
    let mut files: Vec<PathBuf> = std::env::split_paths(&named)
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if files.is_empty() {
        let kept = ["drbd.ko", "drbd_transport_tcp.ko"].map(|name| cache().join("drbd").join(name));
        files = kept.into_iter().filter(|path| path.is_file()).collect();
    }
    if files.is_empty() {
        let own = ["drbd", "drbd_transport_tcp"];
        let own = own.map(|name| modinfo(name.as_ref(), "filename").map(PathBuf::from));
        files = own.into_iter().flatten().collect();
    }
    let Some(first) = files.first() else {
        return Err("DRBD 9: DRBD_MODULE=FILE[:FILE…] names its modules".to_owned());
    };
    let version = modinfo(first, "version").unwrap_or_default();
    if version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        < Some(9)
    {
        return Err(format!(
            "DRBD 9: {} is version {version:?}",
            first.display()
        ));
    }
    let magic = modinfo(first, "vermagic").unwrap_or_default();
    let release = magic.split(' ').next().unwrap_or_default().to_owned();
    Ok((files, release))
}

fn modinfo(module: &Path, field: &str) -> Option<String> {
    find("modinfo")?;
    let output = output(
        "modinfo",
        ["-F".as_ref(), field.as_ref(), module.as_os_str()],
    );
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The files of [`MODULES`] and of what they stand on, each after what it needs.
fn dependencies(root: &Path, release: &str) -> Vec<PathBuf> {
    // A package is listed when it is installed, and this one is only unpacked.
    let listed = root.join("lib/modules").join(release).join("modules.dep");
    if !listed.is_file() {
        run(
            "depmod",
            ["-b".as_ref(), root.as_os_str(), release.as_ref()],
        );
    }
    let mut files = Vec::new();
    for module in MODULES {
        let words = [
            "--show-depends",
            "--ignore-install",
            "--set-version",
            release,
            "--dirname",
        ];
        let arguments = words.map(std::ffi::OsStr::new).into_iter();
        let arguments = arguments.chain([root.as_os_str(), std::ffi::OsStr::new(module)]);
        // "insmod /PATH [OPTION…]" or "builtin NAME"; one that the kernel has not is left out.
        let output = output("modprobe", arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines() {
            let mut line = line.split_whitespace();
            if let (Some("insmod"), Some(path)) = (line.next(), line.next())
                && !files.contains(&PathBuf::from(path))
            {
                files.push(PathBuf::from(path));
            }
        }
    }
    files
}
