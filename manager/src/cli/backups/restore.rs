//! `backup restore`.

use std::path::PathBuf;
use std::process::ExitCode;

use backup::Item;
use clap::Args;
use client::wire;
use types::ImageName;

use super::place::Which;
use super::{Context, Failure, salvage};
use crate::cli::images::ImageView;
use crate::cli::output;

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    which: Which,
    /// Name of the image [default: derived from the backup]
    #[arg(long, value_name = "NAME", conflicts_with = "salvage")]
    image: Option<ImageName>,
    /// Answer as soon as the restore has begun
    #[arg(long, conflicts_with = "salvage")]
    no_wait: bool,
    /// Take what is whole of a damaged or incomplete backup, and say which ranges are not: written to a raw
    /// file, without the daemon; the exit code is 1 if anything is lost
    #[arg(long, requires = "file")]
    salvage: bool,
    /// File that --salvage writes, which must not exist
    #[arg(long, value_name = "FILE", requires = "salvage")]
    file: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, args: RestoreArgs) -> Result<ExitCode, Failure> {
    if let Some(file) = &args.file {
        return salvage::run(context, &args.which, file).await;
    }
    let client = context.client().await?;
    let (mut volume, mut backup, mut backing_image) = Default::default();
    match args.which.item()? {
        Item::Backup {
            volume: of,
            backup: name,
        } => (volume, backup) = (of.to_string(), name.to_string()),
        Item::BackingImage(image) => backing_image = image.to_string(),
        Item::Volume(_) => drop(args.which.names()?),
    }
    let source = wire::BackupSource {
        target: Some(args.which.wire()),
        volume,
        backup,
        backing_image,
    };
    let request = wire::CreateBackingImageRequest {
        name: args.image.map(String::from).unwrap_or_default(),
        source: Some(wire::Source {
            source: Some(wire::source::Source::Backup(source)),
        }),
        ..Default::default()
    };
    let mut image = client.create_image(request).await?;
    if !args.no_wait {
        image = client::terminal::wait_image(&client, image).await?;
    }
    let (state, message) = (image.state(), image.message.clone());
    let name = image.name.clone();
    output::json(&ImageView::from(image))?;
    if state == wire::State::Failed {
        return Err(format!("the restore of {name} failed: {message}").into());
    }
    Ok(ExitCode::SUCCESS)
}
