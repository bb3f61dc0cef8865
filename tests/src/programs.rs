//! Finds the programs of the project, and builds them first when they are missing or older than
//! their sources.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The manager's daemon and command line.
pub fn manager() -> PathBuf {
    built("backing-image-manager")
}

/// The builder of base images.
pub fn base_image() -> PathBuf {
    built("base-image")
}

/// The web UI.
pub fn ui() -> PathBuf {
    built("longhorn-ui")
}

/// The CSI plugin.
pub fn csi_plugin() -> PathBuf {
    built("longhorn-csi-plugin")
}

/// The plugin of kubectl.
pub fn kubectl_plugin() -> PathBuf {
    built("kubectl-longhorn_image")
}

/// The packer of container images.
pub fn package() -> PathBuf {
    built("package")
}

/// The FlexVolume executable.
pub fn flexvolume() -> PathBuf {
    built("longhorn")
}

/// A program of the harness itself.
pub fn harness(name: &str) -> PathBuf {
    built(name)
}

/// The static FlexVolume executable that `make flexvolume` has built last, if it has built one.
pub fn static_flexvolume() -> Option<PathBuf> {
    let executable = std::env::current_exe().expect("this executable has a path");
    // target/PROFILE/NAME or target/PROFILE/deps/NAME; beside PROFILE there is one for each machine.
    let target = executable
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())?;
    let machines = std::fs::read_dir(target).ok()?.flatten();
    machines
        .flat_map(|machine| {
            ["static", "debug"].map(|profile| machine.path().join(profile).join("longhorn"))
        })
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
}

/// The root of the sources.
pub fn sources() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("the tests are in a folder of the workspace")
        .to_owned()
}

/// A program beside this executable: target/PROFILE/NAME. Cargo knows whether it is stale; it is
/// asked once per process, with the profile and the features of this executable.
fn built(name: &str) -> PathBuf {
    static PROFILE_DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = PROFILE_DIR.get_or_init(|| {
        let executable = std::env::current_exe().expect("this executable has a path");
        let dir = executable
            .parent()
            .expect("an executable is in a directory");
        let dir = if dir.ends_with("deps") {
            dir.parent().expect("deps is below a profile")
        } else {
            dir
        };
        build(dir);
        dir.to_owned()
    });
    let program = dir.join(name);
    assert!(program.is_file(), "{} was not built", program.display());
    program
}

fn build(profile_dir: &std::path::Path) {
    if std::env::var_os("E2E_NO_BUILD").is_some() {
        return;
    }
    let target = profile_dir
        .parent()
        .expect("a profile is below the target directory");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The same selection of packages as in the Makefile: another one would unify the features of
    // dependencies in another way, and build them again.
    cargo
        .args(["build", "--quiet", "--workspace", "--bins", "--target-dir"])
        .arg(target);
    if !profile_dir.ends_with("debug")
        && let Some(profile) = profile_dir.file_name()
    {
        cargo.arg("--profile").arg(profile);
    }
    if cfg!(feature = "failpoints") {
        cargo.args(["--features", "failpoints"]);
    }
    let status = cargo
        .current_dir(sources())
        .stdin(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("cannot start cargo: {error}"));
    assert!(status.success(), "the programs do not build");
}
