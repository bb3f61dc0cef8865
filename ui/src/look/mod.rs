//! Looking at the cluster: one look for all who want one, kept for a second.
//!
//! It asks all managers and all node services at once. Those that do not answer are named in what is seen; nobody
//! waits for one that was silent the last time.

mod backups;
mod inspect;
mod nodes;

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
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

/// The lists of a manager, each with its version; 0: there is none.
#[derive(Debug, Clone, Default)]
struct Lists {
    images: (u64, Arc<Vec<wire::BackingImage>>),
    volumes: (u64, Arc<Vec<wire::Volume>>),
}

/// The cluster as it is looked at. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Look {
    cluster: Cluster,
    nodes: Nodes,
    kept: Arc<Mutex<Option<Now>>>,
    /// What each manager had the last time, by its address.
    lists: Arc<std::sync::Mutex<BTreeMap<String, Lists>>>,
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
            lists: Arc::default(),
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

    fn lists(&self) -> MutexGuard<'_, BTreeMap<String, Lists>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self) -> Now {
        let ask = |client: Client| {
            let known = self.lists().get(&client.address().to_string()).cloned();
            async move { lists(&client, known.unwrap_or_default()).await }
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
                let mut kept = BTreeMap::new();
                for (member, lists) in looked.census.members.into_iter().zip(looked.others) {
                    kept.insert(member.client.address().to_string(), lists.clone());
                    managers.insert(member.disk.uuid.clone(), member.client);
                    seen.disks.push(SeenDisk {
                        disk: member.disk,
                        images: lists.images.1,
                        volumes: lists.volumes.1,
                    });
                }
                *self.lists() = kept;
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

/// What a manager has, where `known` is what it had the last time: lists that are as they were are not sent again.
async fn lists(client: &Client, known: Lists) -> client::Result<Lists> {
    let (images, volumes) = tokio::join!(
        client.list_images_since(known.images.0),
        client.list_volumes_since(known.volumes.0)
    );
    let (images, volumes) = (images?, volumes?);
    Ok(Lists {
        images: if images.unchanged {
            known.images
        } else {
            (images.version, Arc::new(images.backing_images))
        },
        volumes: if volumes.unchanged {
            known.volumes
        } else {
            (volumes.version, Arc::new(volumes.volumes))
        },
    })
}
