//! Which manager a call is for: each disk has its own, and a cluster has many.
//!
//! A volume is where it is: all are asked, and only when all say no there is none. A new one goes
//! where its topology, its source and the room lead it, and to the same place when the call is
//! repeated.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use client::{Client, Cluster, Member, wire};
use proto::csi::v1 as csi;
use types::{ByteSize, Classify as _, ErrorKind, ImageName, VolumeName};

use crate::error::{Error, Result};
use crate::request::{ContentSource, CreateVolume, ListSnapshots, Page};
use crate::snapshots::Snapshots;
use crate::volumes::Volumes;

/// What volumes can still take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// All together.
    pub(crate) total: ByteSize,
    /// One of them: a volume lies on one disk.
    pub(crate) largest: ByteSize,
}

/// All managers of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Managers {
    cluster: Cluster,
    topology_key: String,
    /// How long one call waits for an image.
    image_wait: Duration,
}

impl Managers {
    pub(crate) const fn new(cluster: Cluster, topology_key: String, image_wait: Duration) -> Self {
        Self {
            cluster,
            topology_key,
            image_wait,
        }
    }

    /// The key of the topology segment that names a node.
    pub(crate) fn topology_key(&self) -> &str {
        &self.topology_key
    }

    fn volumes(&self, client: Client) -> Volumes {
        Volumes::new(client, self.topology_key.clone(), self.image_wait)
    }

    fn snapshots(&self, client: Client) -> Snapshots {
        Snapshots::new(client, self.image_wait)
    }

    /// The manager that has a volume. One that there is nowhere is any manager's to deny.
    pub(crate) async fn of_volume(&self, name: &VolumeName) -> Result<Volumes> {
        Ok(self.volumes(self.having_volume(name).await?))
    }

    async fn having_volume(&self, name: &VolumeName) -> Result<Client> {
        let managers = self.cluster.managers().await?;
        if let [only] = managers.as_slice() {
            return Ok(only.clone());
        }
        match self.cluster.find_volume(name).await? {
            Some((client, _)) => Ok(client),
            None => Ok(first(managers)),
        }
    }

    /// The manager that has a snapshot.
    pub(crate) async fn of_snapshot(&self, id: &ImageName) -> Result<Snapshots> {
        Ok(self.snapshots(self.having_snapshot(id).await?))
    }

    async fn having_snapshot(&self, id: &ImageName) -> Result<Client> {
        let managers = self.cluster.managers().await?;
        if let [only] = managers.as_slice() {
            return Ok(only.clone());
        }
        let ask = |client: Client| {
            let id = id.clone();
            async move {
                match client.image(&id, None).await {
                    Ok(image) if image.source_volume.is_empty() => Ok(None),
                    Ok(_) => Ok(Some(client.with_deadline(client::DEADLINE))),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let mut failed = None;
        for answer in self.cluster.ask_all(ask).await? {
            match answer {
                Ok(Some(client)) => return Ok(client),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        // One that does not answer may have it.
        failed.map_or_else(|| Ok(first(managers)), |error| Err(error.into()))
    }

    /// The manager that takes a new snapshot: the one that took it already, else the volume's.
    pub(crate) async fn for_snapshot(
        &self,
        id: &ImageName,
        volume: &VolumeName,
    ) -> Result<Snapshots> {
        let taken = self.of_snapshot(id).await?;
        if taken.get(id).await.is_ok() {
            return Ok(taken);
        }
        Ok(self.snapshots(self.having_volume(volume).await?))
    }

    /// The manager that makes a new volume: the one that made it already, else the one that a
    /// repeated call would choose as well.
    pub(crate) async fn for_volume(&self, request: &CreateVolume) -> Result<Volumes> {
        let managers = self.cluster.managers().await?;
        if let [only] = managers.as_slice() {
            return Ok(self.volumes(only.clone()));
        }
        let source = match &request.source {
            Some(ContentSource::Volume(name)) => Some(self.having_volume(name).await?),
            Some(ContentSource::Snapshot(id)) => Some(self.having_snapshot(id).await?),
            None => None,
        };
        if let Some(client) = source {
            return Ok(self.volumes(client));
        }
        let members = self.candidates(request).await?;
        if let Some(made) = self.made(&members, &request.name).await? {
            return Ok(made);
        }
        let preference = |member: &Member| {
            let mut preferred = request.preferred.iter();
            preferred.position(|segments| self.covers(segments, &member.disk.node_id))
        };
        let wanted = request.capacity.required.unwrap_or_default();
        let chosen = choose(&members, &request.name, wanted, preference);
        Ok(self.volumes(chosen.client.clone()))
    }

    /// The managers where a volume may be. The one that comes first must answer, or all of them where
    /// none does: one that does not may have made the volume.
    async fn candidates(&self, request: &CreateVolume) -> Result<Vec<Member>> {
        let managers = self.cluster.managers().await?.len();
        let members = self.cluster.members().await?;
        let answered = members.len();
        let here: Vec<&str> = members.iter().map(|member| &*member.disk.node_id).collect();
        let here = here.join(", ");
        let covers = |segments, member: &Member| self.covers(segments, &member.disk.node_id);
        let requisite = &request.requisite;
        let fits = |member: &Member| {
            requisite.is_empty() || requisite.iter().any(|segments| covers(segments, member))
        };
        let fitting: Vec<Member> = members.into_iter().filter(fits).collect();
        let only = requisite.first().filter(|_| requisite.len() == 1);
        let best = request.preferred.first().or(only);
        let best_answers =
            best.is_some_and(|segments| fitting.iter().any(|member| covers(segments, member)));
        match fitting.is_empty() {
            false if best_answers || answered == managers => Ok(fitting),
            true if answered == managers => Err(Error::Topology { here }),
            _ => Err(Error::Incomplete { answered, managers }),
        }
    }

    async fn made(&self, members: &[Member], name: &VolumeName) -> Result<Option<Volumes>> {
        for member in members {
            match member.client.volume(name).await {
                Ok(_) => return Ok(Some(self.volumes(member.client.clone()))),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Whether a node lies in a topology.
    fn covers(&self, segments: &HashMap<String, String>, node: &str) -> bool {
        segments
            .get(&self.topology_key)
            .map_or(segments.is_empty(), |segment| segment == node)
    }

    /// The manager that has the volumes of a group: one, as a moment is one disk's.
    pub(crate) async fn of_group(&self, volumes: &[VolumeName]) -> Result<Client> {
        let first = volumes.first().ok_or(Error::Missing {
            field: "source_volume_ids",
        })?;
        self.having_volume(first).await
    }

    /// All managers.
    pub(crate) async fn all(&self) -> Result<Vec<Client>> {
        Ok(self.cluster.managers().await?)
    }

    /// Whether one of them answers: the others' volumes have to wait.
    ///
    /// # Errors
    /// What the first says, when none does.
    pub(crate) async fn probe(&self, deadline: Duration) -> Result<()> {
        let ask = move |client: Client| async move { client.with_deadline(deadline).disk().await };
        let answers = self.cluster.ask_all(ask).await?;
        if answers.iter().any(std::result::Result::is_ok) {
            return Ok(());
        }
        match answers.into_iter().next() {
            Some(Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A page of all volumes and the token of the next. All managers must answer: a volume that is
    /// not listed is taken for one that is gone.
    pub(crate) async fn list(&self, page: &Page) -> Result<(Vec<wire::Volume>, String)> {
        let (most, after) = (page.max_entries, page.after.clone());
        let ask = |client: Client| {
            let after = after.clone();
            async move { client.list_volumes(most, &after).await }
        };
        let (mut all, mut more) = (Vec::new(), false);
        for answer in self.cluster.ask_all(ask).await? {
            let (volumes, has_more) = answer?;
            all.extend(volumes);
            more |= has_more;
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let (volumes, mut token) = page.cut(all, |volume| &volume.name);
        if token.is_empty() && more {
            token = volumes
                .last()
                .map(|last| Page::token(&last.name))
                .unwrap_or_default();
        }
        Ok((volumes, token))
    }

    /// A page of all snapshots and the token of the next.
    pub(crate) async fn list_snapshots(
        &self,
        request: &ListSnapshots,
    ) -> Result<(Vec<csi::Snapshot>, String)> {
        let mut all = Vec::new();
        for client in self.cluster.managers().await? {
            all.extend(self.snapshots(client).all(request).await?);
        }
        all.sort_by(|a, b| a.snapshot_id.cmp(&b.snapshot_id));
        Ok(request.page.cut(all, |snapshot| &snapshot.snapshot_id))
    }

    /// What volumes can still take, where a topology (none: anywhere) wants them.
    pub(crate) async fn room(&self, topology: Option<&HashMap<String, String>>) -> Result<Room> {
        let members = self.cluster.members().await?;
        let here = |member: &&Member| {
            topology.is_none_or(|segments| self.covers(segments, &member.disk.node_id))
        };
        let mut room = Room::default();
        for member in members.iter().filter(here) {
            let available = member.disk.available;
            room.total = ByteSize(room.total.bytes().saturating_add(available));
            room.largest = room.largest.max(ByteSize(available));
        }
        Ok(room)
    }
}

/// The same of equal ones each time: those with room first, then the most preferred, then by a hash of
/// the names, which spreads volumes over disks.
fn choose<'a>(
    members: &'a [Member],
    name: &VolumeName,
    wanted: ByteSize,
    preference: impl Fn(&Member) -> Option<usize>,
) -> &'a Member {
    let rank = |member: &&Member| {
        let mut hasher = DefaultHasher::new();
        (name.as_str(), &member.disk.uuid).hash(&mut hasher);
        (
            member.disk.available < wanted.bytes(),
            preference(member).unwrap_or(usize::MAX),
            hasher.finish(),
        )
    };
    let chosen = members.iter().min_by_key(rank);
    chosen.expect("there is a candidate")
}

fn first(managers: Vec<Client>) -> Client {
    let first = managers.into_iter().next();
    first.expect("a cluster has a manager, or its name would have none")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn member(uuid: &str, available: u64) -> Member {
        Member {
            client: Client::new("unix:/nonexistent/manager.sock".parse().unwrap()).unwrap(),
            disk: wire::Disk {
                uuid: uuid.to_owned(),
                available,
                ..Default::default()
            },
        }
    }

    fn chosen(members: &[Member], name: &str) -> String {
        let name = VolumeName::new(name).unwrap();
        let chosen = choose(members, &name, ByteSize(100), |_| None);
        chosen.disk.uuid.clone()
    }

    #[tokio::test]
    async fn a_volume_goes_where_its_pod_is_to_run_if_there_is_room() {
        let members = [member("a", 1000), member("b", 1000), member("full", 10)];
        let order = ["full", "b", "a"];
        let preference = |member: &Member| order.iter().position(|uuid| *uuid == member.disk.uuid);
        for number in 0..8 {
            let name = VolumeName::new(&format!("pvc-{number}")).unwrap();
            let chosen = choose(&members, &name, ByteSize(100), preference);
            assert_eq!(chosen.disk.uuid, "b");
        }
    }

    #[tokio::test]
    async fn a_repeated_call_chooses_the_same_disk_and_volumes_spread() {
        let mut members = vec![member("a", 1000), member("b", 1000), member("c", 10)];
        let names: Vec<String> = (0..32).map(|number| format!("pvc-{number}")).collect();
        let first: Vec<String> = names.iter().map(|name| chosen(&members, name)).collect();
        members.reverse();
        let again: Vec<String> = names.iter().map(|name| chosen(&members, name)).collect();
        assert_eq!(first, again);
        let used: BTreeSet<&str> = first.iter().map(String::as_str).collect();
        assert_eq!(
            used,
            BTreeSet::from(["a", "b"]),
            "and none where there is no room"
        );
    }

    #[tokio::test]
    async fn a_name_that_stands_for_nobody_is_no_empty_cluster() {
        let cluster = Cluster::new("no-such-name.invalid:1".parse().unwrap()).unwrap();
        let managers = Managers::new(cluster, "k/node".to_owned(), Duration::ZERO);
        let name = VolumeName::new("v").unwrap();
        let error = managers.of_volume(&name).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let page = Page {
            max_entries: 0,
            after: String::new(),
        };
        assert!(managers.list(&page).await.is_err());
    }
}
