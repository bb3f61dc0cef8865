//! `backup prune`, `gc`, `delete` and `lock list`: what of a store goes, and who holds it.

use std::process::ExitCode;

use backup::prune::{Decision, Policy};
use backup::{Collected, Item, LockKind, Name, Store};
use clap::Args;
use serde::Serialize;
use types::{Classify as _, ErrorKind};

use super::place::{Place, Which, volumes};
use super::show::code;
use super::{Context, Failure};
use crate::cli::output::{self, Form};
use crate::cli::progress;

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    #[command(flatten)]
    place: Place,
    /// The volume [default: each volume of the target]
    #[arg(long, value_name = "NAME")]
    volume: Option<Name>,
    #[command(flatten)]
    keep: Keep,
    /// Remove what the table says
    #[arg(long)]
    yes: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

/// A backup stays if one of these rules keeps it.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Keep {
    /// Keep the newest N backups
    #[arg(
        long = "keep-last",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    last: u32,
    /// Keep the newest of each of the last N hours that have one
    #[arg(
        long = "keep-hourly",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    hourly: u32,
    /// Keep the newest of each of the last N days (UTC) that have one
    #[arg(
        long = "keep-daily",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    daily: u32,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(
        long = "keep-weekly",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    weekly: u32,
    /// Keep the newest of each of the last N months that have one
    #[arg(
        long = "keep-monthly",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    monthly: u32,
    /// Keep the newest of each of the last N years that have one
    #[arg(
        long = "keep-yearly",
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true
    )]
    yearly: u32,
}

impl Keep {
    const fn policy(&self) -> Policy {
        Policy {
            keep_last: self.last,
            keep_hourly: self.hourly,
            keep_daily: self.daily,
            keep_weekly: self.weekly,
            keep_monthly: self.monthly,
            keep_yearly: self.yearly,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct GcArgs {
    #[command(flatten)]
    place: Place,
    /// The volume [default: each volume of the target]
    #[arg(long, value_name = "NAME")]
    volume: Option<Name>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

/// What becomes of one backup.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fate {
    volume: String,
    backup: String,
    snapshot_created_at: String,
    /// `keep`, `remove` (it would be) or `removed`.
    #[serde(rename = "fate")]
    outcome: &'static str,
    why: Vec<&'static str>,
}

/// What was, or would be, removed of one volume.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Gone {
    volume: String,
    blocks: u64,
    bytes: u64,
    leftovers: u64,
    leftover_bytes: u64,
    set_aside: Vec<String>,
    kept: Vec<String>,
}

impl Gone {
    fn new(volume: &Name, collected: Collected) -> Self {
        Self {
            volume: volume.to_string(),
            blocks: collected.blocks,
            bytes: collected.bytes,
            leftovers: collected.leftovers,
            leftover_bytes: collected.leftover_bytes,
            set_aside: collected.set_aside.iter().map(Name::to_string).collect(),
            kept: collected.kept,
        }
    }
}

pub(super) async fn prune(context: &Context, args: &PruneArgs) -> Result<ExitCode, Failure> {
    let policy = args.keep.policy();
    if policy.is_empty() {
        return Err(
            "each --keep option is 0: give at least one rule, or delete each backup by name".into(),
        );
    }
    let (_, store) = args.place.open(context)?;
    let (names, mut problems) = volumes(&store, args.volume.as_ref()).await?;
    let (mut fates, mut failed) = (Vec::new(), None);
    for volume in names {
        let listed = store.backups(&volume).await?;
        problems.extend(listed.problems);
        // The oldest first: what is interrupted leaves what the rules keep.
        for decision in policy.decide(&listed.items).into_iter().rev() {
            let mut fate = Fate::new(&volume, &decision);
            if args.yes && !decision.keeps() && failed.is_none() {
                match delete_one(&store, &volume, &decision.backup).await {
                    Ok(()) => fate.outcome = "removed",
                    Err(error) => failed = Some(error),
                }
            }
            fates.push(fate);
        }
    }
    match args.output {
        Form::Table => {
            let rows: Vec<_> = fates.iter().map(Fate::row).collect();
            output::table(["VOLUME", "BACKUP", "SNAPSHOT OF", "FATE", "WHY"], &rows)?;
        }
        Form::Json | Form::JsonFull => output::json(&fates)?,
    }
    let would = fates.iter().filter(|fate| fate.outcome == "remove").count();
    if would > 0 && !args.yes {
        super::show::say(&[format!(
            "{would} backups would be removed: repeat this with --yes"
        )]);
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(code(&problems)),
    }
}

impl Fate {
    fn new(volume: &Name, decision: &Decision) -> Self {
        Self {
            volume: volume.to_string(),
            backup: decision.backup.to_string(),
            snapshot_created_at: decision.snapshot_created_at.to_string(),
            outcome: if decision.keeps() { "keep" } else { "remove" },
            why: if decision.keeps() {
                decision.reasons.clone()
            } else {
                vec!["no rule keeps it"]
            },
        }
    }

    fn row(&self) -> [String; 5] {
        [
            self.volume.clone(),
            self.backup.clone(),
            self.snapshot_created_at.clone(),
            self.outcome.to_owned(),
            self.why.join(", "),
        ]
    }
}

async fn delete_one(store: &Store, volume: &Name, name: &Name) -> Result<(), Failure> {
    match store
        .delete_backup(volume, name, &progress::own(volume.as_str()))
        .await
    {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) async fn collect(context: &Context, args: &GcArgs) -> Result<ExitCode, Failure> {
    let (_, store) = args.place.open(context)?;
    let (names, problems) = volumes(&store, args.volume.as_ref()).await?;
    let mut gone = Vec::new();
    for volume in names {
        let collected = store
            .collect(&volume, args.dry_run, &progress::own(volume.as_str()))
            .await?;
        gone.push(Gone::new(&volume, collected));
    }
    match args.output {
        Form::Table => {
            let row = |gone: &Gone| {
                [
                    gone.volume.clone(),
                    gone.blocks.to_string(),
                    gone.bytes.to_string(),
                    gone.leftovers.to_string(),
                    gone.leftover_bytes.to_string(),
                    gone.set_aside.join(", "),
                    gone.kept.join("; "),
                ]
            };
            let rows: Vec<_> = gone.iter().map(row).collect();
            let head = [
                "VOLUME",
                "BLOCKS",
                "BYTES",
                "LEFTOVERS",
                "LEFTOVER BYTES",
                "SET ASIDE",
                "WHY BLOCKS STAY",
            ];
            output::table(head, &rows)?;
        }
        Form::Json | Form::JsonFull => output::json(&gone)?,
    }
    if args.dry_run {
        super::show::say(&["nothing was removed: this was a dry run".to_owned()]);
    }
    Ok(code(&problems))
}

pub(super) async fn delete(context: &Context, which: &Which) -> Result<(), Failure> {
    let (_, store) = which.open(context)?;
    match which.item()? {
        Item::Backup { volume, backup } => delete_one(&store, &volume, &backup).await,
        Item::BackingImage(image) => match store
            .delete_backing_image(&image, &progress::own(image.as_str()))
            .await
        {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
        Item::Volume(_) => which.names().map(drop),
    }
}

pub(super) async fn locks(
    context: &Context,
    place: &Place,
    volume: &Name,
    form: Form,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct LockView {
        name: String,
        kind: &'static str,
        acquired: bool,
        refreshed_at: String,
    }
    let (_, store) = place.open(context)?;
    let locks = store.locks(volume).await?;
    let view = |lock: &backup::LockInfo| LockView {
        name: lock.name.clone(),
        kind: match lock.kind {
            Some(LockKind::Use) => "backup or restore",
            Some(LockKind::Remove) => "removal",
            None => "unreadable",
        },
        acquired: lock.acquired,
        refreshed_at: lock.refreshed_at.to_string(),
    };
    let views: Vec<_> = locks.iter().map(view).collect();
    match form {
        Form::Table => {
            let row = |lock: &LockView| {
                [
                    lock.name.clone(),
                    lock.kind.to_owned(),
                    if lock.acquired { "acquired" } else { "waiting" }.to_owned(),
                    lock.refreshed_at.clone(),
                ]
            };
            let rows: Vec<_> = views.iter().map(row).collect();
            output::table(["LOCK", "FOR", "STATE", "REFRESHED"], &rows)?;
        }
        Form::Json | Form::JsonFull => output::json(&views)?,
    }
    Ok(())
}
