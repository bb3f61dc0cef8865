//! Who takes part: one change of the members at a time.
//!
//! Votes are counted by each kernel as it was told, and members are told one after the other. Two sets of votes that
//! follow each other must not find two majorities, also with ties that are broken by a member without a replica. So
//!
//! 1. what counts changes only when all members that others are connected to count by the record as it is. One that
//!    cannot be told, because it is lost, is set apart first: alone it has no majority, whatever it was told;
//! 2. a new replica counts, apart from the others, before it is connected to them;
//! 3. one that goes is set apart while it still counts, and is taken out when all others keep away from it: what is
//!    acknowledged from then on is with those that stay.
//!
//! Who is apart may change at any time, because it changes no vote. Members without a replica count only where the
//! number of replicas is even; where it is odd they come and go freely.

use types::NodeId;

use super::seats::{
    add, all_current, at, breaks_ties, can_do_without, candidates, change, free, inability, remove,
    staying, wanted, wants_breaker, with,
};
use crate::place::unusable;
use crate::sight::Sight;
use crate::{Member, Record};

/// The next change of the members, if one is wanted and possible; what is waited for is added to `waiting`.
pub(super) fn decide(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    if !sight.record.initialized {
        return gather(sight, waiting);
    }
    let mut rules = [
        let_go,
        let_in,
        reconnect,
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
fn let_go(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
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
    let member = idle.next()?;
    if breaks_ties(sight) {
        return change(sight, waiting, |next| remove(next, member));
    }
    let mut next = sight.record.clone();
    remove(&mut next, member);
    Some(next)
}

/// A node that uses the volume takes part.
fn let_in(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let record = sight.record;
    let users = record.holder.iter().chain(&record.readers);
    for node in users.filter(|node| record.member(node).is_none()) {
        let mut next = record.clone();
        if !add(sight, &mut next, node, None) {
            waiting.push(format!(
                "node {node} cannot take part: {}",
                inability(sight, node)
            ));
        } else if breaks_ties(sight) {
            let found = change(sight, waiting, |changed| *changed = next);
            if found.is_some() {
                return found;
            }
        } else {
            return Some(next);
        }
    }
    None
}

/// A member that was set apart, and is back, or cannot be spared after all: it is told, and so are all others.
fn reconnect(sight: &Sight<'_>, _: &mut Vec<String>) -> Option<Record> {
    let leaves = |member: &Member| {
        let excess = staying(sight) > wanted(sight)
            || (sight.is_evacuated(member) && staying(sight) >= wanted(sight));
        let excess = excess && member.disk.is_some() && !sight.in_use(&member.node);
        sight.is_gone(member) || (excess && can_do_without(sight, member))
    };
    let mut parted = sight.record.members.iter().filter(|member| member.apart);
    let useful = |member: &Member| sight.is_present(member) || sight.in_use(&member.node);
    let back = parted.find(|member| {
        useful(member) && sight.is_told(member) && sight.untold().is_empty() && !leaves(member)
    })?;
    Some(with(sight, back, |member| member.apart = false))
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
        // Also on its own disk, once what cannot be attached is deleted there.
        let again =
            sight.is_told(member) && !sight.is_attached(member) && !sight.is_present(member);
        let replaceable = again
            || sight.is_gone(member)
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
                "{name} is lost; the others must have the majority and all data"
            ));
        } else if let Some(next) = part_with(sight, member, waiting) {
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
    if breaks_ties(sight) {
        return change(sight, waiting, |next| {
            add(sight, next, node, None);
        });
    }
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
    if !sight.is_told(joiner) || !all_current(sight, None) {
        waiting.push(format!(
            "{} joins when all others have all data",
            at(joiner)
        ));
        return None;
    }
    // The only replica would wait for it, and nobody else can be with it.
    let alone = sight.voters().count() == 1 && sight.diskless().next().is_none();
    change(sight, waiting, |next| {
        for member in &mut next.members {
            if member.id == joiner.id {
                member.create = false;
                member.apart = !alone;
            }
        }
    })
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
    }
    let spare = victims.iter().filter(|member| !sight.in_use(&member.node));
    let victim = spare.min_by_key(|member| {
        // Who is on the way out goes on.
        let stays = !(member.apart || sight.is_evacuated(member));
        let whole = sight.record.is_whole(member.id);
        let present = sight.is_present(member);
        (
            !member.apart,
            stays,
            present,
            whole,
            std::cmp::Reverse(member.id),
        )
    });
    let Some(victim) = victim else {
        let name = at(victims[0]);
        waiting.push(format!(
            "{name} is removed when its node does not use the volume"
        ));
        return None;
    };
    // Of two nobody can be set apart, and with two and nobody else there is no other majority than both.
    let pair = sight.voters().count() == 2 && sight.diskless().next().is_none();
    if pair && all_current(sight, None) {
        return change(sight, waiting, |next| remove(next, victim));
    }
    if !can_do_without(sight, victim) {
        let name = at(victim);
        waiting.push(format!("{name} is removed when all others have all data"));
        return None;
    }
    part_with(sight, victim, waiting)
}

/// Takes a replica out: apart first, and for good when the others keep away from it.
fn part_with(sight: &Sight<'_>, victim: &Member, waiting: &mut Vec<String>) -> Option<Record> {
    if victim.apart {
        return change(sight, waiting, |next| remove(next, victim));
    }
    Some(with(sight, victim, |member| member.apart = true))
}
