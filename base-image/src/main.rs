//! `base-image`: turns arguments into a result, and the result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    base_image::cli::run()
}
