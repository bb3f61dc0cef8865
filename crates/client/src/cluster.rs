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
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use trust::Dialer;

use crate::error::Transport;
use crate::{Address, Census, Client, Error, Member, Result};

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
    dialer: Dialer,
    /// Who was silent the last time. Each is asked all the same, and is no longer in here once it answers.
    quiet: Arc<Mutex<HashSet<Address>>>,
    /// The questions under way, whether or not anybody waits for them.
    questions: Arc<Mutex<JoinSet<()>>>,
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

/// Who is waited for in a look at all managers. An answer that is enough ends each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait<'a> {
    /// Each, until it has answered or failed; first, for a moment, the one at this address, which had the
    /// thing the last time.
    All(Option<&'a Address>),
    /// For those that were silent the last time not at all, and for others a little.
    Grace,
}

/// What a look at all managers has found.
#[derive(Debug)]
pub struct Look<T> {
    /// The manager whose answer was enough, and that answer.
    pub found: Option<(Client, T)>,
    /// The others that answered,
    pub census: Census,
    /// and their answers, in the order of its members.
    pub others: Vec<T>,
}

impl<T> Look<T> {
    /// The same; where nobody has answered, the error of one of them.
    pub fn heard(mut self) -> Result<Self> {
        let nobody = self.found.is_none() && self.census.members.is_empty();
        match self.census.failed.pop().filter(|_| nobody) {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

impl Cluster {
    /// The managers at `addresses`, reached by `dialer`: all that these stand for when they are asked.
    pub fn new(addresses: impl IntoIterator<Item = Address>, dialer: &Dialer) -> Result<Self> {
        let place = |address: Address| match &address {
            Address::Tcp(authority) if is_name(authority) => Ok(Place::Name(authority.clone())),
            Address::Tcp(_) | Address::Unix(_) => Client::new(address, dialer).map(Place::Manager),
        };
        Ok(Self {
            places: addresses.into_iter().map(place).collect::<Result<_>>()?,
            known: Arc::default(),
            dialer: dialer.clone(),
            quiet: Arc::default(),
            questions: Arc::default(),
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
                Place::Manager(client) => {
                    // It may be named twice, and is one all the same.
                    all.retain(|known: &Client| known.address() != client.address());
                    all.push(client.clone());
                }
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
                None => Client::new(Address::Tcp(address.to_string()), &self.dialer)?,
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
        let ask = |_: Client| async { Ok(()) };
        Ok(self.look(Wait::All(None), ask, |()| false).await?.census)
    }

    /// Asks all managers the same, at once. The first answer that is `enough` ends the look, and is that of
    /// one that has what is looked for; the others say as well which disk they speak for.
    ///
    /// # Errors
    /// A name stands for no manager. Managers that fail are in the census.
    pub async fn look<T, F>(
        &self,
        wait: Wait<'_>,
        ask: impl Fn(Client) -> F,
        enough: impl Fn(&T) -> bool + Clone + Send + 'static,
    ) -> Result<Look<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut managers = self.managers().await?;
        let asked = managers.len();
        let mut round = Round::new(self, wait == Wait::Grace);
        let start = |round: &mut Round<T>, client: Client| {
            let impatient = client.clone().with_deadline(self.patience);
            let (answer, enough) = (ask(impatient.clone()), enough.clone());
            round.start(client, async move {
                let answer = answer.await?;
                if enough(&answer) {
                    return Ok(Answer::Enough(answer));
                }
                Ok(Answer::Other(
                    Box::new(impatient.disk_and_known().await?),
                    answer,
                ))
            });
        };
        let hinted = managers
            .iter()
            .position(|client| matches!(wait, Wait::All(Some(hint)) if client.address() == hint));
        if let Some(hinted) = hinted {
            let first = managers.swap_remove(hinted);
            start(&mut round, first);
            round.collect(Instant::now() + LEAD).await;
        }
        if round.enough.is_none() {
            for client in managers {
                start(&mut round, client);
            }
            // From here on the answers end when the last question does.
            round.sender = None;
            round
                .collect(Instant::now() + Duration::from_hours(24))
                .await;
        }
        Ok(round.end(asked))
    }
}

/// What one manager says.
enum Answer<T> {
    /// It ends the look.
    Enough(T),
    /// It does not, and is of this disk.
    Other(Box<wire::Disk>, T),
}

/// One look, while its answers come.
struct Round<T> {
    cluster: Cluster,
    /// Whether some are not waited for.
    hasty: bool,
    /// `None`: all are asked.
    sender: Option<mpsc::UnboundedSender<(Client, Result<Answer<T>>)>>,
    answers: mpsc::UnboundedReceiver<(Client, Result<Answer<T>>)>,
    /// Questions without an answer so far,
    unanswered: usize,
    /// and who of these is waited for.
    awaited: HashSet<Address>,
    enough: Option<(Client, T)>,
    others: Vec<(Client, wire::Disk, T)>,
    failed: Vec<Error>,
    /// Until when the others are waited for, once one has answered.
    until: Option<Instant>,
}

impl<T: Send + 'static> Round<T> {
    fn new(cluster: &Cluster, hasty: bool) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            cluster: cluster.clone(),
            hasty,
            sender: Some(sender),
            answers,
            unanswered: 0,
            awaited: HashSet::new(),
            enough: None,
            others: Vec::new(),
            failed: Vec::new(),
            until: None,
        }
    }

    /// Asks one. The question outlives the look where nobody waits for it: dropping calls would look like an
    /// attack to managers that are well. It ends by its deadline, or with the cluster.
    fn start(
        &mut self,
        client: Client,
        answer: impl Future<Output = Result<Answer<T>>> + Send + 'static,
    ) {
        let address = client.address().clone();
        if !self.hasty || !lock(&self.cluster.quiet).contains(&address) {
            self.awaited.insert(address);
        }
        self.unanswered += 1;
        let (quiet, sender) = (self.cluster.quiet.clone(), self.sender.clone());
        let mut questions = lock(&self.cluster.questions);
        // What ended meanwhile is let go of.
        while questions.try_join_next().is_some() {}
        questions.spawn(async move {
            let answer = answer.await;
            match &answer {
                Err(Error::Deadline { .. }) => {
                    lock(&quiet).insert(client.address().clone());
                }
                _ => {
                    lock(&quiet).remove(client.address());
                }
            }
            if let Some(sender) = sender {
                // Fails only where the look has ended.
                let _ = sender.send((client, answer));
            }
        });
    }

    /// Takes answers until one is enough, all have come that are waited for, or it is `until`.
    async fn collect(&mut self, until: Instant) {
        // Where all were silent the last time, one is waited for.
        while self.unanswered > 0 && (!self.awaited.is_empty() || self.others.is_empty()) {
            let until = self.until.unwrap_or(until);
            let Ok(Some((client, answer))) = timeout_at(until, self.answers.recv()).await else {
                if self.until.is_some() {
                    lock(&self.cluster.quiet).extend(self.awaited.drain());
                }
                return;
            };
            self.unanswered -= 1;
            self.awaited.remove(client.address());
            match answer {
                Ok(Answer::Enough(answer)) => {
                    self.enough = Some((client, answer));
                    return;
                }
                Ok(Answer::Other(disk, answer)) => {
                    self.others.push((client, *disk, answer));
                    if self.hasty && self.until.is_none() {
                        self.until = Some(Instant::now() + GRACE);
                    }
                }
                Err(error) => self.failed.push(error),
            }
        }
    }

    /// What came of it, of so many that were to be asked.
    fn end(mut self, asked: usize) -> Look<T> {
        let unanswered = asked - self.others.len() - usize::from(self.enough.is_some());
        self.others.sort_by(|(_, a, _), (_, b, _)| by_place(a, b));
        // One manager may have two addresses.
        self.others
            .dedup_by(|(_, a, _), (_, b, _)| by_place(a, b).is_eq());
        let (mut members, mut others) = (Vec::new(), Vec::new());
        for (client, disk, answer) in self.others {
            members.push(Member { client, disk });
            others.push(answer);
        }
        Look {
            found: self.enough,
            census: Census {
                members,
                failed: self.failed,
                unanswered,
            },
            others,
        }
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
        service: "backing image manager",
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
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        Cluster::new(addresses, &Dialer::Plain).unwrap()
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
        let ask = |client: Client| async move { client.disk().await };
        let look = || cluster.look(Wait::All(None), ask, |_| true);
        let error = look().await.unwrap().census.complete(&[], None);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(look().await.unwrap().heard().is_err());
    }
}
