//! Looking at the cluster: one look for all who want one, kept for a second.
//!
//! It asks all managers and all node services at once. Those that do not answer are named in what is seen; nobody
//! waits for one that was silent the last time.

mod backups;
mod inspect;
mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Address, Client, Cluster, Node, Wait, wire};
use tokio::sync::Mutex;
use tokio::time::Instant;
use trust::Dialer;
use types::report;

use self::backups::Store;
pub use self::inspect::{Inspector, Look as LookedAt};
use self::nodes::Nodes;
use crate::error::Result;
use crate::pages::Backups;
use crate::seen::{Seen, SeenDisk};

/// How long one look is the answer for all.
const KEPT: Duration = Duration::from_secs(1);
/// Volumes in one answer of a manager.
const LISTED: u32 = 2_000;

/// The cluster as it is looked at. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Look {
    cluster: Cluster,
    nodes: Nodes,
    kept: Arc<Mutex<Option<Now>>>,
    store: Arc<Store>,
}

/// What was seen, and whom to ask for more.
#[derive(Debug, Clone)]
pub struct Now {
    /// What was seen.
    pub seen: Arc<Seen>,
    /// The managers, by the UUID of their disk.
    pub managers: Arc<BTreeMap<String, Client>>,
    /// The node services, by the name of their node.
    pub nodes: Arc<BTreeMap<String, Node>>,
    at: Instant,
}

impl Look {
    /// Looks at these managers and node services, reached by `dialer`.
    ///
    /// # Errors
    /// An address cannot be one.
    pub fn new(managers: Vec<Address>, nodes: Vec<Address>, dialer: &Dialer) -> Result<Self> {
        Ok(Self {
            cluster: Cluster::new(managers, dialer)?,
            nodes: Nodes::new(nodes, dialer.clone()),
            kept: Arc::default(),
            store: Arc::default(),
        })
    }

    /// What is there now, or was a second ago. Others who ask meanwhile wait for the same look.
    pub async fn now(&self) -> Now {
        let mut kept = self.kept.lock().await;
        if let Some(now) = kept.as_ref().filter(|now| now.at.elapsed() < KEPT) {
            return now.clone();
        }
        let now = self.look().await;
        *kept = Some(now.clone());
        now
    }

    /// The next who asks gets a new look: something was changed.
    pub async fn changed(&self) {
        *self.kept.lock().await = None;
    }

    /// Whether there is a place for backups, as far as it is known.
    pub fn has_backups(&self) -> bool {
        self.store.is_there()
    }

    /// Finds out whether there is, unless that was done a minute ago. Nobody waits for it.
    pub fn seek_backups(&self, now: &Now) {
        let managers = now.managers.values().cloned().collect();
        self.store.clone().seek(managers);
    }

    /// What the store of backups has.
    ///
    /// # Errors
    /// No manager lists it: what the last one says.
    pub async fn backups(&self, now: &Now) -> client::Result<Arc<Backups>> {
        let managers = now.managers.values().cloned().collect();
        self.store.list(managers).await
    }

    async fn look(&self) -> Now {
        let ask = |client: Client| async move {
            let (images, volumes) = tokio::join!(client.list_images(), all_volumes(&client));
            Ok((images?, volumes?))
        };
        let managers = self.cluster.look(Wait::Grace, ask, |_| false);
        let (looked, (nodes, services, silent_nodes)) = tokio::join!(managers, self.nodes.look());
        let mut seen = Seen {
            nodes,
            silent_nodes,
            ..Seen::default()
        };
        let mut managers = BTreeMap::new();
        match looked {
            Ok(looked) => {
                seen.asked = looked.census.asked();
                let failed = looked.census.failed.iter();
                seen.failed = failed.map(|error| report(error).to_string()).collect();
                for (member, (images, volumes)) in
                    looked.census.members.into_iter().zip(looked.others)
                {
                    managers.insert(member.disk.uuid.clone(), member.client);
                    seen.disks.push(SeenDisk {
                        disk: member.disk,
                        images: Arc::new(images),
                        volumes: Arc::new(volumes),
                    });
                }
            }
            Err(error) => {
                seen.asked = 1;
                seen.failed = vec![report(&error).to_string()];
            }
        }
        Now {
            seen: Arc::new(seen),
            managers: Arc::new(managers),
            nodes: Arc::new(services),
            at: Instant::now(),
        }
    }
}

impl Now {
    /// The manager of a disk.
    pub fn manager(&self, disk: &str) -> Option<&Client> {
        self.managers.get(disk)
    }
}

/// All volumes of a manager, page after page.
async fn all_volumes(client: &Client) -> client::Result<Vec<wire::Volume>> {
    let (mut all, mut more) = client.list_volumes(LISTED, "").await?;
    while let Some(last) = all.last().filter(|_| more) {
        let after = last.name.clone();
        let (next, again) = client.list_volumes(LISTED, &after).await?;
        // A manager that says the same again would never end.
        more = again && next.last().is_some_and(|volume| volume.name > after);
        all.extend(next);
    }
    Ok(all)
}
