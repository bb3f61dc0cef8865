//! A directory of a test's own, and the promise that nothing of it stays behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::leftovers;

/// A temporary directory that everything of one test lives in.
///
/// Dropping it ends the mounts and detaches the loop devices that live below it, and only those,
/// also when the test panicked; then it removes the directory. `KEEP=1` keeps the files and says
/// where they are.
///
/// Declare it first in a test: then it is dropped last.
#[derive(Debug)]
pub struct Sandbox {
    dir: PathBuf,
    keep: bool,
}

impl Sandbox {
    /// Makes one; `name` is for people who look at /tmp.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("e2e-{name}-"))
            .tempdir()
            .expect("make a temporary directory")
            .keep();
        let keep = std::env::var_os("KEEP").is_some_and(|value| value == "1");
        Self { dir, keep }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path below it; nothing is made.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.join(relative)
    }

    /// A directory below it, made.
    pub fn make_dir(&self, relative: impl AsRef<Path>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(&path)
            .unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
        path
    }

    /// A file below it, written.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own file need not outlive a power cut"
    )]
    pub fn write(&self, relative: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        let parent = path
            .parent()
            .expect("a path below the sandbox has a parent");
        fs::create_dir_all(parent)
            .unwrap_or_else(|error| panic!("make {}: {error}", parent.display()));
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        path
    }

    /// Panics when a mount or a loop device lives below `dir`: the baseline that every fault must
    /// come back to.
    #[track_caller]
    pub fn assert_nothing_attached(&self, dir: &Path) {
        let left = leftovers::below(dir);
        assert!(left.is_empty(), "left behind: {left:#?}");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        leftovers::end(&self.dir);
        if self.keep {
            eprintln!("kept: {}", self.dir.display());
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && !thread::panicking()
        {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}
