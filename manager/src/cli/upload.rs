//! `backing-image upload`: sends a file in pieces, and goes on where it stopped.

use std::path::PathBuf;

use clap::Args;
use client::upload::Upload;
use client::{Client, terminal, wire};
use types::ImageName;

use super::{Failure, images};

#[derive(Debug, Args)]
pub(super) struct UploadArgs {
    /// The disk image: a file of this machine, raw or qcow2
    file: PathBuf,
    /// Name of the image; the same name with the same file goes on with an upload that was interrupted
    #[arg(long)]
    name: ImageName,
    /// Expected SHA-512 of the file: an upload that went on with another file is refused by it
    #[arg(long, value_name = "SUM")]
    checksum: Option<String>,
    /// Format of the disk image: raw or qcow2 [default: detected once from its first bytes]
    #[arg(long)]
    format: Option<String>,
}

pub(super) async fn run(client: &Client, args: UploadArgs) -> Result<(), Failure> {
    let mut upload = Upload::open(&args.file)?;
    let request = wire::CreateBackingImageRequest {
        name: args.name.to_string(),
        source: Some(upload.source()),
        expected_checksum: args.checksum.unwrap_or_default(),
        format: args.format.unwrap_or_default(),
        ..Default::default()
    };
    let image = upload
        .send(&mut client.clone(), &request, async |_, _| {})
        .await?;
    let image = terminal::wait_image(client, image).await?;
    images::finished(image)
}
