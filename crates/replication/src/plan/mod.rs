//! What the controller does next for a volume: a pure function of its record and of what is seen of it.
//!
//! A record changes by one decision at a time: first it is written, and what follows from it is done by the next
//! look. So a controller that dies, or acts on an old view, leaves something that the next one goes on from.

mod members;
mod notes;
mod plain;
mod seats;
mod steps;

use types::{ByteSize, DiskUuid, NodeId};

use crate::sight::Sight;
use crate::{Record, View};

/// One thing for the controller to do. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the next record, by compare-and-swap. Nothing else is in that plan.
    Change(Box<Record>),
    /// Make the file of a replica, and the one for its metadata beside it; what is there already is left as it is.
    MakeFile {
        /// Where.
        disk: DiskUuid,
    },
    /// Grow the file of a replica.
    GrowFile {
        /// Where.
        disk: DiskUuid,
        /// Of the file afterwards.
        size: ByteSize,
    },
    /// Tell a node the layout, also one that has no part in it any more.
    Put {
        /// Which.
        node: NodeId,
    },
    /// Declare the replicas equal.
    Initialize {
        /// Where the call is made.
        node: NodeId,
    },
    /// Let the device have the size of its files.
    Grow {
        /// Where the call is made.
        node: NodeId,
    },
    /// Let a node give up what only it has, and join the others.
    Rejoin {
        /// Which.
        node: NodeId,
    },
    /// Take a node's part down and let it forget the layout.
    Remove {
        /// Which.
        node: NodeId,
    },
    /// Delete the file of a replica.
    DeleteFile {
        /// Where.
        disk: DiskUuid,
    },
    /// Delete the record: nothing is left of the volume.
    Release,
}

/// What is to be done now, and what is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In an order in which they may be done, one after the other. When one fails the others may be done all the
    /// same.
    pub steps: Vec<Step>,
    /// What is waited for, in words for people.
    pub waiting: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_empty()
    }
}

/// What is to be done next for a volume.
pub fn plan(record: &Record, view: &View) -> Plan {
    let sight = Sight::new(record, view);
    let mut plan = Plan::default();
    if record.deleting {
        steps::delete(&sight, &mut plan);
        return plan;
    }
    if let Some(next) = change(&sight, &mut plan.waiting) {
        plan.steps.push(Step::Change(Box::new(next)));
        return plan;
    }
    if record.address.is_none() {
        plain::steps(&sight, &mut plan);
        return plan;
    }
    steps::files(&sight, &mut plan);
    steps::layouts(&sight, &mut plan);
    steps::initialize(&sight, &mut plan);
    steps::grow(&sight, &mut plan);
    steps::rejoin(&sight, &mut plan);
    steps::leftovers(&sight, &mut plan);
    plan
}

/// The next record: what is noted before what is decided.
fn change(sight: &Sight<'_>, waiting: &mut Vec<String>) -> Option<Record> {
    let next = if sight.record.address.is_none() {
        plain::next(sight, waiting)
    } else {
        let noted = sight.record.changed(notes::noted(sight));
        noted.or_else(|| members::decide(sight, waiting))
    };
    sight.record.changed(next?)
}
