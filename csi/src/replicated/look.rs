//! One look at the cluster, and what of it concerns one volume.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, Member as Manager, there};
use jiff::Timestamp;
use replication::{DiskView, FileView, NodeView, Record, View};
use types::{ByteSize, DiskUuid, NodeId, VolumeName, report};

use super::nodes::Seen;
use super::{Replicated, Result, lock};
use crate::managers::creatable;

/// The cluster at one moment.
#[derive(Debug)]
pub(crate) struct Look {
    /// The managers that answer.
    pub(crate) managers: Vec<Manager>,
    /// The nodes, whether they answer or not.
    pub(crate) nodes: BTreeMap<NodeId, Seen>,
    /// Their zones; empty: none.
    zones: BTreeMap<NodeId, String>,
    /// The disks that were seen at any time, with their nodes.
    disks: Vec<(String, String)>,
}

impl Look {
    /// The manager of a disk; `None`: it does not answer.
    pub(crate) fn manager(&self, disk: &DiskUuid) -> Option<&Manager> {
        let mut managers = self.managers.iter();
        managers.find(|manager| manager.disk.uuid == disk.as_str())
    }

    /// Why a node cannot have replicated volumes; `None`: it can.
    pub(crate) fn trouble(&self, node: &NodeId) -> Option<String> {
        match self.nodes.get(node) {
            None => Some("its node service has not answered yet".to_owned()),
            Some(seen) if !seen.answers => Some("its node service does not answer".to_owned()),
            Some(seen) if seen.replication.version.is_empty() => {
                Some(seen.replication.trouble.clone())
            }
            Some(_) => None,
        }
    }
}

impl Replicated {
    /// Looks at all managers and nodes.
    pub(crate) async fn look(&self) -> Result<Arc<Look>, crate::Error> {
        let (managers, nodes) = tokio::join!(self.managers.members(), self.nodes.look());
        let nodes = nodes?;
        let zones = self.zones(nodes.keys()).await;
        Ok(Arc::new(Look {
            managers: managers?,
            nodes,
            zones,
            disks: self.managers.seen().disks(),
        }))
    }

    /// The zones of nodes. Each is asked for once: a node does not move.
    async fn zones(&self, nodes: impl Iterator<Item = &NodeId>) -> BTreeMap<NodeId, String> {
        let known = lock(&self.zones).clone();
        let unknown = nodes.filter(|node| !known.contains_key(*node));
        for node in unknown {
            match self.api.zone_of(node.as_str()).await {
                Ok(zone) => {
                    lock(&self.zones).insert(node.clone(), zone.unwrap_or_default());
                }
                Err(error) => {
                    tracing::debug!(%node, "its zone is not known: {}", report(&error));
                    break;
                }
            }
        }
        lock(&self.zones).clone()
    }

    /// What of it concerns a volume. Managers are asked for the files of which no kernel tells.
    pub(crate) async fn view(&self, look: &Look, record: &Record) -> View {
        let volume = &record.volume;
        let nodes = look.nodes.iter().map(|(id, seen)| {
            let node = NodeView {
                answers: seen.answers,
                engine: match seen.replication.version.as_str() {
                    "" => Err(seen.replication.trouble.clone()),
                    version => Ok(version.to_owned()),
                },
                address: seen.replication.address.parse().ok(),
                zone: look.zones.get(id).filter(|zone| !zone.is_empty()).cloned(),
                part: seen.part(volume).map(|found| found.part.clone()),
            };
            (id.clone(), node)
        });
        let nodes: BTreeMap<_, _> = nodes.collect();
        let mut disks = BTreeMap::new();
        for (uuid, node) in &look.disks {
            if let (Ok(uuid), Ok(node)) = (DiskUuid::new(uuid), NodeId::new(node)) {
                let disk = DiskView {
                    node,
                    answers: false,
                    creatable: ByteSize(0),
                    file: None,
                    preferred: None,
                };
                disks.insert(uuid, disk);
            }
        }
        for Manager { client, disk } in &look.managers {
            let (Ok(uuid), Ok(node)) = (DiskUuid::new(&disk.uuid), NodeId::new(&disk.node_id))
            else {
                continue;
            };
            let concerned = record.members.iter().chain(&record.leftovers);
            // Of one that is being deleted, a late call may have made a file on any disk.
            let is_concerned =
                record.deleting || concerned.clone().any(|m| m.disk.as_ref() == Some(&uuid));
            let part = nodes.get(&node).and_then(|node| node.part.as_ref());
            let attached = part.filter(|part| {
                let here = record.member(&node);
                part.backing > ByteSize(0) && here.is_some_and(|m| m.disk.as_ref() == Some(&uuid))
            });
            let (answers, file) = match attached {
                Some(part) if part.backing >= record.size => {
                    let (size, replica) = (part.backing, true);
                    (true, Some(FileView { size, replica }))
                }
                _ if is_concerned => match file(client, volume).await {
                    Ok(file) => (true, file),
                    Err(error) => {
                        tracing::debug!(%volume, disk = %uuid, "{}", report(&error));
                        (false, None)
                    }
                },
                _ => (true, None),
            };
            let creatable = ByteSize(creatable(disk));
            let disk = DiskView {
                node,
                answers,
                creatable,
                file,
                preferred: None,
            };
            disks.insert(uuid, disk);
        }
        View {
            now: Timestamp::now().as_second(),
            nodes,
            disks,
            free: None,
            may_fill: false,
        }
    }
}

/// The file of a volume on a disk.
async fn file(client: &Client, volume: &VolumeName) -> client::Result<Option<FileView>> {
    let found = there(client.volume(volume).await)?;
    Ok(found.map(|found| FileView {
        size: ByteSize(found.size),
        replica: found.is_replica,
    }))
}
