//! What decisions about members are made of: who could take part, whether the others are enough, and the elementary
//! changes of a record.

use types::{DiskUuid, NodeId};

use crate::place::{REPLICAS_MAX, Search};
use crate::sight::Sight;
use crate::{DiskView, Member, Record};

/// A change of what counts, if all are told what counts now; or those that cannot be told are set apart.
pub(super) fn change(
    sight: &Sight<'_>,
    waiting: &mut Vec<String>,
    by: impl FnOnce(&mut Record),
) -> Option<Record> {
    let untold = sight.untold();
    let mut next = sight.record.clone();
    if untold.is_empty() {
        by(&mut next);
        return Some(next);
    }
    if untold.iter().all(|member| sight.is_lost(member)) {
        for member in &mut next.members {
            member.apart |= untold.iter().any(|one| one.id == member.id);
        }
        return Some(next);
    }
    let names = untold.iter().map(|member| member.node.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    waiting.push(format!(
        "its members change when all have the layout; not yet: {names}"
    ));
    None
}

pub(super) fn with(sight: &Sight<'_>, member: &Member, by: impl FnOnce(&mut Member)) -> Record {
    let mut next = sight.record.clone();
    let found = next.members.iter_mut().find(|one| one.id == member.id);
    found.map(by);
    next
}

/// Whether members without a replica count.
pub(super) fn breaks_ties(sight: &Sight<'_>) -> bool {
    sight.voters().count().is_multiple_of(2)
}

/// Whether the others have the majority and all data.
pub(super) fn can_do_without(sight: &Sight<'_>, member: &Member) -> bool {
    let count = sight.voters().count();
    let rest = count.saturating_sub(1);
    let tie = sight.diskless().any(|one| sight.is_present(one));
    let majority = rest * 2 > count || (rest > 0 && rest * 2 == count && tie);
    majority && all_current(sight, Some(member))
}

pub(super) fn all_current(sight: &Sight<'_>, except: Option<&Member>) -> bool {
    let mut rest = sight.voters().filter(|member| Some(*member) != except);
    rest.all(|member| sight.view.is_current(member))
}

pub(super) fn wanted(sight: &Sight<'_>) -> usize {
    let wanted = sight.record.number_of_replicas.clamp(1, REPLICAS_MAX);
    usize::try_from(wanted).unwrap_or(usize::MAX)
}

/// The replicas that are to stay.
pub(super) fn staying(sight: &Sight<'_>) -> usize {
    let voters = sight.voters();
    voters.filter(|member| !sight.is_evacuated(member)).count()
}

pub(super) fn wants_breaker(sight: &Sight<'_>) -> bool {
    let voters = sight.voters().count();
    let second = || {
        let more = staying(sight) < wanted(sight) && sight.view.may_fill;
        sight.joiner().is_some() || (more && !free(sight, 1).is_empty())
    };
    voters.is_multiple_of(2) || (voters == 1 && second())
}

/// Disks for one more replica: rather of nodes that have no part yet than of one that breaks ties.
pub(super) fn free(sight: &Sight<'_>, count: usize) -> Vec<DiskUuid> {
    let members = &sight.record.members;
    let all: Vec<&NodeId> = members.iter().map(|member| &member.node).collect();
    let found = candidates(sight, &all, count);
    if !found.is_empty() {
        return found;
    }
    let keeps = |member: &&Member| member.disk.is_some() || sight.in_use(&member.node);
    let kept = members.iter().filter(keeps).map(|member| &member.node);
    candidates(sight, &kept.collect::<Vec<_>>(), count)
}

pub(super) fn candidates(sight: &Sight<'_>, taken: &[&NodeId], count: usize) -> Vec<DiskUuid> {
    let record = sight.record;
    let usable = |_: &DiskUuid, disk: &DiskView| {
        let leftover = record.leftovers.iter().any(|one| one.node == disk.node);
        let evacuated = record.evacuate.contains(&disk.node);
        !leftover && !evacuated && disk.file.is_none() && sight.view.able(&disk.node).is_some()
    };
    let search = Search {
        volume: &record.volume,
        size: record.size,
        usable: &usable,
    };
    search.find(sight.view, taken, count)
}

pub(super) fn add(
    sight: &Sight<'_>,
    next: &mut Record,
    node: &NodeId,
    disk: Option<DiskUuid>,
) -> bool {
    let member = sight.view.able(node);
    let member = member.and_then(|address| next.next_member(node.clone(), address, disk));
    let added = member.is_some();
    next.members.extend(member);
    added
}

/// Takes a member out; what it has is to be cleared.
pub(super) fn remove(next: &mut Record, member: &Member) {
    next.members.retain(|one| one.id != member.id);
    next.lost.retain(|loss| loss.member != member.id);
    next.whole.retain(|id| *id != member.id);
    next.leftovers.push(member.clone());
}

pub(super) fn inability(sight: &Sight<'_>, node: &NodeId) -> String {
    match sight.view.nodes.get(node) {
        Some(node) if node.answers => match &node.engine {
            Err(trouble) => trouble.clone(),
            Ok(_) if node.address.is_none() => "it has no address for replication".to_owned(),
            Ok(_) => "all numbers of members are in use".to_owned(),
        },
        _ => "it does not answer".to_owned(),
    }
}

pub(super) fn at(member: &Member) -> String {
    match &member.disk {
        Some(disk) => format!("the replica on node {} (disk {disk})", member.node),
        None => format!("node {}", member.node),
    }
}
