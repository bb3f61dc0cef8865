//! Collecting: the blocks that no backup needs are found and removed.
//!
//! 1. the lock is ours, which excludes everybody who makes or reads a backup of the volume;
//! 2. read the cfg of every backup. One that cannot be read, or was begun less than a day ago, keeps all
//!    blocks: nobody knows which it needs. One that was begun earlier than that is set aside: whoever
//!    began it has neither finished it nor kept a lock;
//! 3. list what there is: blocks that no cfg names go on a list, and so do half-written files;
//! 4. ask whether the lock is still ours, and whether the backups are still the same;
//! 5. remove what was set aside or left over, then the blocks of the list, asking again now and then;
//! 6. bring `volume.cfg` up to date.
//!
//! All ages are by the clock of the store's server: what it says of our own lock is what time it is.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};

use crate::checksum_set::ChecksumSet;
use crate::driver::Entry;
use crate::job::{Job, Phase};
use crate::layout::{self, Pool};
use crate::lock::{self, Kind, Lock};
use crate::spool::{Map, MapWriter};
use crate::store::Store;
use crate::{BlockChecksum, Error, Name, Result};

/// The age at which a backup that was begun is taken for dead, and a half-written file for left over.
const DEAD: SignedDuration = SignedDuration::from_hours(24);
/// Removals between two questions whether they are still right.
pub(crate) const BETWEEN_CHECKS: u64 = 256;
/// Left-over files that are removed at a time.
const LEFTOVERS_MAX: usize = 100_000;

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks that no backup needs.
    pub blocks: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// Half-written files that a crash left, older than a day.
    pub leftovers: u64,
    /// Their bytes.
    pub leftover_bytes: u64,
    /// Backups that were begun more than a day ago and never finished: their cfgs are removed.
    pub set_aside: Vec<Name>,
    /// Why no block was removed, each as a sentence; empty: everything that can go is gone.
    pub kept: Vec<String>,
}

/// Backups that share their blocks.
#[derive(Debug, Clone)]
pub(crate) enum Room {
    Volume(Name),
    /// All backing images.
    BackingImages,
}

impl Room {
    pub(crate) fn pool(&self) -> Pool {
        match self {
            Self::Volume(volume) => Pool::Volume(volume.clone()),
            Self::BackingImages => Pool::BackingImages,
        }
    }

    fn cfg(&self, backup: &Name) -> String {
        match self {
            Self::Volume(volume) => layout::backup_config(volume, backup),
            Self::BackingImages => layout::backing_image_config(backup),
        }
    }

    /// The folder where half-written files may be.
    fn folder(&self) -> String {
        match self {
            Self::Volume(volume) => layout::volume(volume),
            Self::BackingImages => self.pool().blocks(),
        }
    }
}

/// What speaks for and against each block.
pub(crate) struct Cfgs {
    /// Each backup, and when its cfg was written.
    seen: BTreeMap<Name, Timestamp>,
    /// Complete backups, and when their snapshots were taken.
    complete: BTreeMap<Name, Timestamp>,
    needed: ChecksumSet,
    collected: Collected,
}

impl Cfgs {
    /// Whether it is known of every backup which blocks it needs.
    pub(crate) fn keep_none(&self) -> bool {
        self.collected.kept.is_empty()
    }

    /// Whether a backup needs the block.
    pub(crate) fn needs(&self, checksum: &BlockChecksum) -> Result<bool> {
        self.needed.contains(checksum)
    }
}

/// What is to go.
struct Found {
    cfgs: Cfgs,
    leftovers: Vec<String>,
    unneeded: Map,
    /// Blocks that stay.
    left: u64,
}

impl Store {
    /// Removes the blocks of a volume that no backup needs, files that crashes have left, and backups
    /// that were begun more than a day ago and never finished. `dry_run`: only counts. Takes 2 s for the
    /// lock; [`Error::Locked`] while a backup of the volume is made or restored.
    pub async fn collect(&self, volume: &Name, dry_run: bool, job: &Job) -> Result<Collected> {
        let lock = lock::acquire(self.driver(), volume, Kind::Remove, &job.cancel).await?;
        let room = Room::Volume(volume.clone());
        let work = self.collect_room(&room, &lock, dry_run, job);
        let collected = job.unless_cancelled(work).await?;
        lock.release().await?;
        Ok(collected)
    }

    /// Steps 2 to 6.
    pub(crate) async fn collect_room(
        &self,
        room: &Room,
        lock: &Lock,
        dry_run: bool,
        job: &Job,
    ) -> Result<Collected> {
        job.progress.phase(Phase::Collecting, 0);
        let now = lock.now().await?;
        let cfgs = self.read_cfgs(room, now).await?;
        let mut found = self.find(room, cfgs, now).await?;
        if dry_run {
            return Ok(found.cfgs.collected);
        }
        if !self.is_unchanged(room, lock, &found.cfgs.seen).await? {
            found.keep_everything();
            return Ok(found.cfgs.collected);
        }
        for name in &found.cfgs.collected.set_aside {
            self.driver().delete(&room.cfg(name)).await?;
            found.cfgs.seen.remove(name);
            types::crash_point!("backup.collect.set_aside");
        }
        for key in &found.leftovers {
            self.driver().delete(key).await?;
            types::crash_point!("backup.collect.leftover");
        }
        let mut removed = 0;
        for entry in found.unneeded.iter() {
            job.wanted()?;
            if removed % BETWEEN_CHECKS == 0
                && !self.is_unchanged(room, lock, &found.cfgs.seen).await?
            {
                let why = "backups were begun meanwhile: some blocks stay; try again";
                found.cfgs.collected.kept.push(why.to_owned());
                break;
            }
            let key = room.pool().block(&entry?.1);
            self.driver().delete(&key).await?;
            removed += 1;
            types::crash_point!("backup.collect.block");
        }
        if let Room::Volume(volume) = room {
            let left = found.left + found.unneeded.len() - removed;
            self.record_collected(volume, &found.cfgs.complete, left)
                .await?;
        }
        Ok(found.cfgs.collected)
    }

    /// Whether what was found out still holds.
    async fn is_unchanged(
        &self,
        room: &Room,
        lock: &Lock,
        seen: &BTreeMap<Name, Timestamp>,
    ) -> Result<bool> {
        lock.check().await?;
        Ok(self.backups_of(room).await? == *seen)
    }

    /// The backups of a room, and when their cfgs were written.
    async fn backups_of(&self, room: &Room) -> Result<BTreeMap<Name, Timestamp>> {
        let mut backups = BTreeMap::new();
        match room {
            Room::Volume(volume) => {
                let folder = layout::backups(volume);
                let mut entries = self.driver().list(&folder);
                while let Some(entry) = entries.try_next().await? {
                    if let Some(name) = layout::backup_of(&entry.key)
                        && entry.key == room.cfg(&name)
                    {
                        backups.insert(name, entry.meta.modified);
                    }
                }
            }
            Room::BackingImages => {
                for folder in self.driver().folders(layout::BACKING_IMAGES).await? {
                    let Ok(name) = folder.parse::<Name>() else {
                        continue;
                    };
                    if let Some(meta) = self.driver().head(&room.cfg(&name)).await? {
                        backups.insert(name, meta.modified);
                    }
                }
            }
        }
        Ok(backups)
    }

    /// Whether a backup is complete, and the time of its snapshot; its blocks.
    pub(crate) async fn cfg_of(
        &self,
        room: &Room,
        name: &Name,
    ) -> Result<(Option<Timestamp>, Map)> {
        match room {
            Room::Volume(volume) => {
                let (head, map) = self.backup_map(volume, name, None).await?;
                let at = head.created_at.map(|_| head.snapshot_created_at);
                Ok((at, map))
            }
            Room::BackingImages => {
                let (head, map) = self.backing_image_map(name).await?;
                Ok((head.completed_at, map))
            }
        }
    }

    pub(crate) async fn read_cfgs(&self, room: &Room, now: Timestamp) -> Result<Cfgs> {
        let mut cfgs = Cfgs {
            seen: self.backups_of(room).await?,
            complete: BTreeMap::new(),
            needed: ChecksumSet::new(&self.options().spool),
            collected: Collected::default(),
        };
        let Collected {
            set_aside, kept, ..
        } = &mut cfgs.collected;
        for (name, modified) in &cfgs.seen {
            let age = now.duration_since(*modified);
            match self.cfg_of(room, name).await {
                Ok((Some(at), map)) => {
                    cfgs.complete.insert(name.clone(), at);
                    for entry in map.iter() {
                        cfgs.needed.insert(entry?.1)?;
                    }
                }
                Ok((None, _)) if age >= DEAD => set_aside.push(name.clone()),
                Ok((None, _)) => kept.push(format!(
                    "backup {name} was begun and is not finished: finish it, delete it, or wait until \
                     it is 24 hours old (it has {})",
                    age.as_hours().max(0)
                )),
                Err(error @ (Error::Config { .. } | Error::TooLarge { .. })) => kept.push(format!(
                    "nobody knows which blocks backup {name} needs: {}; delete it if it is not wanted",
                    types::report(&error)
                )),
                Err(Error::NoObject { .. }) => {
                    kept.push(format!("backup {name} was deleted meanwhile; try again"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(cfgs)
    }

    async fn find(&self, room: &Room, cfgs: Cfgs, now: Timestamp) -> Result<Found> {
        let mut found = Found {
            cfgs,
            leftovers: Vec::new(),
            unneeded: MapWriter::new(&self.options().spool)?.finish()?,
            left: 0,
        };
        let mut unneeded = MapWriter::new(&self.options().spool)?;
        let pool = room.pool();
        let keeps = !found.cfgs.collected.kept.is_empty();
        let folder = room.folder();
        let mut entries = self.driver().list(&folder);
        while let Some(entry) = entries.try_next().await? {
            let collected = &mut found.cfgs.collected;
            let checksum = layout::block_of(&entry.key);
            if let Some(checksum) = checksum.filter(|one| pool.block(one) == entry.key) {
                if keeps || found.cfgs.needed.contains(&checksum)? {
                    found.left += 1;
                } else {
                    unneeded.push_next(checksum)?;
                    collected.blocks += 1;
                    collected.bytes += entry.meta.size;
                }
            } else if is_leftover(&entry, now) && found.leftovers.len() < LEFTOVERS_MAX {
                collected.leftovers += 1;
                collected.leftover_bytes += entry.meta.size;
                found.leftovers.push(entry.key);
            }
        }
        found.unneeded = unneeded.finish()?;
        Ok(found)
    }

    /// Step 6: how many blocks there are, and which backup is the last if that one is gone.
    async fn record_collected(
        &self,
        volume: &Name,
        complete: &BTreeMap<Name, Timestamp>,
        blocks: u64,
    ) -> Result<()> {
        let mut config = match self.volume_config(volume).await {
            Ok(config) => config,
            // Nothing can be said in it. Whoever lists the volume hears so.
            Err(Error::NoObject { .. } | Error::Config { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let before = config.clone();
        config.block_count = blocks;
        let is_there = |last: &Name| complete.contains_key(last);
        if !config.last_backup.as_ref().is_some_and(is_there) {
            let newest = complete.iter().max_by_key(|(_, at)| **at);
            config.last_backup = newest.map(|(name, _)| name.clone());
            config.last_backup_at = newest.map(|(_, at)| *at);
        }
        if config != before {
            self.put_volume_config(&config).await?;
            types::crash_point!("backup.collect.volume");
        }
        Ok(())
    }
}

impl Found {
    fn keep_everything(&mut self) {
        let why = "the backups have changed while they were read; try again";
        self.cfgs.collected = Collected {
            kept: vec![why.to_owned()],
            ..Collected::default()
        };
    }
}

/// Whether a file is one that a program had begun to write and that nobody has finished for a day.
fn is_leftover(entry: &Entry, now: Timestamp) -> bool {
    let file = entry.key.rsplit('/').next().unwrap_or_default();
    let is_half = file.split_once(".tmp.").is_some_and(|(whole, _)| {
        [".blk", ".cfg", ".lck"]
            .iter()
            .any(|suffix| whole.ends_with(suffix))
    });
    is_half && now.duration_since(entry.meta.modified) >= DEAD
}
