//! The command line for people and scripts.
//!
//! Results go to standard output, as JSON in Longhorn's shape unless `-o table` is asked for; progress
//! and errors go to standard error. Exit codes: 0 done, 1 it failed, 2 the command line is wrong.

mod backups;
mod certs;
mod compare;
mod connection;
mod disk;
mod doctor;
mod download;
mod exposed;
mod images;
mod longhorn;
mod node;
mod output;
mod progress;
mod version;
mod volumes;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use client::{Address, Node};
use tracing_subscriber::EnvFilter;
use types::report;

use self::connection::{Connection, Url};
use crate::arguments::DaemonArgs;
use crate::daemon;
use ::longhorn::data_source::{self, DataSourceArgs};

/// Stores, verifies and serves the backing images of one disk, and creates volumes from them.
#[derive(Debug, Parser)]
#[command(
    name = "backing-image-manager",
    version,
    max_term_width = 100,
    after_help = "Base images are built and inspected by another program: base-image."
)]
struct Args {
    /// Messages to log: error, warn, info, debug, or a filter per module as in tracing
    #[arg(
        long,
        global = true,
        env = "LOG_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    log_level: String,
    /// Format of log lines
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Log debug messages of this program; --log-level debug adds those of its libraries
    #[arg(long, global = true)]
    debug: bool,
    #[command(flatten)]
    trust: trust::Options,
    #[command(subcommand)]
    command: Command,
}

/// What `--debug` logs. Longhorn's control plane always gives it: the frames and pools of connections
/// would be most of the log.
const DEBUG: &str = "info,manager=debug,client=debug,fetch=debug,host=debug,image=debug";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one disk
    Daemon(Box<DaemonArgs>),
    /// Prepare the first copy of an image and hand it over; started by Longhorn's control plane
    DataSource(DataSourceArgs),
    /// List, show, create and delete backing images
    BackingImage {
        #[command(flatten)]
        url: Url,
        #[command(subcommand)]
        command: images::Command,
    },
    /// List, show, create, grow, hand over, unpublish, delete and compare volumes
    Volume {
        #[command(flatten)]
        url: Url,
        #[command(subcommand)]
        command: volumes::Command,
    },
    /// Back up volumes in Longhorn's format, restore them, and look after what is stored
    Backup(Box<backups::BackupArgs>),
    /// Initialize a directory as a disk, and show, list or forget disks
    Disk {
        #[command(flatten)]
        url: Url,
        #[command(subcommand)]
        command: disk::Command,
    },
    /// List, attach, detach and expose the volumes of a node, by the socket of its CSI plugin
    Node {
        /// Address of the node service: unix:/path or HOST:PORT
        #[arg(
            long,
            default_value = "unix:/var/lib/kubelet/plugins/driver.longhorn.io/node.sock",
            value_name = "ADDR",
            global = true
        )]
        url: Address,
        #[command(subcommand)]
        command: node::Command,
    },
    /// Make and show certificates without Kubernetes: an authority, and what it issues to programs
    #[command(subcommand)]
    Certs(certs::Command),
    /// Check what a disk and this machine support
    Doctor(doctor::DoctorArgs),
    /// Show the versions of this program and of a daemon
    Version(version::Args),
}

/// An error of a command: any crate's, printed with its causes.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let args = Args::parse();
    start_log(&args);
    let done = match args.command {
        Command::Doctor(args) => doctor::run(&args),
        Command::Certs(command) => certs::run(command),
        Command::Backup(command) => backup(*command, args.trust),
        command => execute(command, args.trust).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(failure) if is_broken_pipe(failure.as_ref()) => ExitCode::SUCCESS,
        Err(failure) => {
            let line = format!("backing-image-manager: {}\n", report(failure.as_ref()));
            // With nowhere to write to, the exit code is all there is to say.
            let _ = std::io::stderr().write_all(line.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// `backing-image list | head` ends the reader early; that is no failure.
fn is_broken_pipe(failure: &(dyn std::error::Error + 'static)) -> bool {
    failure
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn start_log(args: &Args) {
    let filter = if args.debug { DEBUG } else { &args.log_level };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn execute(command: Command, trust: trust::Options) -> Result<(), Failure> {
    match command {
        Command::Daemon(mut args) => {
            args.faces.trust = trust;
            let runtime = runtime()?;
            let served = runtime.block_on(daemon::run(*args));
            // Blocking work that did not end in the time it had must not hold up the exit.
            runtime.shutdown_background();
            Ok(served?)
        }
        Command::DataSource(args) => {
            let runtime = runtime()?;
            let served = runtime.block_on(data_source::run(args));
            runtime.shutdown_background();
            Ok(served?)
        }
        Command::BackingImage { url, command } => runtime()?.block_on(async {
            let connection = Connection::new(url, &trust).await?;
            images::run(&connection.client()?, command).await
        }),
        Command::Volume { url, command } => runtime()?.block_on(async {
            let connection = Connection::new(url, &trust).await?;
            volumes::run(&connection, command).await
        }),
        Command::Node { url, command } => runtime()?.block_on(async {
            let dialer = connection::dialer(&url, &trust).await?;
            node::run(&Node::new(url, &dialer)?, command).await
        }),
        Command::Version(args) => runtime()?.block_on(version::run(args, &trust)),
        Command::Disk { url, command } => disk::run(url, &trust, command),
        Command::Certs(command) => certs::run(command).map(drop),
        Command::Doctor(args) => doctor::run(&args).map(drop),
        Command::Backup(args) => backup(*args, trust).map(drop),
    }
}

/// How long the end of a command waits for its locks to be let go, and how often it looks.
const LOCKS: Duration = Duration::from_secs(5);
const SETTLED: Duration = Duration::from_millis(2);

fn backup(args: backups::BackupArgs, trust: trust::Options) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let done = tokio::select! {
            done = backups::run(args, trust) => done,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        };
        // A lock that was dropped is let go by a task of its own: others would wait for it until it expires.
        let settled = async {
            while runtime.metrics().num_alive_tasks() > 0 {
                tokio::time::sleep(SETTLED).await;
            }
        };
        let _ = tokio::time::timeout(LOCKS, settled).await;
        done
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}
