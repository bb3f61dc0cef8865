//! `backup create`.

use clap::Args;
use client::{Client, wire};
use types::{ImageName, VolumeName};

use super::place::Place;
use super::show::BackupView;
use super::{Context, Failure};
use crate::cli::{output, progress};

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    place: Place,
    /// The volume
    #[arg(long, value_name = "NAME")]
    volume: VolumeName,
    /// Name of the backup [default: that of the snapshot, or backup-DATE-TIME]
    #[arg(long, value_name = "NAME")]
    name: Option<backup::Name>,
    /// The snapshot to back up [default: one is taken now]
    #[arg(long, value_name = "IMAGE")]
    snapshot: Option<ImageName>,
    /// `full` uploads all blocks again, also those that the store has: it heals a damaged store
    #[arg(long, default_value = "incremental", value_parser = ["incremental", "full"])]
    mode: String,
    /// Store only what differs from the base image of the volume: the backup can be restored only where
    /// the same image is
    #[arg(long)]
    on_base: bool,
    /// How blocks are stored
    #[arg(long, default_value = "lz4", value_parser = ["lz4", "gzip", "none"])]
    compression: String,
    /// Size of the blocks [default: that of the volume's last backup, or 2Mi]
    #[arg(long, value_parser = ["2Mi", "16Mi"])]
    block_size: Option<String>,
    /// Label of the backup; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Answer as soon as the backup has begun
    #[arg(long)]
    no_wait: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not KEY=VALUE".to_owned()),
    }
}

pub(super) async fn run(context: &Context, args: CreateArgs) -> Result<(), Failure> {
    let client = context.client().await?;
    let wait = !args.no_wait;
    let target = args.place.wire();
    let begun = client.create_backup(request(args)).await?;
    let backup = if wait {
        waited(&client, target, begun).await?
    } else {
        begun
    };
    let (state, message) = (backup.state(), backup.message.clone());
    let name = backup.name.clone();
    output::json(&BackupView::from(backup))?;
    match state {
        wire::BackupState::Failed => Err(format!("backup {name} failed: {message}").into()),
        wire::BackupState::Complete => Ok(()),
        _ if wait => Err(format!(
            "backup {name} has not ended: the daemon stopped; create it again to go on"
        )
        .into()),
        _ => Ok(()),
    }
}

async fn waited(
    client: &Client,
    target: wire::BackupTarget,
    begun: wire::Backup,
) -> Result<wire::Backup, Failure> {
    let request = wire::GetBackupRequest {
        target: Some(target),
        volume: begun.volume.clone(),
        name: begun.name.clone(),
    };
    Ok(progress::wait_backup(client, request, begun).await?)
}

fn request(args: CreateArgs) -> wire::CreateBackupRequest {
    let name = match (args.name, &args.snapshot) {
        (Some(name), _) => name.to_string(),
        (None, Some(_)) => String::new(),
        (None, None) => jiff::Timestamp::now()
            .strftime("backup-%Y%m%d-%H%M%S")
            .to_string(),
    };
    wire::CreateBackupRequest {
        target: Some(args.place.wire()),
        name,
        volume: args.volume.to_string(),
        snapshot: args.snapshot.map(String::from).unwrap_or_default(),
        mode: args.mode,
        compression: args.compression,
        block_size: match args.block_size.as_deref() {
            Some("16Mi") => 16 << 20,
            Some(_) => 2 << 20,
            None => 0,
        },
        on_base: args.on_base,
        labels: args.label.into_iter().collect(),
        storage_class: String::new(),
    }
}
