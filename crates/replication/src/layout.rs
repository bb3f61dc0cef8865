//! What every node of a replicated volume is told: the same text for all of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use types::{ByteSize, DiskUuid, NodeId, VolumeName};

/// DRBD's number of a node in one volume: 0 to 31 (`drbd.conf(5)`, node-id). It names a bitmap in the metadata of
/// the others, so one that was used is used again only after all of them have forgotten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u8);

impl MemberId {
    /// The largest.
    pub const MAX: Self = Self(31);
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node that takes part in a volume: with a replica on one of its disks, or without one (diskless).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its number, fixed as long as it is a member.
    pub id: MemberId,
    /// Which node.
    pub node: NodeId,
    /// Its address in the storage network.
    pub address: IpAddr,
    /// The disk that has its replica; `None`: it reads and writes those of the others, or is only counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskUuid>,
    /// Whether the metadata of its replica are still to be made. Until they are, members that have theirs do not know
    /// it. Once they were there they are never made again under this number: a disk that lost its contents would
    /// vote for data that it has forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create: bool,
    /// Whether its file began as the first ones did. Its metadata then say so, and it gets only what was written
    /// since; otherwise all of it is compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_first: bool,
    /// Whether nobody is connected to it, although it counts. So a member comes and goes: what counts changes for one
    /// node after the other, and while it does, the votes of before and of after must not find two majorities.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apart: bool,
}

/// A generation of a volume's data, as DRBD numbers them (`drbdmeta(8)`, UUID): in its text 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Generation(u64);

impl Generation {
    /// One out of random bits. The lowest bit says that a node writes, and small numbers have meanings of their own.
    pub const fn random(bits: u64) -> Self {
        Self((bits | 1 << 63) & !1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl From<Generation> for String {
    fn from(generation: Generation) -> Self {
        generation.to_string()
    }
}

impl TryFrom<String> for Generation {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u64::from_str_radix(&text, 16).ok());
        match number.flatten() {
            Some(number) if Self::random(number).0 == number => Ok(Self(number)),
            _ => Err("a generation is 16 hexadecimal digits, from 8000000000000000, and even"),
        }
    }
}

/// How the metadata of a new replica begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// It is one of the first, and like them: current, in this generation.
    Current(Generation),
    /// It was like the first ones, in this generation, and others have been written to since. By itself it is never
    /// taken for current.
    Behind(Generation),
    /// Nothing is known of its bytes.
    Unknown,
}

impl Member {
    /// The address of one without the engine, to whom nobody connects.
    pub const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
}

/// The shared secret of a volume's members (`drbd.conf(5)`, shared-secret). The kernel takes 63 characters: its 64
/// bytes end with a zero.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The longest that DRBD takes.
    pub const MAX: usize = 63;

    /// Takes a secret of printable ASCII without spaces; `None`: it is no such text.
    pub fn new(text: String) -> Option<Self> {
        let fits = (1..=Self::MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Self(text))
    }

    /// The text, for the engine alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What the nodes of a volume are told. Its `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// The volume.
    pub volume: VolumeName,
    /// Grows with every change of the others. A node takes no older one.
    pub generation: u64,
    /// Bytes that the volume offers.
    pub size: ByteSize,
    /// The minor number of its device on every node: `/dev/drbdN`.
    pub minor: u32,
    /// The TCP port of its members.
    pub port: u16,
    /// Who takes part.
    pub members: Vec<Member>,
    /// The node that may write; `None`: none may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<NodeId>,
    /// Nodes that may read while nobody writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<NodeId>,
    /// Whether the connections are encrypted by the kernel (kTLS).
    #[serde(default)]
    pub tls: bool,
    /// The generation with which the first replicas began, where they began alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_zero: Option<Generation>,
    /// Whether the first replicas are there, and may have been written to since.
    #[serde(default)]
    pub initialized: bool,
}

impl Layout {
    /// The part of a node; `None`: it has none.
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == *node)
    }

    /// The members with a replica.
    pub fn replicas(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.disk.is_some())
    }

    /// Whether a majority of the replicas must be current for I/O to go on, and not only connected
    /// (`drbd.conf(5)`, quorum-minimum-redundancy). Of three, one that is current and one that is still being
    /// filled would otherwise acknowledge what the third, which is away, can overrule with the one being filled.
    /// With two there is no third, and I/O would stop whenever one of them is filled.
    pub fn majority_is_current(&self) -> bool {
        self.replicas().filter(|member| !member.create).count() > 2
    }

    /// How the metadata of a member's replica begin.
    pub const fn begins(&self, member: &Member) -> Begins {
        match self.day_zero {
            Some(generation) if member.as_first && self.initialized => Begins::Behind(generation),
            Some(generation) if member.as_first => Begins::Current(generation),
            _ => Begins::Unknown,
        }
    }

    /// Whether a node may have the device open.
    pub fn admits(&self, node: &NodeId) -> bool {
        self.holder.as_ref() == Some(node) || self.readers.contains(node)
    }
}
