//! Backups in print.

use std::io::Write as _;
use std::process::ExitCode;

use client::{backup_state_name, wire};
use serde::Serialize;

use super::place::{Place, Which};
use super::{Context, Failure};
use crate::cli::output::{self, Form};
use crate::service::wire::stored;

/// A backup as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackupView {
    volume: String,
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    volume_size: u64,
    size: u64,
    block_size: u64,
    incremental: bool,
    compression: String,
    uploaded_size: u64,
    reuploaded_size: u64,
    snapshot: String,
    snapshot_created_at: String,
    created_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    base_image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    base_image_checksum: String,
    labels: std::collections::BTreeMap<String, String>,
    address: String,
    target: String,
}

impl From<wire::Backup> for BackupView {
    fn from(backup: wire::Backup) -> Self {
        Self {
            state: backup_state_name(backup.state()),
            volume: backup.volume,
            name: backup.name,
            message: backup.message,
            volume_size: backup.volume_size,
            size: backup.size,
            block_size: backup.block_size,
            incremental: backup.incremental,
            compression: backup.compression,
            uploaded_size: backup.uploaded_size,
            reuploaded_size: backup.reuploaded_size,
            snapshot: backup.snapshot,
            snapshot_created_at: backup.snapshot_created_at,
            created_at: backup.created_at,
            base_image: backup.base_image,
            base_image_checksum: backup.base_image_checksum,
            labels: backup.labels.into_iter().collect(),
            address: backup.address,
            target: backup.target,
        }
    }
}

/// `backup list`. What cannot be read is said, and makes the exit code 1.
pub(super) async fn list(
    context: &Context,
    place: &Place,
    volume: Option<&backup::Name>,
    form: Form,
) -> Result<ExitCode, Failure> {
    let (target, store) = place.open(context)?;
    let listed = backup_jobs::list(&store, volume).await?;
    let backups = listed.items.iter().map(|info| stored(info, &target));
    let backups: Vec<_> = backups.collect();
    match form {
        Form::Table => table(&backups)?,
        Form::Json | Form::JsonFull => {
            let views: Vec<BackupView> = backups.into_iter().map(BackupView::from).collect();
            output::json(&views)?;
        }
    }
    Ok(code(&listed.problems))
}

/// Says problems, of which one is a failure.
pub(super) fn code(problems: &[String]) -> ExitCode {
    say(problems);
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Problems on standard error, one a line.
pub(super) fn say(problems: &[String]) {
    for problem in problems {
        // Who reads nothing has the exit code.
        let _ = std::io::stderr().write_all(format!("{problem}\n").as_bytes());
    }
}

/// `backup show`.
pub(super) async fn show(context: &Context, which: &Which, form: Form) -> Result<(), Failure> {
    let (volume, name) = which.names()?;
    let (target, store) = which.open(context)?;
    let backup = stored(&store.backup(&volume, &name).await?, &target);
    match form {
        Form::Table => table(&[backup])?,
        Form::Json | Form::JsonFull => output::json(&BackupView::from(backup))?,
    }
    Ok(())
}

fn table(backups: &[wire::Backup]) -> std::io::Result<()> {
    let rows: Vec<_> = backups
        .iter()
        .map(|backup| {
            [
                backup.volume.clone(),
                backup.name.clone(),
                backup_state_name(backup.state()).to_owned(),
                backup.snapshot_created_at.clone(),
                backup.volume_size.to_string(),
                backup.size.to_string(),
                backup.uploaded_size.to_string(),
                match backup.base_image.as_str() {
                    "" => "-".to_owned(),
                    base => base.to_owned(),
                },
                backup.address.clone(),
            ]
        })
        .collect();
    let head = [
        "VOLUME",
        "NAME",
        "STATE",
        "SNAPSHOT OF",
        "VOLUME SIZE",
        "SIZE",
        "UPLOADED",
        "BASE IMAGE",
        "ADDRESS",
    ];
    output::table(head, &rows)
}
