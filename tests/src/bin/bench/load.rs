//! A machine that is busy with something else: one of its processors does nothing but count.

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
