//! A record beside what is seen of it: the questions that decisions are made of. What cannot be seen is never taken
//! for good.

use types::NodeId;

use crate::{Connection, DiskState, Layout, Member, Record, Verb, View, converge};

/// Minutes after which a member without data is given up where the volume says nothing.
const IDLE_MINUTES: u32 = 20;

/// A record of a volume with DRBD, and what is seen of it.
#[derive(Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) record: &'a Record,
    pub(crate) view: &'a View,
    layout: Option<Layout>,
}

impl<'a> Sight<'a> {
    pub(crate) fn new(record: &'a Record, view: &'a View) -> Self {
        let layout = record.layout();
        Self {
            record,
            view,
            layout,
        }
    }

    /// The members that count: those with a replica that the others know.
    pub(crate) fn voters(&self) -> impl Iterator<Item = &'a Member> + Clone {
        let members = self.record.members.iter();
        members.filter(|member| member.disk.is_some() && !member.create)
    }

    /// The one that becomes a voter.
    pub(crate) fn joiner(&self) -> Option<&'a Member> {
        let mut replicas = self.record.replicas();
        replicas.find(|member| member.create)
    }

    /// The members without a replica.
    pub(crate) fn diskless(&self) -> impl Iterator<Item = &'a Member> + Clone {
        let members = self.record.members.iter();
        members.filter(|member| member.disk.is_none())
    }

    /// Whether a node may have the device open.
    pub(crate) fn in_use(&self, node: &NodeId) -> bool {
        self.record.holder.as_ref() == Some(node) || self.record.readers.contains(node)
    }

    pub(crate) fn is_evacuated(&self, member: &Member) -> bool {
        self.record.evacuate.contains(&member.node)
    }

    /// Whether a member keeps the layout of this record, and its kernel counts the votes of it. Disks and
    /// connections may still be missing.
    pub(crate) fn is_told(&self, member: &Member) -> bool {
        let (Some(layout), Some(part)) = (&self.layout, self.view.up(member)) else {
            return false;
        };
        let counts = |verb: &Verb| {
            let other = matches!(
                verb,
                Verb::AttachDisk { .. } | Verb::GrowDisk | Verb::Connect(_)
            );
            !other
        };
        let verbs = converge(layout, &member.node, Some(part));
        part.generation == self.record.generation && !verbs.iter().any(counts)
    }

    /// The members that others are connected to and that are not told: as long as there are any, there may be votes
    /// of before.
    pub(crate) fn untold(&self) -> Vec<&'a Member> {
        let members = self.record.members.iter();
        let members = members.filter(|member| !member.create && !member.apart);
        members.filter(|member| !self.is_told(member)).collect()
    }

    /// Whether a member's kernel has its replica attached.
    pub(crate) fn is_attached(&self, member: &Member) -> bool {
        let part = self.view.up(member);
        part.is_some_and(|part| is_replica(part.disk))
    }

    /// Whether a disk has lost the replica that it had.
    pub(crate) fn is_gone(&self, member: &Member) -> bool {
        let disk = member.disk.as_ref().and_then(|disk| self.view.disk(disk));
        let had = !member.create || self.record.is_whole(member.id);
        had && disk.is_some_and(|disk| disk.file.is_none())
    }

    /// Whether a member takes part: its kernel or those of others say that it is connected to a current replica
    /// (for one with a replica: with it). When no replica is current, those are present whose kernels are up.
    pub(crate) fn is_present(&self, member: &Member) -> bool {
        let own = self.view.up(member);
        let fit = |disk| member.disk.is_none() || is_replica(disk);
        let up = own.is_some_and(|part| fit(part.disk));
        if member.create || member.apart {
            return up;
        }
        let mut current = self.voters().filter(|one| self.view.is_current(one));
        if current.clone().next().is_none() {
            return up;
        }
        current.any(|one| {
            let link = self.view.up(one).and_then(|part| part.link(member.id));
            let seen =
                link.is_some_and(|link| link.connection == Connection::Connected && fit(link.disk));
            one == member || seen || (up && self.view.sees(member, one.id))
        })
    }

    /// Whether a member is noted as lost, and is not back.
    pub(crate) fn is_lost(&self, member: &Member) -> bool {
        let mut lost = self.record.lost.iter();
        lost.any(|loss| loss.member == member.id) && !self.is_present(member)
    }

    /// Whether a member is lost for so long that it is replaced. A replica with data never is where the timeout is 0;
    /// others wait for [`IDLE_MINUTES`] then.
    pub(crate) fn is_expired(&self, member: &Member) -> bool {
        let has_data = member.disk.is_some() && !member.create;
        let minutes = match self.record.stale_replica_timeout {
            0 if has_data => return false,
            0 => IDLE_MINUTES,
            minutes => minutes,
        };
        let mut lost = self.record.lost.iter();
        let loss = lost.find(|loss| loss.member == member.id);
        let patience = i64::from(minutes) * 60;
        loss.is_some_and(|loss| self.view.now.saturating_sub(loss.since) >= patience)
    }
}

/// Whether this is the state of a replica that is there, whatever is in it.
fn is_replica(disk: DiskState) -> bool {
    match disk {
        DiskState::Inconsistent
        | DiskState::Outdated
        | DiskState::Consistent
        | DiskState::UpToDate => true,
        DiskState::Diskless | DiskState::Failed | DiskState::Negotiating | DiskState::Unknown => {
            false
        }
    }
}
