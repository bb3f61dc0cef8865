//! `longhorn`, the FlexVolume executable `rancher.io/longhorn`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    flexvolume::run(std::env::args_os().collect())
}
