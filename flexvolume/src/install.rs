//! Putting the executable where the kubelet looks for drivers, and taking it away again.
//!
//! Kubelets watch the directory and run every file with the name of the driver, so an incomplete
//! file never has that name: 1 the copy is written under a name that starts with a dot, which
//! kubelets ignore · 2 it is synced and read back · 3 it is renamed · 4 the directory is synced. A
//! running call continues with its own file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::{Config, FILE_NAME};
use crate::error::{Error, Result};

/// The name of the driver, and of its executable.
const DRIVER: &str = "longhorn";
/// The vendor that pods name: `driver: rancher.io/longhorn`.
const VENDOR: &str = "rancher.io";
/// An executable is some MiB; a file beyond this is not ours, and not read.
const EXECUTABLE_BYTES_MAX: u64 = 256 << 20;
const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// What tells the version of an executable without running it: what lies there may be anybody's.
const MARK: &str = concat!(
    "longhorn-flexvolume version ",
    env!("CARGO_PKG_VERSION"),
    "\n"
);
/// The same, where no optimizer takes a byte of it away.
#[used]
static MARKED: &[u8] = MARK.as_bytes();
const MARK_BEGIN: &[u8] = b"longhorn-flexvolume version ";

/// `install`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Install {
    plugin_dir: PathBuf,
    vendor: String,
    config: Option<PathBuf>,
    uninstall: bool,
    allow_downgrade: bool,
    /// Whether the process stays until it is told to end: what a DaemonSet's container does.
    pub(crate) stay: bool,
}

pub(crate) fn version_text() -> &'static str {
    MARK.trim_end()
}

impl Install {
    /// Reads the arguments after `install`.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let usage = |why: String| Error::Usage { why };
        let mut arguments = arguments;
        let mut install = Self {
            plugin_dir: PathBuf::new(),
            vendor: VENDOR.to_owned(),
            config: None,
            uninstall: false,
            allow_downgrade: false,
            stay: false,
        };
        while let Some(flag) = arguments.next() {
            let flag = flag.to_string_lossy().into_owned();
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| usage(format!("{flag} needs a value")))
            };
            match flag.as_str() {
                "--plugin-dir" => install.plugin_dir = value()?.into(),
                "--vendor" => install.vendor = value()?.to_string_lossy().into_owned(),
                "--config" => install.config = Some(value()?.into()),
                "--uninstall" => install.uninstall = true,
                "--allow-downgrade" => install.allow_downgrade = true,
                "--stay" => install.stay = true,
                _ => return Err(usage(format!("{flag:?} is not known to install"))),
            }
        }
        if !install.plugin_dir.is_absolute() {
            return Err(usage("--plugin-dir must be an absolute path".to_owned()));
        }
        // It becomes a part of a path: the same shape as every name.
        types::NodeId::new(&install.vendor)
            .map_err(|_| usage(format!("--vendor {:?} is not a valid name", install.vendor)))?;
        Ok(install)
    }

    fn directory(&self) -> PathBuf {
        self.plugin_dir.join(format!("{}~{DRIVER}", self.vendor))
    }

    /// Installs or removes; says what was done.
    pub(crate) fn run(&self) -> Result<String> {
        if self.uninstall {
            self.remove()
        } else {
            self.install()
        }
    }

    fn install(&self) -> Result<String> {
        let ours = read_own()?;
        let config = self.config.as_deref().map(read_config).transpose()?;
        let directory = self.directory();
        let path = directory.join(DRIVER);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)
            .map_err(Error::io("create the directory", &directory))?;
        // The configuration first: the executable is run as soon as it appears.
        if let Some(text) = config {
            put(&directory.join(FILE_NAME), &text, 0o600)?;
        }
        let present = read(&path, EXECUTABLE_BYTES_MAX)?;
        if present.as_deref() == Some(&ours) && is_executable(&path) {
            return Ok(format!(
                "{} is installed already at {}",
                version_text(),
                path.display()
            ));
        }
        let old = present.as_deref().map(version_of);
        if let Some(Some(old)) = &old
            && !self.allow_downgrade
            && is_newer(old, env!("CARGO_PKG_VERSION"))
        {
            return Err(Error::Install {
                path,
                why: format!(
                    "version {old} is installed, newer than {}; use --allow-downgrade to \
                     replace it",
                    env!("CARGO_PKG_VERSION")
                ),
            });
        }
        put(&path, &ours, 0o755)?;
        let replaced = match old {
            None => String::new(),
            Some(None) => ", in place of another driver".to_owned(),
            Some(Some(old)) => format!(", in place of version {old}"),
        };
        Ok(format!(
            "{} is installed at {}{replaced}",
            version_text(),
            path.display()
        ))
    }

    fn remove(&self) -> Result<String> {
        let directory = self.directory();
        let path = directory.join(DRIVER);
        if let Some(present) = read(&path, EXECUTABLE_BYTES_MAX)?
            && version_of(&present).is_none()
        {
            return Err(Error::Install {
                path,
                why: "the installed file is not this driver; remove it by hand".to_owned(),
            });
        }
        // The executable first: without its configuration it would do something else.
        for name in [DRIVER, FILE_NAME] {
            for path in [directory.join(name), hidden(&directory.join(name))] {
                match fs::remove_file(&path) {
                    Err(error) if !is_missing(&error) => {
                        return Err(Error::io("remove", &path)(error));
                    }
                    _ => {}
                }
            }
        }
        match fs::remove_dir(&directory) {
            Err(error)
                if !is_missing(&error) && error.kind() != io::ErrorKind::DirectoryNotEmpty =>
            {
                Err(Error::io("remove", &directory)(error))
            }
            _ => Ok(format!(
                "nothing is installed at {} any more",
                directory.display()
            )),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0o111)
}

/// The name under which a file is written.
fn hidden(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}"))
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let hidden = hidden(path);
    let write = || {
        // The leftover of an installation that was killed.
        match fs::remove_file(&hidden) {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&hidden)?; // 1
        file.write_all(bytes)?;
        // The mode above is what the umask left of it.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.sync_all()?;
        drop(file);
        if fs::read(&hidden)? != bytes {
            return Err(io::Error::other("it reads back as something else")); // 2
        }
        types::crash_point!("flexvolume.install.written");
        fs::rename(&hidden, path)?; // 3
        let directory = path.parent().unwrap_or(Path::new("/"));
        File::open(directory)?.sync_all() // 4
    };
    write().map_err(Error::io("write", path))
}

fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn read_own() -> Result<Vec<u8>> {
    let own = Path::new("/proc/self/exe");
    let bytes = read(own, EXECUTABLE_BYTES_MAX)?;
    bytes.ok_or_else(|| Error::io("read", own)(io::Error::from(io::ErrorKind::NotFound)))
}

/// A configuration that is checked before it replaces one that works.
fn read_config(path: &Path) -> Result<Vec<u8>> {
    let bytes = read(path, CONFIG_BYTES_MAX)?;
    let bytes =
        bytes.ok_or_else(|| Error::io("read", path)(io::Error::from(io::ErrorKind::NotFound)))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::Config {
        path: path.to_owned(),
        why: "it is not UTF-8".to_owned(),
    })?;
    Config::parse(path, text)?;
    Ok(bytes)
}

/// The version of one of our executables; `None`: it is somebody else's.
fn version_of(executable: &[u8]) -> Option<String> {
    // The first that is a version: this constant itself lies in the executable too.
    let begins = executable.windows(MARK_BEGIN.len()).enumerate();
    begins
        .filter(|(_, window)| *window == MARK_BEGIN)
        .find_map(|(at, _)| {
            let rest = &executable[at + MARK_BEGIN.len()..];
            let end = rest.iter().take(32).position(|byte| *byte == b'\n')?;
            let version = std::str::from_utf8(&rest[..end]).ok()?;
            parts(version).map(|_| version.to_owned())
        })
}

/// `major.minor.patch`.
fn parts(version: &str) -> Option<[u64; 3]> {
    let mut numbers = version.split('.').map(|part| part.parse().ok());
    let parts = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(parts)
}

fn is_newer(version: &str, than: &str) -> bool {
    parts(version) > parts(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Install> {
        Install::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_arguments_of_install() {
        let install = parse(&[
            "--plugin-dir",
            "/plugins",
            "--vendor",
            "example.com",
            "--stay",
        ]);
        let install = install.unwrap();
        assert_eq!(
            install.directory(),
            Path::new("/plugins/example.com~longhorn")
        );
        assert!(install.stay && !install.uninstall);
        for bad in [
            &[][..],
            &["--plugin-dir"],
            &["--plugin-dir", "plugins"],
            &["--plugin-dir", "/p", "--vendor", "../x"],
            &["--plugin-dir", "/p", "--vendor", "a/b"],
            &["--plugin-dir", "/p", "--frobnicate"],
        ] {
            assert!(matches!(parse(bad), Err(Error::Usage { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_version_is_told_without_running_the_file() {
        let ours = [
            b"\x7fELF...".as_slice(),
            MARK_BEGIN,
            b"\0..",
            MARK.as_bytes(),
            b"...",
        ]
        .concat();
        assert_eq!(
            version_of(&ours).as_deref(),
            Some(env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(version_of(b"#!/bin/bash\nset -e\n"), None);
        assert!(is_newer("0.10.0", "0.9.9") && !is_newer("0.1.0", "0.1.0"));
        assert!(!is_newer("0.1.0", "1.0.0"));
    }
}
