//! The managers of a cluster: one name out of which the network makes all of them.
//!
//! Every disk has its manager, and none of them knows the others' volumes. Who wants a volume asks
//! all; who wants a new one chooses a disk. A name with one address is a cluster of one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::storage::v1 as wire;
use tokio::task::JoinSet;
use types::{Classify as _, ErrorKind, VolumeName};

use crate::error::Transport;
use crate::{Address, Client, DEADLINE, Error, Result};

/// Managers behind one name; more are taken for a name that is not meant.
const MEMBERS_MAX: usize = 5_000;
/// The time that a look around may take: less than a caller's own deadline, so that one dead node
/// does not hide the answers of the others.
const LOOK: Duration = Duration::from_secs(8);

/// The managers behind one address. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Cluster {
    address: Address,
    known: Arc<Mutex<BTreeMap<SocketAddr, Client>>>,
    /// For an address that is no name.
    only: Option<Client>,
}

/// A manager and its disk.
#[derive(Debug, Clone)]
pub struct Member {
    /// How to ask it.
    pub client: Client,
    /// The disk, with the node that it is in.
    pub disk: wire::Disk,
}

impl Cluster {
    /// The managers at `address`: all that its name stands for when they are asked.
    pub fn new(address: Address) -> Result<Self> {
        let only = match &address {
            Address::Unix(_) => Some(Client::new(address.clone())?),
            Address::Tcp(authority) if authority.parse::<SocketAddr>().is_ok() => {
                Some(Client::new(address.clone())?)
            }
            Address::Tcp(_) => None,
        };
        Ok(Self {
            address,
            known: Arc::default(),
            only,
        })
    }

    /// The name that stands for all.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// All managers, whether they answer or not. Fails when the name stands for none.
    pub async fn managers(&self) -> Result<Vec<Client>> {
        if let Some(only) = &self.only {
            return Ok(vec![only.clone()]);
        }
        let unreachable = |cause: &(dyn std::error::Error + 'static)| Error::Unreachable {
            address: self.address.clone(),
            source: Transport::new(cause),
        };
        let found = tokio::net::lookup_host(self.address.to_string())
            .await
            .map_err(|error| unreachable(&error))?;
        let mut addresses: Vec<SocketAddr> = found.take(MEMBERS_MAX).collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            let none = std::io::Error::other("its name stands for no address");
            return Err(unreachable(&none));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|address, _| addresses.binary_search(address).is_ok());
        addresses
            .into_iter()
            .map(|address| {
                if let Some(client) = known.get(&address) {
                    return Ok(client.clone());
                }
                let client = Client::new(Address::Tcp(address.to_string()))?;
                known.insert(address, client.clone());
                Ok(client)
            })
            .collect()
    }

    /// The managers that answer, with their disks, in the order of nodes and disks. Fails when none
    /// does, with the first one's words.
    pub async fn members(&self) -> Result<Vec<Member>> {
        let ask = |client: Client| async move {
            let disk = client.disk().await?;
            let client = client.with_deadline(DEADLINE);
            Ok(Member { client, disk })
        };
        let (mut members, failed) = split(self.ask_all(ask).await?);
        members
            .sort_by(|a, b| (&a.disk.node_id, &a.disk.uuid).cmp(&(&b.disk.node_id, &b.disk.uuid)));
        match failed.into_iter().next() {
            Some(error) if members.is_empty() => Err(error),
            _ => Ok(members),
        }
    }

    /// The volume of that name, and the manager that has it. Only when every manager says so there
    /// is none: one that does not answer may have it, and then its error is the answer.
    pub async fn find_volume(&self, name: &VolumeName) -> Result<Option<(Client, wire::Volume)>> {
        let name = name.clone();
        let ask = move |client: Client| {
            let name = name.clone();
            async move {
                match client.volume(&name).await {
                    Ok(volume) => Ok(Some((client.with_deadline(DEADLINE), volume))),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let (answers, failed) = split(self.ask_all(ask).await?);
        match answers.into_iter().flatten().next() {
            Some(found) => Ok(Some(found)),
            None => failed.into_iter().next().map_or(Ok(None), Err),
        }
    }

    /// Asks every manager at once, and gives all answers. Managers that say nothing for [`LOOK`] have
    /// failed.
    pub async fn ask_all<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<Vec<Result<T>>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut asked = JoinSet::new();
        for client in self.managers().await? {
            asked.spawn(ask(client.with_deadline(LOOK)));
        }
        Ok(asked.join_all().await)
    }
}

fn split<T>(answers: Vec<Result<T>>) -> (Vec<T>, Vec<Error>) {
    let mut failed = Vec::new();
    let answers = answers
        .into_iter()
        .filter_map(|answer| answer.map_err(|error| failed.push(error)).ok())
        .collect();
    (answers, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_a_cluster_of_one_and_a_name_is_all_it_stands_for() {
        for text in [
            "127.0.0.1:1",
            "unix:/nonexistent/manager.sock",
            "localhost:1",
        ] {
            let cluster = Cluster::new(text.parse().unwrap()).unwrap();
            let managers = cluster.managers().await.unwrap();
            assert!(!managers.is_empty(), "{text}");
        }
        let nowhere = Cluster::new("no-such-name.invalid:1".parse().unwrap()).unwrap();
        let error = nowhere.managers().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_manager_that_does_not_answer_may_have_the_volume() {
        let cluster = Cluster::new("127.0.0.1:1".parse().unwrap()).unwrap();
        let name = VolumeName::new("v").unwrap();
        let error = cluster.find_volume(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(cluster.members().await.is_err());
    }
}
