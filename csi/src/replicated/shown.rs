//! Replicated volumes as the rest of the plugin sees volumes: one for all files of its replicas, as its record has it.

use std::collections::BTreeMap;

use client::wire;
use replication::{Member, Status};
use types::{NodeId, VolumeName};

use super::Replicated;
use super::execute::RECORD_UID;
use super::records::{Stored, seen};

impl Replicated {
    /// A volume with a record, as it is now. `None`: it has no record.
    pub(crate) async fn get(
        &self,
        volume: &VolumeName,
    ) -> Result<Option<wire::Volume>, crate::Error> {
        let Some(stored) = self.records.get(volume).await? else {
            return Ok(None);
        };
        let look = self.look().await?;
        let (driven, _) = self.see(stored, look).await;
        let record = &driven.stored.spec;
        let found = self.describe(record, &driven.look).await?;
        let found = found.unwrap_or_else(|| wire::Volume {
            name: volume.to_string(),
            ..Default::default()
        });
        let status = replication::judge(record, &driven.view);
        Ok(Some(shown(found, &driven.stored, Some(&status))))
    }

    /// Puts what the records say over what managers say of the files: one volume for all files of a replica.
    pub(crate) fn merge(&self, volumes: Vec<wire::Volume>) -> Vec<wire::Volume> {
        let known = super::lock(&self.known);
        let known: BTreeMap<&str, &Stored> =
            known.iter().map(|stored| (&*stored.name, stored)).collect();
        let mut merged: Vec<wire::Volume> = Vec::with_capacity(volumes.len());
        for volume in volumes {
            if merged.last().is_some_and(|last| last.name == volume.name) {
                continue;
            }
            merged.push(match known.get(volume.name.as_str()) {
                Some(stored) => shown(volume, stored, seen(stored)),
                None => volume,
            });
        }
        merged
    }
}

/// A volume as its record and its status have it, on what a disk says of its file.
pub(super) fn shown(found: wire::Volume, stored: &Stored, status: Option<&Status>) -> wire::Volume {
    let record = &stored.spec;
    let replica = |member: &Member| wire::Replica {
        node_id: member.node.to_string(),
        disk_uuid: member
            .disk
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        path: format!("volumes/{}/volume", record.volume),
    };
    let publication = |node: &NodeId, readonly| wire::Publication {
        node_id: node.to_string(),
        readonly,
        multi_node: readonly,
        r#use: wire::Use::Pods.into(),
    };
    let holder = record.holder.iter().map(|node| publication(node, false));
    let readers = record.readers.iter().map(|node| publication(node, true));
    let mut parameters = found.parameters;
    parameters.remove(RECORD_UID);
    wire::Volume {
        size: record.size.bytes(),
        number_of_replicas: record.number_of_replicas,
        stale_replica_timeout: record.stale_replica_timeout,
        replicas: record.replicas().map(replica).collect(),
        published: holder.chain(readers).collect(),
        degraded: (status.and_then(Status::trouble))
            .unwrap_or_default()
            .to_owned(),
        is_replica: record.address.is_some(),
        parameters,
        ..found
    }
}
