//! `longhorn`, the FlexVolume executable `rancher.io/longhorn`.
//!
//! This version answers every call with `Not supported`: a kubelet that finds it leaves it alone, and
//! nobody takes it for a driver that works. Volumes are served by the CSI plugin until then.

mod reply;

use std::process::ExitCode;

use reply::{Reply, Status};

fn main() -> ExitCode {
    let message = match std::env::args().nth(1) {
        Some(_) => "this version serves volumes through CSI only; use driver.longhorn.io",
        None => "a call is missing; the kubelet runs this as `longhorn init`, `longhorn mount …`",
    };
    Reply {
        status: Status::NotSupported,
        message: message.to_owned(),
    }
    .print()
}
