//! Spare clones: of a file that takes long to clone, one clone is made ahead of the next volume.
//!
//! `FICLONE` of XFS costs about 10 µs for each extent. Where a volume had to wait for that, a spare is made
//! when it has its answer, and the next volume of the same file only gives the spare a name.
//!
//! ```text
//!  want ──► wanted ──► making ──► kept ──► take: the volume's file, and wanted again
//!              └──────────┴─────────┴───► forget: the file it is a clone of goes away
//! ```
//!
//! A spare is a file without a name (`O_TMPFILE`), and what it is a clone of is known in memory alone. Whatever
//! ends this process ends its spares, and a file system that is mounted after a power cut frees them before it is
//! used: a start finds none, and has nothing to look for or to believe. No list of a directory shows one.
//! Taking one names it in a directory that is void until the volume is complete (`volume::create`), so a power
//! cut right after that leaves what it leaves of any volume that was not finished.
//!
//! A spare is used only for the file that it was cloned from, as that was: device, inode, size and both times.
//! Forgetting is for the space, which the spare would otherwise keep.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::debug;

use super::sidecar::Stamp;
use crate::error::{IoContext as _, Result};

/// Cloning that takes as long is worth a spare: about 100 extents of XFS, where the syncs of a volume take a few
/// milliseconds.
pub const SLOW: Duration = Duration::from_millis(1);
/// The kernel keeps the extents of an open file in memory, 16 bytes each: with 10,000 of them in each spare these
/// are 2.5 MB. The spare that was made first goes first.
const KEPT_MAX: usize = 16;

/// The spare clones of files on one disk.
#[derive(Debug, Default)]
pub struct Spares {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<PathBuf, Spare>,
    wanted: VecDeque<PathBuf>,
    /// What the thread makes a spare of. It stops when somebody else than the thread changes this.
    making: Option<PathBuf>,
    /// Whether there is a thread.
    is_working: bool,
    /// Files cannot be given names here: no spare is of use.
    is_useless: bool,
}

/// A finished one.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) file: File,
    /// What it is a clone of.
    pub(super) of: Identity,
    pub(super) made: Instant,
}

/// Which file, and that nobody has written to it since.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    pub(super) stamp: Stamp,
}

impl Identity {
    pub(super) fn of(file: &File, path: &Path) -> Result<Self> {
        Ok(Self::from(&file.metadata().context("inspect", path)?))
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            stamp: Stamp::from(meta),
        }
    }
}

impl Spares {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves it whole: each change of it is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spare of `source`, which was opened at `path`, if there is one. It is nobody else's from here on.
    ///
    /// # Errors
    /// `source` cannot be inspected.
    pub fn take(&self, path: &Path, source: &File) -> Result<Option<File>> {
        let Some(spare) = self.state().kept.remove(path) else {
            return Ok(None);
        };
        if spare.of == Identity::of(source, path)? {
            return Ok(Some(spare.file));
        }
        debug!(path = %path.display(), "was changed: its spare is void");
        Ok(None)
    }

    /// Asks for a spare of the file at `path`, which `spare_maker` makes.
    pub fn want(&self, path: &Path) {
        let mut state = self.state();
        let is_known = state.kept.contains_key(path)
            || state.making.as_deref() == Some(path)
            || state.wanted.iter().any(|wanted| wanted == path);
        if !is_known && !state.is_useless {
            state.wanted.push_back(path.to_owned());
        }
    }

    /// The file at `path` was removed, renamed or changed: called after that, so that a spare which is made
    /// meanwhile is either found here, or finds no file.
    pub fn forget(&self, path: &Path) {
        let mut state = self.state();
        state.wanted.retain(|wanted| wanted != path);
        state.making.take_if(|making| *making == path);
        let spare = state.kept.remove(path);
        drop(state);
        // Closed without the lock: that frees its extents.
        drop(spare);
    }

    /// Gives up the spares of files that others removed or changed, without a word to this program.
    pub(super) fn prune(&self) {
        let is_void = |path: &Path, spare: &Spare| {
            fs::symlink_metadata(path).map_or(true, |meta| Identity::from(&meta) != spare.of)
        };
        let mut state = self.state();
        let void: Vec<_> = state
            .kept
            .extract_if(|path, spare| is_void(path, spare))
            .collect();
        drop(state);
        drop(void);
    }

    /// Nothing can be done with spares here.
    pub fn give_up(&self) {
        let mut state = self.state();
        let useless = State {
            is_working: state.is_working,
            is_useless: true,
            ..State::default()
        };
        let before = std::mem::replace(&mut *state, useless);
        drop(state);
        drop(before);
    }

    /// How many are there.
    pub fn count(&self) -> usize {
        self.state().kept.len()
    }

    /// Whether a thread is to be started, which is counted on from here on.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state();
        let is_needed = !state.wanted.is_empty() && !state.is_working;
        state.is_working |= is_needed;
        is_needed
    }

    /// There is no thread.
    pub(super) fn end(&self) {
        self.state().is_working = false;
    }

    /// What to make next; `None` ends the thread.
    pub(super) fn next(&self) -> Option<PathBuf> {
        let mut state = self.state();
        state.making = state.wanted.pop_front();
        state.is_working = state.making.is_some();
        state.making.clone()
    }

    /// Whether the spare that is being made is still wanted.
    pub(super) fn is_wanted(&self, path: &Path) -> bool {
        self.state().making.as_deref() == Some(path)
    }

    /// Keeps a spare that is still wanted.
    pub(super) fn keep(&self, path: PathBuf, spare: Spare) {
        let mut state = self.state();
        let unwanted = if state.making.as_deref() == Some(&*path) {
            state.making = None;
            state.kept.insert(path, spare);
            state.too_many()
        } else {
            Some(spare)
        };
        drop(state);
        drop(unwanted);
    }
}

impl State {
    /// Takes out the spare that was made first when there is no room for all.
    fn too_many(&mut self) -> Option<Spare> {
        if self.kept.len() <= KEPT_MAX {
            return None;
        }
        let first = self.kept.iter().min_by_key(|(_, spare)| spare.made)?;
        let path = first.0.clone();
        self.kept.remove(&path)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::OFlags;

    use super::super::disk::Disk;
    use super::super::durable;
    use super::*;

    /// A file, and a spare of it as if it had been made; file systems that share no extents make none.
    fn spare(disk: &Disk, name: &str) -> (PathBuf, File) {
        let path = disk.layout().root().join(name);
        let source = durable::create_file(&path).unwrap();
        disk.spares().want(&path);
        assert_eq!(disk.spares().next().as_ref(), Some(&path));
        let of = Identity::of(&source, &path).unwrap();
        let file = durable::nameless(disk.layout().root(), OFlags::empty()).unwrap();
        let made = Instant::now();
        disk.spares().keep(path.clone(), Spare { file, of, made });
        (path, source)
    }

    #[test]
    fn a_spare_is_given_once_and_only_for_the_file_as_it_was() {
        let (_dir, disk) = Disk::temporary();
        let (path, source) = spare(&disk, "a");
        assert!(disk.spares().take(&path, &source).unwrap().is_some());
        assert!(disk.spares().take(&path, &source).unwrap().is_none());
        let (path, source) = spare(&disk, "b");
        source.set_len(1).unwrap();
        assert!(disk.spares().take(&path, &source).unwrap().is_none());
        assert_eq!(disk.spares().count(), 0, "what is void is not kept");
    }

    #[test]
    fn what_is_forgotten_is_neither_kept_nor_finished() {
        let (_dir, disk) = Disk::temporary();
        let spares = disk.spares();
        let (path, source) = spare(&disk, "a");
        spares.forget(&path);
        assert_eq!(spares.count(), 0);
        // One that is being made meanwhile.
        spares.want(&path);
        assert_eq!(spares.next(), Some(path.clone()));
        spares.forget(&path);
        assert!(!spares.is_wanted(&path));
        let spare = Spare {
            of: Identity::of(&source, &path).unwrap(),
            file: source,
            made: Instant::now(),
        };
        spares.keep(path.clone(), spare);
        assert_eq!(spares.count(), 0);
        // And one that is only wanted.
        spares.want(&path);
        spares.forget(&path);
        assert_eq!(spares.next(), None);
    }

    #[test]
    fn what_others_removed_or_changed_has_no_spare_after_a_while() {
        let (_dir, disk) = Disk::temporary();
        let (_, changed) = spare(&disk, "a");
        let (removed, _) = spare(&disk, "b");
        let (kept, source) = spare(&disk, "c");
        disk.spares().prune();
        assert_eq!(disk.spares().count(), 3);
        changed.set_len(1).unwrap();
        durable::remove_file(&removed).unwrap();
        disk.spares().prune();
        assert_eq!(disk.spares().count(), 1);
        assert!(disk.spares().take(&kept, &source).unwrap().is_some());
    }

    #[test]
    fn there_are_not_more_than_so_many_and_none_where_they_are_useless() {
        let (_dir, disk) = Disk::temporary();
        let paths: Vec<_> = (0..=KEPT_MAX)
            .map(|number| spare(&disk, &number.to_string()))
            .collect();
        assert_eq!(disk.spares().count(), KEPT_MAX);
        let (first, source) = &paths[0];
        assert!(disk.spares().take(first, source).unwrap().is_none());
        disk.spares().give_up();
        assert_eq!(disk.spares().count(), 0);
        disk.spares().want(first);
        assert_eq!(disk.spares().next(), None);
    }
}
