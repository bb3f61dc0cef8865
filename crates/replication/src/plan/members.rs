//! Who takes part: one change of the members at a time.
//!
//! Votes are counted by each kernel as it was told. Two sets of voters that follow each other share a member in any
//! two of their majorities; two that do not may not. So voters change only when all members count by the record as
//! it is: what was true of the change before is then forgotten everywhere, but at those that were removed, which
//! nobody connects to any more.

use types::{DiskUuid, NodeId};

use crate::place::{Search, unusable};
use crate::sight::Sight;
use crate::{DiskView, Member, Record};

/// The next change of the members, if one is wanted and possible; what is waited for is added to `waiting`.
pub(super) fn decide(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    if !sight.record.initialized {
        return gather(sight, waiting);
    }
    let mut rules = [
        let_go,
        let_in,
        drop_joiner,
        drop_lost,
        break_ties,
        admit,
        join,
        drop_excess,
    ]
    .into_iter();
    rules.find_map(|rule| rule(sight, waiting))
}

/// Before there is data: members that do not answer, or cannot attach their replica, are replaced by others, or
/// left out until they can join.
fn gather(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let (record, view) = (sight.record, sight.view);
    let usable = |member: &&Member| {
        let disk = member.disk.as_ref().and_then(|disk| view.disk(disk));
        let part = view.part(member);
        let refused = part.is_some_and(|part| {
            let told = part.generation == record.generation && !part.troubles.is_empty();
            told && !sight.is_attached(member)
        });
        disk.is_some() && view.able(&member.node).is_some() && !refused
    };
    let (kept, dropped): (Vec<&Member>, Vec<&Member>) = record.replicas().partition(usable);
    if dropped.is_empty() {
        return None;
    }
    if !record.whole.is_empty() {
        // It was without DRBD: the one that it has cannot be replaced.
        waiting.extend(
            dropped
                .iter()
                .map(|member| format!("{} does not answer", at(member))),
        );
        return None;
    }
    let mut next = record.clone();
    for member in &dropped {
        remove(&mut next, member);
    }
    let taken: Vec<&NodeId> = kept.iter().map(|member| &member.node).collect();
    for disk in candidates(sight, &taken, dropped.len()) {
        add(sight, &mut next, &view.disks.get(&disk)?.node, Some(disk));
    }
    if next.members.is_empty() {
        waiting.push("none of its disks answers".to_owned());
        return None;
    }
    Some(next)
}

/// A member without a replica that nobody uses and no tie needs.
fn let_go(sight: &Sight<'_>, _: &mut Vec<String>) -> Option<Record> {
    let idle = sight
        .diskless()
        .filter(|member| !sight.in_use(&member.node));
    let used = sight.diskless().any(|member| sight.in_use(&member.node));
    let counts = |member: &&Member| sight.is_present(member) || !sight.is_expired(member);
    let fit = |member: &&Member| counts(member) && !sight.is_evacuated(member);
    let keep = (!used && wants_breaker(sight)).then(|| {
        let present = idle.clone().filter(fit);
        present.min_by_key(|member| (!sight.is_present(member), member.id))
    });
    let keep = keep.flatten();
    let mut idle = idle.filter(|member| Some(*member) != keep);
    let mut next = sight.record.clone();
    remove(&mut next, idle.next()?);
    Some(next)
}

/// A node that uses the volume takes part.
fn let_in(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let record = sight.record;
    let users = record.holder.iter().chain(&record.readers);
    for node in users.filter(|node| record.member(node).is_none()) {
        let mut next = record.clone();
        if add(sight, &mut next, node, None) {
            return Some(next);
        }
        waiting.push(format!(
            "node {node} cannot take part: {}",
            inability(sight, node)
        ));
    }
    None
}

/// A replica that never joined may go at any time: nobody counts it.
fn drop_joiner(sight: &Sight<'_>, _: &mut Vec<String>) -> Option<Record> {
    let joiner = sight.joiner()?;
    let enough = staying(sight) >= wanted(sight);
    if !(enough || sight.is_expired(joiner) || sight.is_gone(joiner) || sight.is_evacuated(joiner))
    {
        return None;
    }
    let mut next = sight.record.clone();
    remove(&mut next, joiner);
    Some(next)
}

/// A replica that is lost for too long, or whose disk has lost it.
fn drop_lost(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let is_lost = |member: &&Member| sight.is_gone(member) || sight.is_expired(member);
    for member in sight.voters().filter(is_lost) {
        let name = at(member);
        let replaceable = sight.is_gone(member)
            || sight.is_evacuated(member)
            || staying(sight) > wanted(sight)
            || sight.joiner().is_some()
            || (sight.view.may_fill && !free(sight, 1).is_empty());
        if sight.in_use(&member.node) {
            waiting.push(format!(
                "{name} is lost, and replaced when its node does not use the volume"
            ));
        } else if !replaceable {
            waiting.push(format!(
                "{name} is lost, and no other disk can take its place"
            ));
        } else if !can_do_without(sight, member) {
            waiting.push(format!(
                "{name} is lost; the others must have the majority, all data, and the same layout"
            ));
        } else {
            let mut next = sight.record.clone();
            remove(&mut next, member);
            return Some(next);
        }
    }
    None
}

/// With an even number of replicas a member without one keeps the majority with whoever is left; also while a
/// second replica joins the only one.
fn break_ties(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let counts = |member: &Member| sight.is_present(member) || !sight.is_expired(member);
    let mut diskless = sight
        .diskless()
        .filter(|member| !sight.is_evacuated(member) || sight.in_use(&member.node));
    if !wants_breaker(sight) || diskless.any(counts) {
        return None;
    }
    let next_disk = free(sight, 1);
    let next_disk = next_disk
        .first()
        .and_then(|disk| sight.view.disks.get(disk));
    let fits = |node: &&NodeId| {
        let member = sight.record.member(node).is_some();
        let leftover = sight.record.leftovers.iter().any(|one| one.node == **node);
        let joins =
            sight.voters().count() == 1 && next_disk.is_some_and(|disk| disk.node == **node);
        !member
            && !leftover
            && !joins
            && !sight.record.evacuate.contains(node)
            && sight.view.able(node).is_some()
    };
    let mut nodes = sight.view.nodes.keys().filter(fits);
    let Some(node) = nodes.next() else {
        if sight.voters().count() > 1 {
            waiting.push("no other node can break a tie of its replicas".to_owned());
        }
        return None;
    };
    let mut next = sight.record.clone();
    add(sight, &mut next, node, None).then_some(next)
}

/// A replica that is attached on its node becomes known to the others.
fn admit(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let joiner = sight.joiner()?;
    if !sight.is_attached(joiner) {
        waiting.push(format!("{} is being made", at(joiner)));
        return None;
    }
    let told = sight.is_told(joiner) && sight.all_told(None);
    if !told || !all_current(sight, None) {
        waiting.push(format!(
            "{} joins when all others have all data and the same layout",
            at(joiner)
        ));
        return None;
    }
    let mut next = sight.record.clone();
    let mut members = next.members.iter_mut();
    members.find(|member| member.id == joiner.id)?.create = false;
    Some(next)
}

/// One more replica.
fn join(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let missing = wanted(sight).saturating_sub(staying(sight));
    if missing == 0 || sight.joiner().is_some() {
        return None;
    }
    let Some(disk) = free(sight, 1).pop() else {
        let why = unusable(sight.view, sight.record.size).join("; ");
        waiting.push(format!(
            "a disk for {missing} more of {} replicas: {why}",
            wanted(sight)
        ));
        return None;
    };
    if !sight.view.may_fill {
        waiting.push("other volumes are being filled".to_owned());
        return None;
    }
    if !all_current(sight, None) {
        waiting.push("one more replica joins when all others have all data".to_owned());
        return None;
    }
    let node = &sight.view.disks.get(&disk)?.node;
    let mut next = sight.record.clone();
    if let Some(breaker) = sight.record.member(node) {
        remove(&mut next, breaker);
    }
    add(sight, &mut next, node, Some(disk)).then_some(next)
}

/// A replica on a node that shall have none, once the others are enough; or one that is too many.
fn drop_excess(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let enough = staying(sight);
    let mut victims: Vec<&Member> = sight.voters().collect();
    if enough <= wanted(sight) {
        victims.retain(|member| sight.is_evacuated(member));
        if victims.is_empty() || enough < wanted(sight) {
            return None;
        }
    } else if victims.iter().any(|member| sight.is_evacuated(member)) {
        victims.retain(|member| sight.is_evacuated(member));
    }
    let used = |member: &&&Member| sight.in_use(&member.node);
    let victim = victims.iter().filter(|member| !used(member));
    let victim = victim.min_by_key(|member| {
        let whole = sight.record.is_whole(member.id);
        (
            sight.is_present(member),
            whole,
            std::cmp::Reverse(member.id),
        )
    });
    let Some(victim) = victim else {
        waiting.push(format!(
            "{} is removed when its node does not use the volume",
            at(victims[0])
        ));
        return None;
    };
    let voluntary = sight.all_told(None) && all_current(sight, None);
    if !voluntary && !can_do_without(sight, victim) {
        waiting.push(format!(
            "{} is removed when all others have all data and the same layout",
            at(victim)
        ));
        return None;
    }
    let mut next = sight.record.clone();
    remove(&mut next, victim);
    Some(next)
}

/// Whether the others have the majority, all data, and count by the same layout.
fn can_do_without(sight: &Sight<'_>, member: &Member) -> bool {
    let count = sight.voters().count();
    let rest = count.saturating_sub(1);
    let tie = sight.diskless().any(|one| sight.is_present(one));
    let majority = rest * 2 > count || (rest > 0 && rest * 2 == count && tie);
    majority && sight.all_told(Some(member)) && all_current(sight, Some(member))
}

fn all_current(sight: &Sight<'_>, except: Option<&Member>) -> bool {
    let mut rest = sight.voters().filter(|member| Some(*member) != except);
    rest.all(|member| sight.view.is_current(member))
}

fn wanted(sight: &Sight<'_>) -> usize {
    usize::try_from(sight.record.number_of_replicas).unwrap_or(usize::MAX)
}

/// The replicas that are to stay.
fn staying(sight: &Sight<'_>) -> usize {
    let voters = sight.voters();
    voters.filter(|member| !sight.is_evacuated(member)).count()
}

fn wants_breaker(sight: &Sight<'_>) -> bool {
    let voters = sight.voters().count();
    let second = || {
        let more = staying(sight) < wanted(sight) && sight.view.may_fill;
        sight.joiner().is_some() || (more && !free(sight, 1).is_empty())
    };
    voters.is_multiple_of(2) || (voters == 1 && second())
}

/// Disks for one more replica: rather of nodes that have no part yet than of one that breaks ties.
fn free(sight: &Sight<'_>, count: usize) -> Vec<DiskUuid> {
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

fn candidates(sight: &Sight<'_>, taken: &[&NodeId], count: usize) -> Vec<DiskUuid> {
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

fn add(sight: &Sight<'_>, next: &mut Record, node: &NodeId, disk: Option<DiskUuid>) -> bool {
    let member = sight.view.able(node);
    let member = member.and_then(|address| next.next_member(node.clone(), address, disk));
    let added = member.is_some();
    next.members.extend(member);
    added
}

/// Takes a member out; what it has is to be cleared.
fn remove(next: &mut Record, member: &Member) {
    next.members.retain(|one| one.id != member.id);
    next.lost.retain(|loss| loss.member != member.id);
    next.whole.retain(|id| *id != member.id);
    next.leftovers.push(member.clone());
}

fn inability(sight: &Sight<'_>, node: &NodeId) -> String {
    match sight.view.nodes.get(node) {
        Some(node) if node.answers => match &node.engine {
            Err(trouble) => trouble.clone(),
            Ok(_) if node.address.is_none() => "it has no address for replication".to_owned(),
            Ok(_) => "all numbers of members are in use".to_owned(),
        },
        _ => "it does not answer".to_owned(),
    }
}

fn at(member: &Member) -> String {
    match &member.disk {
        Some(disk) => format!("the replica on node {} (disk {disk})", member.node),
        None => format!("node {}", member.node),
    }
}
