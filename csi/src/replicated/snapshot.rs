//! Where a snapshot of a replicated volume is taken: on a disk whose replica is current. A clone of one file is of one
//! moment by itself, and every write that was acknowledged before it is in it. Those of a group are of one moment
//! because nothing is written meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{Client, Node};
use replication::{DiskState, Role};
use types::{DiskUuid, VolumeName, report};

use super::look::Look;
use super::records::Stored;
use super::{Error, Replicated, Result};

/// After this many seconds writes go on by themselves. The clones take milliseconds, and come first; what the manager
/// reads of them afterwards takes as long as it takes.
const SUSPENDED_MOST: u32 = 2;

/// Volumes, and a disk that has current replicas of all of them.
#[derive(Debug)]
pub(crate) struct Moment {
    /// The manager of the disk.
    pub(crate) client: Client,
    /// Who writes to which of them.
    writers: Vec<(Node, VolumeName)>,
}

impl Replicated {
    /// Where snapshots of these volumes are taken at one moment. `None`: none of them is on DRBD.
    ///
    /// # Errors
    /// Some are and others are not, or no disk has current replicas of all.
    pub(crate) async fn moment(
        &self,
        volumes: &[VolumeName],
    ) -> Result<Option<Moment>, crate::Error> {
        let mut records = Vec::new();
        for volume in volumes {
            let stored = self.records.get(volume).await?;
            if let Some(stored) = stored.filter(|stored| stored.spec.address.is_some()) {
                records.push(stored);
            }
        }
        if records.is_empty() {
            return Ok(None);
        }
        let together = |why: &str| Error::Together {
            why: why.to_owned(),
        };
        if records.len() < volumes.len() {
            let why = "some of the volumes are replicated and some are not";
            return Err(together(why).into());
        }
        let look = self.look().await?;
        let mut common: Option<BTreeSet<DiskUuid>> = None;
        for stored in &records {
            let current = current(stored, &look);
            common = Some(match common {
                None => current,
                Some(common) => common.intersection(&current).cloned().collect(),
            });
        }
        let manager = common.unwrap_or_default();
        let manager = manager.iter().find_map(|disk| look.manager(disk));
        let manager = manager
            .ok_or_else(|| together("no disk that answers has a current replica of each"))?;
        let writers = records.iter().flat_map(|stored| writers(stored, &look));
        Ok(Some(Moment {
            client: manager.client.clone(),
            writers: writers.collect(),
        }))
    }
}

/// The disks with a current replica.
fn current(stored: &Stored, look: &Look) -> BTreeSet<DiskUuid> {
    let volume = &stored.spec.volume;
    let is_current = |member: &&replication::Member| {
        let seen = look.nodes.get(&member.node).filter(|seen| seen.answers);
        let part = seen.and_then(|seen| seen.part(volume));
        part.is_some_and(|found| found.part.disk == DiskState::UpToDate && found.part.quorum)
    };
    let members = stored.spec.replicas().filter(is_current);
    members.filter_map(|member| member.disk.clone()).collect()
}

/// The nodes that write to a volume.
fn writers(stored: &Stored, look: &Look) -> Vec<(Node, VolumeName)> {
    let volume = &stored.spec.volume;
    let nodes = look.nodes.values();
    let primary = nodes.filter(|seen| {
        let part = seen.part(volume);
        seen.answers && part.is_some_and(|found| found.part.role == Role::Primary)
    });
    primary
        .map(|seen| (seen.node.clone(), volume.clone()))
        .collect()
}

impl Moment {
    /// Does `work` while nothing is written to any of the volumes. Writes go on afterwards, whatever came of it.
    pub(crate) async fn still<T>(
        &self,
        work: impl Future<Output = Result<T, crate::Error>>,
    ) -> Result<T, crate::Error> {
        // Also when the caller goes away: writes go on when this is dropped.
        let resume = Resume(Arc::new(self.writers.clone()));
        for (node, volume) in &self.writers {
            node.suspend_volume(volume, SUSPENDED_MOST)
                .await
                .map_err(Error::Client)?;
            types::crash_point!("csi.create_snapshot.suspended");
        }
        let done = work.await;
        drop(resume);
        done
    }
}

/// Lets writes go on when it is dropped.
struct Resume(Arc<Vec<(Node, VolumeName)>>);

impl Drop for Resume {
    fn drop(&mut self) {
        let writers = Arc::clone(&self.0);
        drop(tokio::spawn(async move {
            for (node, volume) in writers.iter() {
                if let Err(error) = node.resume_volume(volume).await {
                    tracing::warn!(%volume, "its writes go on in {SUSPENDED_MOST} s: {}", report(&error));
                }
            }
        }));
    }
}
