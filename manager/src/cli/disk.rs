//! `backing-image-manager disk`.

use std::path::PathBuf;

use clap::Subcommand;
use client::{Address, Client};
use serde::Serialize;
use types::DiskUuid;

use super::{Failure, output, runtime};
use crate::store::Disk;
use crate::store::owner::{self, Owner};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a directory a disk: write its longhorn-disk.cfg, once
    Init {
        /// The directory; best the root of an XFS or btrfs file system of its own
        dir: PathBuf,
        /// Uuid of the disk [default: a random one]
        #[arg(long)]
        uuid: Option<DiskUuid>,
        /// User and group that the daemon runs as: all that is on the disk becomes theirs [default: as it is]
        #[arg(long, value_name = "UID:GID")]
        owner: Option<Owner>,
    },
    /// Show the disk that a daemon serves
    Get {
        /// Address of the daemon: HOST:PORT or unix:/path
        #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDR")]
        url: Address,
    },
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
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { dir, uuid, owner } => {
            let uuid = Disk::init(&dir, uuid)?;
            if let Some(owner) = owner {
                owner::give(&dir, owner)?;
            }
            output::json(&serde_json::json!({ "diskUUID": uuid }))?;
        }
        Command::Get { url } => {
            let disk = runtime()?.block_on(async { Client::new(url)?.disk().await })?;
            output::json(&DiskView {
                uuid: disk.uuid,
                node_id: disk.node_id,
                path: disk.path,
                file_system: disk.file_system,
                reflink: disk.reflink,
                size: disk.size,
                available: disk.available,
            })?;
        }
    }
    Ok(())
}
