//! `longhorn-csi-plugin`: arguments in, exit code out.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use csi::{Args, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use types::report;

/// How long threads that are in the kernel may hold up the end of the process.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Exit code of a command line that cannot work: EX_USAGE of sysexits(3).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut args = Args::parse();
    if let Err(error) = log_to_stderr(&args) {
        // There is no log yet to say it in.
        return usage(&error);
    }
    if let Some(command) = args.command.take() {
        return once(command);
    }
    types::crash::init();
    let config = match args.check() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{}; see longhorn-csi-plugin --help", report(&error));
            return ExitCode::from(USAGE);
        }
    };
    // Before the first thread: each would keep what it has.
    match config.confine() {
        Ok(confined) => {
            tracing::info!("confined: {confined}");
            for missing in &confined.missing {
                tracing::warn!("not confined in one way: {missing}");
            }
        }
        Err(error) => {
            tracing::error!("{}", report(&error));
            return ExitCode::FAILURE;
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async { csi::run(config, told_to_stop()).await });
    runtime.shutdown_timeout(LAST_WAIT);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", report(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs a command for a person.
fn once(command: csi::Command) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            let say = |line: &str| {
                // Nobody reads what it says to a pipe that is closed.
                let _ = writeln!(io::stdout(), "{line}");
            };
            let done = runtime.block_on(csi::command::run(command, say));
            done.map_err(|error| report(&error).to_string())
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Resolves at SIGTERM or SIGINT.
async fn told_to_stop() {
    let (terminate, interrupt) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!("cannot listen for signals, so they end the plugin at once: {error}");
            std::future::pending::<()>().await;
        }
    }
}

/// Starts the log.
fn log_to_stderr(args: &Args) -> Result<(), clap::Error> {
    let refuse = |error: ParseError| {
        Args::command().error(ErrorKind::InvalidValue, format!("--log-level: {error}"))
    };
    let filter: EnvFilter = args.log_level.parse().map_err(refuse)?;
    // The layers below us see whole messages, secrets and all: they are not to talk of each frame.
    let quiet = [
        "h2",
        "hyper",
        "hyper_util",
        "reqwest",
        "rustls",
        "tonic",
        "tower",
    ];
    let filter = quiet
        .into_iter()
        .map(|layer| format!("{layer}=info"))
        .try_fold(filter, |filter, quiet| {
            Ok(filter.add_directive(quiet.parse()?))
        })
        .map_err(refuse)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Says what is wrong with the command line as clap does.
fn usage(error: &clap::Error) -> ExitCode {
    // To a terminal that is gone nothing can be said.
    let _ = error.print();
    ExitCode::from(USAGE)
}
