//! The files that say what a backup is: how they are written, read back, and kept up to date.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use jiff::Timestamp;

use crate::config::backup::{self, BackupHead};
use crate::config::volume::VolumeConfig;
use crate::spool::{self, Map, failed};
use crate::store::{Store, expected};
use crate::{Error, Result, layout};

/// Bytes of a block in a cfg, at most.
pub(crate) const RECORD_MAX: u64 = 128;

/// A time as the files of a store have it: whole seconds.
pub(crate) fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The cfg of a backup that is in progress: it has no blocks.
pub(crate) fn in_progress(head: &BackupHead) -> Result<Bytes> {
    let mut bytes = Vec::new();
    let none = std::iter::empty::<io::Result<_>>();
    backup::write(&mut bytes, head, none)
        .map_err(|error| failed("write", "a cfg in memory".as_ref())(error))?;
    Ok(bytes.into())
}

impl Store {
    /// Writes the cfg of a complete backup, and reads it back: only then it counts.
    pub(crate) async fn put_complete(&self, head: &BackupHead, map: &Map) -> Result<()> {
        let key = layout::backup_config(&head.volume, &head.name);
        let (written, blocks) = (head.clone(), map.records());
        let (spool, expected) = (self.options().spool.clone(), map.len() * RECORD_MAX);
        let bytes = tokio::task::spawn_blocking(move || {
            spool::written(&spool, expected, |to| backup::write(to, &written, blocks))
        });
        let bytes = bytes.await.map_err(|_| Error::Task)??;
        self.driver().put(&key, bytes).await?;
        types::crash_point!("backup.finish.cfg");
        let Err(error) = self.read_back(head, map).await else {
            return Ok(());
        };
        // What cannot be read must not stand in the way of the next attempt either. What can be read
        // is another cluster's, or whole.
        if let Error::ReadBack { .. } | Error::Config { .. } = error {
            let begun = BackupHead {
                created_at: None,
                ..head.clone()
            };
            if let Err(again) = self.driver().put(&key, in_progress(&begun)?).await {
                tracing::warn!(%key, error = %types::report(&again),
                    "the damaged cfg of a backup stays in the store");
            }
        }
        Err(error)
    }

    /// Compares the cfg in the store with what was written.
    async fn read_back(&self, head: &BackupHead, map: &Map) -> Result<()> {
        let expected = expected(&head.volume, &head.name, None);
        let key = expected.key.clone();
        let differs = |why: &str| Error::ReadBack {
            key: key.clone(),
            why: why.to_owned(),
        };
        let reading = self.driver().open(&expected.key).await?;
        let mut ours = map.records();
        let same = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&same);
        let counted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&counted);
        let read = backup::read(reading, expected, move |offset, checksum| {
            counter.fetch_add(1, Ordering::Relaxed);
            if !matches!(ours.next(), Some(Ok(block)) if block == (offset, checksum)) {
                seen.store(false, Ordering::Relaxed);
            }
            Ok(())
        });
        let read = read.await.map_err(|error| match error {
            Error::Config { why, .. } => differs(&why),
            Error::NoObject { .. } => differs("it is not there"),
            error => error,
        })?;
        if !same.load(Ordering::Relaxed) || counted.load(Ordering::Relaxed) != map.len() {
            return Err(differs("other blocks"));
        }
        let facts = |head: &BackupHead| {
            let times = (head.created_at, head.snapshot_created_at);
            let sizes = (head.size, head.volume_size(), head.block_size);
            (head.snapshot.clone(), times, sizes)
        };
        if facts(&read) != facts(head) {
            return Err(differs("another snapshot, time or size"));
        }
        Ok(())
    }

    /// Writes a `volume.cfg`.
    pub(crate) async fn put_volume_config(&self, config: &VolumeConfig) -> Result<()> {
        let key = layout::volume_config(&config.name);
        self.driver().put(&key, config.to_json().into()).await
    }

    /// Makes a complete backup the last one of its volume. `change` may say more of the volume.
    pub(crate) async fn record_last(
        &self,
        head: &BackupHead,
        change: impl FnOnce(&mut VolumeConfig),
    ) -> Result<VolumeConfig> {
        // Read again: another cluster may have changed it since.
        let mut config = self.volume_config(&head.volume).await?;
        let before = config.clone();
        config.last_backup = Some(head.name.clone());
        config.last_backup_at = Some(head.snapshot_created_at);
        let size = head.volume_size().unwrap_or(config.size).max(config.size);
        // A backup is restored to this size by programs that do not know ours: it never shrinks.
        config.size = size.next_multiple_of(head.block_size.bytes());
        change(&mut config);
        if config != before {
            self.put_volume_config(&config).await?;
        }
        Ok(config)
    }
}
