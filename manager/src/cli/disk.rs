//! `backing-image-manager disk`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use client::{Census, wire};
use serde::Serialize;
use types::DiskUuid;

use super::connection::{Connection, Url};
use super::{Failure, output, runtime};
use store::Disk;
use store::node_state::{self, NodeState};
use store::owner::{self, Owner};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Initialize a directory as a disk: write its longhorn-disk.cfg, once
    Init(InitArgs),
    /// Show the disk that a daemon serves
    Get,
    /// List the disks of a cluster: those that answer, and known disks that do not
    #[command(visible_alias = "ls")]
    List,
    /// Declare that disks are gone for good, with all their data; no call waits for them any more
    Forget {
        /// UUIDs of the disks, as shown by `disk list`
        #[arg(required = true, value_name = "UUID")]
        uuids: Vec<DiskUuid>,
    },
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The directory, preferably the root of its own XFS or btrfs file system
    dir: PathBuf,
    /// UUID of the disk [default: random]
    #[arg(long)]
    uuid: Option<DiskUuid>,
    /// User and group of the daemon, which become the owners of everything on the disk [default:
    /// unchanged]
    #[arg(long, value_name = "UID:GID")]
    owner: Option<Owner>,
    /// Directory of the node, not of the disk, in which to record the disk of each path: a path
    /// that had a disk accepts no other, and an empty mount point does not become a new disk
    /// [default: nothing is recorded]
    #[arg(long, value_name = "DIR")]
    node_state: Option<PathBuf>,
    /// UUID of a disk that is gone for good and may be replaced by another; may be given several
    /// times, or separated by commas
    #[arg(
        long,
        env = "REPLACE_DISK",
        value_name = "UUID",
        value_delimiter = ',',
        requires = "node_state"
    )]
    replace: Vec<DiskUuid>,
    /// Directory of the node for the socket of the daemon (--socket), which also becomes the
    /// owner's: FlexVolume reaches the daemon there
    #[arg(long, value_name = "DIR", requires = "owner")]
    socket_dir: Option<PathBuf>,
    /// Reject a directory that is not a mount point
    #[arg(long)]
    require_mount: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiskView {
    #[serde(rename = "diskUUID")]
    uuid: String,
    node_id: String,
    path: String,
    file_system: String,
    reflink: bool,
    size: u64,
    available: u64,
    promised: u64,
    promised_volumes: u64,
    promised_images: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    creatable: Option<u64>,
    images: u32,
    volumes: u32,
    io_errors: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    warning: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    not_ready: String,
}

impl From<wire::Disk> for DiskView {
    fn from(disk: wire::Disk) -> Self {
        Self {
            uuid: disk.uuid,
            node_id: disk.node_id,
            path: disk.path,
            file_system: disk.file_system,
            reflink: disk.reflink,
            size: disk.size,
            available: disk.available,
            promised: disk.promised,
            promised_volumes: disk.promised_volumes,
            promised_images: disk.promised_images,
            creatable: disk.creatable,
            images: disk.images,
            volumes: disk.volumes,
            io_errors: disk.io_errors,
            warning: disk.warning,
            not_ready: disk.not_ready,
        }
    }
}

/// A disk of the cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KnownView {
    #[serde(rename = "diskUUID")]
    uuid: String,
    node_id: String,
    answers: bool,
    /// What an answering one says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<DiskView>,
}

pub(super) fn run(url: Url, trust: &trust::Options, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => init(args),
        command => {
            runtime()?.block_on(async { ask(&Connection::new(url, trust).await?, command).await })
        }
    }
}

async fn ask(connection: &Connection, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => init(args),
        Command::Get => {
            let disk = connection.client()?.disk().await?;
            Ok(output::json(&DiskView::from(disk))?)
        }
        Command::List => list(connection).await,
        Command::Forget { uuids } => forget(connection, &uuids).await,
    }
}

fn init(args: InitArgs) -> Result<(), Failure> {
    if args.require_mount {
        node_state::require_mount(&args.dir)?;
    }
    let uuid = match &args.node_state {
        Some(state) => NodeState::new(state).init(&args.dir, args.uuid, &args.replace)?,
        None => Disk::init(&args.dir, args.uuid)?,
    };
    if let Some(owner) = args.owner {
        owner::give(&args.dir, owner)?;
        if let Some(directory) = &args.socket_dir {
            owner::give_directory(directory, owner)?;
        }
    }
    Ok(output::json(&serde_json::json!({ "diskUUID": uuid }))?)
}

/// All managers, or an error when none answers.
pub(super) async fn census(connection: &Connection) -> Result<Census, Failure> {
    let mut census = connection.cluster()?.census().await?;
    match census.failed.pop() {
        Some(error) if census.members.is_empty() => Err(error.into()),
        failed => {
            census.failed.extend(failed);
            Ok(census)
        }
    }
}

async fn list(connection: &Connection) -> Result<(), Failure> {
    let census = census(connection).await?;
    let silent = census.silent(&[]);
    let answering = census.members.into_iter().map(|member| KnownView {
        uuid: member.disk.uuid.clone(),
        node_id: member.disk.node_id.clone(),
        answers: true,
        disk: Some(member.disk.into()),
    });
    let silent = silent.into_iter().map(|(uuid, node_id)| KnownView {
        uuid,
        node_id,
        answers: false,
        disk: None,
    });
    let disks: Vec<_> = answering.chain(silent).collect();
    Ok(output::json(&disks)?)
}

/// Tells every manager. One that is silent would bring a disk back, so that all have to be told.
async fn forget(connection: &Connection, uuids: &[DiskUuid]) -> Result<(), Failure> {
    let census = census(connection).await?;
    let named = |uuid: &str| uuids.iter().any(|named| named.as_str() == uuid);
    if let Some(member) = census
        .members
        .iter()
        .find(|member| named(&member.disk.uuid))
    {
        let (uuid, node) = (&member.disk.uuid, &member.disk.node_id);
        return Err(format!("disk {uuid} of node {node} answers, so it is not gone").into());
    }
    for member in &census.members {
        for uuid in uuids {
            member.client.forget_disk(uuid).await?;
        }
    }
    let mut silent = census.silent(&[]);
    silent.retain(|uuid, _| !named(uuid));
    if silent.is_empty() {
        return Ok(());
    }
    let silent: Vec<_> = silent.into_keys().collect();
    let silent = silent.join(", ");
    Err(format!(
        "done on all disks that answer; repeat it when these answer, or forget them \
                 too: {silent}"
    )
    .into())
}
