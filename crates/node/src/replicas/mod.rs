//! This node's parts of replicated volumes: it keeps the layouts that it was told, and makes the kernel have what they
//! say, when it is told and again and again: after a reboot nobody else is needed for it. All calls block.

mod address;
mod prepared;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client::replicas::Found;
use host::Disks;
use host::drbd::{Drbd, OnDisk};
use replication::{
    Connection, DiskState, Engine as _, Layout, Link, MemberId, Part, Replication, Secret, Verb,
    converge,
};
use types::{NodeId, VolumeName, crash_point, report};

pub use self::address::StorageAddress;
pub(crate) use self::prepared::Prepared;
use crate::error::{Error, Result};
use crate::kept::Kept;

/// How often the parts are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How long a replica that could not be attached, or did not stay attached, is left alone: its disk answers with errors.
const ATTACH_EVERY: Duration = Duration::from_secs(30);
/// How long a replica may lack data while a current one is connected and nothing is copied. DRBD was seen to forget it
/// when a third node left in the middle; a new connection begins it again.
const STUCK_FOR: Duration = Duration::from_secs(30);

/// The replicated volumes of this node.
#[derive(Debug)]
pub(crate) struct Replicas {
    engine: Drbd,
    node: NodeId,
    kept: Kept<Prepared>,
    /// Volumes that something works on.
    busy: Mutex<HashSet<VolumeName>>,
    /// Until when writes may be stopped. What is stopped and not here was stopped by a process that is gone.
    stopped: Mutex<HashMap<VolumeName, Instant>>,
    /// When each replica was last attached by itself.
    attached: Mutex<HashMap<VolumeName, Instant>>,
    /// Since when nothing is copied to a replica that lacks data.
    stuck: Mutex<HashMap<VolumeName, Instant>>,
    /// What was last wrong with each, as the log has it.
    troubles: Mutex<BTreeMap<VolumeName, String>>,
}

/// Says that a volume is worked on, until it is dropped.
struct Busy<'a> {
    all: &'a Mutex<HashSet<VolumeName>>,
    volume: VolumeName,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(self.all).remove(&self.volume);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replicas {
    pub(crate) fn new(disks: Disks, node: NodeId, directory: PathBuf) -> Self {
        Self {
            engine: Drbd::new(disks, node.clone()),
            node,
            kept: Kept::new(directory),
            busy: Mutex::default(),
            stopped: Mutex::default(),
            attached: Mutex::default(),
            stuck: Mutex::default(),
            troubles: Mutex::default(),
        }
    }

    pub(crate) const fn engine(&self) -> &Drbd {
        &self.engine
    }

    /// Takes a layout, keeps it, and makes the part of this node what it says.
    pub(crate) fn put(&self, layout: Layout, secret: Secret) -> Result<Found> {
        let _busy = self.enter(&layout.volume)?;
        self.engine.version()?;
        // One that cannot be read is replaced by the one that the controller has.
        let kept = self.kept.load(&layout.volume).unwrap_or_else(|error| {
            tracing::error!(volume = %layout.volume, "its layout is not readable and is replaced: {error}");
            None
        });
        if let Some(kept) = kept.filter(|kept| kept.layout.generation > layout.generation) {
            return Err(Error::Older {
                volume: layout.volume,
                kept: kept.layout.generation,
                asked: layout.generation,
            });
        }
        let entry = Prepared::new(layout, secret);
        self.kept.store(&entry).map_err(self.failed("write"))?;
        crash_point!("node.replica.kept");
        self.engine
            .apply(&entry.layout, &self.node, &entry.secret)?;
        let mut parts = self
            .engine
            .observe(std::slice::from_ref(&entry.layout), &self.node)?;
        let at = parts
            .iter()
            .position(|part| part.volume == entry.layout.volume);
        let part = at.map(|at| parts.swap_remove(at)).ok_or(Error::Lost)?;
        let member = entry.layout.member(&self.node);
        Ok(Found {
            part,
            disk: member.and_then(|member| member.disk.clone()),
            layout: Some(entry.layout),
            data_uuid: String::new(),
        })
    }

    /// Takes the part of this node down and forgets its layout.
    pub(crate) fn remove(&self, volume: &VolumeName) -> Result<()> {
        let _busy = self.enter(volume)?;
        self.engine.remove(volume)?;
        crash_point!("node.replica.down");
        self.kept.remove(volume).map_err(self.failed("remove"))?;
        lock(&self.troubles).remove(volume);
        Ok(())
    }

    /// All parts: of layouts, of the kernel, and of metadata on the disks.
    pub(crate) fn list(&self) -> Result<Vec<Found>> {
        let layouts = self.layouts()?;
        let parts = self.engine.observe(&layouts, &self.node)?;
        let mut on_disks = self.engine.on_disks();
        let troubles = lock(&self.troubles).clone();
        let mut all = Vec::new();
        for mut part in parts {
            let layout = layouts
                .iter()
                .find(|layout| layout.volume == part.volume)
                .cloned();
            let wanted = layout
                .as_ref()
                .and_then(|layout| layout.member(&self.node)?.disk.clone());
            let at = on_disks.iter().position(|found| {
                found.volume == part.volume
                    && wanted.as_ref().is_none_or(|disk| *disk == found.disk)
            });
            let found = at.map(|at| on_disks.swap_remove(at));
            part.troubles.extend(troubles.get(&part.volume).cloned());
            all.push(Found {
                part,
                layout,
                data_uuid: found
                    .as_ref()
                    .map_or_else(String::new, |found| found.data_uuid.clone()),
                disk: found.map(|found| found.disk),
            });
        }
        all.extend(on_disks.into_iter().map(left_over));
        all.sort_by(|a, b| a.part.volume.cmp(&b.part.volume));
        Ok(all)
    }

    /// Does something to a volume whose layout is kept, while nothing else is done to it.
    fn with<T>(
        &self,
        volume: &VolumeName,
        work: impl FnOnce(&Layout) -> host::Result<T>,
    ) -> Result<T> {
        let _busy = self.enter(volume)?;
        let layout = self.layout(volume)?.ok_or_else(|| Error::NoLayout {
            volume: volume.clone(),
        })?;
        Ok(work(&layout)?)
    }

    pub(crate) fn initialize(&self, volume: &VolumeName) -> Result<()> {
        self.with(volume, |layout| self.engine.initialize(layout))
    }

    pub(crate) fn grow(&self, volume: &VolumeName) -> Result<()> {
        self.with(volume, |layout| self.engine.grow(layout))
    }

    pub(crate) fn rejoin(&self, volume: &VolumeName) -> Result<()> {
        self.with(volume, |layout| self.engine.rejoin(layout, &self.node))
    }

    /// Stops the writes for at most this time.
    pub(crate) fn suspend(&self, volume: &VolumeName, time: Duration) -> Result<()> {
        self.with(volume, |layout| {
            // First, so that nobody takes it for one that was forgotten.
            lock(&self.stopped).insert(volume.clone(), Instant::now() + time);
            let stopped = self.engine.suspend(layout);
            if stopped.is_err() {
                lock(&self.stopped).remove(volume);
            }
            stopped
        })
    }

    pub(crate) fn resume(&self, volume: &VolumeName) -> Result<()> {
        self.with(volume, |layout| {
            self.engine.resume(layout)?;
            lock(&self.stopped).remove(volume);
            Ok(())
        })
    }

    /// Lets the writes go on whose time is over, and those of all whose process is gone (`all`).
    pub(crate) fn resume_expired(&self, all: bool) {
        let now = Instant::now();
        let expired = {
            let stopped = lock(&self.stopped);
            let expired = stopped.iter().filter(|(_, until)| **until <= now);
            expired
                .map(|(volume, _)| volume.clone())
                .collect::<Vec<_>>()
        };
        let forgotten = if all {
            self.forgotten()
        } else {
            Ok(Vec::new())
        };
        let forgotten = forgotten.unwrap_or_else(|error| {
            tracing::warn!("{}", report(&error));
            Vec::new()
        });
        for volume in expired.into_iter().chain(forgotten) {
            tracing::warn!(%volume, "its writes were stopped for too long and go on");
            if let Err(error) = self.resume(&volume) {
                tracing::warn!(%volume, "{}", report(&error));
            }
        }
    }

    fn forgotten(&self) -> Result<Vec<VolumeName>> {
        let layouts = self.layouts()?;
        if layouts.is_empty() {
            return Ok(Vec::new());
        }
        let stopped = self.engine.suspended()?;
        let known = lock(&self.stopped);
        Ok(stopped
            .into_iter()
            .filter(|volume| !known.contains_key(volume))
            .collect())
    }

    /// Makes all parts what their layouts say, as far as this node can. `thorough`: also where the states look as they
    /// should.
    pub(crate) fn converge(&self, thorough: bool) {
        if let Err(error) = self.try_converge(thorough) {
            tracing::warn!("cannot look at the replicated volumes: {}", report(&error));
        }
    }

    fn try_converge(&self, thorough: bool) -> Result<()> {
        let layouts = self.layouts()?;
        if layouts.is_empty() {
            return Ok(());
        }
        let parts = self.engine.observe(&layouts, &self.node)?;
        for layout in layouts {
            let part = parts.iter().find(|part| part.volume == layout.volume);
            let verbs = converge(&layout, &self.node, part);
            let attaches = verbs
                .iter()
                .any(|verb| matches!(verb, Verb::AttachDisk { .. }));
            if attaches && !self.may_attach(&layout.volume) {
                continue;
            }
            if thorough || !verbs.is_empty() {
                self.adapt(&layout.volume);
            } else {
                self.note(&layout.volume, None);
            }
            if let Some(part) = part {
                self.unstick(&layout, part);
            }
        }
        Ok(())
    }

    /// Whether a replica may be attached again, which is noted. A disk with errors is not asked all the time.
    fn may_attach(&self, volume: &VolumeName) -> bool {
        let mut attached = lock(&self.attached);
        let now = Instant::now();
        let is_recent = attached
            .get(volume)
            .is_some_and(|at| now.duration_since(*at) < ATTACH_EVERY);
        if !is_recent {
            attached.insert(volume.clone(), now);
        }
        !is_recent
    }

    /// Connects a replica anew that lacks data, and to which nothing is copied.
    fn unstick(&self, layout: &Layout, part: &Part) {
        let Some(peer) = stuck_at(part) else {
            lock(&self.stuck).remove(&layout.volume);
            return;
        };
        let since = *lock(&self.stuck)
            .entry(layout.volume.clone())
            .or_insert_with(Instant::now);
        if since.elapsed() < STUCK_FOR {
            return;
        }
        lock(&self.stuck).remove(&layout.volume);
        let Ok(_busy) = self.enter(&layout.volume) else {
            return;
        };
        tracing::warn!(volume = %layout.volume, %peer, "nothing is copied to its replica here; it connects anew");
        if let Err(error) = self.engine.reconnect(layout, peer) {
            tracing::warn!(volume = %layout.volume, "{}", report(&error));
        }
    }

    fn adapt(&self, volume: &VolumeName) {
        // Who works on it sees to it.
        let Ok(_busy) = self.enter(volume) else {
            return;
        };
        // It may have been replaced or removed since it was listed.
        let Ok(Some(entry)) = self.kept.load(volume) else {
            return;
        };
        let adapted = self.engine.apply(&entry.layout, &self.node, &entry.secret);
        self.note(
            volume,
            adapted.err().map(|error| report(&error).to_string()),
        );
    }

    /// Remembers what is wrong with a volume, and says it in the log when it is new.
    fn note(&self, volume: &VolumeName, trouble: Option<String>) {
        let mut troubles = lock(&self.troubles);
        if troubles.get(volume) == trouble.as_ref() {
            return;
        }
        if let Some(trouble) = trouble {
            tracing::warn!(%volume, "its part of this node is not what it should be: {trouble}");
            troubles.insert(volume.clone(), trouble);
        } else {
            tracing::info!(%volume, "its part of this node is what it should be");
            troubles.remove(volume);
        }
    }

    /// The layout that is kept of a volume.
    pub(crate) fn layout(&self, volume: &VolumeName) -> Result<Option<Layout>> {
        let entry = self.kept.load(volume).map_err(self.failed("read"))?;
        Ok(entry.map(|entry| entry.layout))
    }

    fn layouts(&self) -> Result<Vec<Layout>> {
        let entries = self.kept.list().map_err(self.failed("list"))?;
        Ok(entries.into_iter().map(|entry| entry.layout).collect())
    }

    fn enter(&self, volume: &VolumeName) -> Result<Busy<'_>> {
        if !lock(&self.busy).insert(volume.clone()) {
            return Err(host::Error::Busy(volume.clone()).into());
        }
        Ok(Busy {
            all: &self.busy,
            volume: volume.clone(),
        })
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = self.kept.path().to_owned();
        move |source| Error::Kept { what, path, source }
    }
}

/// The current peer of a replica that lacks data, where nothing is copied from anybody.
fn stuck_at(part: &Part) -> Option<MemberId> {
    let lacks = matches!(part.disk, DiskState::Inconsistent | DiskState::Outdated);
    let idle = |link: &&Link| link.replication == Replication::Established;
    let is_current =
        |link: &&Link| link.connection == Connection::Connected && link.disk == DiskState::UpToDate;
    let connected = || {
        part.links
            .iter()
            .filter(|link| link.connection == Connection::Connected)
    };
    if !lacks || !part.quorum || !connected().all(|link| idle(&link)) {
        return None;
    }
    part.links.iter().find(is_current).map(|link| link.peer)
}

/// Metadata on a disk of a volume that is neither in the kernel nor in a layout.
fn left_over(found: OnDisk) -> Found {
    let part = Part {
        me: found.id.map_or(MemberId(0), MemberId),
        ..Part::absent(found.volume)
    };
    Found {
        part,
        layout: None,
        disk: Some(found.disk),
        data_uuid: found.data_uuid,
    }
}

#[cfg(test)]
mod tests {
    use replication::Role;
    use types::ByteSize;

    use super::*;

    #[test]
    fn a_replica_is_stuck_only_while_nothing_is_copied_from_a_current_one() {
        let link = |peer, connection, disk, replication| Link {
            peer: MemberId(peer),
            node: "b".to_owned(),
            connection,
            role: Role::Secondary,
            disk,
            replication,
            out_of_sync: ByteSize(0),
            replica: true,
        };
        let part = |disk, links: &[Link]| Part {
            disk,
            quorum: true,
            links: links.to_vec(),
            ..Part::absent(VolumeName::new("v").unwrap())
        };
        let (idle, copies) = (Replication::Established, Replication::SyncTarget);
        let current = link(2, Connection::Connected, DiskState::UpToDate, idle);
        let source = link(3, Connection::Connected, DiskState::UpToDate, copies);
        let away = link(
            4,
            Connection::Connecting,
            DiskState::Unknown,
            Replication::Off,
        );
        let behind = link(5, Connection::Connected, DiskState::Outdated, idle);
        let (lacks, fine) = (DiskState::Inconsistent, DiskState::UpToDate);
        let stuck = part(lacks, &[away.clone(), behind.clone(), current.clone()]);
        assert_eq!(stuck_at(&stuck), Some(MemberId(2)));
        for other in [
            part(fine, std::slice::from_ref(&current)),
            part(lacks, &[current.clone(), source]),
            part(lacks, &[away, behind]),
            Part {
                quorum: false,
                ..stuck
            },
        ] {
            assert_eq!(stuck_at(&other), None, "{other:?}");
        }
    }
}
