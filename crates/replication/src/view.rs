//! What the controller has seen of one volume: the answers of nodes and of disks at one moment. What did not answer
//! is unknown, which is never the same as absent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use types::{ByteSize, DiskUuid, NodeId};

use crate::{Address, DiskState, Member, MemberId, Part};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Whether it said what parts it has. The rest is from earlier, or from the registration of the node, if not.
    pub answers: bool,
    /// The version of its engine, or why it has none, for people.
    pub engine: Result<String, String>,
    /// In the storage network.
    pub address: Option<IpAddr>,
    /// Nodes of one zone fail together.
    pub zone: Option<String>,
    /// Its part of this volume; `None`: it keeps no layout and its kernel has nothing of it.
    pub part: Option<Part>,
}

/// The file of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileView {
    /// Of the volume's file.
    pub size: ByteSize,
    /// Whether there is one for the metadata beside it.
    pub replica: bool,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskView {
    /// Where it is.
    pub node: NodeId,
    /// Whether its manager says what it has. The rest is from earlier if not.
    pub answers: bool,
    /// Bytes that a new volume may have there, counting what is promised to others.
    pub creatable: ByteSize,
    /// Its file of this volume; `None`: the manager says that there is none. Only of disks of members and leftovers
    /// it has to be asked.
    pub file: Option<FileView>,
    /// Its rank in what the topology prefers, the best is 0; `None`: it is not named there.
    pub preferred: Option<usize>,
}

/// What is seen of a volume, and of where it could be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Seconds since 1970.
    pub now: i64,
    /// All nodes that are known.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// All disks that are known.
    pub disks: BTreeMap<DiskUuid, DiskView>,
    /// Where the members of this volume may meet if it has no place yet: a free one of the cluster.
    pub free: Option<Address>,
    /// Whether one more replica may be filled now: the controller bounds how many are at a time.
    pub may_fill: bool,
}

impl View {
    /// A node that answers.
    pub fn node(&self, node: &NodeId) -> Option<&NodeView> {
        self.nodes.get(node).filter(|node| node.answers)
    }

    /// A disk that answers.
    pub fn disk(&self, disk: &DiskUuid) -> Option<&DiskView> {
        self.disks.get(disk).filter(|disk| disk.answers)
    }

    /// A node that can take part: it answers, and has the engine and an address.
    pub fn able(&self, node: &NodeId) -> Option<IpAddr> {
        let node = self.node(node)?;
        node.engine.as_ref().ok()?;
        node.address
    }

    /// The part of a member, as its node says.
    pub fn part(&self, member: &Member) -> Option<&Part> {
        let part = self.node(&member.node)?.part.as_ref()?;
        (part.me == member.id).then_some(part)
    }

    /// The part of a member that is in its kernel.
    pub fn up(&self, member: &Member) -> Option<&Part> {
        self.part(member).filter(|part| part.up)
    }

    /// Whether a member's kernel says that its replica is current, and can say so: it sees the majority. One that
    /// was cut off takes itself for current.
    pub fn is_current(&self, member: &Member) -> bool {
        let part = self.up(member);
        part.is_some_and(|part| part.disk == DiskState::UpToDate && part.quorum)
    }

    /// Whether a member's kernel has the connection to another.
    pub fn sees(&self, member: &Member, peer: MemberId) -> bool {
        let link = self.up(member).and_then(|part| part.link(peer));
        link.is_some_and(|link| link.connection == crate::Connection::Connected)
    }
}
