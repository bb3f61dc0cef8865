//! Which disk a new volume gets: where its topology and the room lead it, among the disks that answer, and the
//! same one when the call is repeated.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use client::{Census, Client, Member, wire};
use types::{ByteSize, VolumeName};

use super::Managers;
use crate::error::{Error, Result};
use crate::request::CreateVolume;

/// What volumes can still take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) total: ByteSize,
    /// One of them: a volume lies on one disk.
    pub(crate) largest: ByteSize,
}

impl Managers {
    /// The rank of a node in what a request prefers: 0 is the best; `None`: it does not name the node.
    pub(crate) fn rank(&self, request: &CreateVolume, node: &str) -> Option<usize> {
        let mut preferred = request.preferred.iter();
        preferred.position(|segments| self.covers(segments, node))
    }

    /// The disk for a new volume, of those that answer.
    pub(super) fn choose<'a>(
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

    /// What volumes can still take, where a topology (none: anywhere) wants them, on the disks that
    /// answer.
    ///
    /// # Errors
    /// `Unavailable` where none of these does and one of them may be silent.
    pub(crate) async fn room(&self, topology: Option<&HashMap<String, String>>) -> Result<Room> {
        let ask = |_: Client| async { Ok(()) };
        let census = self.gather(ask, |()| false).await?.census;
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
}

/// What a new volume may have on a disk. A manager of an earlier version does not say.
pub(crate) fn creatable(disk: &wire::Disk) -> u64 {
    disk.creatable.unwrap_or(disk.available)
}

/// The same of equal ones each time: those with room first, then the most preferred, then by a hash of
/// the names, which spreads volumes over disks.
pub(super) fn choose<'a>(
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
