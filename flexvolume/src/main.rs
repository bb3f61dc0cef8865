//! `longhorn`, the FlexVolume executable `rancher.io/longhorn`: see the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    flexvolume::run(std::env::args_os().collect())
}
