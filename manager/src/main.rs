//! `backing-image-manager`: turns arguments into a result, and the result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    types::crash::init();
    manager::memory::keep_buffers();
    manager::cli::run()
}
