//! Where programs of ours say which addresses they bound: they are told port 0, and `--address-file`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Sandbox;

/// The file of one process.
#[derive(Debug)]
pub struct AddressFile(PathBuf);

impl AddressFile {
    /// One for a process that is about to start.
    pub fn new(sandbox: &Sandbox) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = sandbox.make_dir("addresses");
        Self(dir.join(number.to_string()))
    }

    /// For the command line.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether the process listens.
    pub fn written(&self) -> bool {
        self.0.exists()
    }

    /// The address of a listener. It has one as soon as the file is written.
    #[track_caller]
    pub fn get(&self, listener: &str) -> SocketAddr {
        let text = fs::read_to_string(&self.0)
            .unwrap_or_else(|error| panic!("read {}: {error}", self.0.display()));
        let address = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == listener)
            .and_then(|(_, address)| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address of {listener} in {text:?}"))
    }
}
