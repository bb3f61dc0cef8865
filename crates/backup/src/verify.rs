//! Verifying: blocks are read back, and what is wrong is said with every backup that it hits.
//!
//! 1. list the blocks that are there;
//! 2. read the cfg of each backup; draw blocks, and those that are not there or have no byte;
//! 3. get and unpack those that were drawn;
//! 4. read the cfgs again for the offsets of the damaged ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tokio_util::task::AbortOnDropHandle;

use crate::checksum_set::ChecksumSet;
use crate::fetch::{Wanted, fetch};
use crate::job::{Job, Phase};
use crate::layout::{self, Pool};
use crate::lock::{self, Kind, Lock};
use crate::spool::{Map, MapWriter};
use crate::store::Store;
use crate::{BlockChecksum, BlockError, BlockSize, Compression, Error, Name, Result, block};

/// Damaged blocks that are told apart; more only count.
const DAMAGED_MAX: usize = 100_000;
/// Places that are named of one block.
const PLACES_MAX: usize = 16;

/// Which blocks are read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// Every one.
    All,
    /// About so many of a hundred, others each time. Whether it is there is looked at for every one.
    Percent(u8),
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Complete backups whose cfgs are whole.
    pub backups: Vec<Name>,
    /// Backups that cannot be restored because they were never finished.
    pub unfinished: Vec<Name>,
    /// Distinct blocks of the backups.
    pub blocks: u64,
    /// Those that were read back, and their bytes.
    pub read: u64,
    /// Bytes of the blocks that were read back, unpacked.
    pub bytes: u64,
    /// What is missing or damaged.
    pub damaged: Vec<DamagedBlock>,
    /// Damaged blocks beyond those.
    pub more: u64,
    /// Cfgs that cannot be read and names that cannot be some, each as a sentence.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Whether every complete backup can be restored, as far as was looked.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.problems.is_empty()
    }
}

/// A block that cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedBlock {
    /// Its name.
    pub checksum: BlockChecksum,
    /// Its bytes, unpacked.
    pub length: u64,
    /// What is wrong with it.
    pub why: BlockError,
    /// Backups that need it, each with an offset at which it does; the first of many.
    pub places: Vec<(Name, u64)>,
    /// How many places there are.
    pub uses: u64,
}

/// What is known of the blocks of a volume.
struct Needed {
    /// Distinct blocks to be read, each with the number of its block size in place of an offset.
    drawn: Vec<(BlockSize, Map)>,
    report: VerifyReport,
}

impl Store {
    /// Reads back the blocks of a volume's backups. An error only if the store does not answer; what is
    /// wrong with the backups is in the report. Takes 2 s for the lock.
    pub async fn verify(&self, volume: &Name, how: Sample, job: &Job) -> Result<VerifyReport> {
        let lock = self.reading_lock(volume, job).await?;
        let report = job
            .unless_cancelled(self.verified(volume, how, job))
            .await?;
        if let Some(lock) = lock {
            lock.release().await?;
        }
        Ok(report)
    }

    async fn verified(&self, volume: &Name, how: Sample, job: &Job) -> Result<VerifyReport> {
        let present = self.present(volume).await?;
        let Needed { drawn, mut report } = self.needed(volume, how, &present).await?;
        let total = drawn
            .iter()
            .map(|(block, map)| map.len() * block.bytes())
            .sum();
        job.progress.phase(Phase::Verifying, total);
        for (block, map) in drawn {
            self.read_back_blocks(volume, block, map, job, &mut report)
                .await?;
        }
        if !report.damaged.is_empty() {
            self.locate(volume, &mut report).await?;
        }
        Ok(report)
    }

    /// The blocks that the store has and that are not empty.
    async fn present(&self, volume: &Name) -> Result<ChecksumSet> {
        let mut present = ChecksumSet::new(&self.options().spool);
        let pool = Pool::Volume(volume.clone());
        let folder = pool.blocks();
        let mut entries = self.driver().list(&folder);
        while let Some(entry) = entries.try_next().await? {
            if let Some(checksum) = layout::block_of(&entry.key)
                && entry.meta.size > 0
                && entry.key == pool.block(&checksum)
            {
                present.insert(checksum)?;
            }
        }
        Ok(present)
    }

    /// Looks at every distinct block of every complete backup once.
    async fn needed(&self, volume: &Name, how: Sample, present: &ChecksumSet) -> Result<Needed> {
        let mut report = VerifyReport::default();
        let mut seen = ChecksumSet::new(&self.options().spool);
        let mut drawn: BTreeMap<BlockSize, MapWriter> = BTreeMap::new();
        let key = std::hash::RandomState::new();
        for name in self.backup_names(volume, &mut report.problems).await? {
            let (head, map) = match self.backup_map(volume, &name, None).await {
                Ok(read) => read,
                Err(Error::NoObject { .. }) => continue,
                Err(error @ Error::Config { .. }) => {
                    report.problems.push(types::report(&error).to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            if head.created_at.is_none() {
                report.unfinished.push(name);
                continue;
            }
            report.backups.push(name);
            for entry in map.iter() {
                let (_, checksum) = entry?;
                if !seen.insert(checksum)? {
                    continue;
                }
                // What is not there or empty is asked for in any case: the answer says which.
                if how.draws(&key, &checksum) || !present.contains(&checksum)? {
                    let writer = match drawn.entry(head.block_size) {
                        std::collections::btree_map::Entry::Occupied(writer) => writer.into_mut(),
                        std::collections::btree_map::Entry::Vacant(place) => {
                            place.insert(MapWriter::new(&self.options().spool)?)
                        }
                    };
                    writer.push_next(checksum)?;
                }
            }
        }
        report.blocks = seen.len();
        let drawn = drawn
            .into_iter()
            .map(|(block, writer)| Ok((block, writer.finish()?)))
            .collect::<Result<_>>()?;
        Ok(Needed { drawn, report })
    }

    async fn read_back_blocks(
        &self,
        volume: &Name,
        block: BlockSize,
        map: Map,
        job: &Job,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let pool = Pool::Volume(volume.clone());
        let length = block.bytes();
        let reads = map.iter().map(|entry| {
            let task = entry.map(|(offset, checksum)| {
                let (driver, pool) = (Arc::clone(self.driver()), pool.clone());
                AbortOnDropHandle::new(tokio::spawn(async move {
                    let wanted = Wanted {
                        checksum,
                        offset,
                        length,
                    };
                    // The bytes are not kept: only what is wrong with them.
                    let fetched = fetch(&driver, &pool, &wanted).await;
                    fetched.map(|fetched| (checksum, fetched.err()))
                }))
            });
            async move { task?.await.map_err(|_| Error::Task)? }.boxed()
        });
        let mut reads = futures_util::stream::iter(reads).buffer_unordered(self.threads());
        while let Some((checksum, wrong)) = reads.try_next().await? {
            report.read += 1;
            report.bytes += length;
            job.progress.advance(length);
            if let Some(why) = wrong {
                report.add(checksum, length, why);
            }
        }
        Ok(())
    }

    /// Finds where the damaged blocks are used.
    async fn locate(&self, volume: &Name, report: &mut VerifyReport) -> Result<()> {
        report.damaged.sort_by_key(|damaged| damaged.checksum);
        for name in report.backups.clone() {
            let (_, map) = self.backup_map(volume, &name, None).await?;
            for entry in map.iter() {
                let (offset, checksum) = entry?;
                let found = report
                    .damaged
                    .binary_search_by_key(&checksum, |one| one.checksum);
                if let Ok(index) = found {
                    let damaged = &mut report.damaged[index];
                    damaged.uses += 1;
                    let named = damaged.places.last().is_some_and(|(last, _)| *last == name);
                    if !named && damaged.places.len() < PLACES_MAX {
                        damaged.places.push((name.clone(), offset));
                    }
                }
            }
        }
        Ok(())
    }

    /// Begins to heal blocks of a volume, which takes 2 s for the lock.
    pub async fn begin_repair(&self, volume: &Name) -> Result<Repair> {
        let compression = self.volume_config(volume).await?.compression;
        let job = Job::silent();
        let lock = lock::acquire(self.driver(), volume, Kind::Use, &job.cancel).await?;
        Ok(Repair {
            store: self.clone(),
            volume: volume.clone(),
            compression,
            lock,
        })
    }

    /// Uploads one block again. Bytes that have another checksum are refused.
    pub async fn repair_block(
        &self,
        volume: &Name,
        checksum: &BlockChecksum,
        bytes: Bytes,
    ) -> Result<()> {
        let repair = self.begin_repair(volume).await?;
        repair.put(checksum, bytes).await?;
        repair.end().await
    }
}

/// Blocks of one volume being healed, under one lock.
#[derive(Debug)]
pub struct Repair {
    store: Store,
    volume: Name,
    compression: Compression,
    lock: Lock,
}

impl Repair {
    /// Uploads a block again. Bytes that have another checksum are refused.
    pub async fn put(&self, checksum: &BlockChecksum, bytes: Bytes) -> Result<()> {
        let (expected, compression) = (*checksum, self.compression);
        let packed = tokio::task::spawn_blocking(move || {
            (BlockChecksum::of(&bytes) == expected).then(|| block::encode(&bytes, compression))
        });
        let packed = packed.await.map_err(|_| Error::Task)?;
        let Some(packed) = packed else {
            let what = format!(
                "the bytes are not those of block {checksum} of volume {}",
                self.volume
            );
            return Err(Error::Request { what });
        };
        let key = Pool::Volume(self.volume.clone()).block(checksum);
        self.store.driver().put(&key, packed.into()).await
    }

    /// Lets the lock go.
    pub async fn end(self) -> Result<()> {
        self.lock.release().await
    }
}

impl Sample {
    fn draws(self, key: &std::hash::RandomState, checksum: &BlockChecksum) -> bool {
        use std::hash::BuildHasher as _;
        match self {
            Self::All => true,
            Self::Percent(percent) => key.hash_one(checksum) % 100 < u64::from(percent),
        }
    }
}

impl VerifyReport {
    fn add(&mut self, checksum: BlockChecksum, length: u64, why: BlockError) {
        if self.damaged.len() >= DAMAGED_MAX {
            self.more += 1;
            return;
        }
        self.damaged.push(DamagedBlock {
            checksum,
            length,
            why,
            places: Vec::new(),
            uses: 0,
        });
    }
}
