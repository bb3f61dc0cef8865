//! `backing-image-manager backup`.
//!
//! What reads or changes a store alone is done by this program, with the targets of its own options: it works
//! without a daemon. What needs the bytes of a disk (create, restore, `verify --repair`) is asked of the daemon.

mod create;
mod place;
mod restore;
mod salvage;
mod show;
mod upkeep;
mod verify;

use std::process::ExitCode;

use backup_jobs::{TargetArgs, Targets};
use clap::{Args, Subcommand};
use trust::Options;

use self::place::{Place, Which};
use super::Failure;
use super::connection::{Connection, Url};
use super::output::Form;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    url: Url,
    #[command(flatten)]
    targets: TargetArgs,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Back up a volume now, and follow it:
    backing-image-manager backup create --volume pvc-1 --name monday
  See what there is:
    backing-image-manager backup list -o table
  Restore it as an image, then make a volume of that:
    backing-image-manager backup restore --volume pvc-1 --name monday --image restored
    backing-image-manager volume create --name pvc-2 --backing-image restored
  Read all blocks of a volume's backups again, and heal what is damaged from its snapshots:
    backing-image-manager backup verify --volume pvc-1 --repair
  See what a rule of retention removes, then remove it:
    backing-image-manager backup prune --volume pvc-1 --keep-daily 7 --keep-weekly 4
    backing-image-manager backup prune --volume pvc-1 --keep-daily 7 --keep-weekly 4 --yes

Targets are NAME=ADDRESS of --backup-target or of the environment variable BACKUP_TARGETS, as the daemon has
them. Credentials are files below --backup-credentials: they are no options, because every user of a machine
can read those.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Back up a volume: take a snapshot, and upload what changed since the last backup
    Create(create::CreateArgs),
    /// List the backups of a target
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        place: Place,
        /// Only the backups of this volume
        #[arg(long, value_name = "NAME")]
        volume: Option<backup::Name>,
        /// Output format
        #[arg(short, long, value_enum, default_value = "json")]
        output: Form,
    },
    /// Show one backup
    Show {
        #[command(flatten)]
        which: Which,
        /// Output format
        #[arg(short, long, value_enum, default_value = "json")]
        output: Form,
    },
    /// Restore a backup as an image of the disk, or with --salvage what is whole of it as a file
    Restore(restore::RestoreArgs),
    /// Read the blocks of a volume's backups again and compare their checksums
    ///
    /// The exit code is 1 if a block is damaged or missing and was not repaired.
    Verify(verify::VerifyArgs),
    /// Remove backups that no rule of retention keeps: shows them, and removes them with --yes
    Prune(upkeep::PruneArgs),
    /// Remove blocks that no backup of a volume needs
    Gc(upkeep::GcArgs),
    /// Delete a backup and the blocks that no other backup needs; succeeds if there is none
    Delete {
        #[command(flatten)]
        which: Which,
    },
    /// The locks of a store
    #[command(subcommand)]
    Lock(LockCommand),
}

#[derive(Debug, Subcommand)]
enum LockCommand {
    /// List the locks of a volume
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        place: Place,
        /// The volume
        #[arg(long, value_name = "NAME")]
        volume: backup::Name,
        /// Output format
        #[arg(short, long, value_enum, default_value = "json")]
        output: Form,
    },
}

/// What every command has.
struct Context {
    targets: Targets,
    url: Url,
    trust: Options,
}

impl Context {
    /// The daemon.
    async fn client(&self) -> Result<client::Client, Failure> {
        Connection::new(self.url.clone(), &self.trust)
            .await?
            .client()
    }
}

pub(super) async fn run(args: BackupArgs, trust: Options) -> Result<ExitCode, Failure> {
    let context = Context {
        targets: Targets::new(&args.targets, backup::Options::default())?,
        url: args.url,
        trust,
    };
    match args.command {
        Command::Create(args) => create::run(&context, args).await?,
        Command::List {
            place,
            volume,
            output,
        } => return show::list(&context, &place, volume.as_ref(), output).await,
        Command::Show { which, output } => show::show(&context, &which, output).await?,
        Command::Restore(args) => return restore::run(&context, args).await,
        Command::Verify(args) => return verify::run(&context, args).await,
        Command::Prune(args) => return upkeep::prune(&context, &args).await,
        Command::Gc(args) => return upkeep::collect(&context, &args).await,
        Command::Delete { which } => upkeep::delete(&context, &which).await?,
        Command::Lock(LockCommand::List {
            place,
            volume,
            output,
        }) => upkeep::locks(&context, &place, &volume, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}
