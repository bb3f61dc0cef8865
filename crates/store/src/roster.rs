//! The other disks of the cluster, as far as this one was informed of them: what is known of a disk
//! while its own manager does not answer.
//!
//! A search concludes that a volume does not exist only if every disk in these lists says so. An
//! entry can therefore delay an answer, but never make it wrong. The list is on the disk, so that
//! it outlives pods; if it cannot be written, it is kept until the next start.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};
use types::{DiskUuid, NodeId, crash_point, report};

use super::durable;
use super::layout::Layout;
use crate::error::{IoContext, Result};

/// Disks that are remembered: as many as a name of managers may stand for.
const DISKS_MAX: usize = 5_000;
/// The largest file that is read: [`DISKS_MAX`] entries of the longest names.
const FILE_MAX: u64 = 4 << 20;
/// Seconds after which it is worth a write that a disk was seen again.
const SEEN_AGAIN: i64 = 24 * 3600;

/// A disk that others have told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownDisk {
    /// Its node; `None`: not told.
    pub node_id: Option<NodeId>,
    /// When it was told of first, in seconds since 1970.
    pub first_seen: i64,
    /// When it was told of last.
    pub last_seen: i64,
    /// An operator said that it is gone, and it has not answered since.
    #[serde(default)]
    pub forgotten: bool,
}

/// A disk that somebody tells of.
#[derive(Debug, Clone)]
pub struct SeenDisk {
    pub uuid: DiskUuid,
    pub node_id: NodeId,
    /// Whether its manager answers now.
    pub answers: bool,
}

type Disks = BTreeMap<DiskUuid, KnownDisk>;

/// The list. One file, replaced as a whole.
#[derive(Debug)]
pub struct Roster {
    path: PathBuf,
    /// Held while the file is written: the later list must not be replaced by the earlier one.
    disks: Mutex<Disks>,
}

impl Roster {
    /// Reads the list of a disk. One that cannot be read is begun anew: the other disks have it too.
    pub(super) fn load(layout: &Layout) -> Self {
        let path = layout.known_disks();
        let disks = read(&path).unwrap_or_else(|failure| {
            error!(path = %path.display(), error = %report(&failure),
                "the list of other disks cannot be read; starting a new one");
            Disks::new()
        });
        let disks = Mutex::new(disks);
        Self { path, disks }
    }

    /// Every disk that it knows of, the forgotten ones too.
    pub fn known(&self) -> Vec<(DiskUuid, KnownDisk)> {
        let disks = self.lock();
        let pairs = disks.iter();
        pairs
            .map(|(uuid, known)| (uuid.clone(), known.clone()))
            .collect()
    }

    /// Adds what others tell. A disk that was forgotten comes back only when it answers.
    pub fn record(&self, seen: &[SeenDisk]) {
        let now = Timestamp::now().as_second();
        let mut disks = self.lock();
        let mut changed = false;
        for disk in seen {
            changed |= take(&mut disks, disk, now);
        }
        if changed && let Err(failure) = self.write(&disks) {
            warn!(error = %report(&failure), "the list of other disks is kept only until the \
                                              next start");
        }
    }

    /// Takes a disk out.
    ///
    /// # Errors
    /// When that could not be made durable: it would be back after the next start.
    pub fn forget(&self, uuid: &DiskUuid) -> Result<()> {
        let now = Timestamp::now().as_second();
        let mut disks = self.lock();
        let known = disks.get(uuid);
        if known.is_some_and(|known| known.forgotten) || !has_room(&mut disks, uuid) {
            return Ok(());
        }
        let known = disks.entry(uuid.clone()).or_insert(KnownDisk {
            node_id: None,
            first_seen: now,
            last_seen: now,
            forgotten: true,
        });
        known.forgotten = true;
        info!(disk = %uuid, "forgotten");
        self.write(&disks)
    }

    fn write(&self, disks: &Disks) -> Result<()> {
        let content = serde_json::to_vec(disks).expect("a list of disks is plain JSON");
        durable::replace(&self.path, &content)?;
        crash_point!("store.roster.written");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Disks> {
        // A map is whole between any two operations on it, also after a panic.
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts one disk into the list. Tells whether that is worth a write.
fn take(disks: &mut Disks, seen: &SeenDisk, now: i64) -> bool {
    if !has_room(disks, &seen.uuid) {
        warn!(disk = %seen.uuid, "{DISKS_MAX} disks are known: one more is not remembered; forget some");
        return false;
    }
    let Some(known) = disks.get_mut(&seen.uuid) else {
        info!(disk = %seen.uuid, node = %seen.node_id, "there is another disk");
        let known = KnownDisk {
            node_id: Some(seen.node_id.clone()),
            first_seen: now,
            last_seen: now,
            forgotten: false,
        };
        disks.insert(seen.uuid.clone(), known);
        return true;
    };
    if !seen.answers {
        return false;
    }
    let changed = known.forgotten
        || known.node_id.as_ref() != Some(&seen.node_id)
        || now.saturating_sub(known.last_seen) >= SEEN_AGAIN;
    known.forgotten = false;
    known.node_id = Some(seen.node_id.clone());
    known.last_seen = now;
    changed
}

/// Whether there is room for a disk. A forgotten one makes room for another.
fn has_room(disks: &mut Disks, uuid: &DiskUuid) -> bool {
    if disks.contains_key(uuid) || disks.len() < DISKS_MAX {
        return true;
    }
    let forgotten = disks.iter().find(|(_, known)| known.forgotten);
    let Some(forgotten) = forgotten.map(|(uuid, _)| uuid.clone()) else {
        return false;
    };
    disks.remove(&forgotten).is_some()
}

fn read(path: &Path) -> Result<Disks> {
    let mut text = Vec::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Disks::new()),
        opened => opened
            .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text))
            .context("read", path)?,
    };
    let disks: Disks = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .context("read", path)?;
    if disks.len() > DISKS_MAX {
        return Err(io::Error::other("it names too many disks")).context("read", path);
    }
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(uuid: &str, node: &str, answers: bool) -> SeenDisk {
        SeenDisk {
            uuid: DiskUuid::new(uuid).unwrap(),
            node_id: NodeId::new(node).unwrap(),
            answers,
        }
    }

    fn roster(dir: &Path) -> Roster {
        Roster::load(&Layout::new(dir))
    }

    fn shown(roster: &Roster) -> Vec<(String, Option<String>, bool)> {
        let known = roster.known().into_iter();
        known
            .map(|(uuid, known)| {
                (
                    uuid.into(),
                    known.node_id.map(String::from),
                    known.forgotten,
                )
            })
            .collect()
    }

    fn entry(uuid: &str, node: &str, forgotten: bool) -> (String, Option<String>, bool) {
        (uuid.to_owned(), Some(node.to_owned()), forgotten)
    }

    #[test]
    fn row_155_a_disk_stays_known_until_an_operator_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let first = roster(dir.path());
        first.record(&[seen("a", "n1", true), seen("b", "n2", false)]);
        // Told again, with another node by somebody who has only heard of it.
        first.record(&[seen("b", "n9", false)]);
        let all = [entry("a", "n1", false), entry("b", "n2", false)];
        assert_eq!(shown(&first), all);
        let again = roster(dir.path());
        assert_eq!(shown(&again), all, "it outlives its manager");
        // The node was renamed, or the disk moved to another one.
        again.record(&[seen("b", "n3", true)]);
        again.forget(&DiskUuid::new("a").unwrap()).unwrap();
        again.forget(&DiskUuid::new("a").unwrap()).unwrap();
        again.record(&[seen("a", "n1", false)]);
        let all = [entry("a", "n1", true), entry("b", "n3", false)];
        assert_eq!(shown(&roster(dir.path())), all);
        again.record(&[seen("a", "n1", true)]);
        assert_eq!(shown(&again)[0], entry("a", "n1", false), "it is back");
    }

    #[test]
    fn row_155_a_list_is_bounded_and_a_damaged_one_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let one = roster(dir.path());
        let many: Vec<_> = (0..DISKS_MAX + 10)
            .map(|n| seen(&format!("d{n}"), "n", true))
            .collect();
        one.record(&many);
        assert_eq!(one.known().len(), DISKS_MAX);
        one.forget(&DiskUuid::new("d0").unwrap()).unwrap();
        one.record(&[seen("new", "n", true)]);
        let known = one.known();
        assert_eq!(known.len(), DISKS_MAX);
        assert!(known.iter().any(|(uuid, _)| uuid.as_str() == "new"));
        assert_eq!(roster(dir.path()).known().len(), DISKS_MAX);
        for damage in ["{", "[]", "{\"../x\":{}}", ""] {
            durable::replace(&dir.path().join("known-disks.cfg"), damage.as_bytes()).unwrap();
            assert_eq!(roster(dir.path()).known(), Vec::new(), "{damage}");
        }
    }
}
