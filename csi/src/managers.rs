//! The managers of a cluster: each disk has its own. `locate` finds the one that a call is for,
//! `placement` chooses a disk for a new volume, `listing` puts together what all of them have.

mod listing;
mod locate;
mod placement;

use std::collections::HashMap;
use std::time::Duration;

use client::{Client, Cluster, Look, Member, Wait, wire};
use jiff::Timestamp;
use types::{NodeId, VolumeName, report};

pub(crate) use self::locate::Located;
pub(crate) use self::placement::creatable;
use crate::error::{Error, Result};
use crate::seen::Seen;
use crate::snapshots::Snapshots;
use crate::volumes::Volumes;

/// How often the managers are told of each other.
const LOOK_AROUND: Duration = Duration::from_mins(1);
/// Of these, every how manieth lists all volumes: another controller may have made some.
const LIST_EVERY: u32 = 10;

/// All managers of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Managers {
    cluster: Cluster,
    topology_key: String,
    /// How long one call waits for an image.
    image_wait: Duration,
    seen: Seen,
}

impl Managers {
    pub(crate) fn new(cluster: Cluster, topology_key: String, image_wait: Duration) -> Self {
        Self {
            cluster,
            topology_key,
            image_wait,
            seen: Seen::default(),
        }
    }

    /// The key of the topology segment that names a node.
    pub(crate) fn topology_key(&self) -> &str {
        &self.topology_key
    }

    /// The key of the topology segment that says whether a node has DRBD: of the same domain.
    pub(crate) fn replication_key(&self) -> String {
        crate::location::replication_key(&self.topology_key)
    }

    /// What is remembered of volumes, to be told of changes.
    pub(crate) const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// How long one call waits for what a manager makes.
    pub(crate) const fn wait(&self) -> Duration {
        self.image_wait
    }

    fn volumes(&self, client: Client) -> Volumes {
        Volumes::new(client, self.image_wait)
    }

    fn snapshots(&self, client: Client) -> Snapshots {
        Snapshots::new(client, self.image_wait)
    }

    /// What those say that answer now: an answer that is `enough` ends the look, and a silent manager is not
    /// waited for.
    ///
    /// # Errors
    /// What one says, when none answers.
    async fn gather<T, F>(
        &self,
        ask: impl Fn(Client) -> F,
        enough: impl Fn(&T) -> bool + Clone + Send + 'static,
    ) -> Result<Look<T>>
    where
        T: Send + 'static,
        F: Future<Output = client::Result<T>> + Send + 'static,
    {
        let look = self.cluster.look(Wait::Grace, ask, enough).await?.heard()?;
        self.seen.members(&look.census.members);
        Ok(look)
    }

    /// The managers that answer now, with their disks.
    pub(crate) async fn members(&self) -> Result<Vec<Member>> {
        let ask = |_: Client| async { Ok(()) };
        Ok(self.gather(ask, |()| false).await?.census.members)
    }

    /// Refuses a node that cannot reach a volume: one that no disk is in, or only other disks.
    pub(crate) fn check_node(&self, node: &NodeId, volume: &wire::Volume) -> Result<()> {
        let mut replicas = volume.replicas.iter();
        if replicas.any(|replica| replica.node_id == node.as_str()) {
            return Ok(());
        }
        if !self.seen.has_node(node) {
            return Err(Error::NoSuchNode {
                node_id: node.to_string(),
            });
        }
        Err(Error::NoReplica {
            volume: VolumeName::new(&volume.name).map_err(Error::Name)?,
            node: node.clone(),
        })
    }

    /// Whether a node lies in a topology.
    fn covers(&self, segments: &HashMap<String, String>, node: &str) -> bool {
        // A segment of replication alone names no node: what is made for it is checked where it is made.
        segments.get(&self.topology_key).map_or_else(
            || segments.is_empty() || segments.contains_key(&self.replication_key()),
            |segment| segment == node,
        )
    }

    /// Whether one of them answers: the others' volumes have to wait.
    ///
    /// # Errors
    /// What one says, when none does.
    pub(crate) async fn probe(&self, deadline: Duration) -> Result<()> {
        let ask = |client: Client| async move { client.disk().await };
        let cluster = self.cluster.clone().with_patience(deadline);
        cluster
            .look(Wait::All(None), ask, |_| true)
            .await?
            .heard()?;
        Ok(())
    }

    /// Tells the managers of each other and keeps what is remembered of volumes fresh, for as long as the
    /// process runs.
    pub(crate) async fn keep(self) {
        for round in 0_u32.. {
            if let Err(error) = self.look_around(round % LIST_EVERY == 0).await {
                tracing::debug!("cannot survey the managers: {}", report(&error));
            }
            tokio::time::sleep(LOOK_AROUND).await;
        }
    }

    async fn look_around(&self, list: bool) -> Result<()> {
        let ask = |_: Client| async { Ok(()) };
        let census = self.gather(ask, |()| false).await?.census;
        census.spread(Timestamp::now().as_second()).await;
        for Member { client, disk } in &census.members {
            if list || !self.seen.is_complete(&disk.uuid) {
                let (volumes, more) = client.list_volumes(0, "").await?;
                self.seen.listed(&disk.uuid, "", &volumes, more);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
