//! Records that are lost are made again: from the layouts that nodes keep, else from DRBD's metadata on the disks. A
//! record goes only after everything that it speaks of, so parts without one mean that it was lost, or deleted by hand to
//! have it made again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::replicas::Found;
use client::wire;
use replication::{DiskState, Layout, Member, Record};
use tokio::time::Instant;
use types::{ByteSize, NodeId, VolumeName, report};

use super::change::origin_of;
use super::look::Look;
use super::records::Stored;
use super::{Replicated, lock};

/// How long parts are without a record before it is made again: longer than the last steps of a deletion take.
const ORPHANED: Duration = Duration::from_secs(20);

impl Replicated {
    /// Makes the records again that are missing for a while.
    pub(super) async fn rebuild(&self, look: &Look, records: &[Stored]) {
        let known: BTreeSet<&VolumeName> = records.iter().map(|one| &one.spec.volume).collect();
        let mut parts: BTreeMap<VolumeName, Vec<(NodeId, Found)>> = BTreeMap::new();
        for (node, seen) in look.nodes.iter().filter(|(_, seen)| seen.answers) {
            for found in seen
                .parts
                .iter()
                .filter(|one| !known.contains(&one.part.volume))
            {
                let volume = found.part.volume.clone();
                let part = (node.clone(), found.clone());
                parts.entry(volume).or_default().push(part);
            }
        }
        let due = {
            let mut orphans = lock(&self.orphans);
            orphans.retain(|volume, _| parts.contains_key(volume));
            let now = Instant::now();
            let is_due = |volume: &VolumeName| {
                let since = *orphans.entry(volume.clone()).or_insert(now);
                now.duration_since(since) >= ORPHANED
            };
            let mut due = parts;
            let mut is_due = is_due;
            due.retain(|volume, _| is_due(volume));
            due
        };
        for (volume, parts) in due {
            match self.again(&volume, &parts, look).await {
                Ok(record) => match self.records.create(&record).await {
                    Ok(_) => {
                        tracing::warn!(%volume, "its record was lost and is made again from what its nodes have");
                    }
                    Err(error) => tracing::warn!(%volume, "has no record: {}", report(&error)),
                },
                Err(why) => tracing::debug!(%volume, "has parts and no record: {why}"),
            }
        }
    }

    /// The record of parts, if they are the majority of what they speak of.
    async fn again(
        &self,
        volume: &VolumeName,
        parts: &[(NodeId, Found)],
        look: &Look,
    ) -> Result<Record, String> {
        let layouts = parts.iter().filter_map(|(_, found)| found.layout.as_ref());
        let newest: Option<&Layout> = layouts.max_by_key(|layout| layout.generation);
        let description = describe(volume, parts, look).await;
        let wanted = description.as_ref().map_or(1, |one| one.number_of_replicas);
        let members = match newest {
            Some(layout) => layout.members.clone(),
            None => members(parts, look),
        };
        let replicas = members.iter().filter(|member| member.disk.is_some());
        let of = match newest {
            Some(_) => replicas.clone().count(),
            None => usize::try_from(wanted).unwrap_or(usize::MAX),
        };
        let here = replicas.filter(|member| parts.iter().any(|(node, _)| *node == member.node));
        let here = here.count();
        if here * 2 <= of {
            return Err(format!(
                "{here} of its {of} replicas answer, which is not the majority"
            ));
        }
        let description = description.ok_or("no disk that answers describes it")?;
        let address = match newest {
            Some(layout) => replication::Address {
                minor: layout.minor,
                port: layout.port,
            },
            None => (self.free_address().await).map_err(|error| report(&error).to_string())?,
        };
        let is_used = |found: &Found| !found.part.fresh || found.part.disk == DiskState::UpToDate;
        let holder = newest.and_then(|layout| layout.holder.clone());
        let size = newest.map_or(ByteSize(description.size), |layout| layout.size);
        Ok(Record {
            generation: newest.map_or(1, |layout| layout.generation + 1),
            number_of_replicas: wanted,
            stale_replica_timeout: description.stale_replica_timeout,
            address: Some(address),
            day_zero: newest.and_then(|layout| layout.day_zero),
            initialized: parts.iter().any(|(_, found)| is_used(found)),
            whole: (parts.iter())
                .filter(|(_, found)| found.part.disk == DiskState::UpToDate)
                .map(|(_, found)| found.part.me)
                .collect(),
            members,
            holder,
            readers: newest.map_or_else(Vec::new, |layout| layout.readers.clone()),
            tls: newest.is_some_and(|layout| layout.tls),
            ..Record::new(volume.clone(), size, origin_of(&description))
        })
    }
}

/// The members that metadata on disks speaks of.
fn members(parts: &[(NodeId, Found)], look: &Look) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for (node, found) in parts {
        let address = look.nodes.get(node);
        let address = address.and_then(|seen| seen.replication.address.parse().ok());
        let (Some(address), Some(disk)) = (address, found.disk.clone()) else {
            continue;
        };
        // Two replicas with one number are of two volumes that had one name.
        if members.iter().all(|member| member.id != found.part.me) {
            members.push(Member {
                id: found.part.me,
                node: node.clone(),
                address,
                disk: Some(disk),
                create: false,
                apart: false,
                as_first: false,
            });
        }
    }
    members
}

/// What a manager says of a replica's file.
async fn describe(
    volume: &VolumeName,
    parts: &[(NodeId, Found)],
    look: &Look,
) -> Option<wire::Volume> {
    for disk in parts.iter().filter_map(|(_, found)| found.disk.as_ref()) {
        if let Some(manager) = look.manager(disk)
            && let Ok(found) = manager.client.volume(volume).await
        {
            return Some(found);
        }
    }
    None
}
