//! The middle and the end of a backup: its blocks, in order, and then its cfg.
//!
//! 6. blocks that have not changed are taken from the parent's map, all others are hashed and go up;
//! 7. ask whether the lock is still ours: while it was not, blocks may have been removed;
//! 8. write the complete cfg, and read it back;
//! 9. bring `volume.cfg` up to date, and let the lock go.

use std::iter::Peekable;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use crate::begin::{Begun, Mode};
use crate::checksum_set::ChecksumSet;
use crate::contents::Contents;
use crate::info::BackupInfo;
use crate::job::Phase;
use crate::layout::Pool;
use crate::records::seconds;
use crate::spool::{Map, MapWriter};
use crate::uploader::{self, Place, Tally, Uploader};
use crate::{BlockChecksum, BlockSet, Error, Result};

/// What is known of a mapped block before it is read.
enum Step {
    /// The parent has it, and it has not changed.
    Keep(u64, BlockChecksum),
    /// The block of that offset is to be read.
    Read(u64),
}

impl Begun {
    /// Uploads the contents and completes the backup. If this fails or is cancelled, what is uploaded
    /// stays, and the next attempt of the same name and snapshot goes on with it.
    pub async fn upload(self, contents: Contents) -> Result<BackupInfo> {
        self.fits(&contents)?;
        let block = self.head.block_size.bytes();
        let Contents {
            source,
            mapped,
            changed,
        } = contents;
        let total = mapped.count() * block;
        self.job.progress.phase(Phase::Uploading, total);
        let uploader = Arc::new(Uploader {
            driver: Arc::clone(self.store.driver()),
            pool: Pool::Volume(self.volume.name.clone()),
            source,
            compression: self.head.compression,
            known: self.known().await?,
            full: self.mode == Mode::Full,
            keep_zeros: self.volume.base.is_some(),
            tally: Tally::new(self.store.threads()),
        });
        let map = self.blocks(&uploader, mapped, changed).await?;
        uploader.settle().await?;
        types::crash_point!("backup.upload.blocks");
        self.finish(map, &uploader.tally).await
    }

    /// Whether the contents are of this volume.
    fn fits(&self, contents: &Contents) -> Result<()> {
        let sets = std::iter::once(&contents.mapped).chain(&contents.changed);
        for set in sets {
            if set.size() != self.volume.size || set.block_size() != self.head.block_size {
                let what = format!(
                    "the set of blocks is of {} bytes in blocks of {}, and the volume has {} in blocks \
                     of {}",
                    set.size(),
                    set.block_size().bytes(),
                    self.volume.size,
                    self.head.block_size.bytes()
                );
                return Err(Error::Request { what });
            }
        }
        Ok(())
    }

    /// The checksums of the parent's blocks.
    async fn known(&self) -> Result<ChecksumSet> {
        let mut known = ChecksumSet::new(&self.store.options().spool);
        let Some((_, map)) = &self.parent else {
            return Ok(known);
        };
        let blocks = map.iter();
        let filled = tokio::task::spawn_blocking(move || {
            for block in blocks {
                known.insert(block?.1)?;
            }
            Ok(known)
        });
        filled.await.map_err(|_| Error::Task)?
    }

    /// The map of the backup, all of whose blocks are in the store.
    async fn blocks(
        &self,
        uploader: &Arc<Uploader>,
        mapped: BlockSet,
        changed: Option<BlockSet>,
    ) -> Result<Map> {
        let (block, size) = (self.head.block_size.bytes(), self.volume.size);
        let padded = usize::try_from(block).map_err(|_| Error::Task)?;
        let parent = self.parent.as_ref().map(|(_, map)| map.clone());
        let steps = Steps::new(mapped, changed, parent.as_ref());
        let batches = Batches {
            steps: steps.peekable(),
            most: uploader::batch(block, self.store.threads()),
        };
        let work = batches.map(|batch| -> BoxFuture<'static, Result<Done>> {
            match batch {
                Err(error) => std::future::ready(Err(error)).boxed(),
                Ok(Batch::Keep(offset, checksum)) => {
                    std::future::ready(Ok(vec![(offset, Some(checksum))])).boxed()
                }
                Ok(Batch::Read(offsets)) => {
                    let places = offsets.iter().map(|&offset| Place {
                        offset,
                        length: usize::try_from(size - offset)
                            .map_or(padded, |left| left.min(padded)),
                        padded,
                    });
                    let uploading = Arc::clone(uploader).start(places.collect());
                    let done =
                        async move { Ok(offsets.into_iter().zip(uploading.await?).collect()) };
                    done.boxed()
                }
            }
        });
        // More tasks than batches in memory, so that one slow answer at the front holds nobody up.
        let ahead = 4 * self.store.threads();
        let mut done = futures_util::stream::iter(work).buffered(ahead);
        let mut map = MapWriter::new(&self.store.options().spool)?;
        while let Some(blocks) = self.job.unless_cancelled(done.try_next()).await? {
            self.job.progress.advance(blocks.len() as u64 * block);
            for (offset, checksum) in blocks {
                if let Some(checksum) = checksum {
                    map.push(offset, checksum)?;
                }
            }
        }
        map.finish()
    }

    async fn finish(mut self, map: Map, tally: &Tally) -> Result<BackupInfo> {
        self.job.progress.phase(Phase::Finishing, 0);
        self.head.size = map.len() * self.head.block_size.bytes();
        self.head.uploaded = tally.uploaded();
        self.head.reuploaded = tally.reuploaded();
        self.head.created_at = Some(seconds(Timestamp::now()));
        let finishing = async {
            self.lock.check().await?;
            self.store.put_complete(&self.head, &map).await?;
            types::crash_point!("backup.finish.read_back");
            let facts = &self.volume;
            let compression = self.head.compression;
            let recorded = self.store.record_last(&self.head, |config| {
                config.block_count += tally.blocks();
                config.labels.clone_from(&facts.labels);
                config.compression = compression;
                if !facts.storage_class.is_empty() {
                    config.storage_class.clone_from(&facts.storage_class);
                }
            });
            recorded.await
        };
        let config = self.job.unless_cancelled(finishing).await?;
        types::crash_point!("backup.finish.volume");
        self.lock.release().await?;
        Ok(BackupInfo::new(self.head, Some(&config)))
    }
}

/// Blocks that go through together.
enum Batch {
    Keep(u64, BlockChecksum),
    /// Offsets of blocks to be read.
    Read(Vec<u64>),
}

/// Offsets, and what is in the store for each; `None`: it is left out.
type Done = Vec<(u64, Option<BlockChecksum>)>;

/// Steps, of which neighbours that are read go together.
struct Batches<S: Iterator<Item = Result<Step>>> {
    steps: Peekable<S>,
    most: usize,
}

impl<S: Iterator<Item = Result<Step>>> Iterator for Batches<S> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let first = match self.steps.next()? {
            Err(error) => return Some(Err(error)),
            Ok(Step::Keep(offset, checksum)) => return Some(Ok(Batch::Keep(offset, checksum))),
            Ok(Step::Read(offset)) => offset,
        };
        let mut offsets = vec![first];
        while offsets.len() < self.most
            && let Some(Ok(Step::Read(offset))) =
                self.steps.next_if(|step| matches!(step, Ok(Step::Read(_))))
        {
            offsets.push(offset);
        }
        Some(Ok(Batch::Read(offsets)))
    }
}

/// The mapped blocks, ascending, each with what the parent knows of it.
struct Steps<P: Iterator<Item = Result<(u64, BlockChecksum)>>> {
    mapped: BlockSet,
    changed: Option<BlockSet>,
    parent: Option<Peekable<P>>,
    next: u64,
}

impl Steps<std::iter::Empty<Result<(u64, BlockChecksum)>>> {
    fn new(
        mapped: BlockSet,
        changed: Option<BlockSet>,
        parent: Option<&Map>,
    ) -> Steps<impl Iterator<Item = Result<(u64, BlockChecksum)>> + Send + use<>> {
        Steps {
            mapped,
            changed,
            parent: parent.map(|map| map.iter().peekable()),
            next: 0,
        }
    }
}

impl<P: Iterator<Item = Result<(u64, BlockChecksum)>>> Steps<P> {
    /// The parent's block at an offset.
    fn of_parent(&mut self, offset: u64) -> Result<Option<BlockChecksum>> {
        let Some(parent) = &mut self.parent else {
            return Ok(None);
        };
        while let Some(block) = parent.next_if(|block| {
            // An error is taken as well.
            block.as_ref().map_or(true, |(at, _)| *at <= offset)
        }) {
            let (at, checksum) = block?;
            if at == offset {
                return Ok(Some(checksum));
            }
        }
        Ok(None)
    }

    fn step(&mut self, index: u64) -> Result<Step> {
        let offset = index * self.mapped.block_size().bytes();
        let same = self
            .changed
            .as_ref()
            .is_some_and(|changed| !changed.contains(index));
        // A block that the parent leaves out and that is mapped now is read, whatever the caller knows.
        Ok(match self.of_parent(offset)? {
            Some(checksum) if same => Step::Keep(offset, checksum),
            _ => Step::Read(offset),
        })
    }
}

impl<P: Iterator<Item = Result<(u64, BlockChecksum)>>> Iterator for Steps<P> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        let index = self.mapped.next(self.next)?;
        self.next = index + 1;
        Some(self.step(index))
    }
}
