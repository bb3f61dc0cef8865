//! `backing-image-manager node expose|unexpose|exposed`: volumes of a node that are used without a pod.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use client::{Node, node_wire as wire};
use serde::Serialize;
use types::{DiskUuid, VolumeName};

use super::Failure;
use super::output::{self, Form};

/// The longest file that is read for a secret; one of CHAP has at most 16 characters.
const SECRET_FILE_MAX: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct Expose {
    /// Name of the volume
    volume: VolumeName,
    #[command(flatten)]
    access: Access,
    /// Name of an initiator that may connect (iqn.…, eui.… or naa.…); may be given several times
    #[arg(long = "initiator", value_name = "NAME", requires = "target")]
    initiators: Vec<String>,
    /// User that initiators give for CHAP
    #[arg(long, value_name = "USER", requires_all = ["target", "chap_secret_file"])]
    chap_user: Option<String>,
    /// File with the secret for CHAP, of 12 to 16 printable characters
    #[arg(long, value_name = "FILE", requires_all = ["target", "chap_user"])]
    chap_secret_file: Option<PathBuf>,
    /// Let initiators connect by their name alone, which they choose themselves
    #[arg(long, requires = "target", conflicts_with = "chap_user")]
    without_chap: bool,
    /// UUID of its disk [default: the only disk of the node that has such a volume]
    #[arg(long, value_name = "UUID")]
    disk: Option<DiskUuid>,
    /// Let nobody write to it
    #[arg(long)]
    read_only: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Access {
    /// As a block device of the node, /dev/longhorn/VOLUME
    #[arg(long)]
    block_device: bool,
    /// As an iSCSI target at the address of the node
    #[arg(long)]
    target: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unexpose {
    /// Name of the volume
    volume: VolumeName,
    /// End the sessions of initiators that are connected
    #[arg(long)]
    disconnect: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExposedView {
    volume: String,
    #[serde(rename = "diskUUID", skip_serializing_if = "String::is_empty")]
    disk_uuid: String,
    read_only: bool,
    size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetView>,
    troubles: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetView {
    name: String,
    portal: String,
    lun: u32,
    initiators: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    chap_user: String,
    sessions: Vec<SessionView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionView {
    initiator: String,
    address: String,
}

impl From<wire::Exposed> for ExposedView {
    fn from(exposed: wire::Exposed) -> Self {
        let session = |session: wire::TargetSession| SessionView {
            initiator: session.initiator_name,
            address: session.address,
        };
        let target = |target: wire::Target| TargetView {
            name: target.name,
            portal: target.portal,
            lun: target.lun,
            initiators: target.initiator_names,
            chap_user: target.chap_user,
            sessions: target.sessions.into_iter().map(session).collect(),
        };
        Self {
            volume: exposed.volume,
            disk_uuid: exposed.disk_uuid,
            read_only: exposed.read_only,
            size: exposed.size,
            path: exposed.path,
            device: exposed.device,
            target: exposed.target.map(target),
            troubles: exposed.troubles,
        }
    }
}

pub(super) async fn expose(node: &Node, asked: Expose) -> Result<(), Failure> {
    use wire::expose_volume_request::Access as Wire;
    let access = if asked.access.target {
        Wire::Target(wire::TargetAccess {
            initiator_names: asked.initiators,
            chap_user: asked.chap_user.unwrap_or_default(),
            chap_secret: match &asked.chap_secret_file {
                Some(file) => secret(file)?,
                None => String::new(),
            },
            without_chap: asked.without_chap,
        })
    } else {
        Wire::BlockDevice(wire::BlockDeviceAccess {})
    };
    let request = wire::ExposeVolumeRequest {
        volume: asked.volume.to_string(),
        disk_uuid: asked.disk.map(|disk| disk.to_string()).unwrap_or_default(),
        read_only: asked.read_only,
        access: Some(access),
    };
    Ok(output::json(&ExposedView::from(
        node.expose(request).await?,
    ))?)
}

pub(super) async fn unexpose(node: &Node, asked: &Unexpose) -> Result<(), Failure> {
    Ok(node.unexpose(&asked.volume, asked.disconnect).await?)
}

/// The secret in a file, without the end of its line.
fn secret(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(SECRET_FILE_MAX).read_to_string(&mut text));
    read.map_err(|error| format!("cannot read the secret in {}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

pub(super) fn list(exposed: Vec<wire::Exposed>, form: Form) -> io::Result<()> {
    let views = exposed.into_iter().map(ExposedView::from);
    if form != Form::Table {
        return output::json(&views.collect::<Vec<_>>());
    }
    let rows: Vec<_> = views.map(row).collect();
    let head = ["VOLUME", "AS", "ACCESS", "SIZE", "USERS", "TROUBLE"];
    output::table(head, &rows)
}

fn row(view: ExposedView) -> [String; 6] {
    let trouble = match view.troubles.as_slice() {
        [] => "none".to_owned(),
        troubles => troubles.join("; "),
    };
    let (path, users) = match view.target {
        Some(target) => {
            let sessions = target.sessions.iter();
            let users: Vec<_> = sessions.map(|one| one.initiator.as_str()).collect();
            let address = format!("iscsi://{}/{}/{}", target.portal, target.name, target.lun);
            (address, users.join(","))
        }
        None => (view.path, String::new()),
    };
    let access = if view.read_only { "ro" } else { "rw" };
    [
        view.volume,
        path,
        access.to_owned(),
        view.size.to_string(),
        users,
        trouble,
    ]
}
