//! Restoring: everything that can be refused is refused by the plan, before the first byte; then the
//! blocks come in order, each checked.
//!
//! What a backup does not map is a hole: it is for the caller to start with an empty file, or with the
//! base image's bytes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio_util::task::AbortOnDropHandle;
use types::{Classify as _, ErrorKind};

use crate::block::LANES;
use crate::config::volume::VolumeConfig;
use crate::fetch::{Fetched, Wanted, fetch_all, unusable};
use crate::job::{Job, Phase};
use crate::layout::{self, Pool};
use crate::lock::{self, Kind, Lock};
use crate::spool::Map;
use crate::store::Store;
use crate::{BaseImage, BlockSize, Error, Item, Name, Result};

/// Bytes of a block up to which several are held to be hashed together.
const SMALL: u64 = 2 << 20;

/// How a restore is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Bytes of the volume, where the backup itself does not say them; `None`: as `volume.cfg` says,
    /// which is the volume's size at its last backup.
    pub size: Option<u64>,
    /// What is missing or damaged is [`Piece::Lost`] instead of an error. A backup whose volume has no
    /// record is taken for one without a base image.
    pub salvage: bool,
}

/// A restore that nothing is known to speak against.
#[derive(Debug)]
pub struct Restore {
    store: Store,
    pool: Pool,
    /// The volume or image, for errors.
    item: String,
    map: Map,
    size: u64,
    block: u64,
    /// The last block is stored with the bytes that it has, and not filled up with zeros.
    short: bool,
    base: Option<BaseImage>,
    checksum: Option<String>,
    salvage: bool,
    /// Blocks are not removed meanwhile. `None`: the store may only be read.
    lock: Option<Lock>,
    job: Job,
}

/// A part of what is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes whose checksum was right.
    Bytes {
        /// Where they belong.
        offset: u64,
        /// At most a block.
        bytes: Bytes,
    },
    /// Bytes that the store does not have any more; only if asked to salvage.
    Lost {
        /// Where they were.
        range: Range<u64>,
        /// What is wrong with their block.
        why: String,
    },
}

impl Store {
    /// Looks whether a backup can be restored. Everything that is wrong with what describes it is said
    /// here: an unfinished backup ([`Error::Incomplete`]), a cfg that cannot be read or leads astray
    /// ([`Error::Config`]), a size that does not fit ([`Error::Refused`]). Its blocks are read by
    /// [`Restore::pieces`]. Takes 2 s, which the protocol of locks waits.
    pub async fn plan_restore(
        &self,
        item: &Item,
        how: &RestoreOptions,
        job: &Job,
    ) -> Result<Restore> {
        let planned = async {
            match item {
                Item::Volume(volume) => Err(Error::Request {
                    what: format!(
                        "the address names volume {volume}, and no backup of it; add backup=NAME"
                    ),
                }),
                Item::Backup { volume, backup } => self.plan_volume(volume, backup, how, job).await,
                Item::BackingImage(image) => self.plan_image(image, how, job).await,
            }
        };
        job.unless_cancelled(planned).await
    }

    async fn plan_volume(
        &self,
        volume: &Name,
        backup: &Name,
        how: &RestoreOptions,
        job: &Job,
    ) -> Result<Restore> {
        let lock = self.reading_lock(volume, job).await?;
        let config = match self.volume_config(volume).await {
            Ok(config) => Some(config),
            // Without it nobody knows whether the backup lies above a base image.
            Err(Error::NoObject { .. } | Error::Config { .. }) if how.salvage => None,
            Err(error) => return Err(error),
        };
        let (head, map) = self.backup_map(volume, backup, None).await?;
        if head.created_at.is_none() {
            let key = layout::backup_config(volume, backup);
            return Err(Error::Incomplete { key });
        }
        let given = head.volume_size().or(how.size);
        let wrong = |why: String| Error::Refused {
            item: format!("backup {backup} of volume {volume} cannot be restored"),
            why,
        };
        let size = restored_size(given, config.as_ref(), head.block_size, &map);
        let size = size.map_err(|wrongs| wrong(wrongs.join("; ")))?;
        if head.size != map.len() * head.block_size.bytes() {
            return Err(wrong(format!(
                "its size is said to be {} bytes, and it has {} blocks of {}",
                head.size,
                map.len(),
                head.block_size.bytes()
            )));
        }
        Ok(Restore {
            store: self.clone(),
            pool: Pool::Volume(volume.clone()),
            item: format!("volume {volume}"),
            map,
            size,
            block: head.block_size.bytes(),
            short: false,
            base: config.and_then(|config| config.base),
            checksum: None,
            salvage: how.salvage,
            lock,
            job: job.clone(),
        })
    }

    async fn plan_image(&self, image: &Name, how: &RestoreOptions, job: &Job) -> Result<Restore> {
        let lock = self.reading_lock(image, job).await?;
        let (head, map) = self.backing_image_map(image).await?;
        if head.completed_at.is_none() {
            let key = layout::backing_image_config(image);
            return Err(Error::Incomplete { key });
        }
        if map.last().is_some_and(|last| last >= head.size) {
            return Err(Error::Refused {
                item: format!("backing image {image} cannot be restored"),
                why: format!("a block is behind its {} bytes", head.size),
            });
        }
        Ok(Restore {
            store: self.clone(),
            pool: Pool::BackingImages,
            item: format!("backing image {image}"),
            map,
            size: head.size,
            block: BlockSize::MIB2.bytes(),
            short: true,
            base: None,
            checksum: Some(head.checksum),
            salvage: how.salvage,
            lock,
            job: job.clone(),
        })
    }

    /// The lock of who reads blocks; none in a store that may only be read, where every block is
    /// checked all the same.
    pub(crate) async fn reading_lock(&self, volume: &Name, job: &Job) -> Result<Option<Lock>> {
        match lock::acquire(self.driver(), volume, Kind::Use, &job.cancel).await {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if is_read_only(&error) => {
                tracing::warn!(%volume, error = %types::report(&error),
                    "read without a lock: nothing can be written to the store");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the store can be read only.
fn is_read_only(error: &Error) -> bool {
    match error {
        Error::File { source, .. } => matches!(
            source.kind(),
            std::io::ErrorKind::ReadOnlyFilesystem
                | std::io::ErrorKind::PermissionDenied
                | std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
        ),
        error => error.kind() == ErrorKind::PermissionDenied,
    }
}

/// Bytes of the restored volume: those that the backup or the caller says, else what the volume's
/// record says. Or everything that speaks against them.
fn restored_size(
    given: Option<u64>,
    config: Option<&VolumeConfig>,
    block: BlockSize,
    map: &Map,
) -> Result<u64, Vec<String>> {
    let mut wrong = Vec::new();
    let block = block.bytes();
    if let Some(config) = config
        && config.size % block != 0
    {
        wrong.push(format!(
            "the volume's size of {} bytes in volume.cfg is no multiple of the {block} of a block",
            config.size
        ));
    }
    let size = given.or(config.map(|config| config.size));
    match (size, map.last()) {
        (None, _) => wrong.push("nothing says the volume's size; give one".to_owned()),
        (Some(size), Some(last)) if last >= size => wrong.push(format!(
            "it has a block at offset {last}, behind the volume's {size} bytes"
        )),
        (Some(size), _) if wrong.is_empty() => return Ok(size),
        _ => {}
    }
    Err(wrong)
}

impl Restore {
    /// Bytes of the volume or image.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The image whose bytes are where no piece comes; `None`: zeros are there.
    pub fn base(&self) -> Option<&BaseImage> {
        self.base.as_ref()
    }

    /// Bytes to come.
    pub fn mapped(&self) -> u64 {
        let whole = self.map.len() * self.block;
        let end = self.map.last().map_or(0, |last| last + self.block);
        whole - end.saturating_sub(self.size)
    }

    /// SHA-512 of a backing image's file, which is for the caller to check at the end.
    pub fn checksum(&self) -> Option<&str> {
        self.checksum.as_deref()
    }

    /// The bytes, by ascending offset. After an error nothing comes any more.
    pub fn pieces(self) -> impl Stream<Item = Result<Piece>> + Send {
        let job = self.job.clone();
        job.progress.phase(Phase::Restoring, self.mapped());
        let threads = self.store.threads();
        let mut wanted = self.wanted();
        // Hashed together as far as memory allows: two groups are fetched while the one before is written.
        let (together, ahead) = match self.block {
            ..=SMALL => (LANES, 3),
            _ => (1, threads),
        };
        let groups = std::iter::from_fn(move || {
            let group: Vec<_> = wanted.by_ref().take(together).collect();
            (!group.is_empty()).then(|| group.into_iter().collect::<Result<Vec<_>>>())
        });
        let (driver, pool) = (Arc::clone(self.store.driver()), self.pool.clone());
        let fetched = groups.map(move |group| {
            let (driver, pool) = (Arc::clone(&driver), pool.clone());
            // A task of its own, which goes on while the caller writes what came before.
            let task = group.map(|group| {
                AbortOnDropHandle::new(tokio::spawn(async move {
                    let fetched = fetch_all(&driver, &pool, &group, threads).await?;
                    Ok(group.into_iter().zip(fetched).map(Ok).collect::<Vec<_>>())
                }))
            });
            async move { task?.await.map_err(|_| Error::Task)? }.boxed()
        });
        let fetched = futures_util::stream::iter(fetched)
            .buffered(ahead)
            .map(|group| group.unwrap_or_else(|error| vec![Err(error)]))
            .flat_map(futures_util::stream::iter)
            .boxed();
        let state = Some((self, fetched));
        futures_util::stream::unfold(state, move |state| {
            let job = job.clone();
            async move {
                let (restore, mut fetched) = state?;
                let next = async { Ok(fetched.next().await) };
                let piece = match job.unless_cancelled(next).await {
                    Ok(None) => {
                        restore.end().await;
                        return None;
                    }
                    Ok(Some(Ok((wanted, bytes)))) => restore.piece(&wanted, bytes),
                    Ok(Some(Err(error))) | Err(error) => Err(error),
                };
                match piece {
                    Ok(piece) => {
                        job.progress.advance(piece.len());
                        Some((Ok(piece), Some((restore, fetched))))
                    }
                    Err(error) => {
                        drop(fetched);
                        restore.end().await;
                        Some((Err(error), None))
                    }
                }
            }
        })
    }

    /// The blocks, by ascending offset.
    fn wanted(&self) -> impl Iterator<Item = Result<Wanted>> + Send + use<> {
        let (block, size, short) = (self.block, self.size, self.short);
        self.map.iter().map(move |entry| {
            let (offset, checksum) = entry?;
            let length = if short {
                block.min(size - offset)
            } else {
                block
            };
            Ok(Wanted {
                checksum,
                offset,
                length,
            })
        })
    }

    fn piece(&self, wanted: &Wanted, fetched: Fetched) -> Result<Piece> {
        let Wanted { offset, length, .. } = *wanted;
        let end = (offset + length).min(self.size);
        let lost = match fetched? {
            Ok(mut bytes) => {
                let behind = bytes.split_off(
                    usize::try_from(end - offset)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len()),
                );
                if behind.iter().all(|byte| *byte == 0) {
                    return Ok(Piece::Bytes { offset, bytes });
                }
                return Err(Error::Refused {
                    item: self.item.clone(),
                    why: format!(
                        "the block at offset {offset} has data behind the end of {} bytes; restore it to a \
                         larger size",
                        self.size
                    ),
                });
            }
            Err(lost) => lost,
        };
        if !self.salvage {
            return Err(unusable(&self.item, &self.pool, wanted, lost));
        }
        Ok(Piece::Lost {
            range: offset..end,
            why: format!("block {}: {lost}", wanted.checksum),
        })
    }

    async fn end(self) {
        if let Some(lock) = self.lock
            && let Err(error) = lock.release().await
        {
            tracing::warn!(error = %types::report(&error), "a lock stays in the store until it expires");
        }
    }
}

impl Piece {
    /// Bytes of the volume or image that it is about.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes { bytes, .. } => bytes.len() as u64,
            Self::Lost { range, .. } => range.end - range.start,
        }
    }

    /// Whether it is about none: there is no such piece.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
