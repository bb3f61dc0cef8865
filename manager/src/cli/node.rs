//! `backing-image-manager node`: what is attached and exposed on a node, as its CSI plugin sees it.

use clap::Subcommand;
use client::{Node, node_wire as wire};
use serde::Serialize;
use types::{DiskUuid, VolumeName};

use super::Failure;
use super::exposed::{self, Expose, Unexpose};
use super::output::{self, Form};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the node: what it lacks, and its disks
    Get,
    /// List everything of ours that is attached on the node, with what is wrong with it
    #[command(visible_alias = "ls")]
    List {
        /// Output format
        #[arg(short, long, value_enum, default_value = "json")]
        output: Form,
    },
    /// Attach a volume as a block device, without mounting it; succeeds if it is attached
    Attach {
        /// Name of the volume
        #[arg(long)]
        name: VolumeName,
        /// UUID of its disk [default: the only disk of the node that has such a volume]
        #[arg(long, value_name = "UUID")]
        disk: Option<DiskUuid>,
        /// Let nobody write to the device
        #[arg(long)]
        read_only: bool,
    },
    /// Detach a volume that `attach` attached; succeeds if there is none
    Detach {
        /// Name of the volume
        #[arg(long)]
        name: VolumeName,
    },
    /// Make a volume usable without a pod: as a block device of the node, or as an iSCSI target
    Expose(Box<Expose>),
    /// Take back what `expose` has done; succeeds if there is nothing
    Unexpose(Unexpose),
    /// List what is exposed on the node, with what is wrong with it
    Exposed {
        /// Output format
        #[arg(short, long, value_enum, default_value = "json")]
        output: Form,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttachmentView {
    volume: String,
    holder: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    device: String,
    read_only: bool,
    size: u64,
    direct_io: bool,
    file: String,
    mounts: Vec<String>,
    troubles: Vec<String>,
}

impl From<wire::Attachment> for AttachmentView {
    fn from(attachment: wire::Attachment) -> Self {
        use wire::attachment::Holder;
        Self {
            holder: match attachment.holder() {
                Holder::Node => "node",
                Holder::Pods => "pods",
                Holder::Unspecified => "unknown",
            },
            volume: attachment.volume,
            device: attachment.device,
            read_only: attachment.read_only,
            size: attachment.size,
            direct_io: attachment.direct_io,
            file: attachment.file,
            mounts: attachment.mounts,
            troubles: attachment.troubles,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    node_id: String,
    version: String,
    kernel: String,
    lacks: Vec<String>,
    disks: Vec<DiskView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiskView {
    path: String,
    #[serde(rename = "diskUUID")]
    uuid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    trouble: String,
    size: u64,
    available: u64,
}

impl From<wire::NodeInfo> for NodeView {
    fn from(info: wire::NodeInfo) -> Self {
        let disk = |disk: wire::NodeDisk| DiskView {
            path: disk.path,
            uuid: disk.uuid,
            trouble: disk.trouble,
            size: disk.size,
            available: disk.available,
        };
        Self {
            node_id: info.node_id,
            version: info.version,
            kernel: info.kernel,
            lacks: info.lacks,
            disks: info.disks.into_iter().map(disk).collect(),
        }
    }
}

pub(super) async fn run(node: &Node, command: Command) -> Result<(), Failure> {
    match command {
        Command::Get => output::json(&NodeView::from(node.info().await?))?,
        Command::List { output } => list(node.attachments().await?, output)?,
        Command::Attach {
            name,
            disk,
            read_only,
        } => {
            let attached = node.attach(&name, disk.as_ref(), read_only).await?;
            output::json(&AttachmentView::from(attached))?;
        }
        Command::Detach { name } => node.detach(&name).await?,
        Command::Expose(asked) => exposed::expose(node, *asked).await?,
        Command::Unexpose(asked) => exposed::unexpose(node, &asked).await?,
        Command::Exposed { output } => exposed::list(node.exposed().await?, output)?,
    }
    Ok(())
}

fn list(attachments: Vec<wire::Attachment>, form: Form) -> std::io::Result<()> {
    let views = attachments.into_iter().map(AttachmentView::from);
    if form != Form::Table {
        return output::json(&views.collect::<Vec<_>>());
    }
    let rows: Vec<_> = views
        .map(|view| {
            let trouble = match view.troubles.as_slice() {
                [] => "none".to_owned(),
                troubles => troubles.join("; "),
            };
            let access = if view.read_only { "ro" } else { "rw" };
            let mounts = view.mounts.join(",");
            [
                view.volume,
                view.device,
                view.holder.to_owned(),
                access.to_owned(),
                view.size.to_string(),
                mounts,
                trouble,
            ]
        })
        .collect();
    let head = [
        "VOLUME",
        "DEVICE",
        "HOLDER",
        "ACCESS",
        "SIZE",
        "MOUNTED AT",
        "TROUBLE",
    ];
    output::table(head, &rows)
}
