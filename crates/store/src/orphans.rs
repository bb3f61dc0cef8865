//! Orphans: files that nobody waits for any more, and when they are removed.
//!
//! | orphan | goes |
//! |---|---|
//! | `.deleting-*` that could not be removed at once | at the next pass |
//! | a work file that was being made, and what is beside it | [`UNFINISHED_WORK`] after its last change |
//! | a finished work file that nobody fetched | [`FINISHED_WORK`] after its last change |
//! | `backing.part`, `*.tmp` in an image's directory | [`PART`] after their last change |
//! | `.quarantine-*` | [`QUARANTINE`] after it was seen first; sooner, the oldest first, while all of them take more than a tenth of the disk, but then only those whose image is ready again |
//! | a spare clone of a file that others removed or changed | at the next pass |
//!
//! Time is the monotonic clock of this process: the time of an orphan starts when it is first seen
//! in its present state, so no change of the wall clock removes anything, and a restart starts to
//! count again. A file with a lock is in use, whatever its age.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};
use types::{crash_point, report};

use super::disk::Disk;
use super::durable;
use super::layout::{EntryName, Place, WORK_SUFFIXES};
use super::recovery::{holds_only_ours, remove_leftover};
use super::work_lock::try_lock;
use crate::error::{IoContext, Result};

/// See the table above: a data source that lives writes more often.
pub const UNFINISHED_WORK: Duration = Duration::from_hours(1);
/// See the table above.
pub const FINISHED_WORK: Duration = Duration::from_hours(24);
/// See the table above.
pub const PART: Duration = Duration::from_hours(24);
/// See the table above.
pub const QUARANTINE: Duration = Duration::from_hours(30 * 24);
/// The part of the disk that quarantined images may take while a better copy is here.
const QUARANTINE_PART: u64 = 10;

/// Looks for orphans from time to time, and remembers since when each is as it is.
#[derive(Debug)]
pub struct Orphans {
    disk: Arc<Disk>,
    seen: HashMap<PathBuf, Seen>,
}

/// Since when files are as they are.
#[derive(Debug, Clone, Copy)]
struct Seen {
    look: Look,
    since: Instant,
}

/// What stat(2) says of some files together: their number, bytes and newest change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    files: u64,
    bytes: u64,
    blocks: u64,
    newest: (i64, i64),
}

impl Look {
    fn add(&mut self, meta: &fs::Metadata) {
        self.files += 1;
        self.bytes += meta.len();
        self.blocks += meta.blocks();
        self.newest = self.newest.max((meta.ctime(), meta.ctime_nsec()));
    }
}

impl Orphans {
    /// The orphans of `disk`.
    pub fn new(disk: Arc<Disk>) -> Self {
        let seen = HashMap::new();
        Self { disk, seen }
    }

    /// Removes what is too old at `now`. `is_ready` tells by the name of its directory whether an image
    /// is. What cannot be removed is tried again at the next pass.
    pub fn pass(&mut self, now: Instant, is_ready: &dyn Fn(&str) -> bool) -> Result<()> {
        self.disk.check()?;
        self.disk.spares().prune();
        let mut present = HashMap::new();
        self.images(now, &mut present)?;
        self.work(now, &mut present)?;
        self.quarantine(now, &mut present, is_ready)?;
        self.seen = present;
        Ok(())
    }

    /// How long these files have been as they are.
    fn age(
        &self,
        now: Instant,
        path: &Path,
        look: Look,
        present: &mut HashMap<PathBuf, Seen>,
    ) -> Duration {
        let before = self.seen.get(path).filter(|seen| seen.look == look);
        let seen = before.copied().unwrap_or(Seen { look, since: now });
        present.insert(path.to_owned(), seen);
        now.saturating_duration_since(seen.since)
    }

    fn images(&self, now: Instant, present: &mut HashMap<PathBuf, Seen>) -> Result<()> {
        for (name, path) in entries(&self.disk.layout().images())? {
            match EntryName::of(&name) {
                EntryName::Leftover => {
                    remove_leftover(&path);
                    self.count();
                }
                EntryName::Item(_) if path.is_dir() => self.image(&path, now, present)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Parts and work files of one image's directory, and the directory when nothing else is in it.
    fn image(&self, dir: &Path, now: Instant, present: &mut HashMap<PathBuf, Seen>) -> Result<()> {
        if !holds_only_ours(dir)? {
            return Ok(());
        }
        let (mut look, mut stale, mut others) = (Look::default(), Vec::new(), 0);
        for (name, path) in entries(dir)? {
            let passing = name.ends_with("tmp") || name.starts_with("backing.part");
            if passing {
                look.add(&fs::symlink_metadata(&path).context("inspect", &path)?);
                stale.push(path);
            } else {
                others += 1;
            }
        }
        let empty = stale.is_empty() && others == 0;
        if (stale.is_empty() && !empty)
            || self.age(now, dir, look, present) < PART
            || stale.iter().any(|path| is_held(path))
        {
            return Ok(());
        }
        info!(path = %dir.display(), files = stale.len(), "removed an expired leftover");
        for path in &stale {
            durable::remove_file(path)?;
            crash_point!("store.orphans.removed");
        }
        // A description without bytes is void too.
        if !dir.join("backing").exists() {
            remove_leftover(dir);
        }
        self.count();
        Ok(())
    }

    fn work(&self, now: Instant, present: &mut HashMap<PathBuf, Seen>) -> Result<()> {
        let dir = self.disk.layout().work();
        let mut groups: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for (name, path) in entries(&dir)? {
            if name.starts_with('.') || !path.is_file() {
                continue;
            }
            let suffix = WORK_SUFFIXES.iter().find(|suffix| name.ends_with(**suffix));
            let stem = suffix.map_or(name.as_str(), |suffix| &name[..name.len() - suffix.len()]);
            groups.entry(stem.to_owned()).or_default().push(path);
        }
        for (stem, files) in groups {
            let mut look = Look::default();
            for path in &files {
                if let Ok(meta) = fs::symlink_metadata(path) {
                    look.add(&meta);
                }
            }
            let bytes = dir.join(&stem);
            let limit = if bytes.exists() {
                FINISHED_WORK
            } else {
                UNFINISHED_WORK
            };
            if self.age(now, &bytes, look, present) < limit {
                continue;
            }
            if let Err(error) = self.remove_work(&stem, files) {
                warn!(name = stem, error = %report(&error), "an orphan cannot be removed");
            }
        }
        Ok(())
    }

    fn remove_work(&self, stem: &str, mut files: Vec<PathBuf>) -> Result<()> {
        let lock_path = self.disk.layout().work_lock(stem);
        let Some(lock) = try_lock(&lock_path)? else {
            return Ok(());
        };
        info!(name = stem, "removed an expired work file");
        // The bytes first: they have the shortest name. The lock last.
        files.retain(|path| *path != lock_path);
        files.sort_by_key(|path| path.as_os_str().len());
        for path in &files {
            durable::remove_file(path)?;
            crash_point!("store.orphans.removed");
        }
        durable::remove_file(&lock_path)?;
        drop(lock);
        self.count();
        Ok(())
    }

    fn quarantine(
        &self,
        now: Instant,
        present: &mut HashMap<PathBuf, Seen>,
        is_ready: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let mut kept = Vec::new();
        for place in [Place::Images, Place::Work] {
            let dir = self.disk.layout().place(place);
            if !dir.exists() {
                continue;
            }
            for (name, path) in entries(&dir)? {
                let EntryName::Quarantined(of) = EntryName::of(&name) else {
                    continue;
                };
                let mut look = Look::default();
                for (_, file) in entries(&path)? {
                    look.add(&fs::symlink_metadata(&file).context("inspect", &file)?);
                }
                if self.age(now, &path, look, present) >= QUARANTINE {
                    self.remove_quarantined(&path, "it has expired");
                } else {
                    let image = of.rsplit_once('.').map_or(of, |(image, _)| image);
                    kept.push((look, path, is_ready(image)));
                }
            }
        }
        let mut total: u64 = kept
            .iter()
            .map(|(look, ..)| look.blocks * types::SECTOR)
            .sum();
        let most = self.disk.space()?.size / QUARANTINE_PART;
        kept.sort_by_key(|(look, ..)| look.newest);
        for (look, path, _) in kept.iter().filter(|(.., replaced)| *replaced) {
            if total <= most {
                break;
            }
            self.remove_quarantined(path, "its image is ready again, and space is short");
            total -= look.blocks * types::SECTOR;
        }
        Ok(())
    }

    fn remove_quarantined(&self, path: &Path, why: &str) {
        info!(path = %path.display(), why, "removed an expired quarantined image");
        remove_leftover(path);
        self.count();
    }

    fn count(&self) {
        self.disk
            .counters()
            .orphans_removed
            .fetch_add(1, Ordering::Relaxed);
    }
}

/// Names (those that are text) and paths of what is in a directory.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in durable::list(dir)? {
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// Whether somebody is filling this file.
fn is_held(path: &Path) -> bool {
    fs::File::open(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

#[cfg(test)]
mod tests;
