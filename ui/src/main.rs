//! `longhorn-ui`: arguments in, exit code out.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use types::report;
use ui::{Args, LogFormat};
use zeroize::Zeroizing;

/// How long tasks may hold up the end of the process.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Exit code of a command line that cannot work: EX_USAGE of sysexits(3).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = log_to_stderr(&args) {
        // To a terminal that is gone nothing can be said.
        let _ = error.print();
        return ExitCode::from(USAGE);
    }
    if let Some(name) = &args.hash_password {
        return hash_password(name);
    }
    types::crash::init();
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
    let result = runtime.block_on(ui::run(args, told_to_stop()));
    runtime.shutdown_timeout(LAST_WAIT);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}; see longhorn-ui --help", report(&error));
            ExitCode::FAILURE
        }
    }
}

/// Writes the line of somebody whose password comes by standard input: arguments can be seen by others.
fn hash_password(name: &str) -> ExitCode {
    let mut password = Zeroizing::new(String::new());
    let read = io::stdin().lock().take(4096).read_to_string(&mut password);
    let line = match read {
        Ok(_) => ui::auth::hash_line(name, password.trim_end_matches(['\r', '\n'])),
        Err(error) => Err(ui::Error::io("read", "standard input")(error)),
    };
    match line {
        Ok(line) => {
            // Nobody reads what it says to a pipe that is closed.
            let _ = writeln!(io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", report(&error));
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
            tracing::warn!("cannot listen for signals, so they end the program at once: {error}");
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
    let quiet = ["h2", "hyper", "hyper_util", "rustls", "tonic", "tower"];
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
