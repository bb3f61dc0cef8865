//! The managers of a cluster: addresses, or names out of which the network makes all of them.
//!
//! Every disk has its own manager, and no manager knows the volumes of others. A search asks all of
//! them, and the first that has the volume ends the search; [`Census`] decides when no disk has it.
//! A silent manager does not delay calls about other disks: it is asked, and nobody waits for it.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::storage::v1 as wire;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::error::Transport;
use crate::{Address, Census, Client, DEADLINE, Error, Result};

/// Managers behind one name; more are taken for a name that is not meant.
const MEMBERS_MAX: usize = 5_000;
/// The time that a manager has to say what it has, unless it is told otherwise: less than a caller's own
/// deadline.
pub const LOOK: Duration = Duration::from_secs(8);
/// After the first answer, the time that the others have in a look around that can do without them.
const GRACE: Duration = Duration::from_secs(3);
/// The lead of the manager that had the thing the last time, before all are asked.
const LEAD: Duration = Duration::from_secs(1);

/// The managers behind addresses. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Cluster {
    places: Arc<[Place]>,
    known: Arc<Mutex<BTreeMap<SocketAddr, Client>>>,
    /// Who was silent the last time. Each is asked all the same, and is no longer in here once it answers.
    quiet: Arc<Mutex<HashSet<Address>>>,
    patience: Duration,
}

/// Where managers are.
#[derive(Debug, Clone)]
enum Place {
    /// One.
    Manager(Client),
    /// A name that stands for any number.
    Name(String),
}

/// A manager and its disk.
#[derive(Debug, Clone)]
pub struct Member {
    /// How to ask it.
    pub client: Client,
    /// The disk, with the node that it is in.
    pub disk: wire::Disk,
}

/// What a search has found.
#[derive(Debug)]
pub enum Found<T> {
    /// Who has it, and what it is.
    At(Client, T),
    /// Nobody of those that answered.
    Nowhere(Census),
}

/// The answers to one question; who is in neither list has not answered yet.
#[derive(Debug)]
struct Answers<T> {
    given: Vec<(Client, T)>,
    failed: Vec<Error>,
    unanswered: usize,
}

/// How long all are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Until each has answered or failed.
    All,
    /// For those that were silent the last time not at all, and for others a little.
    Grace,
}

impl Cluster {
    /// The managers at `addresses`: all that these stand for when they are asked.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> Result<Self> {
        let place = |address: Address| match &address {
            Address::Tcp(authority) if is_name(authority) => Ok(Place::Name(authority.clone())),
            Address::Tcp(_) | Address::Unix(_) => Client::new(address).map(Place::Manager),
        };
        Ok(Self {
            places: addresses.into_iter().map(place).collect::<Result<_>>()?,
            known: Arc::default(),
            quiet: Arc::default(),
            patience: LOOK,
        })
    }

    /// The same with another time that a manager has to say what it has.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// All managers, whether they answer or not. Fails when a name stands for none.
    pub async fn managers(&self) -> Result<Vec<Client>> {
        let mut all = Vec::new();
        let mut addresses = Vec::new();
        for place in self.places.iter() {
            match place {
                Place::Manager(client) => all.push(client.clone()),
                Place::Name(name) => addresses.extend(self.resolve(name).await?),
            }
        }
        addresses.sort();
        addresses.dedup();
        let mut known = lock(&self.known);
        known.retain(|address, _| addresses.binary_search(address).is_ok());
        for address in addresses {
            let client = match known.get(&address) {
                Some(client) => client.clone(),
                None => Client::new(Address::Tcp(address.to_string()))?,
            };
            known.insert(address, client.clone());
            all.push(client);
        }
        let is_there = |address: &Address| all.iter().any(|client| client.address() == address);
        lock(&self.quiet).retain(is_there);
        Ok(all)
    }

    /// What a name stands for now; what it stood for the last time while nobody can say.
    async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>> {
        let found = match tokio::net::lookup_host(name).await {
            Ok(found) => found.take(MEMBERS_MAX).collect(),
            Err(error) => {
                let port = name.rsplit(':').next().and_then(|port| port.parse().ok());
                let known = lock(&self.known);
                let before: Vec<SocketAddr> = known.keys().copied().collect();
                let before = before
                    .into_iter()
                    .filter(|known| Some(known.port()) == port);
                let before: Vec<SocketAddr> = before.collect();
                if before.is_empty() {
                    return Err(unreachable(name, &error));
                }
                before
            }
        };
        if found.is_empty() {
            let none = std::io::Error::other("its name resolves to no address");
            return Err(unreachable(name, &none));
        }
        Ok(found)
    }

    /// All managers and their disks, with those that each knows of; waits for all.
    pub async fn census(&self) -> Result<Census> {
        let ask = |client: Client| async move { client.disk_and_known().await };
        let answers = self.ask(None, ask, |_| false, Wait::All).await?;
        let (failed, unanswered) = (answers.failed, answers.unanswered);
        Ok(census(answers.given, failed, unanswered))
    }

    /// The managers that answer now, and what each says; those that are silent are not waited for.
    /// Fails when none answers, with the first one's words.
    pub async fn gather<T, F>(
        &self,
        ask: impl Fn(Client) -> F,
        enough: impl Fn(&T) -> bool,
    ) -> Result<(Census, Vec<T>)>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let ask = |client: Client| {
            let answer = ask(client.clone());
            async move { Ok((client.disk_and_known().await?, answer.await?)) }
        };
        let enough = |(_, answer): &(wire::Disk, T)| enough(answer);
        let mut answers = self.ask(None, ask, enough, Wait::Grace).await?;
        if answers.given.is_empty()
            && let Some(error) = answers.failed.pop()
        {
            return Err(error);
        }
        answers
            .given
            .sort_by(|(_, (a, _)), (_, (b, _))| by_place(a, b));
        // One manager may have two addresses.
        answers
            .given
            .dedup_by(|(_, (a, _)), (_, (b, _))| by_place(a, b).is_eq());
        let (mut disks, mut all) = (Vec::new(), Vec::new());
        for (client, (disk, answer)) in answers.given {
            disks.push((client, disk));
            all.push(answer);
        }
        Ok((census(disks, answers.failed, answers.unanswered), all))
    }

    /// Looks for something: `ask` gives it, or `None` where it is not. `hint` had it the last time, which
    /// only saves questions.
    pub async fn search<T, F>(
        &self,
        hint: Option<&Address>,
        ask: impl Fn(Client) -> F,
    ) -> Result<Found<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<Option<T>>> + Send + 'static,
    {
        let ask = |client: Client| {
            let answer = ask(client.clone());
            async move {
                match answer.await? {
                    Some(found) => Ok(Ok(found)),
                    // Who says that it has nothing says also which disk it speaks for.
                    None => client.disk_and_known().await.map(Err),
                }
            }
        };
        let answers = self.ask(hint, ask, std::result::Result::is_ok, Wait::All);
        let answers = answers.await?;
        let mut without = Vec::new();
        for (client, answer) in answers.given {
            match answer {
                Ok(found) => return Ok(Found::At(client, found)),
                Err(disk) => without.push((client, disk)),
            }
        }
        let (failed, unanswered) = (answers.failed, answers.unanswered);
        Ok(Found::Nowhere(census(without, failed, unanswered)))
    }

    /// The first manager that answers a question that any can answer.
    pub async fn any<T, F>(&self, deadline: Duration, ask: impl Fn(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let ask = |client: Client| ask(client.with_deadline(deadline));
        let mut answers = self.ask(None, ask, |_| true, Wait::All).await?;
        match (answers.given.pop(), answers.failed.pop()) {
            (Some((_, answer)), _) => Ok(answer),
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::silent("of any name", "")),
        }
    }

    /// Asks all at once. Who is not waited for goes on answering: dropping calls would look like an
    /// attack to those that are well.
    async fn ask<T, F>(
        &self,
        hint: Option<&Address>,
        ask: impl Fn(Client) -> F,
        enough: impl Fn(&T) -> bool,
        wait: Wait,
    ) -> Result<Answers<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut managers = self.managers().await?;
        let asked = managers.len();
        let mut round = Round::new(self, wait);
        let hinted = managers
            .iter()
            .position(|client| Some(client.address()) == hint);
        if let Some(hinted) = hinted {
            let first = managers.swap_remove(hinted);
            round.start(&first, ask(first.clone().with_deadline(self.patience)));
            round.collect(&enough, Some(Instant::now() + LEAD)).await;
        }
        if !round.done {
            for client in managers {
                round.start(&client, ask(client.clone().with_deadline(self.patience)));
            }
            round.collect(&enough, None).await;
        }
        round.asked.detach_all();
        Ok(Answers {
            unanswered: asked - round.given.len(),
            given: round.given,
            failed: round.failed,
        })
    }
}

/// One question, while its answers come.
struct Round<T> {
    asked: JoinSet<(Client, Result<T>)>,
    /// Who is waited for.
    awaited: HashSet<Address>,
    quiet: Arc<Mutex<HashSet<Address>>>,
    wait: Wait,
    given: Vec<(Client, T)>,
    failed: Vec<Error>,
    /// Until when the others are waited for, once one has answered.
    until: Option<Instant>,
    /// One answer was enough.
    done: bool,
}

impl<T: Send + 'static> Round<T> {
    fn new(cluster: &Cluster, wait: Wait) -> Self {
        Self {
            asked: JoinSet::new(),
            awaited: HashSet::new(),
            quiet: cluster.quiet.clone(),
            wait,
            given: Vec::new(),
            failed: Vec::new(),
            until: None,
            done: false,
        }
    }

    fn start(&mut self, client: &Client, answer: impl Future<Output = Result<T>> + Send + 'static) {
        let address = client.address().clone();
        if self.wait == Wait::All || !lock(&self.quiet).contains(&address) {
            self.awaited.insert(address);
        }
        let client = client.clone().with_deadline(DEADLINE);
        let quiet = self.quiet.clone();
        self.asked.spawn(async move {
            let answer = answer.await;
            match &answer {
                Err(Error::Deadline { .. }) => {
                    lock(&quiet).insert(client.address().clone());
                }
                _ => {
                    lock(&quiet).remove(client.address());
                }
            }
            (client, answer)
        });
    }

    /// Takes answers until one is enough, all have come, or it is `until`.
    async fn collect(&mut self, enough: &impl Fn(&T) -> bool, until: Option<Instant>) {
        let far = Instant::now() + Duration::from_hours(24);
        while !self.asked.is_empty() {
            // Where all were silent the last time, one is waited for.
            let waits = !self.awaited.is_empty() || self.given.is_empty();
            let until = until.or(self.until).unwrap_or(far);
            if !waits {
                return;
            }
            let Ok(Some(next)) = timeout_at(until, self.asked.join_next()).await else {
                if self.until.is_some() {
                    lock(&self.quiet).extend(self.awaited.drain());
                }
                return;
            };
            let Ok((client, answer)) = next else {
                // A task that panicked: its manager counts as one that has not answered.
                continue;
            };
            self.awaited.remove(client.address());
            match answer {
                Ok(answer) => {
                    self.done = enough(&answer);
                    self.given.push((client, answer));
                    if self.done {
                        return;
                    }
                    if self.wait == Wait::Grace && self.until.is_none() {
                        self.until = Some(Instant::now() + GRACE);
                    }
                }
                Err(error) => self.failed.push(error),
            }
        }
    }
}

fn census(disks: Vec<(Client, wire::Disk)>, failed: Vec<Error>, unanswered: usize) -> Census {
    let disks = disks.into_iter();
    let mut members: Vec<Member> = disks
        .map(|(client, disk)| Member { client, disk })
        .collect();
    members.sort_by(|a, b| by_place(&a.disk, &b.disk));
    Census {
        members,
        failed,
        unanswered,
    }
}

/// The order of nodes and disks.
fn by_place(a: &wire::Disk, b: &wire::Disk) -> std::cmp::Ordering {
    (&a.node_id, &a.uuid).cmp(&(&b.node_id, &b.uuid))
}

/// Whether a HOST:PORT is a name that may stand for several. `localhost` has two addresses of one machine.
fn is_name(authority: &str) -> bool {
    authority.parse::<SocketAddr>().is_err() && !authority.starts_with("localhost:")
}

fn unreachable(name: &str, cause: &(dyn std::error::Error + 'static)) -> Error {
    Error::Unreachable {
        address: Address::Tcp(name.to_owned()),
        source: Transport::new(cause),
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps and sets are whole between any two operations on them, also after a panic.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn cluster(addresses: &[&str]) -> Cluster {
        Cluster::new(addresses.iter().map(|text| text.parse().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn addresses_are_managers_and_names_are_all_they_stand_for() {
        for text in [
            "127.0.0.1:1",
            "unix:/nonexistent/manager.sock",
            "localhost:1",
        ] {
            let managers = cluster(&[text]).managers().await.unwrap();
            assert_eq!(managers.len(), 1, "{text}");
        }
        let two = cluster(&["127.0.0.1:1", "127.0.0.1:2"]);
        assert_eq!(two.managers().await.unwrap().len(), 2);
        let nowhere = cluster(&["no-such-name.invalid:1"]);
        let error = nowhere.managers().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn row_155_a_manager_that_does_not_answer_may_have_what_is_looked_for() {
        let cluster = cluster(&["127.0.0.1:1"]);
        let ask = |client: Client| async move { client.disk().await.map(Some) };
        let Found::Nowhere(census) = cluster.search(None, ask).await.unwrap() else {
            panic!("nobody is there");
        };
        let error = census.complete(&[], None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let ask = |client: Client| async move { client.disk().await };
        assert!(cluster.gather(ask, |_| false).await.is_err());
    }
}
