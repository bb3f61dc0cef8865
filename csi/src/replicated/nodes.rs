//! The node services of the cluster: who they are, and what their kernels have.
//!
//! They are found by a name that stands for all of them, or by addresses. One that was silent the last time is
//! asked again, and nobody waits for it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::replicas::Found;
use client::{Address, Node};
use proto::node::v1 as wire;
use tokio::task::JoinSet;
use tokio::time::Instant;
use trust::Dialer;
use types::{NodeId, VolumeName, report};

use crate::error::Result;

/// Nodes behind one name; more are taken for a name that is not meant.
const NODES_MAX: usize = 5_000;
/// How long one that has answered until now is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a question may take that nobody waits for: more than the 15 seconds that a list may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long an address is asked that its name no longer stands for.
const REMEMBERED: Duration = Duration::from_hours(1);

/// A node as it was when it answered the last time.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Its client.
    pub(crate) node: Node,
    /// What it can do.
    pub(crate) replication: wire::NodeReplication,
    /// Its parts of volumes.
    pub(crate) parts: Vec<Found>,
    /// Whether it answers now.
    pub(crate) answers: bool,
}

impl Seen {
    /// Its part of a volume.
    pub(crate) fn part(&self, volume: &VolumeName) -> Option<&Found> {
        self.parts.iter().find(|found| found.part.volume == *volume)
    }
}

/// What is known of an address.
#[derive(Debug)]
struct Known {
    node: Node,
    /// Whether a question is under way.
    asked: bool,
    /// Whether it did not answer the last time.
    quiet: bool,
    /// What it said, and when.
    last: Option<(Instant, NodeId, Seen)>,
}

/// The node services. Cheap to clone; clones share what is known.
#[derive(Debug, Clone)]
pub(crate) struct Nodes {
    places: Arc<[Address]>,
    dialer: Dialer,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

impl Nodes {
    pub(crate) fn new(places: Vec<Address>, dialer: Dialer) -> Self {
        Self {
            places: places.into(),
            dialer,
            known: Arc::default(),
        }
    }

    /// Asks all nodes; gives what those say that answer, and what the others said the last time.
    ///
    /// # Errors
    /// An address is not valid. A name that stands for nothing stands for what it did before.
    pub(crate) async fn look(&self) -> Result<BTreeMap<NodeId, Seen>> {
        self.resolve().await?;
        let begun = Instant::now();
        let mut awaited = JoinSet::new();
        for (address, known) in self.lock().iter_mut() {
            if known.asked {
                continue;
            }
            known.asked = true;
            let (this, address, node) = (self.clone(), address.clone(), known.node.clone());
            let asking = async move { this.ask(&address, node).await };
            if known.quiet {
                drop(tokio::spawn(asking));
            } else {
                awaited.spawn(asking);
            }
        }
        let all = async { while awaited.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(PATIENCE, all).await.is_ok();
        // Who is late is asked on, and not waited for the next time.
        awaited.detach_all();
        let mut known = self.lock();
        let mut seen = BTreeMap::new();
        for known in known.values_mut() {
            let now = known.last.as_ref().is_some_and(|(at, _, _)| *at >= begun);
            if !now && !in_time {
                known.quiet = true;
            }
            if let Some((_, id, last)) = &known.last {
                let mut last = last.clone();
                last.answers = now;
                // A node that has got another address is known by both for a while.
                let answers = |one: &Seen| one.answers;
                if now || !seen.get(id).is_some_and(answers) {
                    seen.insert(id.clone(), last);
                }
            }
        }
        Ok(seen)
    }

    async fn ask(&self, address: &str, node: Node) {
        let asked = node.clone().with_deadline(DEADLINE);
        let answer = async { Ok((asked.info().await?, asked.replicas().await)) };
        let answer: client::Result<_> = answer.await;
        let mut all = self.lock();
        let Some(known) = all.get_mut(address) else {
            return;
        };
        known.asked = false;
        known.quiet = answer.is_err();
        match answer {
            Ok((info, parts)) => {
                let Ok(id) = NodeId::new(&info.node_id) else {
                    return;
                };
                let mut replication = info.replication.unwrap_or_default();
                let parts = parts.unwrap_or_else(|error| {
                    // A node that cannot say what it has can have no part in anything.
                    replication.version.clear();
                    replication.trouble = report(&error).to_string();
                    Vec::new()
                });
                let seen = Seen {
                    node,
                    replication,
                    parts,
                    answers: true,
                };
                known.last = Some((Instant::now(), id, seen));
            }
            Err(error) => {
                tracing::debug!("a node service does not answer: {}", report(&error));
            }
        }
    }

    /// Brings the addresses up to date.
    async fn resolve(&self) -> Result<()> {
        let mut addresses = Vec::new();
        for place in self.places.iter() {
            match place {
                Address::Tcp(name) => match tokio::net::lookup_host(name).await {
                    Ok(found) => addresses.extend(
                        found
                            .take(NODES_MAX)
                            .map(|found| Address::Tcp(found.to_string())),
                    ),
                    Err(error) => {
                        tracing::debug!("{name} resolves to no node service: {error}");
                        // What was known stays.
                        let known = self.lock();
                        let before = known.values().map(|known| known.node.address().clone());
                        addresses.extend(before);
                    }
                },
                Address::Unix(_) => addresses.push(place.clone()),
            }
        }
        let mut known = self.lock();
        let listed: BTreeSet<String> = addresses.iter().map(ToString::to_string).collect();
        known.retain(|address, known| {
            let last = known.last.as_ref().map(|(at, _, _)| at.elapsed());
            known.asked || listed.contains(address) || last.is_some_and(|ago| ago < REMEMBERED)
        });
        for address in addresses {
            if let Entry::Vacant(free) = known.entry(address.to_string()) {
                free.insert(Known {
                    node: Node::new(address, &self.dialer)?,
                    asked: false,
                    quiet: false,
                    last: None,
                });
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
