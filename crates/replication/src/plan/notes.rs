//! What a record notes of what is seen: what it can never be asked again, once it has changed.

use crate::sight::Sight;
use crate::{Loss, Record};

/// The record with everything noted.
pub(super) fn noted(sight: &Sight<'_>) -> Record {
    let mut next = sight.record.clone();
    if !next.initialized {
        initialized(sight, &mut next);
    }
    if next.initialized {
        whole(sight, &mut next);
        lost(sight, &mut next);
    }
    leftovers(sight, &mut next);
    next
}

/// A replica that is current was declared so. Others of which that is not seen get what it has.
fn initialized(sight: &Sight<'_>, next: &mut Record) {
    let current = |id| {
        let mut members = sight.record.members.iter();
        members.any(|member| member.id == id && sight.view.is_current(member))
    };
    let mut replicas = sight.record.replicas();
    // From here on votes count, so that no kernel may count by an earlier record, and all have what they vote with.
    let ready = |member| sight.is_told(member) && sight.is_attached(member);
    let ready = sight.record.replicas().all(ready);
    next.initialized = ready
        && match sight.record.day_zero {
            // Each says so by itself; together they are what was asked for.
            Some(_) => replicas.all(|member| current(member.id)),
            None => replicas.any(|member| current(member.id)),
        };
    if next.initialized {
        for member in &mut next.members {
            member.create = false;
        }
    }
}

fn whole(sight: &Sight<'_>, next: &mut Record) {
    let known = |id| sight.record.members.iter().any(|member| member.id == id);
    next.whole.retain(|id| known(*id));
    for member in next.members.iter().filter(|member| !member.create) {
        if sight.view.is_current(member) && !next.whole.contains(&member.id) {
            next.whole.push(member.id);
        }
    }
}

fn lost(sight: &Sight<'_>, next: &mut Record) {
    let since = |id| sight.record.lost.iter().find(|loss| loss.member == id);
    let absent = sight.record.members.iter();
    let absent = absent.filter(|member| !sight.is_present(member));
    let loss = |member: &crate::Member| {
        since(member.id).cloned().unwrap_or(Loss {
            member: member.id,
            since: sight.view.now,
        })
    };
    next.lost = absent.map(loss).collect();
}

/// A leftover is done when its node has no such part any more, and its disk no file.
fn leftovers(sight: &Sight<'_>, next: &mut Record) {
    next.leftovers.retain(|leftover| {
        let node = sight.view.node(&leftover.node);
        let has_part = node.is_none_or(|node| {
            let part = node.part.as_ref();
            part.is_some_and(|part| part.me == leftover.id)
        });
        let has_file = leftover.disk.as_ref().is_some_and(|disk| {
            let disk = sight.view.disk(disk);
            disk.is_none_or(|disk| disk.file.is_some())
        });
        has_part || has_file
    });
}
