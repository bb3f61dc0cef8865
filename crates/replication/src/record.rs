//! The record of a replicated volume: what is wanted of it. One object of the Kubernetes API, changed by
//! compare-and-swap and by the controller alone. Nothing of safety hangs on it: a wrong one can make a volume wait,
//! and cannot make DRBD lose what it acknowledged.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use types::{ByteSize, DiskUuid, ImageId, NodeId, Sha512, VolumeName};

use crate::{Generation, Layout, Member, MemberId};

/// What a replica begins with. Written as an object of one field or of none: the schema of an object in the
/// Kubernetes API has no fields that are either text or an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenOrigin", into = "WrittenOrigin")]
pub enum Origin {
    /// Zeros.
    Blank,
    /// A clone of a ready image; every replica begins with the same bytes.
    Image {
        /// The image, on each disk under the same name.
        id: ImageId,
        /// Of its bytes.
        checksum: Sha512,
    },
}

#[derive(Serialize, Deserialize)]
struct WrittenOrigin {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<WrittenImage>,
}

#[derive(Serialize, Deserialize)]
struct WrittenImage {
    id: ImageId,
    checksum: Sha512,
}

impl From<Origin> for WrittenOrigin {
    fn from(origin: Origin) -> Self {
        let image = match origin {
            Origin::Blank => None,
            Origin::Image { id, checksum } => Some(WrittenImage { id, checksum }),
        };
        Self { image }
    }
}

impl From<WrittenOrigin> for Origin {
    fn from(WrittenOrigin { image }: WrittenOrigin) -> Self {
        image.map_or(Self::Blank, |WrittenImage { id, checksum }| Self::Image {
            id,
            checksum,
        })
    }
}

/// Where the members of a volume meet on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// `/dev/drbdN`.
    pub minor: u32,
    /// The TCP port.
    pub port: u16,
}

/// A member that the others do not see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Which.
    pub member: MemberId,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

/// What is wanted of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its name, which is the object's.
    #[serde(skip, default = "nameless")]
    pub volume: VolumeName,
    /// Grows with every change of what nodes are told.
    pub generation: u64,
    /// Bytes that it offers.
    pub size: ByteSize,
    /// On how many disks its data shall be.
    pub number_of_replicas: u32,
    /// Minutes after which a lost replica is replaced.
    pub stale_replica_timeout: u32,
    /// What its replicas begin with.
    pub origin: Origin,
    /// Where its members meet; `None`: it is on one disk, without DRBD, and only its node reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Who takes part. Without DRBD: the one that has it.
    pub members: Vec<Member>,
    /// Whether its replicas were declared equal, once, before anything was written. From then on a new replica
    /// gets what the others have. Without DRBD: whether its file was there once, and is never made again.
    #[serde(default)]
    pub initialized: bool,
    /// The generation with which the first replicas began, where they began alike; `None`: the first one had data
    /// before there was DRBD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_zero: Option<Generation>,
    /// Members whose replica had all data once. The others still get theirs, and may be given up at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole: Vec<MemberId>,
    /// The node that may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<NodeId>,
    /// Nodes that may read while nobody writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<NodeId>,
    /// Members that are lost, and since when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Loss>,
    /// Nodes that shall have no part of it any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evacuate: Vec<NodeId>,
    /// Disks that may still have a file of it, which is to be deleted: those of members that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<Member>,
    /// Whether the connections are encrypted.
    #[serde(default)]
    pub tls: bool,
    /// It is to be deleted.
    #[serde(default)]
    pub deleting: bool,
}

fn nameless() -> VolumeName {
    VolumeName::new("unnamed").expect("a constant")
}

impl Record {
    /// One that wants nothing else: one replica, on no disk yet.
    pub const fn new(volume: VolumeName, size: ByteSize, origin: Origin) -> Self {
        Self {
            volume,
            generation: 1,
            size,
            number_of_replicas: 1,
            stale_replica_timeout: 0,
            origin,
            address: None,
            members: Vec::new(),
            initialized: false,
            day_zero: None,
            whole: Vec::new(),
            holder: None,
            readers: Vec::new(),
            lost: Vec::new(),
            evacuate: Vec::new(),
            leftovers: Vec::new(),
            tls: false,
            deleting: false,
        }
    }

    /// What its nodes are told; `None`: it is without DRBD.
    pub fn layout(&self) -> Option<Layout> {
        let Address { minor, port } = self.address?;
        Some(Layout {
            volume: self.volume.clone(),
            generation: self.generation,
            size: self.size,
            minor,
            port,
            members: self.members.clone(),
            holder: self.holder.clone(),
            readers: self.readers.clone(),
            tls: self.tls,
            day_zero: self.day_zero,
            initialized: self.initialized,
        })
    }

    /// This record as it is next: of a larger generation where nodes are told anything else. `None`: nothing
    /// changes.
    #[must_use]
    pub fn changed(&self, next: Self) -> Option<Self> {
        let mut next = next;
        next.generation = self.generation;
        if next == *self {
            return None;
        }
        if next.layout() != self.layout() {
            next.generation = self.generation.saturating_add(1);
        }
        Some(next)
    }

    /// Whether the replica of a member had all data once.
    pub fn is_whole(&self, member: MemberId) -> bool {
        self.whole.contains(&member)
    }

    /// The member of a node.
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == *node)
    }

    /// The members with a replica.
    pub fn replicas(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.disk.is_some())
    }

    /// A member that there is not yet: the smallest number that neither a member nor a leftover has.
    pub fn next_member(
        &self,
        node: NodeId,
        address: IpAddr,
        disk: Option<DiskUuid>,
    ) -> Option<Member> {
        let used = |id| {
            let mut all = self.members.iter().chain(&self.leftovers);
            all.any(|member| member.id == id)
        };
        let id = (0..=MemberId::MAX.0).map(MemberId).find(|id| !used(*id))?;
        Some(Member {
            id,
            node,
            address,
            create: disk.is_some(),
            as_first: disk.is_some() && self.day_zero.is_some(),
            apart: false,
            disk,
        })
    }
}
