//! A volume without DRBD: one file on one disk, until a second disk can take part.

use types::DiskUuid;

use super::{Plan, Step};
use crate::place::{Search, unusable};
use crate::sight::Sight;
use crate::{DiskView, Record};

/// What it notes, or what it becomes.
pub(super) fn next(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let (record, view) = (sight.record, sight.view);
    let member = record.members.first()?;
    let disk = member.disk.as_ref().and_then(|disk| view.disk(disk));
    let mut next = record.clone();
    if !record.initialized {
        disk?.file?;
        next.initialized = true;
        next.whole = vec![member.id];
        return Some(next);
    }
    if record.number_of_replicas < 2 || record.deleting {
        return None;
    }
    let usable =
        |_: &DiskUuid, disk: &DiskView| disk.file.is_none() && view.able(&disk.node).is_some();
    let search = Search {
        volume: &record.volume,
        size: record.size,
        usable: &usable,
    };
    let second = search.find(view, &[&member.node], 1);
    let address = view.able(&member.node);
    let (Some(address), Some(place), false) = (address, view.free, second.is_empty()) else {
        let why = unusable(view, record.size).join("; ");
        waiting.push(format!("two nodes with DRBD and a disk for it: {why}"));
        return None;
    };
    if record.holder.is_some() || !record.readers.is_empty() {
        waiting.push("it gets more replicas when no node uses it".to_owned());
        return None;
    }
    if !view.may_fill {
        waiting.push("other volumes are being filled".to_owned());
        return None;
    }
    next.address = Some(place);
    // Its only replica has all data and no metadata: they are made, and say so when it is declared current.
    next.initialized = false;
    // It may have been written to since it began.
    next.day_zero = None;
    let member = next.members.first_mut()?;
    member.address = address;
    member.create = true;
    member.as_first = false;
    Some(next)
}

/// Its file.
pub(super) fn steps(sight: &Sight<'_>, plan: &mut Plan) {
    let record = sight.record;
    for disk in record
        .members
        .iter()
        .filter_map(|member| member.disk.clone())
    {
        match sight.view.disk(&disk).map(|disk| disk.file) {
            Some(None) if !record.initialized => plan.steps.push(Step::MakeFile { disk }),
            Some(None) => plan
                .waiting
                .push(format!("disk {disk} has lost the volume")),
            Some(Some(file)) if file.size < record.size => {
                let size = record.size;
                plan.steps.push(Step::GrowFile { disk, size });
            }
            Some(Some(_)) => {}
            None => plan.waiting.push(format!("disk {disk} does not answer")),
        }
    }
}
