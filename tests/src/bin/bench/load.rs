//! What the machine is like while something is measured: busy with something else, and with memory that is its own.

use std::process::{Child, Command, Stdio};

/// A busy loop on one processor, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Load(Child);

impl Load {
    /// Starts it on the last processor of this machine.
    pub(crate) fn start() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let last = (processors - 1).to_string();
        let mut command = Command::new("taskset");
        command.args(["-c", &last, "sh", "-c", "while :; do :; done"]);
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It is gone one way or the other.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Touches and frees as much memory as the largest copy takes in the kernel's cache. A virtual machine
/// gives memory that is free back to its host within seconds, and each page costs several copies of it
/// when it is asked back: whoever comes after a pause would pay for both.
pub(crate) fn warm_memory() {
    let mut pages = vec![0_u8; 3 << 30];
    for page in pages.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&pages);
}
