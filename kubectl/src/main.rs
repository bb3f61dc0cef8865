//! The program `kubectl-longhorn_image`, which `kubectl longhorn-image` runs.
//!
//! | module | owns |
//! |---|---|
//! | `command`, `options` | the command line |
//! | `kubernetes`, `process` | children: kubectl, bounded; the ports that it forwards |
//! | `reach` | the way to managers and node services, with a certificate for a person |
//! | `get`, `view`, `exposed`, `describe` | lists, and all of one volume |
//! | `make`, `upload`, `change`, `outcome` | images and volumes: made, changed, deleted |
//! | `why` | what a claim waits for: facts, and the sentence |
//! | `doctor`, `dump`, `redact` | what is wrong; a bundle for others, without secrets |
//! | `ui` | the web UI through a forwarded port |
//! | `output`, `error` | what is printed, and what a command can fail with |
//!
//! It knows nothing of disks, formats or the API of Kubernetes beyond what kubectl prints.

mod change;
mod command;
mod describe;
mod doctor;
mod dump;
mod error;
mod exposed;
mod get;
mod kubernetes;
mod make;
mod options;
mod outcome;
mod output;
mod process;
mod reach;
mod redact;
mod ui;
mod upload;
mod view;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use types::report;

use self::command::{Arguments, Command, Create, Describe};
use self::error::{Error, Result};
use self::reach::Reach;

/// What a command that looks for something wrong answers when it has found it.
const FOUND: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("kubectl longhorn-image: {}", report(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Command::Completion { shell } = arguments.command {
        let mut command = Arguments::command();
        // A shell completes the program that it finds; kubectl has a word of its own for plugins.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "kubectl-longhorn_image", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        return Ok(ExitCode::SUCCESS);
    }
    // One thread: children end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = execute(arguments) => done,
            () = interrupted() => Err(Error::Interrupted),
        }
    });
    // A thread that reads the answer to a question would hold up the end.
    runtime.shutdown_background();
    done
}

async fn execute(arguments: Arguments) -> Result<ExitCode> {
    let reach = Reach::new(&arguments.global)?;
    match arguments.command {
        Command::Get(args) => get::run(&reach, &args).await?,
        Command::Describe(Describe::Volume { name }) => describe::run(&reach, &name).await?,
        Command::Inspect(args) => make::inspect(&reach, args).await?,
        Command::Pull(args) => make::pull(&reach, args).await?,
        Command::Upload(args) => upload::run(&reach, args).await?,
        Command::Create(Create::Volume(args)) => make::volume(&reach, *args).await?,
        Command::Grow(args) => change::grow(&reach, args).await?,
        Command::Snapshot(args) => change::snapshot(&reach, args).await?,
        Command::Expose(args) => change::expose(&reach, args).await?,
        Command::Unexpose(args) => change::unexpose(&reach, args).await?,
        Command::Delete(args) => change::delete(&reach, args).await?,
        Command::Why(args) => return Ok(found(why::run(&reach, &args).await?)),
        Command::Doctor(args) => return Ok(found(doctor::run(&reach, &args).await?)),
        Command::Dump(args) => dump::run(&reach, &args).await?,
        Command::Ui(args) => ui::run(&reach, &args).await?,
        Command::Completion { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit code of a command that looks for something wrong.
fn found(something: bool) -> ExitCode {
    if something {
        ExitCode::from(FOUND)
    } else {
        ExitCode::SUCCESS
    }
}

/// Ctrl-C, or a request to end: children are dropped, and so ended, on the way out.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
