//! What the controller has seen of disks and volumes. It saves requests, and describes the volumes
//! of a silent disk. It is lost with the process, and no decision rests on it alone, above all not
//! that a volume is gone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{Address, Member, wire};
use types::{NodeId, VolumeName};

/// Volumes that are remembered, about 1 KiB each.
const VOLUMES_MAX: usize = 20_000;

/// What was seen. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<String, Disk>>>);

/// A disk as it was the last time that it answered.
#[derive(Debug)]
struct Disk {
    node: String,
    address: Address,
    /// Whether all of its volumes were listed once, and every change since was noted.
    complete: bool,
    /// `None`: it was asked to make the volume, and has not said that it did.
    volumes: BTreeMap<String, Option<wire::Volume>>,
}

impl Seen {
    pub(crate) fn members(&self, members: &[Member]) {
        let mut disks = self.lock();
        for Member { client, disk } in members {
            let (node, address) = (disk.node_id.clone(), client.address().clone());
            let seen = disks.entry(disk.uuid.clone()).or_insert_with(|| Disk {
                node: String::new(),
                address: address.clone(),
                complete: false,
                volumes: BTreeMap::new(),
            });
            (seen.node, seen.address) = (node, address);
        }
    }

    /// Every disk that has answered once, with its node.
    pub(crate) fn disks(&self) -> Vec<(String, String)> {
        let disks = self.lock();
        let pairs = disks.iter();
        pairs
            .map(|(uuid, disk)| (uuid.clone(), disk.node.clone()))
            .collect()
    }

    /// Whether any disk is in a node.
    pub(crate) fn has_node(&self, node: &NodeId) -> bool {
        let disks = self.lock();
        disks.values().any(|disk| disk.node == node.as_str())
    }

    /// The disk that a volume was on, or was to be made on, and where its manager was.
    pub(crate) fn place_of(&self, volume: &VolumeName) -> Option<(String, Address)> {
        let disks = self.lock();
        let has = |disk: &&Disk| disk.volumes.contains_key(volume.as_str());
        let mut pairs = disks.iter();
        let (uuid, disk) = pairs.find(|(_, disk)| has(disk))?;
        Some((uuid.clone(), disk.address.clone()))
    }

    /// Notes that a disk is asked to make a volume.
    pub(crate) fn attempt(&self, uuid: &str, volume: &VolumeName) {
        self.put(uuid, volume.as_str(), None);
    }

    /// Notes a volume as it is now.
    pub(crate) fn volume(&self, volume: &wire::Volume) {
        if let Some(replica) = volume.replicas.first() {
            self.put(&replica.disk_uuid, &volume.name, Some(volume.clone()));
        }
    }

    fn put(&self, uuid: &str, name: &str, volume: Option<wire::Volume>) {
        let mut disks = self.lock();
        let count: usize = disks.values().map(|disk| disk.volumes.len()).sum();
        let Some(disk) = disks.get_mut(uuid) else {
            return;
        };
        if let Some(known) = disk.volumes.get_mut(name) {
            // An attempt says less than what is known.
            *known = volume.or(known.take());
        } else if count < VOLUMES_MAX {
            disk.volumes.insert(name.to_owned(), volume);
        } else {
            disk.complete = false;
        }
    }

    /// Notes that no disk has a volume.
    pub(crate) fn gone(&self, volume: &VolumeName) {
        for disk in self.lock().values_mut() {
            disk.volumes.remove(volume.as_str());
        }
    }

    /// Notes what a disk says that it has after a name; `more`: and more than that.
    pub(crate) fn listed(&self, uuid: &str, after: &str, volumes: &[wire::Volume], more: bool) {
        let mut disks = self.lock();
        let count: usize = disks.values().map(|disk| disk.volumes.len()).sum();
        let Some(disk) = disks.get_mut(uuid) else {
            return;
        };
        let last = volumes.last().map(|volume| volume.name.clone());
        let listed = |name: &str| {
            name > after && (!more || last.as_ref().is_some_and(|last| name <= last.as_str()))
        };
        let before = disk.volumes.len();
        disk.volumes
            .retain(|name, known| known.is_none() || !listed(name));
        let others = count - before + disk.volumes.len();
        if others + volumes.len() > VOLUMES_MAX {
            disk.complete = false;
            return;
        }
        for volume in volumes {
            disk.volumes
                .insert(volume.name.clone(), Some(volume.clone()));
        }
        if after.is_empty() && !more {
            disk.complete = true;
        }
    }

    /// Whether all volumes of a disk are known.
    pub(crate) fn is_complete(&self, uuid: &str) -> bool {
        self.lock().get(uuid).is_some_and(|disk| disk.complete)
    }

    /// The volumes of a disk after a name, as they were the last time; `None`: they are not known.
    pub(crate) fn remembered(&self, uuid: &str, after: &str) -> Option<Vec<wire::Volume>> {
        let disks = self.lock();
        let disk = disks.get(uuid).filter(|disk| disk.complete)?;
        let after = (Bound::Excluded(after), Bound::Unbounded);
        let volumes = disk.volumes.range::<str, _>(after);
        Some(volumes.filter_map(|(_, volume)| volume.clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Disk>> {
        // What is in it stands for itself, also after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use client::Client;

    use super::*;

    fn member(uuid: &str, node: &str) -> Member {
        Member {
            client: Client::new(
                "unix:/nonexistent/manager.sock".parse().unwrap(),
                &trust::Dialer::Plain,
            )
            .unwrap(),
            disk: wire::Disk {
                uuid: uuid.to_owned(),
                node_id: node.to_owned(),
                ..Default::default()
            },
        }
    }

    fn volume(name: &str, uuid: &str) -> wire::Volume {
        let replica = wire::Replica {
            disk_uuid: uuid.to_owned(),
            ..Default::default()
        };
        wire::Volume {
            name: name.to_owned(),
            replicas: vec![replica],
            ..Default::default()
        }
    }

    fn names(seen: &Seen, after: &str) -> Option<Vec<String>> {
        let volumes = seen.remembered("a", after)?.into_iter();
        Some(volumes.map(|volume| volume.name).collect())
    }

    #[tokio::test]
    async fn row_156_what_a_disk_had_is_known_once_it_was_listed_whole() {
        let seen = Seen::default();
        seen.members(&[member("a", "n1")]);
        let all = ["u", "v", "w"].map(|name| volume(name, "a"));
        seen.listed("a", "", &all[..2], true);
        assert_eq!(names(&seen, ""), None, "a page is not all");
        seen.listed("a", "", &all, false);
        assert_eq!(names(&seen, "u").unwrap(), ["v", "w"]);
        // Gone meanwhile, and another made: each page tells of its own part.
        seen.listed("a", "u", &all[2..], true);
        assert_eq!(names(&seen, "").unwrap(), ["u", "w"]);
        let name = VolumeName::new("x").unwrap();
        seen.attempt("a", &name);
        assert_eq!(names(&seen, "").unwrap(), ["u", "w"], "it may not be there");
        seen.listed("a", "", &all, false);
        assert_eq!(
            seen.place_of(&name).unwrap().0,
            "a",
            "an attempt is one until it is answered"
        );
        seen.volume(&volume("x", "a"));
        seen.attempt("a", &name);
        assert_eq!(names(&seen, "w").unwrap(), ["x"]);
        seen.gone(&name);
        assert_eq!(seen.place_of(&name), None);
        seen.volume(&volume("y", "unknown"));
        assert_eq!(seen.disks(), [("a".to_owned(), "n1".to_owned())]);
    }
}
