//! The making of one backup: snapshot, comparison, upload.
//!
//! A daemon that is killed meanwhile leaves the snapshot, which the same request finds again, and a backup
//! that the store knows to be incomplete: the same request goes on from both.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup::{BackupInfo, BaseImage, Begin, Begun, Contents, Name, Phase, Progress as _, Store};
use catalog::FilesGuard;
use store::IoContext as _;
use tracing::info;
use types::{Cancel, Classify as _, ErrorKind, crash_point};

use crate::blocks::{self, Shape};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::kept::Cut;
use crate::request::NewBackup;
use crate::room::Room;

/// The raw form of a base image, open.
#[derive(Debug)]
struct Base {
    image: BaseImage,
    file: std::fs::File,
    /// Keeps it in its place.
    _files: FilesGuard,
}

/// Makes the backup of a job, or finds it complete.
pub(crate) async fn make(
    room: &Room,
    job: &Job,
    new: &NewBackup,
    (volume, name): (&Name, &Name),
) -> Result<BackupInfo> {
    let store = room.open(&job.target).await?;
    let there = complete(&store, volume, name).await?;
    let there = there.map(|info| same_snapshot(new, info)).transpose()?;
    let cut = match there {
        // Whoever completed it may have been killed before the rest was done.
        Some(info) => match room.find_cut(&new.volume, &info.snapshot).await {
            Some(cut) => cut,
            None => return Ok(info),
        },
        // It is of now, not of when others are done.
        None => room.cut(job, new, name).await?,
    };
    job.board
        .of(&cut.store_name(), Some(cut.created_at), cut.size);
    crash_point!("backup.make.cut");
    let _turn = room.turn(job).await?;
    let base = if new.on_base {
        Some(base(room, new).await?)
    } else {
        None
    };
    job.board.phase(Phase::Comparing, 0);
    let facts = backup::NewBackup {
        volume: backup::VolumeFacts {
            name: volume.clone(),
            size: cut.size,
            base: base.as_ref().map(|base| base.image.clone()),
            storage_class: new.storage_class.clone(),
            labels: BTreeMap::new(),
        },
        name: name.clone(),
        snapshot: cut.store_name(),
        snapshot_created_at: cut.created_at,
        mode: new.mode,
        compression: new.compression,
        block_size: new.block_size,
        labels: new.labels.clone(),
    };
    let info = match store.begin_backup(facts, &job.of_store()).await? {
        Begin::Complete(info) => *info,
        Begin::Started(begun) => {
            crash_point!("backup.make.begun");
            let contents = contents(room, job, new, &begun, (&cut, base)).await?;
            crash_point!("backup.make.compared");
            begun.upload(contents).await?
        }
    };
    crash_point!("backup.make.complete");
    room.remove_older(job, &new.volume, &cut).await;
    Ok(info)
}

async fn complete(store: &Store, volume: &Name, name: &Name) -> Result<Option<BackupInfo>> {
    match store.backup(volume, name).await {
        Ok(info) => Ok(info.created_at.is_some().then_some(info)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A complete backup is the one that is asked for, unless another snapshot is.
fn same_snapshot(new: &NewBackup, info: BackupInfo) -> Result<BackupInfo> {
    let of = |asked: &str| {
        let rest = info.snapshot.strip_prefix(asked);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    match &new.snapshot {
        Some(asked) if !of(asked.as_str()) => Err(Error::OtherSnapshot {
            volume: info.volume.to_string(),
            name: info.name.to_string(),
            has: info.snapshot,
            asked: asked.to_string(),
        }),
        _ => Ok(info),
    }
}

/// The base image of the volume.
async fn base(room: &Room, new: &NewBackup) -> Result<Base> {
    let no_base = || Error::NoBase(new.volume.to_string());
    let volumes = room.volumes.clone().ok_or_else(no_base)?;
    let name = new.volume.clone();
    let record = catalog::blocking(move || volumes.get(&name)).await?.record;
    let of = record.image.ok_or_else(no_base)?;
    let (image, files) = room.catalog.ready(&of.id.name, Some(&of.id.uuid)).await?;
    let path = room.catalog.raw_form(&image, &files).await?;
    let opened = move || std::fs::File::open(&path).context("open", &path);
    Ok(Base {
        image: BaseImage {
            name: of.id.name.to_string(),
            checksum: of
                .checksum
                .map_or_else(|| image.checksum(), Ok)?
                .to_string(),
        },
        file: catalog::blocking(opened).await?,
        _files: files,
    })
}

/// What is uploaded: all that is mapped, and what of it changed since the last backup where that can be told.
async fn contents(
    room: &Room,
    job: &Job,
    new: &NewBackup,
    begun: &Begun,
    (cut, base): (&Cut, Option<Base>),
) -> Result<Contents> {
    let shape = Shape {
        size: cut.size,
        block: begun.block_size(),
    };
    let parent = match begun.parent() {
        Some(parent) => room.find_cut(&new.volume, &parent.snapshot).await,
        None => None,
    };
    if let (Some(parent), None) = (begun.parent(), &parent) {
        info!(parent = %parent.backup, "its snapshot is not on this disk any more: all is hashed");
    }
    let keep = |error| store::Error::Io {
        operation: "keep open",
        path: cut.id.to_string().into(),
        source: error,
    };
    let file = cut.file.try_clone().map_err(keep)?;
    let (board, cancel) = (job.board.clone(), job.cancel.clone());
    let find = move || {
        let ends = Cancel::when(move || cancel.is_cancelled());
        let mapped = match &base {
            Some(base) => blocks::above(&base.file, &file, shape, (&board, &ends))?,
            None => blocks::mapped(&file, shape)?,
        };
        let changed = match &parent {
            Some(parent) => blocks::changed(&parent.file, &file, shape)?,
            None => None,
        };
        Ok::<_, Error>(Contents {
            source: Arc::new(file),
            mapped,
            changed,
        })
    };
    tokio::task::spawn_blocking(find).await?
}
