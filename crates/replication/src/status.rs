//! What is said of a volume, for people and for the status of its record: how it is, why, and each member.

use serde::{Deserialize, Serialize};
use types::{ByteSize, DiskUuid, NodeId};

use crate::place::unusable;
use crate::sight::Sight;
use crate::{Connection, DiskState, Member, MemberId, Part, Record, Replication, Role, View};

/// How a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Health {
    /// It is being made, or deleted.
    Pending,
    /// It is as wanted.
    Healthy,
    /// It works, and survives less than wanted.
    Degraded,
    /// Its I/O waits.
    Stalled,
    /// Data is lost.
    Faulty,
    /// Nobody who could know answers.
    Unknown,
}

/// Why. Written like reasons of Kubernetes' conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// It is being made.
    Creating,
    /// It is being deleted.
    Deleting,
    /// All replicas are current.
    AsWanted,
    /// Too few nodes have DRBD for the replicas that it asks for.
    NoDrbd,
    /// Too few nodes have a disk for the replicas that it asks for.
    TooFewDisks,
    /// A replica is not there.
    ReplicaLost,
    /// A replica gets what it lacks.
    Resynchronising,
    /// Replicas refuse each other's data.
    SplitBrain,
    /// No majority of its replicas is connected.
    NoQuorum,
    /// No replica that is there is current.
    NoCurrentReplica,
    /// All disks have lost it.
    DataLost,
    /// Nobody answers.
    NotAnswering,
}

/// A member, as its kernel or those of others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its number.
    pub id: MemberId,
    /// Its node.
    pub node: NodeId,
    /// The disk of its replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskUuid>,
    /// Whether it may write.
    pub role: Role,
    /// Of its replica.
    pub state: DiskState,
    /// To the others: the worst of its connections. Without others: connected.
    pub connection: Connection,
    /// Percent of its data that is there, while it gets what it lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<u8>,
    /// Bytes that it lacks.
    #[serde(default)]
    pub out_of_sync: ByteSize,
}

/// What is seen of a volume. The controller writes it beside the record; nothing reads it but people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How it is.
    pub health: Health,
    /// Why.
    pub reason: Reason,
    /// The same in a sentence.
    pub message: String,
    /// Bytes that it offers, as people write them.
    pub size: String,
    /// Replicas that are current and those that are asked for, as people write them: `2/3`.
    pub replicas: String,
    /// Replicas that are current.
    pub current: u32,
    /// Replicas that are asked for.
    pub wanted: u32,
    /// The node that may write, as the kernels say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<NodeId>,
    /// Its members.
    pub members: Vec<MemberStatus>,
}

impl Health {
    /// As the status spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Healthy => "Healthy",
            Self::Degraded => "Degraded",
            Self::Stalled => "Stalled",
            Self::Faulty => "Faulty",
            Self::Unknown => "Unknown",
        }
    }
}

impl Status {
    /// What somebody should know of, in a sentence; `None`: it is as it should be, or is being made or deleted.
    pub fn trouble(&self) -> Option<&str> {
        match self.health {
            Health::Pending | Health::Healthy => None,
            Health::Degraded | Health::Stalled | Health::Faulty | Health::Unknown => {
                Some(&self.message)
            }
        }
    }
}

/// What is seen of a volume.
pub fn judge(record: &Record, view: &View) -> Status {
    let sight = Sight::new(record, view);
    let members: Vec<MemberStatus> = record
        .members
        .iter()
        .map(|one| member(&sight, one))
        .collect();
    let current = match record.address {
        Some(_) => sight.voters().filter(|one| view.is_current(one)).count(),
        None => usize::from(plain_file(record, view) == Some(true)),
    };
    let (health, reason, detail) = verdict(&sight, current);
    let holder = members.iter().find(|one| one.role == Role::Primary);
    let wanted = record.number_of_replicas;
    let mut message = format!("{current} of {wanted} replicas are current");
    if !detail.is_empty() {
        message = format!("{message}: {detail}");
    }
    Status {
        health,
        reason,
        message,
        size: quantity(record.size),
        replicas: format!("{current}/{wanted}"),
        current: u32::try_from(current).unwrap_or(u32::MAX),
        wanted,
        holder: holder.map(|one| one.node.clone()),
        members,
    }
}

/// A size as in the claim, where that is a whole number of a binary unit; else bytes.
fn quantity(size: ByteSize) -> String {
    let text = size.to_string();
    let unit = text
        .split_once('(')
        .map(|(_, unit)| unit.trim_end_matches(')'));
    unit.map_or(text.clone(), str::to_owned)
}

/// Whether a node can use the volume now: it has the layout that lets it, and the data.
///
/// # Errors
/// What is missing, for people.
pub fn usable(record: &Record, view: &View, node: &NodeId) -> Result<(), String> {
    let Some(member) = record.member(node) else {
        return Err(format!("node {node} has no part in it yet"));
    };
    if record.address.is_none() {
        return match plain_file(record, view) {
            Some(true) => Ok(()),
            Some(false) => Err("its disk has no file of it".to_owned()),
            None => Err("its disk does not answer".to_owned()),
        };
    }
    let sight = Sight::new(record, view);
    let Some(part) = view.part(member) else {
        return Err(format!("node {node} does not say that it has its part"));
    };
    if !sight.is_told(member) {
        return Err(format!("node {node} adapts to the layout"));
    }
    if !part.quorum {
        return Err(format!("node {node} sees no majority of the replicas"));
    }
    let of_others = part.links.iter();
    let mut of_others = of_others.filter(|link| link.connection == Connection::Connected);
    if part.disk == DiskState::UpToDate || of_others.any(|link| link.disk == DiskState::UpToDate) {
        return Ok(());
    }
    Err(format!("node {node} sees no current replica"))
}

/// Whether the disk of a volume without DRBD has it; `None`: it does not answer.
fn plain_file(record: &Record, view: &View) -> Option<bool> {
    let disk = record.members.first()?.disk.as_ref()?;
    Some(view.disk(disk)?.file.is_some())
}

fn verdict(sight: &Sight<'_>, current: usize) -> (Health, Reason, String) {
    let (record, view) = (sight.record, sight.view);
    if record.deleting {
        return (
            Health::Pending,
            Reason::Deleting,
            "it is being deleted".to_owned(),
        );
    }
    if !record.initialized {
        return (
            Health::Pending,
            Reason::Creating,
            "it is being made".to_owned(),
        );
    }
    if record.address.is_none() {
        return match plain_file(record, view) {
            None => (
                Health::Unknown,
                Reason::NotAnswering,
                "its disk does not answer".to_owned(),
            ),
            Some(false) => (
                Health::Faulty,
                Reason::DataLost,
                "its disk has lost it".to_owned(),
            ),
            Some(true) => completeness(sight, current),
        };
    }
    if current == 0 {
        return stalled(sight);
    }
    if let Some((one, other)) = split(sight) {
        let detail = format!(
            "nodes {} and {} refuse each other's data",
            one.node, other.node
        );
        return (Health::Degraded, Reason::SplitBrain, detail);
    }
    let mut waits = record.members.iter().filter(|member| {
        let part = view.up(member);
        part.is_some_and(|part| part.role == Role::Primary && part.suspended)
    });
    if let Some(holder) = waits.next() {
        let detail = format!("the I/O of node {} waits for a majority", holder.node);
        return (Health::Stalled, Reason::NoQuorum, detail);
    }
    completeness(sight, current)
}

/// No replica is current, as far as is seen.
fn stalled(sight: &Sight<'_>) -> (Health, Reason, String) {
    let mut voters = sight.voters();
    if voters.clone().all(|member| sight.is_gone(member)) {
        return (
            Health::Faulty,
            Reason::DataLost,
            "all disks have lost it".to_owned(),
        );
    }
    if voters
        .clone()
        .all(|member| sight.view.node(&member.node).is_none())
    {
        let detail = "none of their nodes answers".to_owned();
        return (Health::Unknown, Reason::NotAnswering, detail);
    }
    let whole =
        |part: &Part| part.disk == DiskState::UpToDate || part.disk == DiskState::Consistent;
    if voters.any(|member| sight.view.up(member).is_some_and(whole)) {
        let detail = format!("no majority of them is connected; {}", absent(sight));
        return (Health::Stalled, Reason::NoQuorum, detail);
    }
    let detail = format!(
        "those that are there are older or not whole; {}",
        absent(sight)
    );
    (Health::Stalled, Reason::NoCurrentReplica, detail)
}

/// It works: what is missing to what is wanted.
fn completeness(sight: &Sight<'_>, current: usize) -> (Health, Reason, String) {
    let filled = |member: &&Member| {
        let part = sight.view.up(member);
        part.is_some_and(|part| target(part).is_some())
    };
    let lost = absent(sight);
    if sight.record.address.is_some() && !lost.is_empty() {
        return (Health::Degraded, Reason::ReplicaLost, lost);
    }
    if let Some(member) = sight.record.replicas().find(filled) {
        let detail = format!("the replica on node {} gets what it lacks", member.node);
        return (Health::Degraded, Reason::Resynchronising, detail);
    }
    let wanted = usize::try_from(sight.record.number_of_replicas).unwrap_or(usize::MAX);
    if current >= wanted {
        return (Health::Healthy, Reason::AsWanted, String::new());
    }
    if let Some(joiner) = sight.joiner().filter(|_| sight.record.address.is_some()) {
        let detail = format!("the replica on node {} is being made", joiner.node);
        return (Health::Degraded, Reason::Resynchronising, detail);
    }
    let view = sight.view;
    let able = view.nodes.keys().filter(|node| view.able(node).is_some());
    let reason = if able.count() < wanted.min(2) {
        Reason::NoDrbd
    } else {
        Reason::TooFewDisks
    };
    let why = unusable(view, sight.record.size).join("; ");
    (Health::Degraded, reason, why)
}

/// The replicas that are not there, in words.
fn absent(sight: &Sight<'_>) -> String {
    let absent = sight.voters().filter(|member| !sight.is_present(member));
    let words = absent.map(|member| {
        let why = if sight.is_gone(member) {
            "its disk has lost it"
        } else if sight.view.node(&member.node).is_none() {
            "its node does not answer"
        } else {
            "it is not connected"
        };
        format!("the replica on node {} is not there: {why}", member.node)
    });
    words.collect::<Vec<_>>().join("; ")
}

/// Two members that refuse each other.
fn split<'a>(sight: &Sight<'a>) -> Option<(&'a Member, &'a Member)> {
    let alone = |one: &Member, other: &Member| {
        let link = sight.view.up(one).and_then(|part| part.link(other.id));
        let alone = link.is_some_and(|link| link.connection == Connection::StandAlone);
        alone && !one.apart && !other.apart
    };
    sight.voters().find_map(|one| {
        let mut others = sight.voters();
        let other = others.find(|other| alone(one, other) && alone(other, one))?;
        Some((one, other))
    })
}

/// Bytes that a part still gets.
fn target(part: &Part) -> Option<ByteSize> {
    let links = part.links.iter();
    let links = links.filter(|link| link.replication == Replication::SyncTarget);
    links.map(|link| link.out_of_sync).max()
}

fn member(sight: &Sight<'_>, member: &Member) -> MemberStatus {
    let own = sight.view.up(member);
    let seen = || {
        let others = sight
            .record
            .members
            .iter()
            .filter(|one| one.id != member.id);
        let parts = others.filter_map(|one| sight.view.up(one));
        parts.filter_map(|part| part.link(member.id))
    };
    let best = seen().max_by_key(|link| link.connection == Connection::Connected);
    let role = own.map_or(best.map_or(Role::Unknown, |link| link.role), |part| {
        part.role
    });
    let state = own.map_or(best.map_or(DiskState::Unknown, |link| link.disk), |part| {
        part.disk
    });
    let links = own.map(|part| part.links.iter().map(|link| link.connection));
    let worst = links.map(|mut links| {
        let worst = links.find(|connection| *connection != Connection::Connected);
        worst.unwrap_or(Connection::Connected)
    });
    let connection = worst.or(best.map(|link| link.connection));
    let lacks = own.and_then(target);
    let size = sight.record.size.bytes().max(1);
    let percent = |lacks: ByteSize| {
        let done = size.saturating_sub(lacks.bytes());
        u8::try_from(u128::from(done) * 100 / u128::from(size)).unwrap_or(100)
    };
    MemberStatus {
        id: member.id,
        node: member.node.clone(),
        disk: member.disk.clone(),
        role,
        state,
        connection: connection.unwrap_or(Connection::StandAlone),
        progress: lacks.map(percent),
        out_of_sync: lacks.unwrap_or_default(),
    }
}
