//! What follows from a record: files on disks, layouts on nodes, and what the kernels are asked for once.

use types::NodeId;

use super::{Plan, Step};
use crate::sight::Sight;
use crate::{Connection, DiskState, Member, Part, Role};

/// Files that are to be made or to grow. One that was lost is never made again: it would vote for data that it has
/// forgotten.
pub(super) fn files(sight: &Sight<'_>, plan: &mut Plan) {
    let size = sight.record.size;
    for member in &sight.record.members {
        let Some(disk) = &member.disk else { continue };
        let whole = sight.record.is_whole(member.id);
        let Some(seen) = sight.view.disk(disk) else {
            if member.create {
                plan.waiting.push(format!("disk {disk} does not answer"));
            }
            continue;
        };
        match seen.file {
            None if member.create && !whole => {
                plan.steps.push(Step::MakeFile { disk: disk.clone() });
            }
            None => plan
                .waiting
                .push(format!("disk {disk} has lost its replica")),
            Some(file) if file.size < size => plan.steps.push(Step::GrowFile {
                disk: disk.clone(),
                size,
            }),
            Some(file) if member.create && !file.replica => {
                plan.steps.push(Step::MakeFile { disk: disk.clone() });
            }
            Some(_) => {}
        }
    }
}

/// Layouts for the nodes that keep another one. A newcomer first: when the others connect to it, it is there.
pub(super) fn layouts(sight: &Sight<'_>, plan: &mut Plan) {
    let size = sight.record.size;
    let ready = |member: &Member| {
        let Some(disk) = &member.disk else {
            return true;
        };
        match sight.view.disk(disk).map(|disk| disk.file) {
            Some(Some(file)) => file.size >= size && (file.replica || !member.create),
            // Without its file it still has to learn who else takes part.
            Some(None) | None => !member.create,
        }
    };
    let old = |member: &&Member| {
        let Some(node) = sight.view.node(&member.node) else {
            return false;
        };
        let part = node.part.as_ref().filter(|part| part.me == member.id);
        part.is_none_or(|part| part.generation < sight.record.generation) && ready(member)
    };
    let members = sight.record.members.iter();
    let mut told: Vec<&Member> = members.filter(old).collect();
    told.sort_by_key(|member| !member.create);
    let put = |member: &Member| Step::Put {
        node: member.node.clone(),
    };
    plan.steps.extend(told.into_iter().map(put));
    for member in &sight.record.members {
        if sight.view.node(&member.node).is_none() {
            plan.waiting
                .push(format!("node {} does not answer", member.node));
        } else if !sight.is_told(member) {
            plan.waiting
                .push(format!("node {} adapts to the layout", member.node));
        }
    }
}

/// Declares the replicas equal, once all are attached and connected, and none has anything yet. A volume that was
/// without DRBD is the only one then.
pub(super) fn initialize(sight: &Sight<'_>, plan: &mut Plan) {
    if sight.record.initialized {
        return;
    }
    let replicas: Vec<&Member> = sight.record.replicas().collect();
    let fresh = |member: &Member| {
        let part = sight.view.up(member);
        let fresh = part.is_some_and(|part| part.fresh && part.disk == DiskState::Inconsistent);
        let connected = replicas.iter();
        let mut connected = connected.filter(|peer| peer.id != member.id);
        fresh && connected.all(|peer| sight.view.sees(member, peer.id))
    };
    match replicas.first() {
        Some(first) if replicas.iter().all(|member| fresh(member)) => {
            let node = first.node.clone();
            plan.steps.push(Step::Initialize { node });
        }
        _ => plan
            .waiting
            .push("its replicas connect to each other".to_owned()),
    }
}

/// The device gets the size of its files, once all have it.
pub(super) fn grow(sight: &Sight<'_>, plan: &mut Plan) {
    let size = sight.record.size;
    let small = |member: &Member| {
        let part = sight.view.up(member);
        part.is_some_and(|part| part.size.bytes() > 0 && part.size < size)
    };
    if !sight.record.initialized || !sight.record.members.iter().any(small) {
        return;
    }
    let backed = |member: &Member| {
        let part = sight.view.up(member);
        part.is_some_and(|part| part.backing >= size) && sight.view.is_current(member)
    };
    let all = sight.voters().all(backed) && sight.untold().is_empty();
    match sight.voters().next() {
        Some(first) if all => plan.steps.push(Step::Grow {
            node: first.node.clone(),
        }),
        _ => {
            let why = "it grows when all replicas have all data and larger files";
            plan.waiting.push(why.to_owned());
        }
    }
}

/// Replicas that refuse each other's data. One gives up what only it has where a majority without it is current:
/// what that majority does not have was never acknowledged. Not the holder, nor a node that may write.
pub(super) fn rejoin(sight: &Sight<'_>, plan: &mut Plan) {
    let alone = |member: &Member, peer: &Member| {
        let link = sight.view.up(member).and_then(|part| part.link(peer.id));
        let alone = link.is_some_and(|link| link.connection == Connection::StandAlone);
        alone && !member.apart && !peer.apart
    };
    let count = sight.voters().count();
    for member in sight.voters() {
        let Some(part) = sight.view.up(member) else {
            continue;
        };
        let others = || sight.voters().filter(|peer| peer.id != member.id);
        if !others().any(|peer| alone(member, peer) && alone(peer, member)) {
            continue;
        }
        let current: Vec<&Member> = others()
            .filter(|peer| sight.view.is_current(peer))
            .collect();
        let connected = current.iter().all(|one| {
            let mut rest = current.iter().filter(|peer| peer.id != one.id);
            rest.all(|peer| sight.view.sees(one, peer.id))
        });
        let idle = part.role == Role::Secondary && !part.open && !sight.in_use(&member.node);
        let may = idle && connected && current.len() * 2 > count && !sight.view.is_current(member);
        let node = member.node.clone();
        if may && sight.is_told(member) {
            plan.steps.push(Step::Rejoin { node });
        } else {
            plan.waiting.push(format!(
                "node {node} refuses the data of others, and they its"
            ));
        }
    }
}

/// What members have left behind that are none any more.
pub(super) fn leftovers(sight: &Sight<'_>, plan: &mut Plan) {
    for leftover in &sight.record.leftovers {
        let Some(node) = sight.view.node(&leftover.node) else {
            plan.waiting.push(format!(
                "node {} does not answer, and keeps what it has",
                leftover.node
            ));
            continue;
        };
        let part = node.part.as_ref().filter(|part| part.me == leftover.id);
        if let Some(part) = part {
            let node = leftover.node.clone();
            if sight.record.member(&node).is_some() {
                // Its layout of today takes the old part down.
                continue;
            }
            let held = part.up && (part.role == Role::Primary || part.open || part.suspended);
            if held && part.generation < sight.record.generation {
                plan.steps.push(Step::Put { node });
            } else {
                plan.steps.push(Step::Remove { node });
            }
            if part.is_held() {
                continue;
            }
        }
        let Some(disk) = &leftover.disk else { continue };
        match sight.view.disk(disk) {
            Some(seen) if seen.file.is_some() => {
                plan.steps.push(Step::DeleteFile { disk: disk.clone() });
            }
            Some(_) => {}
            None => plan
                .waiting
                .push(format!("disk {disk} does not answer, and keeps its file")),
        }
    }
}

/// Takes the whole volume away. What is silent is waited for: it would come back with a file that nobody knows.
pub(super) fn delete(sight: &Sight<'_>, plan: &mut Plan) {
    let record = sight.record;
    let users: Vec<&NodeId> = record.holder.iter().chain(&record.readers).collect();
    if !users.is_empty() {
        plan.waiting
            .extend(users.iter().map(|node| format!("node {node} uses it")));
        return;
    }
    let known = || record.members.iter().chain(&record.leftovers);
    // Also what is no member: a call that was late may have left it.
    for (name, node) in &sight.view.nodes {
        if node.answers && node.part.is_some() {
            let node = name.clone();
            plan.steps.push(Step::Remove { node });
        }
    }
    let silent = |member: &&Member| sight.view.node(&member.node).is_none();
    if record.address.is_some() {
        for member in known().filter(silent) {
            let text = format!("node {} does not answer", member.node);
            plan.waiting.push(text);
        }
    }
    for (uuid, disk) in &sight.view.disks {
        let node = sight.view.node(&disk.node);
        let part = node.and_then(|node| node.part.as_ref());
        if disk.answers && disk.file.is_some() && !part.is_some_and(Part::is_held) {
            let disk = uuid.clone();
            plan.steps.push(Step::DeleteFile { disk });
        }
    }
    for disk in known().filter_map(|member| member.disk.as_ref()) {
        if sight.view.disk(disk).is_none() {
            plan.waiting.push(format!("disk {disk} does not answer"));
        }
    }
    if plan.is_settled() {
        plan.steps.push(Step::Release);
    }
}
