//! The disks of a cluster that have answered, and those that should have: the basis of every "not
//! found".
//!
//! Every manager keeps a list of the other disks on its own. All lists together name the disks that
//! have to answer. A wrong entry makes a caller wait; it never makes a missing answer count.

use std::collections::{BTreeMap, HashSet};

use proto::storage::v1 as wire;
use tokio::task::JoinSet;

use crate::{Client, Error, Result};

/// Seconds after which a disk is told to the others again: they note when it was seen last.
const TOLD_AGAIN: i64 = 24 * 3600;
/// Disks that are told of in one call; the rest are told the next time.
const TOLD_MAX: usize = 1_000;

/// A manager and its disk.
#[derive(Debug, Clone)]
pub struct Member {
    /// How to ask it.
    pub client: Client,
    /// The disk, with the node that it is in.
    pub disk: wire::Disk,
}

/// What a look at all managers has found.
#[derive(Debug, Default)]
pub struct Census {
    /// Those that answered, in the order of nodes and disks, each with the others that it knows of.
    pub members: Vec<Member>,
    /// What those say that failed to answer.
    pub failed: Vec<Error>,
    /// How many have not answered, whether they failed or may still do so.
    pub unanswered: usize,
}

impl Census {
    /// The disks that are known and did not answer, by their uuid: of these members, and of `remembered`
    /// by who asks unless an operator has said that one is gone.
    pub fn silent(&self, remembered: &[(String, String)]) -> BTreeMap<String, String> {
        let answered = self.answered();
        let lists = self
            .members
            .iter()
            .flat_map(|member| &member.disk.known_disks);
        let (gone, known): (Vec<_>, Vec<_>) = lists.partition(|known| known.forgotten);
        let gone: HashSet<&str> = gone.into_iter().map(|known| known.uuid.as_str()).collect();
        let known = known.into_iter().map(|known| (&known.uuid, &known.node_id));
        let remembered = remembered
            .iter()
            .filter(|(uuid, _)| !gone.contains(uuid.as_str()))
            .map(|(uuid, node)| (uuid, node));
        remembered
            .chain(known)
            .filter(|(uuid, _)| !answered.contains(uuid.as_str()))
            .map(|(uuid, node)| (uuid.clone(), node.clone()))
            .collect()
    }

    /// Whether all have answered that could know better than "there is none": the disks of `node` where
    /// it is named and has any, else all.
    ///
    /// # Errors
    /// `Unavailable`, with who is missing.
    pub fn complete(mut self, remembered: &[(String, String)], node: Option<&str>) -> Result<()> {
        let silent = self.silent(remembered);
        let of_node = |(_, other): &(&String, &String)| node == Some(other.as_str());
        let here = self
            .members
            .iter()
            .any(|member| node == Some(member.disk.node_id.as_str()));
        let narrow = here || silent.iter().any(|disk| of_node(&disk));
        let mut missing = silent.iter().filter(|disk| !narrow || of_node(disk));
        if let Some((uuid, node)) = missing.next() {
            return Err(Error::silent(uuid, node));
        }
        // What answers neither may be a disk that nobody knows yet.
        if self.unanswered > silent.len() {
            return Err(self
                .failed
                .pop()
                .unwrap_or_else(|| Error::silent("of an unknown name", "")));
        }
        Ok(())
    }

    /// How many managers were asked.
    pub fn asked(&self) -> usize {
        self.members.len() + self.unanswered
    }

    fn answered(&self) -> HashSet<&str> {
        let members = self.members.iter();
        members.map(|member| member.disk.uuid.as_str()).collect()
    }

    /// Tells every member of the disks that it does not know of yet: those that answer now, and those
    /// that only others have heard of. Members that cannot be told are told the next time.
    pub async fn spread(&self, now: i64) {
        let mut known: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
        for member in &self.members {
            for other in &member.disk.known_disks {
                if !other.forgotten && !other.node_id.is_empty() {
                    known.entry(&other.uuid).or_insert((&other.node_id, false));
                }
            }
        }
        for member in &self.members {
            known.insert(&member.disk.uuid, (&member.disk.node_id, true));
        }
        let mut told = JoinSet::new();
        for member in &self.members {
            let news = news(member, &known, now);
            if !news.is_empty() {
                let client: Client = member.client.clone();
                told.spawn(async move { client.record_disks(news).await });
            }
        }
        told.join_all().await;
    }
}

/// What a member lacks of what is known.
fn news(member: &Member, known: &BTreeMap<&str, (&str, bool)>, now: i64) -> Vec<wire::SeenDisk> {
    let lists = member.disk.known_disks.iter();
    let own: BTreeMap<&str, &wire::KnownDisk> =
        lists.map(|disk| (disk.uuid.as_str(), disk)).collect();
    let is_news = |uuid: &str, node: &str, answers: bool| match own.get(uuid) {
        None => uuid != member.disk.uuid,
        Some(own) => {
            answers
                && (own.forgotten
                    || own.node_id != node
                    || now.saturating_sub(own.last_seen) > TOLD_AGAIN)
        }
    };
    known
        .iter()
        .filter(|(uuid, (node, answers))| is_news(uuid, node, *answers))
        .take(TOLD_MAX)
        .map(|(uuid, (node, answers))| wire::SeenDisk {
            uuid: (*uuid).to_owned(),
            node_id: (*node).to_owned(),
            answers: *answers,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn known(uuid: &str, node: &str, forgotten: bool) -> wire::KnownDisk {
        wire::KnownDisk {
            uuid: uuid.to_owned(),
            node_id: node.to_owned(),
            forgotten,
            ..Default::default()
        }
    }

    fn member(uuid: &str, node: &str, known_disks: Vec<wire::KnownDisk>) -> Member {
        Member {
            client: Client::new(
                "unix:/nonexistent/manager.sock".parse().unwrap(),
                &trust::Dialer::Plain,
            )
            .unwrap(),
            disk: wire::Disk {
                uuid: uuid.to_owned(),
                node_id: node.to_owned(),
                known_disks,
                ..Default::default()
            },
        }
    }

    fn no_answer() -> Error {
        Error::silent("unknown", "")
    }

    fn census(members: Vec<Member>, failed: usize) -> Census {
        Census {
            members,
            failed: (0..failed).map(|_| no_answer()).collect(),
            unanswered: failed,
        }
    }

    #[tokio::test]
    async fn row_155_nobody_has_it_only_when_every_known_disk_says_so() {
        let a = |others| member("a", "n1", others);
        let b = || member("b", "n2", Vec::new());
        census(vec![a(vec![known("b", "n2", false)]), b()], 0)
            .complete(&[], None)
            .unwrap();
        // Its pod is gone from the name, and another list knows it.
        let gone = census(vec![a(vec![known("b", "n2", false)])], 0);
        let error = gone.complete(&[], None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("disk b of node n2"), "{error}");
        // Only who asks remembers it, or nobody does and the name does not answer.
        let remembered = [("b".to_owned(), "n2".to_owned())];
        let alone = || census(vec![a(Vec::new())], 0);
        alone().complete(&[], None).unwrap();
        alone().complete(&remembered, None).unwrap_err();
        census(vec![a(Vec::new())], 1)
            .complete(&[], None)
            .unwrap_err();
        // An operator's word counts for what is remembered, and never for what another list says.
        let forgotten = census(vec![a(vec![known("b", "n2", true)])], 0);
        forgotten.complete(&remembered, None).unwrap();
        let disputed = census(
            vec![
                a(vec![known("b", "n2", true)]),
                member("c", "n3", vec![known("b", "n2", false)]),
            ],
            0,
        );
        disputed.complete(&[], None).unwrap_err();
    }

    #[tokio::test]
    async fn row_156_what_is_asked_of_a_node_is_for_its_own_disks_to_answer() {
        let a = || member("a", "n1", vec![known("b", "n2", false)]);
        let without_b = || census(vec![a()], 1);
        without_b().complete(&[], Some("n1")).unwrap();
        without_b().complete(&[], Some("n2")).unwrap_err();
        // No disk is known there: any may have been there under another name.
        without_b().complete(&[], Some("n3")).unwrap_err();
        census(vec![a(), member("b", "n2", Vec::new())], 0)
            .complete(&[], Some("n3"))
            .unwrap();
        // Two are silent and one is known: the other may be of that node.
        census(vec![a()], 2).complete(&[], Some("n1")).unwrap_err();
    }

    #[tokio::test]
    async fn row_155_a_member_is_told_what_it_lacks_and_no_more() {
        let fresh = |uuid, node| wire::KnownDisk {
            last_seen: 1000,
            ..known(uuid, node, false)
        };
        let all = BTreeMap::from([
            ("a", ("n1", true)),
            ("b", ("n2", true)),
            ("c", ("n3", false)),
        ]);
        let told = |others: Vec<wire::KnownDisk>, now| {
            let news = news(&member("a", "n1", others), &all, now).into_iter();
            news.map(|disk| disk.uuid).collect::<Vec<_>>()
        };
        assert_eq!(told(Vec::new(), 1000), ["b", "c"]);
        let both = || vec![fresh("b", "n2"), fresh("c", "n3")];
        assert_eq!(told(both(), 1000), [""; 0]);
        assert_eq!(told(both(), 1001 + TOLD_AGAIN), ["b"], "seen again");
        let moved = vec![fresh("b", "n9"), known("c", "n3", true)];
        assert_eq!(
            told(moved, 1000),
            ["b"],
            "one that is silent stays forgotten"
        );
    }
}
