//! The beginning of a backup: the lock, the volume's record, the parent, and the cfg that says that it
//! is in progress.
//!
//! 1. take the lock;
//! 2. if the store has a complete backup of that name, that is the answer;
//! 3. write `volume.cfg` if there is none;
//! 4. choose the parent: the last backup, if its cfg is complete and readable, it is of another
//!    snapshot and has the same block size, and the mode is not `full`;
//! 5. write the cfg without a time: in progress.
//!
//! What was begun and not finished goes on by the same calls: the blocks that are there are found.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::backup::{BackupHead, VOLUME_SIZE};
use crate::config::volume::VolumeConfig;
use crate::info::BackupInfo;
use crate::job::{Job, Phase};
use crate::lock::{self, Kind, Lock};
use crate::records::{in_progress, seconds};
use crate::spool::Map;
use crate::store::Store;
use crate::{BaseImage, BlockSize, Compression, Error, Name, Result, layout};

/// The key of a cfg's parameters that says how much was uploaded.
const MODE: &str = "backup-mode";

/// What is to be uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// What differs from the last backup.
    Incremental,
    /// Every block, also those that the store has: what heals a store whose blocks have rotted.
    Full,
}

/// What the store is told of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    /// The volume's name in the store.
    pub name: Name,
    /// Bytes, exactly.
    pub size: u64,
    /// The image that the backup lies above; `None`: it stands alone. All backups of a volume have the
    /// same.
    pub base: Option<BaseImage>,
    /// The StorageClass that the volume was made with; empty: not known, what the store says stays.
    pub storage_class: String,
    /// Labels of the volume.
    pub labels: BTreeMap<String, String>,
}

/// A backup to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackup {
    /// The volume.
    pub volume: VolumeFacts,
    /// The backup's name.
    pub name: Name,
    /// The snapshot that it is made of.
    pub snapshot: String,
    /// When that was taken.
    pub snapshot_created_at: Timestamp,
    /// What is uploaded.
    pub mode: Mode,
    /// How new blocks are stored.
    pub compression: Compression,
    /// Bytes of a block; `None`: as the volume's last backup, or 2 MiB.
    pub block_size: Option<BlockSize>,
    /// Labels of the backup.
    pub labels: BTreeMap<String, String>,
}

/// The answer to the wish for a backup.
#[derive(Debug)]
pub enum Begin {
    /// The store has it: complete, and of this snapshot.
    Complete(Box<BackupInfo>),
    /// It is begun: [`Begun::upload`] goes on.
    Started(Box<Begun>),
}

/// The backup that a new one is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its name.
    pub backup: Name,
    /// The snapshot that it was made of.
    pub snapshot: String,
}

/// A backup in progress, and its lock. If it is dropped the lock is let go, and the store has the
/// beginning of a backup, which the next attempt goes on with.
#[derive(Debug)]
pub struct Begun {
    pub(crate) store: Store,
    pub(crate) volume: VolumeFacts,
    pub(crate) head: BackupHead,
    pub(crate) mode: Mode,
    pub(crate) parent: Option<(Parent, Map)>,
    pub(crate) lock: Lock,
    pub(crate) job: Job,
}

impl Begun {
    /// What it is compared with; `None`: everything is uploaded.
    pub fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref().map(|(parent, _)| parent)
    }

    /// The unit in which it is compared.
    pub fn block_size(&self) -> BlockSize {
        self.head.block_size
    }
}

impl Store {
    /// Begins a backup or goes on with one. Takes 2 s, which the protocol of locks waits.
    ///
    /// [`Error::Exists`] if the name is taken by a backup of another snapshot, [`Error::Locked`] while
    /// blocks of the volume are being removed.
    pub async fn begin_backup(&self, new: NewBackup, job: &Job) -> Result<Begin> {
        job.progress.phase(Phase::Comparing, 0);
        if new.volume.size == 0 {
            let what = format!("volume {} has no bytes to back up", new.volume.name);
            return Err(Error::Request { what });
        }
        let volume = new.volume.name.clone();
        let lock = lock::acquire(self.driver(), &volume, Kind::Use, &job.cancel).await?;
        types::crash_point!("backup.begin.locked");
        job.unless_cancelled(self.begin(new, lock, job)).await
    }

    async fn begin(&self, new: NewBackup, lock: Lock, job: &Job) -> Result<Begin> {
        let found = self.there(&new).await?;
        let config = self.volume_record(&new, found.is_some()).await?;
        if let Some(head) = found {
            // Its maker may have died before the volume's record named it.
            let newer = config.last_backup_at < Some(head.snapshot_created_at);
            let config = if newer {
                self.record_last(&head, |_| {}).await?
            } else {
                config
            };
            lock.release().await?;
            let info = BackupInfo::new(head, Some(&config));
            return Ok(Begin::Complete(Box::new(info)));
        }
        let (block_size, parent) = self.parent(&new, &config).await?;
        let head = draft(&new, block_size, parent.is_some());
        let written = in_progress(&head)?;
        let key = layout::backup_config(&new.volume.name, &new.name);
        self.driver().put(&key, written).await?;
        types::crash_point!("backup.begin.cfg");
        Ok(Begin::Started(Box::new(Begun {
            store: self.clone(),
            volume: new.volume,
            head,
            mode: new.mode,
            parent,
            lock,
            job: job.clone(),
        })))
    }

    /// The complete backup of that name and snapshot.
    async fn there(&self, new: &NewBackup) -> Result<Option<BackupHead>> {
        let volume = &new.volume.name;
        let item = format!("backup {} of volume {volume}", new.name);
        let head = match self.backup_head(volume, &new.name, None).await {
            Ok(head) => head,
            Err(Error::NoObject { .. }) => return Ok(None),
            Err(error @ Error::Config { .. }) => {
                return Err(Error::Exists {
                    item,
                    why: format!("{error}; delete it, or choose another name"),
                });
            }
            Err(error) => return Err(error),
        };
        let same = head.snapshot == new.snapshot
            && seconds(head.snapshot_created_at) == seconds(new.snapshot_created_at);
        match head.created_at {
            _ if !same => Err(Error::Exists {
                item,
                why: format!(
                    "it is of snapshot {:?} of {}; delete it, or choose another name",
                    types::shown(&head.snapshot),
                    head.snapshot_created_at
                ),
            }),
            Some(_) => Ok(Some(head)),
            None => Ok(None),
        }
    }

    /// The volume's record, which is made if there is none.
    async fn volume_record(&self, new: &NewBackup, complete: bool) -> Result<VolumeConfig> {
        let facts = &new.volume;
        let mut config = match self.volume_config(&facts.name).await {
            Ok(config) => config,
            Err(Error::NoObject { .. }) => return self.create_volume_record(new).await,
            Err(error) => return Err(error),
        };
        if config.base == facts.base || complete {
            return Ok(config);
        }
        // What is not mapped in the backups that there are means the bytes of their base.
        let backups = self.backup_names(&facts.name, &mut Vec::new()).await?;
        if !backups.is_empty() {
            let said = |base: &Option<BaseImage>| match base {
                Some(base) => format!("on base image {}", types::shown(&base.name)),
                None => "without a base image".to_owned(),
            };
            return Err(Error::Refused {
                item: format!("volume {}", facts.name),
                why: format!(
                    "its backups in this store are {}, and this one would be {}; all backups of a \
                     volume are made the same way: delete the others, or use another store",
                    said(&config.base),
                    said(&facts.base)
                ),
            });
        }
        config.base.clone_from(&facts.base);
        self.put_volume_config(&config).await?;
        Ok(config)
    }

    async fn create_volume_record(&self, new: &NewBackup) -> Result<VolumeConfig> {
        let facts = &new.volume;
        let block = new.block_size.unwrap_or(BlockSize::MIB2);
        let config = VolumeConfig {
            name: facts.name.clone(),
            size: facts.size.next_multiple_of(block.bytes()),
            labels: facts.labels.clone(),
            created_at: Some(seconds(Timestamp::now())),
            last_backup: None,
            last_backup_at: None,
            block_count: 0,
            base: facts.base.clone(),
            compression: new.compression,
            storage_class: facts.storage_class.clone(),
            data_engine: "v1".to_owned(),
            other: serde_json::Map::new(),
        };
        self.put_volume_config(&config).await?;
        types::crash_point!("backup.begin.volume");
        Ok(config)
    }

    /// The block size, and the parent with its blocks.
    async fn parent(
        &self,
        new: &NewBackup,
        config: &VolumeConfig,
    ) -> Result<(BlockSize, Option<(Parent, Map)>)> {
        let volume = &new.volume.name;
        let alone = (new.block_size.unwrap_or(BlockSize::MIB2), None);
        let last = config
            .last_backup
            .as_ref()
            .filter(|last| **last != new.name);
        let Some(last) = last else {
            return Ok(alone);
        };
        let (head, map) = match self.backup_map(volume, last, Some(config.size)).await {
            Ok(read) => read,
            Err(error @ (Error::NoObject { .. } | Error::Config { .. })) => {
                tracing::warn!(%volume, backup = %last, error = %types::report(&error),
                    "the last backup cannot be read: everything is uploaded");
                return Ok(alone);
            }
            Err(error) => return Err(error),
        };
        let block_size = new.block_size.unwrap_or(head.block_size);
        let fits = new.mode == Mode::Incremental
            && head.created_at.is_some()
            && head.snapshot != new.snapshot
            && head.block_size == block_size;
        let parent = Parent {
            backup: head.name,
            snapshot: head.snapshot,
        };
        Ok((block_size, fits.then_some((parent, map))))
    }
}

/// The cfg of a backup that has no block yet.
fn draft(new: &NewBackup, block_size: BlockSize, incremental: bool) -> BackupHead {
    let mode = match new.mode {
        Mode::Incremental => "incremental",
        Mode::Full => "full",
    };
    let parameters = [
        (MODE.to_owned(), mode.to_owned()),
        (VOLUME_SIZE.to_owned(), new.volume.size.to_string()),
    ];
    BackupHead {
        name: new.name.clone(),
        volume: new.volume.name.clone(),
        snapshot: new.snapshot.clone(),
        snapshot_created_at: seconds(new.snapshot_created_at),
        created_at: None,
        size: 0,
        labels: new.labels.clone(),
        parameters: parameters.into(),
        block_size,
        incremental,
        compression: new.compression,
        uploaded: 0,
        reuploaded: 0,
    }
}
