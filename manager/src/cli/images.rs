//! `backing-image-manager backing-image`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use client::{Client, wire};
use serde::Serialize;
use types::{ImageId, ImageName, ImageUuid};

use super::inspect::{self, InspectArgs};
use super::output::{self, Form};
use super::source::FromArgs;
use super::upload::{self, UploadArgs};
use super::{Failure, longhorn};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the images of the disk
    #[command(visible_alias = "ls")]
    List {
        /// Output format
        #[arg(short, long, value_enum, default_value = "json")]
        output: Form,
    },
    /// Show one image
    Get {
        #[command(flatten)]
        key: Key,
        /// Output format
        #[arg(short, long, value_enum, default_value = "json")]
        output: Form,
    },
    /// Create an image from a container image, a file or a URL
    Create(Box<CreateArgs>),
    /// Show what an image from a source would be, without creating it: digest, format, sizes, content
    ///
    /// Reads no more than the beginning of the disk image, within 20 seconds. `Here` tells whether the
    /// image is on the disk of the daemon already.
    #[command(
        after_help = "Example:\n  backing-image-manager backing-image inspect --registry \
                            rancher/longhorn-test:baseimage-ext4"
    )]
    Inspect(Box<InspectArgs>),
    /// Upload a disk image from this machine, in pieces
    ///
    /// An upload that breaks goes on by itself, also when the daemon is restarted. One that was
    /// interrupted goes on when the command is given again; after 24 hours without a piece it is
    /// removed. `backing-image delete` cancels it.
    #[command(
        after_help = "Example:\n  backing-image-manager backing-image upload disk.qcow2 --name \
                            debian --checksum \"sha512:$(sha512sum < disk.qcow2 | cut -d' ' -f1)\""
    )]
    Upload(UploadArgs),
    /// Delete an image; succeeds if there is none
    #[command(visible_alias = "del")]
    Delete(Key),
    /// Take over the file that a data source prepared, or adopt a file that is on the disk
    Sync(longhorn::FetchArgs),
    /// Copy an image from another manager
    FileSync(longhorn::SyncArgs),
    /// Send an image to a receiver
    Send(longhorn::SendArgs),
    /// Show where a ready image can be downloaded
    PrepareDownload(longhorn::IdArgs),
}

#[derive(Debug, Args)]
pub(super) struct Key {
    /// Name of the image
    #[arg(long)]
    name: ImageName,
    /// UUID of the image; required only if several images have the name
    #[arg(long)]
    uuid: Option<ImageUuid>,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Name of the image [default: derived from the registry reference]
    #[arg(long)]
    name: Option<ImageName>,
    /// UUID of the image [default: random]
    #[arg(long)]
    uuid: Option<ImageUuid>,
    #[command(flatten)]
    from: FromArgs,
    /// The sync server of another manager with the same image; may be given several times
    #[arg(long, value_name = "HOST:PORT", requires_all = ["name", "uuid"], group = "source")]
    peer: Vec<String>,
    /// Expected SHA-512 of the disk image; for a download also `sha256:…`, and also of the file
    /// before decompression
    #[arg(long, value_name = "SUM")]
    checksum: Option<String>,
    /// Format of the disk image: raw or qcow2 [default: detected once from its first bytes]
    #[arg(long)]
    format: Option<String>,
    /// Wait until the image is ready, and show progress
    #[arg(long)]
    wait: bool,
}

/// An image in the shape of Longhorn's own command, and what only this program knows after it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageView {
    #[serde(flatten)]
    longhorn: longhorn::ImageView,
    format: String,
    source: String,
    manifest_digest: String,
    unverified: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_checksums: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentView>,
    created_at: String,
    volumes: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    unused_since: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContentView {
    pub(super) kind: String,
    #[serde(rename = "type")]
    pub(super) what: String,
    pub(super) label: String,
    pub(super) uuid: String,
}

pub(super) fn content_view(content: &wire::Content) -> ContentView {
    let kind = content.kind().as_str_name().trim_start_matches("KIND_");
    ContentView {
        kind: kind.to_ascii_lowercase().replace('_', "-"),
        what: content.r#type.clone(),
        label: content.label.clone(),
        uuid: content.uuid.clone(),
    }
}

/// A state as the design, the daemon's logs and Longhorn spell it.
pub(super) fn state_name(image: &wire::BackingImage) -> &'static str {
    client::state_name(image.state())
}

impl From<wire::BackingImage> for ImageView {
    fn from(image: wire::BackingImage) -> Self {
        Self {
            content: image.content.as_ref().map(content_view),
            longhorn: longhorn::ImageView::of_ours(&image),
            format: image.format,
            source: image.source,
            manifest_digest: image.manifest_digest,
            unverified: image.unverified,
            source_checksums: image.source_checksums,
            created_at: image.created_at,
            volumes: image.volumes,
            unused_since: image.unused_since,
        }
    }
}

pub(super) async fn run(client: &Client, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { output } => list(client, output).await?,
        Command::Get { key, output } => get(client, key, output).await?,
        Command::Create(args) => create(client, *args).await?,
        Command::Inspect(args) => inspect::run(client, &args).await?,
        Command::Upload(args) => upload::run(client, args).await?,
        Command::Delete(Key { name, uuid }) => match uuid {
            Some(uuid) => client.longhorn().delete(&ImageId { name, uuid }).await?,
            None => client.delete_image(&name, None).await?,
        },
        Command::Sync(args) => longhorn::fetch(client, args).await?,
        Command::FileSync(args) => longhorn::sync(client, args).await?,
        Command::Send(args) => longhorn::send(client, args).await?,
        Command::PrepareDownload(args) => longhorn::prepare_download(client, args).await?,
    }
    Ok(())
}

async fn get(client: &Client, Key { name, uuid }: Key, form: Form) -> Result<(), Failure> {
    match (form, uuid) {
        (Form::Json, Some(uuid)) => longhorn::get(client, &ImageId { name, uuid }).await,
        (Form::Table, uuid) => Ok(table(&[client.image(&name, uuid.as_ref()).await?])?),
        (form, uuid) => {
            let image = ImageView::from(client.image(&name, uuid.as_ref()).await?);
            match form {
                Form::JsonFull => output::json(&image)?,
                _ => output::json(&image.longhorn)?,
            }
            Ok(())
        }
    }
}

async fn list(client: &Client, form: Form) -> Result<(), Failure> {
    match form {
        Form::Json => longhorn::list(client).await,
        Form::Table => Ok(table(&client.list_images().await?)?),
        Form::JsonFull => {
            // A second image of one name gets its uuid into the key, so that neither hides the other.
            let mut by_name = BTreeMap::new();
            for image in client.list_images().await? {
                let mut key = image.name.clone();
                if by_name.contains_key(&key) {
                    key = format!("{key}-{}", image.uuid);
                }
                by_name.insert(key, ImageView::from(image));
            }
            Ok(output::json(&by_name)?)
        }
    }
}

fn table(images: &[wire::BackingImage]) -> std::io::Result<()> {
    let rows: Vec<_> = images
        .iter()
        .map(|image| {
            [
                image.name.clone(),
                image.uuid.clone(),
                state_name(image).to_owned(),
                format!("{}%", image.progress),
                image.format.clone(),
                image.virtual_size.to_string(),
                image.real_size.to_string(),
                image.volumes.to_string(),
                image.unused_since.get(..10).unwrap_or("-").to_owned(),
                short_digest(&image.manifest_digest),
                image.source.clone(),
            ]
        })
        .collect();
    let head = [
        "NAME", "UUID", "STATE", "PROGRESS", "FORMAT", "VIRTUAL", "REAL", "VOLUMES", "UNUSED",
        "DIGEST", "SOURCE",
    ];
    output::table(head, &rows)
}

/// As much of the container image's digest as tells it from others.
fn short_digest(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

async fn create(client: &Client, args: CreateArgs) -> Result<(), Failure> {
    let request = request(&args)?;
    let mut image = client.create_image(request).await?;
    if args.wait {
        image = client::terminal::wait_image(client, image).await?;
    }
    finished(image)
}

/// Prints an image; an error when it failed.
pub(super) fn finished(image: wire::BackingImage) -> Result<(), Failure> {
    let (state, message) = (image.state(), image.message.clone());
    let name = image.name.clone();
    output::json(&ImageView::from(image))?;
    if state == wire::State::Failed {
        return Err(format!("backing image {name} failed: {message}").into());
    }
    Ok(())
}

fn request(args: &CreateArgs) -> Result<wire::CreateBackingImageRequest, Failure> {
    let source = args.from.source()?.unwrap_or_else(|| {
        wire::source::Source::Peers(wire::PeersSource {
            addresses: args.peer.clone(),
            size: 0,
        })
    });
    Ok(wire::CreateBackingImageRequest {
        name: args
            .name
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        uuid: args
            .uuid
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        source: Some(wire::Source {
            source: Some(source),
        }),
        expected_checksum: args.checksum.clone().unwrap_or_default(),
        format: args.format.clone().unwrap_or_default(),
        for_volumes: false,
    })
}
