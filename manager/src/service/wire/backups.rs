//! Backups on the wire, and requests for them.

use std::collections::BTreeMap;

use backup::{Address, BackupInfo, BlockChecksum, BlockSize, Item, Mode, Name};
use backup_jobs::{Asked, Damaged, Error, NewBackup, Result, Stage, Target, View};
use proto::storage::v1 as pb;
use types::{ImageName, VolumeName};

use super::checked;

/// Labels of one backup, in bytes; a store keeps them in files that it reads whole.
const LABELS_MAX: usize = 16 << 10;
/// The credentials of a request, in bytes.
const CREDENTIALS_MAX: usize = 256 << 10;
/// A message for people, in characters.
const MESSAGE_MAX: usize = 4096;

fn invalid(field: &'static str, why: String) -> Error {
    Error::InvalidField { field, why }
}

/// The keys and values of a map, if they are not too many.
fn bounded(
    field: &'static str,
    map: impl IntoIterator<Item = (String, String)>,
    most: usize,
) -> Result<BTreeMap<String, String>> {
    let map: BTreeMap<String, String> = map.into_iter().collect();
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > most {
        return Err(invalid(
            field,
            format!("they have {bytes} bytes; {most} at most"),
        ));
    }
    Ok(map)
}

/// The target that a request names.
pub(in crate::service) fn asked(target: Option<pb::BackupTarget>) -> Result<Asked> {
    let target = target.unwrap_or_default();
    Ok(Asked {
        name: target.name,
        address: target.address,
        credentials: bounded("target.credentials", target.credentials, CREDENTIALS_MAX)?,
    })
}

/// The backup that a request is about.
pub(in crate::service) fn backup_key(request: pb::GetBackupRequest) -> Result<(Asked, Name, Name)> {
    let asked = asked(request.target)?;
    Ok((asked, request.volume.parse()?, request.name.parse()?))
}

pub(in crate::service) fn new_backup(request: pb::CreateBackupRequest) -> Result<NewBackup> {
    let mode = match request.mode.as_str() {
        "" | "incremental" => Mode::Incremental,
        "full" => Mode::Full,
        other => {
            let why = format!("{:?} is not full or incremental", types::shown(other));
            return Err(invalid("mode", why));
        }
    };
    let compression = match request.compression.as_str() {
        "" => backup::Compression::Lz4,
        text => text.parse()?,
    };
    Ok(NewBackup {
        target: asked(request.target)?,
        name: checked(&request.name, str::parse)?,
        volume: VolumeName::new(&request.volume)?,
        snapshot: checked(&request.snapshot, ImageName::new)?,
        mode,
        compression,
        block_size: match request.block_size {
            0 => None,
            bytes if bytes == BlockSize::MIB2.bytes() => Some(BlockSize::MIB2),
            bytes if bytes == BlockSize::MIB16.bytes() => Some(BlockSize::MIB16),
            bytes => {
                let why = format!("{bytes} is not 2097152 or 16777216");
                return Err(invalid("block_size", why));
            }
        },
        on_base: request.on_base,
        labels: bounded("labels", request.labels, LABELS_MAX)?,
        storage_class: types::shown(&request.storage_class),
    })
}

/// The item of a store that an image is to be restored from.
pub(in crate::service) fn restored(source: &pb::BackupSource) -> Result<Item> {
    match (&*source.volume, &*source.backup, &*source.backing_image) {
        (volume, backup, "") if !volume.is_empty() && !backup.is_empty() => Ok(Item::Backup {
            volume: volume.parse()?,
            backup: backup.parse()?,
        }),
        ("", "", image) if !image.is_empty() => Ok(Item::BackingImage(image.parse()?)),
        _ => Err(invalid(
            "source.backup",
            "name a volume and its backup, or else a backing image".to_owned(),
        )),
    }
}

pub(in crate::service) fn damaged(block: &pb::DamagedBlock) -> Result<Damaged> {
    let checksum: BlockChecksum = block.checksum.parse()?;
    Ok(Damaged {
        checksum,
        offset: block.offset,
        length: block.length,
    })
}

/// A backup as the store has it.
pub(crate) fn stored(info: &BackupInfo, target: &Target) -> pb::Backup {
    let state = match info.created_at {
        Some(_) => pb::BackupState::Complete,
        None => pb::BackupState::Incomplete,
    };
    let base = info.base.as_ref();
    pb::Backup {
        volume: info.volume.to_string(),
        name: info.name.to_string(),
        state: state.into(),
        volume_size: info.volume_size.unwrap_or_default(),
        size: info.size,
        uploaded_size: info.uploaded,
        reuploaded_size: info.reuploaded,
        snapshot: info.snapshot.clone(),
        snapshot_created_at: info.snapshot_created_at.to_string(),
        created_at: info.created_at.map(|at| at.to_string()).unwrap_or_default(),
        incremental: info.incremental,
        compression: info.compression.to_string(),
        block_size: info.block_size.bytes(),
        base_image: base.map(|base| base.name.clone()).unwrap_or_default(),
        base_image_checksum: base.map(|base| base.checksum.clone()).unwrap_or_default(),
        labels: info.labels.clone().into_iter().collect(),
        address: address(target, &info.volume, &info.name),
        target: target.name.clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn address(target: &Target, volume: &Name, backup: &Name) -> String {
    let item = Item::Backup {
        volume: volume.clone(),
        backup: backup.clone(),
    };
    let (store, item) = (target.address.clone(), Some(item));
    Address { store, item }.to_string()
}

/// A backup that runs here, or did.
pub(in crate::service) fn running(view: &View) -> pb::Backup {
    let state = &view.state;
    let mut backup = match &state.stage {
        Stage::Complete(Some(info)) => stored(info, &view.target),
        _ => pb::Backup {
            volume: view.volume.clone(),
            name: view.name.clone(),
            volume_size: state.volume_size,
            snapshot: state.snapshot.clone(),
            snapshot_created_at: (state.snapshot_created_at)
                .map(|at| at.to_string())
                .unwrap_or_default(),
            target: view.target.name.clone().unwrap_or_default(),
            address: match (view.volume.parse(), view.name.parse()) {
                (Ok(volume), Ok(name)) => address(&view.target, &volume, &name),
                _ => String::new(),
            },
            ..Default::default()
        },
    };
    backup.processed_size = state.processed;
    backup.total_size = state.total;
    let state = match &state.stage {
        Stage::Pending => pb::BackupState::Pending,
        Stage::Comparing => pb::BackupState::Comparing,
        Stage::Uploading => pb::BackupState::Uploading,
        Stage::Finishing => pb::BackupState::Finishing,
        Stage::Complete(_) => pb::BackupState::Complete,
        Stage::Failed { kind, message } => {
            backup.message = message.chars().take(MESSAGE_MAX).collect();
            backup.failure_code = client::code_of(*kind) as u32;
            pb::BackupState::Failed
        }
    };
    backup.set_state(state);
    backup
}
