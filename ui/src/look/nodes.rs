//! The node services: found by a name that stands for all of them, or by addresses.
//!
//! One that was silent the last time is asked again, one question at a time, and nobody waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Address, Node};
use tokio::task::JoinSet;
use trust::Dialer;
use types::report;

use crate::seen::SeenNode;

/// Nodes behind one name; more are taken for a name that is not meant.
const NODES_MAX: usize = 5_000;
/// How long one that has answered until now is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a question may take: more than the 15 seconds that a node has for a list.
const DEADLINE: Duration = Duration::from_secs(20);

/// What is known of an address.
#[derive(Debug)]
struct Known {
    node: Node,
    /// A question is under way.
    asked: bool,
    /// It did not answer the last time.
    quiet: bool,
    /// What it said to the last question, or why it said nothing.
    last: Option<Result<SeenNode, String>>,
}

/// The node services. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Nodes {
    places: Arc<[Address]>,
    dialer: Dialer,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// What nodes say, how to ask them, and what is said of those that are silent.
type Looked = (Vec<SeenNode>, BTreeMap<String, Node>, Vec<String>);

impl Nodes {
    pub(super) fn new(places: Vec<Address>, dialer: Dialer) -> Self {
        Self {
            places: places.into(),
            dialer,
            known: Arc::default(),
        }
    }

    /// Asks all.
    pub(super) async fn look(&self) -> Looked {
        let mut silent = self.resolve().await;
        let mut awaited = JoinSet::new();
        for (address, known) in self.lock().iter_mut() {
            if known.asked {
                continue;
            }
            known.asked = true;
            let asking = self.clone().ask(address.clone(), known.node.clone());
            if known.quiet {
                drop(tokio::spawn(asking));
            } else {
                awaited.spawn(asking);
            }
        }
        let all = async { while awaited.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(PATIENCE, all).await.is_ok();
        awaited.detach_all();
        let (mut seen, mut services) = (Vec::new(), BTreeMap::new());
        for (address, known) in self.lock().iter_mut() {
            if known.asked && !in_time {
                known.quiet = true;
            }
            match &known.last {
                Some(Ok(node)) if !known.quiet => {
                    services.insert(node.info.node_id.clone(), known.node.clone());
                    seen.push(node.clone());
                }
                Some(Err(why)) => silent.push(why.clone()),
                _ => silent.push(format!("the node service at {address} does not answer yet")),
            }
        }
        seen.sort_by(|one: &SeenNode, other| one.info.node_id.cmp(&other.info.node_id));
        seen.dedup_by(|one, other| one.info.node_id == other.info.node_id);
        (seen, services, silent)
    }

    async fn ask(self, address: String, node: Node) {
        let asked = node.with_deadline(DEADLINE);
        let answer = async {
            let info = asked.info().await?;
            let exposed = asked.exposed().await?;
            Ok::<_, client::Error>(SeenNode { info, exposed })
        };
        let answer = answer.await;
        if let Some(known) = self.lock().get_mut(&address) {
            known.asked = false;
            known.quiet = answer.is_err();
            known.last = Some(answer.map_err(|error| report(&error).to_string()));
        }
    }

    /// Brings the addresses up to date; gives what is wrong with a name.
    async fn resolve(&self) -> Vec<String> {
        let (mut addresses, mut wrong, mut keep) = (Vec::new(), Vec::new(), false);
        for place in self.places.iter() {
            match place {
                Address::Unix(_) => addresses.push(place.clone()),
                Address::Tcp(name) => match tokio::net::lookup_host(name).await {
                    Ok(found) => addresses.extend(
                        found
                            .take(NODES_MAX)
                            .map(|one| Address::Tcp(one.to_string())),
                    ),
                    Err(error) => {
                        keep = true;
                        wrong.push(format!("{name} resolves to no node service: {error}"));
                    }
                },
            }
        }
        let mut known = self.lock();
        let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        known.retain(|address, known| keep || known.asked || listed.contains(address));
        for address in addresses {
            let text = address.to_string();
            if known.contains_key(&text) {
                continue;
            }
            match Node::new(address, &self.dialer) {
                Ok(node) => {
                    let (asked, quiet, last) = (false, false, None);
                    let fresh = Known {
                        node,
                        asked,
                        quiet,
                        last,
                    };
                    known.insert(text, fresh);
                }
                Err(error) => wrong.push(report(&error).to_string()),
            }
        }
        wrong
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
