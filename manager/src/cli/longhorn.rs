//! The commands that Longhorn's own program has, with its flags and its JSON. They call Longhorn's own
//! service, so that they work with Longhorn's managers as well.

use std::collections::BTreeMap;
use std::io::Write;

use client::{Client, bimrpc, state_name, wire};
use serde::Serialize;
use types::{ImageId, ImageName, ImageUuid, Sha512};

use super::{Failure, output};

#[derive(Debug, clap::Args)]
pub(super) struct IdArgs {
    /// Name of the image
    #[arg(long)]
    name: ImageName,
    /// UUID of the image
    #[arg(long)]
    uuid: ImageUuid,
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Size of the file in bytes, a multiple of 512
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    size: u64,
    /// Expected SHA-512 of the file
    #[arg(
        long,
        value_name = "SHA512",
        default_value = "",
        hide_default_value = true
    )]
    checksum: String,
    /// Wait until the image is ready, and show progress
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct FetchArgs {
    #[command(flatten)]
    new: NewArgs,
    /// The data source that prepared the file [default: the file is on the disk]
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "",
        hide_default_value = true
    )]
    data_source_address: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    new: NewArgs,
    /// The manager that has the image
    #[arg(long, value_name = "HOST:PORT")]
    from_address: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct SendArgs {
    #[command(flatten)]
    id: IdArgs,
    /// The receiver
    #[arg(long, value_name = "HOST:PORT")]
    to_address: String,
}

/// An image as Longhorn's own program prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageView {
    name: String,
    uuid: String,
    size: i64,
    virtual_size: i64,
    real_size: i64,
    expected_checksum: String,
    status: StatusView,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    state: String,
    current_checksum: String,
    sending_reference: i32,
    error_msg: String,
    sender_manager_address: String,
    progress: i32,
}

impl From<bimrpc::BackingImageResponse> for ImageView {
    fn from(response: bimrpc::BackingImageResponse) -> Self {
        let spec = response.spec.unwrap_or_default();
        let status = response.status.unwrap_or_default();
        Self {
            name: spec.name,
            uuid: spec.uuid,
            size: spec.size,
            virtual_size: spec.virtual_size,
            real_size: spec.real_size,
            expected_checksum: spec.checksum,
            status: StatusView {
                state: status.state,
                current_checksum: status.checksum,
                sending_reference: status.sending_reference,
                error_msg: status.error_msg,
                sender_manager_address: status.sender_manager_address,
                progress: status.progress,
            },
        }
    }
}

impl ImageView {
    /// An image of our own API in Longhorn's shape.
    pub(super) fn of_ours(image: &wire::BackingImage) -> Self {
        let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        Self {
            name: image.name.clone(),
            uuid: image.uuid.clone(),
            size: signed(image.size),
            virtual_size: signed(image.virtual_size),
            real_size: signed(image.real_size),
            expected_checksum: image.expected_checksum.clone(),
            status: StatusView {
                state: state_name(image.state()).to_owned(),
                current_checksum: image.current_checksum.clone(),
                sending_reference: 0,
                error_msg: image.message.clone(),
                sender_manager_address: String::new(),
                progress: i32::try_from(image.progress).unwrap_or(100),
            },
        }
    }
}

impl IdArgs {
    fn id(self) -> ImageId {
        ImageId {
            name: self.name,
            uuid: self.uuid,
        }
    }
}

impl NewArgs {
    fn checked(self) -> Result<(ImageId, u64, Option<Sha512>, bool), Failure> {
        let checksum = match self.checksum.as_str() {
            "" => None,
            text => Some(
                text.parse::<Sha512>()
                    .map_err(|error| format!("--checksum: {error}"))?,
            ),
        };
        Ok((self.id.id(), self.size, checksum, self.wait))
    }
}

pub(super) async fn list(client: &Client) -> Result<(), Failure> {
    let images = client.longhorn().list().await?;
    let images: BTreeMap<_, _> = images
        .into_iter()
        .map(|(key, image)| (key, ImageView::from(image)))
        .collect();
    Ok(output::json(&images)?)
}

pub(super) async fn get(client: &Client, id: &ImageId) -> Result<(), Failure> {
    Ok(output::json(&ImageView::from(
        client.longhorn().get(id).await?,
    ))?)
}

pub(super) async fn fetch(client: &Client, args: FetchArgs) -> Result<(), Failure> {
    let (id, size, checksum, wait) = args.new.checked()?;
    let longhorn = client.longhorn();
    let begun = longhorn.fetch(&id, size, checksum, &args.data_source_address);
    begin(client, &id, begun.await?, wait).await
}

pub(super) async fn sync(client: &Client, args: SyncArgs) -> Result<(), Failure> {
    let (id, size, checksum, wait) = args.new.checked()?;
    let longhorn = client.longhorn();
    let begun = longhorn.sync(&id, size, checksum, &args.from_address);
    begin(client, &id, begun.await?, wait).await
}

/// Prints an image that was begun; with `wait`, as it is in the end.
async fn begin(
    client: &Client,
    id: &ImageId,
    begun: bimrpc::BackingImageResponse,
    wait: bool,
) -> Result<(), Failure> {
    if !wait {
        return Ok(output::json(&ImageView::from(begun))?);
    }
    let image = client.image(&id.name, Some(&id.uuid)).await?;
    let image = client::terminal::wait_image(client, image).await?;
    output::json(&ImageView::of_ours(&image))?;
    if image.state() == wire::State::Failed {
        return Err(format!("backing image {id} failed: {}", image.message).into());
    }
    Ok(())
}

pub(super) async fn send(client: &Client, args: SendArgs) -> Result<(), Failure> {
    let id = args.id.id();
    Ok(client.longhorn().send(&id, &args.to_address).await?)
}

pub(super) async fn prepare_download(client: &Client, args: IdArgs) -> Result<(), Failure> {
    let download = client.longhorn().prepare_download(&args.id()).await?;
    let text = format!(
        "Source file path: {}\nDownload server address: {}\n",
        download.file_path, download.address
    );
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
