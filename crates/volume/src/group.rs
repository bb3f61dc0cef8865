//! What several volumes hold at one moment, while nodes may be writing to them: for groups of snapshots.
//!
//! Volumes are cloned one after the other (see `live_clone`). The clones are consistent, with the state at
//! the last one, if nothing was written to the other volumes since their own clones: every write
//! changes the time of its file, and if one did, all are cloned again. The volume with the latest
//! write is cloned last: that one may be written to all the time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::OFlags;
use types::{ImageName, VolumeName};

use super::Volumes;
use store::IoContext;

use crate::error::{Error, Result};
use store::durable;

/// How long no volume but one may have been written to before the first cut, so that the time of a write
/// after it is another one: two ticks of the slowest clock that a kernel stamps files by (`HZ` = 100).
const TICKS: Duration = Duration::from_millis(20);
/// How long a moment is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between one attempt and the next.
const PAUSE: Duration = Duration::from_millis(30);

/// The moments that snapshots are being made of, by their groups; none while it is waited for.
pub(super) type Groups = Arc<Mutex<HashMap<ImageName, Option<Clones>>>>;

/// What the volumes of a group held, in files without names: whatever ends this process, they are gone.
#[derive(Debug)]
pub(super) struct Clones {
    at: Timestamp,
    files: HashMap<VolumeName, File>,
}

/// Keeps what the volumes of a group held, until it is dropped.
#[derive(Debug)]
pub struct GroupClones {
    group: ImageName,
    all: Groups,
}

impl Drop for GroupClones {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.group);
    }
}

impl Volumes {
    /// Takes what these volumes hold at one moment, for the snapshots of `group`.
    ///
    /// # Errors
    /// [`Error::CannotClone`] when there was no such moment for 10 s, because more than one of the volumes
    /// was being written to, or when one of them cannot be cut at all; [`Error::VolumeBusy`] when
    /// somebody works on one, [`Error::GroupBusy`] on the group.
    pub fn clone_group(&self, group: &ImageName, names: &[VolumeName]) -> Result<GroupClones> {
        let moment = self.claim(group)?;
        let started = Instant::now();
        let cuts = loop {
            match self.clone_all(names)? {
                Ok(cuts) => break cuts,
                Err(_) if started.elapsed() < PATIENCE => sleep(PAUSE),
                Err(name) => {
                    let why = format!(
                        "so is another volume of the group, and within {} s there was no moment \
                         without writes to one of them",
                        PATIENCE.as_secs()
                    );
                    let node = self.node_id.clone();
                    return Err(Error::CannotClone { name, node, why });
                }
            }
        };
        let mut all = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(group.clone(), Some(cuts));
        Ok(moment)
    }

    fn claim(&self, group: &ImageName) -> Result<GroupClones> {
        let mut all = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        match all.entry(group.clone()) {
            Entry::Occupied(_) => Err(Error::GroupBusy(group.clone())),
            Entry::Vacant(place) => {
                place.insert(None);
                Ok(GroupClones {
                    group: group.clone(),
                    all: self.groups.clone(),
                })
            }
        }
    }

    /// Makes `file`, which is empty, what the volume held at the moment of `group`, and says when that was.
    pub fn clone_of_group(
        &self,
        group: &ImageName,
        name: &VolumeName,
        file: &File,
    ) -> Result<Timestamp> {
        let (at, cut) = {
            let all = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            let cuts = all.get(group).and_then(Option::as_ref);
            let cut = cuts.and_then(|cuts| Some((cuts.at, cuts.files.get(name)?)));
            let (at, cut) = cut.ok_or(Error::Cancelled("the moment of its group has passed"))?;
            let path = self.disk.layout().volumes();
            (at, cut.try_clone().context("keep a file of", &path)?)
        };
        self.copy(&cut, &self.disk.layout().volume(name).data, file)?;
        Ok(at)
    }

    /// Clones all of them; the inner error names one that was written to meanwhile.
    fn clone_all(&self, names: &[VolumeName]) -> Result<Result<Clones, VolumeName>> {
        let mut order = Vec::new();
        for name in names {
            order.push((self.last_written(name)?, name));
        }
        order.sort();
        sleep(TICKS);
        let dir = self.disk.layout().volumes();
        let mut files = HashMap::new();
        for (_, name) in &order {
            let file = durable::nameless(&dir, OFlags::empty());
            let file = file.context("make a file without a name in", &dir)?;
            self.clone_live(name, &file)?;
            files.insert((*name).clone(), file);
        }
        let at = Timestamp::now();
        order.pop();
        for (before, name) in order {
            if self.last_written(name)? != before {
                return Ok(Err(name.clone()));
            }
        }
        Ok(Ok(Clones { at, files }))
    }

    /// When a volume was last written to: the time that nobody can set (`st_ctime`, inode(7)), in seconds
    /// and nanoseconds. What was written is on its disk.
    fn last_written(&self, name: &VolumeName) -> Result<(i64, i64)> {
        self.get(name)?;
        let path = self.disk.layout().volume(name).data;
        let file = File::open(&path).context("open", &path)?;
        file.sync_all().context("sync", &path)?;
        let metadata = file.metadata().context("inspect", &path)?;
        Ok((metadata.ctime(), metadata.ctime_nsec()))
    }
}
