//! Which manager a call is for: each disk has its own, and a cluster has many.
//!
//! The first manager that has a volume answers for it; a volume does not exist only if every known
//! disk says so. Topology, source and free space choose a disk for a new volume among the disks
//! that answer, and the same one when the call is repeated.

mod listing;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use client::{Census, Client, Cluster, Found, Member, wire};
use jiff::Timestamp;
use types::{ByteSize, Classify as _, ErrorKind, ImageName, NodeId, VolumeName, report};

use crate::error::{Error, Result};
use crate::request::{ContentSource, CreateVolume};
use crate::seen::Seen;
use crate::snapshots::Snapshots;
use crate::volumes::{Volumes, check_owner};

/// How often the managers are told of each other.
const LOOK_AROUND: Duration = Duration::from_mins(1);
/// Of these, every how manieth lists all volumes: another controller may have made some.
const LIST_EVERY: u32 = 10;

/// What volumes can still take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// All together.
    pub(crate) total: ByteSize,
    /// One of them: a volume lies on one disk.
    pub(crate) largest: ByteSize,
}

/// Where a volume is that is asked for.
#[derive(Debug)]
pub(crate) enum Place {
    /// It is there already.
    Has(Box<wire::Volume>),
    /// It is to be made.
    New(Volumes),
}

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

    /// What is remembered of volumes, to be told of changes.
    pub(crate) const fn seen(&self) -> &Seen {
        &self.seen
    }

    fn volumes(&self, client: Client) -> Volumes {
        Volumes::new(client, self.image_wait)
    }

    fn snapshots(&self, client: Client) -> Snapshots {
        Snapshots::new(client, self.image_wait)
    }

    /// Looks for something: `None` when every disk that could have it says no.
    async fn search<T, F>(
        &self,
        hint: Option<&client::Address>,
        node: Option<&NodeId>,
        ask: impl Fn(Client) -> F,
    ) -> Result<Option<(Client, T)>>
    where
        T: Send + 'static,
        F: Future<Output = client::Result<Option<T>>> + Send + 'static,
    {
        match self.cluster.search(hint, ask).await? {
            Found::At(client, found) => Ok(Some((client, found))),
            Found::Nowhere(census) => {
                self.seen.members(&census.members);
                census.complete(&self.seen.disks(), node.map(NodeId::as_str))?;
                Ok(None)
            }
        }
    }

    /// The volume of that name and the manager that has it, if there is one. `node`: only its disks
    /// could have what is asked for. A volume whose record is damaged is there, and says so.
    pub(crate) async fn find(
        &self,
        name: &VolumeName,
        node: Option<&NodeId>,
    ) -> Result<Option<(Volumes, client::Result<wire::Volume>)>> {
        let hint = self.seen.place_of(name).map(|(_, address)| address);
        let ask = |client: Client| {
            let name = name.clone();
            async move {
                match client.volume(&name).await {
                    Err(error) if error.kind() == ErrorKind::DataLoss => Ok(Some(Err(error))),
                    other => Ok(there(other)?.map(Ok)),
                }
            }
        };
        let found = self.search(hint.as_ref(), node, ask).await?;
        match &found {
            Some((_, Ok(volume))) => self.seen.volume(volume),
            None if node.is_none() => self.seen.gone(name),
            _ => {}
        }
        Ok(found.map(|(client, volume)| (self.volumes(client), volume)))
    }

    /// The same for a volume that there must be.
    pub(crate) async fn of_volume(&self, name: &VolumeName) -> Result<(Volumes, wire::Volume)> {
        let found = self.find(name, None).await?;
        let (volumes, volume) = found.ok_or_else(|| Error::NoSuchVolume {
            volume_id: name.to_string(),
        })?;
        Ok((volumes, volume?))
    }

    /// The same for one that must not be another driver's.
    pub(crate) async fn own_volume(&self, name: &VolumeName) -> Result<(Volumes, wire::Volume)> {
        let (volumes, volume) = self.of_volume(name).await?;
        check_owner(&volume)?;
        Ok((volumes, volume))
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

    /// The manager that has a snapshot; `None`: there is none.
    pub(crate) async fn of_snapshot(&self, id: &ImageName) -> Result<Option<Snapshots>> {
        let ask = |client: Client| snapshot(client, id.clone());
        let found = self.search(None, None, ask).await?;
        Ok(found.map(|(client, ())| self.snapshots(client)))
    }

    /// The manager that takes a new snapshot: the one that took it already, else the volume's.
    pub(crate) async fn for_snapshot(
        &self,
        id: &ImageName,
        volume: &VolumeName,
    ) -> Result<Snapshots> {
        let ask = |client: Client| snapshot(client, id.clone());
        let (census, found) = self.cluster.gather(ask, Option::is_some).await?;
        let mut with = census.members.iter().zip(found);
        if let Some((member, _)) = with.find(|(_, found)| found.is_some()) {
            return Ok(self.snapshots(member.client.clone()));
        }
        let (volumes, _) = self.of_volume(volume).await?;
        Ok(self.snapshots(volumes.into_client()))
    }

    /// Where a volume is, or where it is to be made: where an earlier call began to make it, else where a
    /// repeated call would choose as well. Disks that are silent are left out, unless this very volume
    /// may be on one of them.
    pub(crate) async fn locate(&self, request: &CreateVolume) -> Result<Place> {
        let name = &request.name;
        let ask = |client: Client| {
            let name = name.clone();
            async move { there(client.volume(&name).await) }
        };
        let (census, found) = self.cluster.gather(ask, Option::is_some).await?;
        self.seen.members(&census.members);
        if let Some(volume) = found.into_iter().flatten().next() {
            self.seen.volume(&volume);
            return Ok(Place::Has(Box::new(volume)));
        }
        let silent = census.silent(&self.seen.disks());
        if let Some((begun_at, _)) = self.seen.place_of(name)
            && let Some(node) = silent.get(&begun_at)
        {
            return Err(client::Error::silent(&begun_at, node).into());
        }
        let chosen = match self.source(request).await? {
            Some(client) => census.members.iter().find(|member| {
                // It has answered a moment ago, or it will not answer the next question either.
                member.client.address() == client.address()
            }),
            None => Some(self.choose(request, &census, silent.len())?),
        };
        let Some(chosen) = chosen else {
            let (answered, managers) = (census.members.len(), census.asked());
            return Err(Error::Incomplete { answered, managers });
        };
        // Before anything is on it: a disk that nobody knows can be silent without being missed.
        census.spread(Timestamp::now().as_second()).await;
        types::crash_point!("csi.create_volume.disks_told");
        self.seen.attempt(&chosen.disk.uuid, name);
        Ok(Place::New(self.volumes(chosen.client.clone())))
    }

    /// The manager of what a volume is to be made from.
    async fn source(&self, request: &CreateVolume) -> Result<Option<Client>> {
        Ok(match &request.source {
            Some(ContentSource::Volume(name)) => Some(self.of_volume(name).await?.0.into_client()),
            Some(ContentSource::Snapshot(id)) => {
                let snapshots = self.of_snapshot(id).await?;
                let snapshots = snapshots.ok_or_else(|| Error::NoSuchSnapshot {
                    snapshot_id: id.to_string(),
                })?;
                Some(snapshots.into_client())
            }
            None => None,
        })
    }

    /// The disk for a new volume, of those that answer.
    fn choose<'a>(
        &self,
        request: &CreateVolume,
        census: &'a Census,
        silent: usize,
    ) -> Result<&'a Member> {
        let covers = |segments, member: &Member| self.covers(segments, &member.disk.node_id);
        let requisite = &request.requisite;
        let fits = |member: &&Member| {
            requisite.is_empty() || requisite.iter().any(|segments| covers(segments, member))
        };
        let fitting: Vec<&Member> = census.members.iter().filter(fits).collect();
        let preference = |member: &Member| {
            let mut preferred = request.preferred.iter();
            preferred.position(|segments| covers(segments, member))
        };
        let wanted = request.capacity.required.unwrap_or_default();
        if let Some(chosen) = choose(&fitting, &request.name, wanted, preference) {
            return Ok(chosen);
        }
        if silent > 0 || census.unanswered > 0 {
            let (answered, managers) = (census.members.len(), census.asked());
            return Err(Error::Incomplete { answered, managers });
        }
        let nodes = census.members.iter();
        let nodes: Vec<&str> = nodes.map(|member| &*member.disk.node_id).collect();
        let here = nodes.join(", ");
        Err(Error::Topology { here })
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
        Ok(self.of_volume(first).await?.0.into_client())
    }

    /// The manager that has the snapshots of a group, and these; `None`: there is no such group.
    pub(crate) async fn group(
        &self,
        id: &ImageName,
    ) -> Result<Option<(Client, Vec<wire::BackingImage>)>> {
        let ask = |client: Client| {
            let id = id.clone();
            async move {
                let mut images = client.list_images().await?;
                images.retain(|image| {
                    crate::snapshots::is_snapshot(image) && image.snapshot_group == id.as_str()
                });
                Ok((!images.is_empty()).then_some(images))
            }
        };
        self.search(None, None, ask).await
    }

    /// Whether one of them answers: the others' volumes have to wait.
    ///
    /// # Errors
    /// What one says, when none does.
    pub(crate) async fn probe(&self, deadline: Duration) -> Result<()> {
        let ask = |client: Client| async move { client.disk().await };
        self.cluster.any(deadline, ask).await?;
        Ok(())
    }

    /// What volumes can still take, where a topology (none: anywhere) wants them, on the disks that
    /// answer.
    ///
    /// # Errors
    /// `Unavailable` where none of these does and one of them may be silent.
    pub(crate) async fn room(&self, topology: Option<&HashMap<String, String>>) -> Result<Room> {
        let ask = |_: Client| async { Ok(()) };
        let (census, _) = self.cluster.gather(ask, |()| false).await?;
        self.seen.members(&census.members);
        let here = |node: &str| topology.is_none_or(|segments| self.covers(segments, node));
        let mut room = Room::default();
        let mut answered = false;
        for member in &census.members {
            if here(&member.disk.node_id) {
                answered = true;
                let available = creatable(&member.disk);
                room.total = ByteSize(room.total.bytes().saturating_add(available));
                room.largest = room.largest.max(ByteSize(available));
            }
        }
        let silent = census.silent(&self.seen.disks());
        match silent.iter().find(|(_, node)| here(node)) {
            Some((uuid, node)) if !answered => Err(client::Error::silent(uuid, node).into()),
            _ => Ok(room),
        }
    }

    /// Tells the managers of each other and keeps what is remembered of volumes fresh, for as long as the
    /// process runs.
    pub(crate) async fn keep(self) {
        for round in 0_u32.. {
            if let Err(error) = self.look_around(round % LIST_EVERY == 0).await {
                tracing::debug!("cannot survey the node: {}", report(&error));
            }
            tokio::time::sleep(LOOK_AROUND).await;
        }
    }

    async fn look_around(&self, list: bool) -> Result<()> {
        let ask = |_: Client| async { Ok(()) };
        let (census, _) = self.cluster.gather(ask, |()| false).await?;
        self.seen.members(&census.members);
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

/// Whether a manager has a snapshot of that name. Other images have other uses, and may have the name.
async fn snapshot(client: Client, id: ImageName) -> client::Result<Option<()>> {
    let image = there(client.image(&id, None).await)?;
    Ok(image.and_then(|image| (!image.source_volume.is_empty()).then_some(())))
}

/// What is there, or `None`.
fn there<T>(answer: client::Result<T>) -> client::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a new volume may have on a disk. A manager of an earlier version does not say.
fn creatable(disk: &wire::Disk) -> u64 {
    disk.creatable.unwrap_or(disk.available)
}

/// The same of equal ones each time: those with room first, then the most preferred, then by a hash of
/// the names, which spreads volumes over disks.
fn choose<'a>(
    members: &[&'a Member],
    name: &VolumeName,
    wanted: ByteSize,
    preference: impl Fn(&Member) -> Option<usize>,
) -> Option<&'a Member> {
    let rank = |member: &&&Member| {
        let mut hasher = DefaultHasher::new();
        (name.as_str(), &member.disk.uuid).hash(&mut hasher);
        (
            creatable(&member.disk) < wanted.bytes(),
            preference(member).unwrap_or(usize::MAX),
            hasher.finish(),
        )
    };
    members.iter().min_by_key(rank).copied()
}

#[cfg(test)]
mod tests;
