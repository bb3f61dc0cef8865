//! The FlexVolume driver `rancher.io/longhorn`: one short process for each call of the kubelet.
//!
//! ```text
//! argv ─▶ call ─▶ options (checked) ─▶ driver ─┬─▶ volumes   the manager, by gRPC
//!                                              ├─▶ records   what unmount must know, on disk
//!                                              └─▶ host      loop devices and mounts
//!                                    reply ◀───┘             one JSON object, one place that prints
//! ```
//!
//! The contract: exactly one JSON object on standard output in every case; nothing on standard
//! error, because the kubelet reads both as one; an exit code that agrees with the status; every
//! call may be repeated, and killed at any point and called again. The process keeps nothing in
//! memory; its state is in its state directory ([`config::Config::state_dir`]).

mod call;
pub mod config;
mod content;
mod driver;
mod error;
mod install;
mod lock;
mod log;
pub mod options;
mod process;
mod records;
mod reply;
mod target;
mod volumes;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use call::Call;
use config::Config;
use driver::Driver;
pub use error::{Error, Result};
use reply::Reply;

/// Answers the call of this command line: `longhorn init`, `longhorn mount DIR JSON`, …
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    process::hide_options(&arguments);
    process::prepare();
    // Whatever goes wrong below, the kubelet gets its one object.
    let answered = catch_unwind(AssertUnwindSafe(|| answer(arguments)));
    let (reply, stay) = answered.unwrap_or_else(|_| (Reply::failure(error::PANICKED), false));
    let code = reply::print(&reply);
    if stay {
        process::wait_for_termination();
    }
    code
}

/// The reply, and whether the process is to stay afterwards.
fn answer(arguments: Vec<OsString>) -> (Reply, bool) {
    let call = match Call::parse(arguments) {
        Ok(call) => call,
        Err(error) => return (Reply::from_error(&error), false),
    };
    let stay = matches!(&call, Call::Install(install) if install.stay);
    let reply = match execute(call) {
        Ok(reply) => reply,
        Err(error) => Reply::from_error(&error),
    };
    (reply, stay)
}

fn execute(call: Call) -> Result<Reply> {
    match call {
        // For people: whatever the configuration is.
        Call::Version => Ok(Reply::success(install::version_text())),
        Call::Help => Ok(Reply::success(call::HELP)),
        Call::Install(install) => install.run().map(Reply::success),
        call => {
            let config = Config::load()?;
            log::start(&config.log, config.log_level);
            let name = call.name();
            let answered = execute_for_kubelet(call, &config);
            log::answered(name, &answered);
            answered
        }
    }
}

fn execute_for_kubelet(call: Call, config: &Config) -> Result<Reply> {
    match call {
        Call::Init => Ok(Reply::init(config.attach)),
        Call::Driver(call) if config.attach || !call.needs_attach() => process::run(|stop| {
            let driver = Driver::new(config.clone(), stop);
            async move {
                let driver = driver?;
                driver.call(call).await
            }
        }),
        // Among them `getvolumename`: the kubelet's own name is the one that every other call gets.
        _ => Err(Error::NotSupported),
    }
}
