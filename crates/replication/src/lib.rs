//! Replicated volumes: what is wanted and what is seen in, what to do next out. No I/O, and no clock of its own.
//!
//! The engine is DRBD 9 in the kernels of the nodes: it alone decides what is acknowledged, who is stale, and who
//! may write. What is decided here is where replicas are ([`Record`]), which commands a node still needs
//! ([`Verb`]), and in which order a replica is added, replaced and removed, so that a volume never loses the
//! majority that it has.
//!
//! A [`Layout`] is the part of a record that nodes are told. It carries the generation of the record, and a node
//! takes no layout that is older than its own. It must not know DRBD's command line (`host`), the wire, or
//! Kubernetes.
#![warn(missing_docs)]

mod converge;
mod engine;
mod layout;
mod observed;
mod place;
mod plan;
mod record;
mod sight;
mod status;
mod view;

pub use converge::converge;
pub use engine::{Engine, Verb};
pub use layout::{Begins, Generation, Layout, Member, MemberId, Secret};
pub use observed::{Connection, DiskState, Link, Part, Replication, Role};
pub use place::{Shortage, Wanted, founders, place};
pub use plan::{Plan, Step, plan};
pub use record::{Address, Loss, Origin, Record};
pub use status::{Health, MemberStatus, Reason, Status, judge, usable};
pub use view::{DiskView, FileView, NodeView, View};
