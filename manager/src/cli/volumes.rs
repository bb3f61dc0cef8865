//! `backing-image-manager volume`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use client::{Client, Cluster, Wait, there, wire};
use serde::Serialize;
use types::{ByteSize, ImageName, NodeId, VolumeName, parse_quantity};

use super::connection::Connection;
use super::images::{ContentView, content_view};
use super::output::{self, Form};
use super::{Failure, compare};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a volume: a clone of an image, or a blank volume
    Create(CreateArgs),
    /// Show one volume
    Get {
        /// Name of the volume
        #[arg(long)]
        name: VolumeName,
    },
    /// List the volumes of the disk
    #[command(visible_alias = "ls")]
    List {
        /// Output format
        #[arg(short, long, value_enum, default_value = "json")]
        output: Form,
    },
    /// Delete a volume that no node uses; succeeds if there is none
    Delete {
        /// Name of the volume
        #[arg(long)]
        name: VolumeName,
    },
    /// Grow a volume; its file system grows at the next mount
    Grow {
        /// Name of the volume
        #[arg(long)]
        name: VolumeName,
        /// Minimum size, for example 20Gi
        #[arg(long, value_parser = parse_quantity)]
        size: ByteSize,
    },
    /// Remove a node's right to use a volume if Kubernetes can no longer do so
    Unpublish {
        /// Name of the volume, searched on every daemon behind the address
        #[arg(long)]
        name: VolumeName,
        /// The node [default: every node]
        #[arg(long)]
        node: Option<NodeId>,
        /// Required, because Kubernetes does this itself as long as the VolumeAttachment exists
        #[arg(long, required = true)]
        force: bool,
    },
    /// Compare the volumes of a cluster with its PersistentVolumes: kubectl get pv -o json | … compare -
    Compare {
        /// Output of kubectl; `-` reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Name of the CSI driver
        #[arg(long, default_value = "driver.longhorn.io", value_name = "NAME")]
        driver: String,
    },
    /// Change the owner of a volume that no node uses: another driver, or another namespace
    HandOver {
        /// Name of the volume
        #[arg(long)]
        name: VolumeName,
        /// New owner
        #[arg(long, value_enum)]
        to: Driver,
        /// Kubernetes namespace whose pods may use the volume; required for flexvolume
        #[arg(
            long,
            default_value = "",
            hide_default_value = true,
            required_if_eq("to", "flexvolume")
        )]
        namespace: String,
    },
}

/// The drivers of Kubernetes that use volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Driver {
    Csi,
    Flexvolume,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Name of the volume
    #[arg(long)]
    name: VolumeName,
    /// Minimum size, for example 32Mi [default: the size of the image, or 1Gi]
    #[arg(long, value_parser = parse_quantity)]
    size: Option<ByteSize>,
    /// Image to clone [default: none, for a blank volume]
    #[arg(long, value_name = "NAME")]
    backing_image: Option<ImageName>,
    /// Number of disks that store the data
    #[arg(long, default_value_t = 1)]
    number_of_replicas: u32,
    /// Kubernetes namespace whose pods may use the volume with FlexVolume [default: none]
    #[arg(long, default_value = "", hide_default_value = true)]
    namespace: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VolumeView {
    name: String,
    size: u64,
    real_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_image: Option<BackingImageView>,
    made_by: String,
    owner: OwnerView,
    number_of_replicas: u32,
    replicas: Vec<ReplicaView>,
    published: Vec<PublicationView>,
    in_use: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    degraded: String,
    created_at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BackingImageView {
    name: String,
    uuid: String,
    checksum: String,
    content: Option<ContentView>,
}

/// Whose a volume is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnerView {
    driver: &'static str,
    namespace: String,
    claim: String,
}

impl OwnerView {
    fn of(volume: &wire::Volume) -> Self {
        let owner = volume.owner.clone().unwrap_or_default();
        Self {
            driver: match owner.driver() {
                wire::Driver::Csi => "csi",
                wire::Driver::Flexvolume => "flexvolume",
                wire::Driver::Api => "api",
                wire::Driver::Unspecified => "unknown",
            },
            namespace: owner.namespace,
            claim: owner.claim,
        }
    }
}

impl std::fmt::Display for OwnerView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.driver)?;
        let names = [&self.namespace, &self.claim];
        names
            .into_iter()
            .filter(|name| !name.is_empty())
            .try_for_each(|name| write!(f, "/{name}"))
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplicaView {
    node_id: String,
    #[serde(rename = "diskUUID")]
    disk_uuid: String,
    path: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PublicationView {
    node_id: String,
    readonly: bool,
    r#use: &'static str,
}

impl From<wire::Volume> for VolumeView {
    fn from(volume: wire::Volume) -> Self {
        let owner = OwnerView::of(&volume);
        let backing_image = (!volume.image_name.is_empty()).then(|| BackingImageView {
            name: volume.image_name,
            uuid: volume.image_uuid,
            checksum: volume.image_checksum,
            content: volume.content.as_ref().map(content_view),
        });
        let replica = |replica: wire::Replica| ReplicaView {
            node_id: replica.node_id,
            disk_uuid: replica.disk_uuid,
            path: replica.path,
        };
        let publication = |publication: wire::Publication| PublicationView {
            r#use: match publication.r#use() {
                wire::Use::Pods => "pods",
                wire::Use::Device => "device",
                wire::Use::Target => "target",
            },
            node_id: publication.node_id,
            readonly: publication.readonly,
        };
        Self {
            name: volume.name,
            size: volume.size,
            real_size: volume.real_size,
            backing_image,
            made_by: volume.made_by,
            owner,
            number_of_replicas: volume.number_of_replicas,
            replicas: volume.replicas.into_iter().map(replica).collect(),
            published: volume.published.into_iter().map(publication).collect(),
            in_use: volume.in_use,
            degraded: volume.degraded,
            created_at: volume.created_at,
        }
    }
}

/// Volumes asked for in one call of a listing.
const PAGE: u32 = 1000;

pub(super) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let client = &connection.client()?;
    match command {
        Command::Unpublish { name, node, .. } => {
            unpublish(connection.cluster()?, &name, node.as_ref()).await?;
        }
        Command::Compare { file, driver } => compare::run(connection, &file, &driver).await?,
        Command::Create(args) => {
            let volume = client.create_volume_of_origin(request(args)).await?;
            output::json(&VolumeView::from(volume))?;
        }
        Command::Get { name } => output::json(&VolumeView::from(client.volume(&name).await?))?,
        Command::List { output } => list(client, output).await?,
        Command::Delete { name } => client.delete_volume(&name).await?,
        Command::Grow { name, size } => {
            let volume = client.grow_volume(&name, size, None).await?;
            output::json(&VolumeView::from(volume))?;
        }
        Command::HandOver {
            name,
            to,
            namespace,
        } => {
            let driver = match to {
                Driver::Csi => wire::Driver::Csi,
                Driver::Flexvolume => wire::Driver::Flexvolume,
            };
            let request = wire::ModifyVolumeRequest {
                name: name.to_string(),
                owner: Some(owner(driver, namespace)),
                ..Default::default()
            };
            output::json(&VolumeView::from(client.modify_volume(request).await?))?;
        }
    }
    Ok(())
}

fn request(args: CreateArgs) -> wire::CreateVolumeRequest {
    wire::CreateVolumeRequest {
        name: args.name.into(),
        required_bytes: args.size.map_or(0, ByteSize::bytes),
        origin: Some(match args.backing_image {
            Some(name) => client::origin::image(name, ""),
            None => client::origin::blank(),
        }),
        number_of_replicas: args.number_of_replicas,
        owner: Some(owner(wire::Driver::Api, args.namespace)),
        ..Default::default()
    }
}

fn owner(driver: wire::Driver, namespace: String) -> wire::Owner {
    wire::Owner {
        driver: driver.into(),
        namespace,
        claim: String::new(),
    }
}

/// Takes back what a node may do with a volume, wherever that is. A volume that a node really uses is held
/// by the kernel, so that it cannot be deleted all the same.
async fn unpublish(
    cluster: Cluster,
    name: &VolumeName,
    node: Option<&NodeId>,
) -> Result<(), Failure> {
    let ask = |client: Client| {
        let name = name.clone();
        async move { Ok(there(client.volume(&name).await)?.is_some()) }
    };
    let look = cluster.look(Wait::All(None), ask, |has| *has).await?;
    if let Some((client, _)) = look.found {
        client.unpublish_volume(name, node, wire::Use::Pods).await?;
        return Ok(output::json(&VolumeView::from(client.volume(name).await?))?);
    }
    look.census.complete(&[], None)?;
    Err(format!("there is no volume {name}").into())
}

/// All volumes of one manager.
pub(super) async fn list_all(client: &Client) -> client::Result<Vec<wire::Volume>> {
    let mut volumes: Vec<wire::Volume> = Vec::new();
    loop {
        let after = volumes
            .last()
            .map(|volume| volume.name.clone())
            .unwrap_or_default();
        let (page, more) = client.list_volumes(PAGE, &after).await?;
        volumes.extend(page);
        if !more {
            return Ok(volumes);
        }
    }
}

async fn list(client: &Client, form: Form) -> Result<(), Failure> {
    let volumes = list_all(client).await?;
    if form == Form::Json {
        let views: Vec<_> = volumes.into_iter().map(VolumeView::from).collect();
        return Ok(output::json(&views)?);
    }
    let rows: Vec<_> = volumes
        .into_iter()
        .map(|volume| {
            let owner = OwnerView::of(&volume).to_string();
            let nodes: Vec<_> = volume.published.into_iter().map(|p| p.node_id).collect();
            [
                volume.name,
                volume.size.to_string(),
                volume.real_size.to_string(),
                volume.image_name,
                volume.made_by,
                owner,
                nodes.join(","),
                if volume.in_use { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    let head = [
        "NAME",
        "SIZE",
        "REAL",
        "BACKING IMAGE",
        "MADE BY",
        "OWNER",
        "PUBLISHED",
        "IN USE",
    ];
    Ok(output::table(head, &rows)?)
}
