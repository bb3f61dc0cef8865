//! What the kernel of one node says of its part of a volume. The names are DRBD's (`drbdsetup(8)`, status).

use serde::{Deserialize, Serialize};
use types::{ByteSize, VolumeName};

use crate::MemberId;

/// Who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It may write.
    Primary,
    /// It may not.
    Secondary,
    /// Not connected.
    Unknown,
}

impl Role {
    /// As DRBD spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "Primary",
            Self::Secondary => "Secondary",
            Self::Unknown => "Unknown",
        }
    }

    /// What DRBD says; another word is not known.
    pub fn of(text: &str) -> Self {
        match text {
            "Primary" => Self::Primary,
            "Secondary" => Self::Secondary,
            _ => Self::Unknown,
        }
    }
}

/// The state of a replica, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DiskState {
    /// There is none on that node.
    Diskless,
    /// It answered with an error, and is being detached.
    Failed,
    /// It is being attached or detached, or being compared with the others.
    Negotiating,
    /// Parts of it were never copied.
    Inconsistent,
    /// It is whole, and older than another.
    Outdated,
    /// Not connected: nobody knows.
    Unknown,
    /// It is whole; whether it is current is known once the others are connected.
    Consistent,
    /// It is current.
    UpToDate,
}

impl DiskState {
    /// As DRBD spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Diskless => "Diskless",
            Self::Failed => "Failed",
            Self::Negotiating => "Negotiating",
            Self::Inconsistent => "Inconsistent",
            Self::Outdated => "Outdated",
            Self::Unknown => "DUnknown",
            Self::Consistent => "Consistent",
            Self::UpToDate => "UpToDate",
        }
    }

    /// What DRBD says; of another word nobody knows whether it is current.
    pub fn of(text: &str) -> Self {
        match text {
            "Diskless" => Self::Diskless,
            "Failed" => Self::Failed,
            "Negotiating" | "Attaching" | "Detaching" => Self::Negotiating,
            "Inconsistent" => Self::Inconsistent,
            "Outdated" => Self::Outdated,
            "Consistent" => Self::Consistent,
            "UpToDate" => Self::UpToDate,
            _ => Self::Unknown,
        }
    }
}

/// The state of a connection to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Connection {
    /// It does not try: nobody told it to, or the two refuse each other's data.
    StandAlone,
    /// It tries.
    Connecting,
    /// Both exchange data.
    Connected,
}

impl Connection {
    /// As DRBD spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StandAlone => "StandAlone",
            Self::Connecting => "Connecting",
            Self::Connected => "Connected",
        }
    }

    /// What DRBD says; all that lies between is still connecting.
    pub fn of(text: &str) -> Self {
        match text {
            "StandAlone" => Self::StandAlone,
            "Connected" => Self::Connected,
            _ => Self::Connecting,
        }
    }
}

/// What two connected replicas do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Replication {
    /// They are not connected.
    Off,
    /// Writes go to both.
    Established,
    /// This side sends what the other lacks.
    SyncSource,
    /// This side gets what it lacks.
    SyncTarget,
    /// Anything between these.
    Other,
}

impl Replication {
    /// As DRBD spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::Established => "Established",
            Self::SyncSource => "SyncSource",
            Self::SyncTarget => "SyncTarget",
            Self::Other => "Other",
        }
    }

    /// What DRBD says.
    pub fn of(text: &str) -> Self {
        match text {
            "Off" => Self::Off,
            "Established" => Self::Established,
            "SyncSource" => Self::SyncSource,
            "SyncTarget" => Self::SyncTarget,
            _ => Self::Other,
        }
    }
}

/// A peer as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Which member.
    pub peer: MemberId,
    /// The name that the kernel was told for it (`--_name`): its node.
    pub node: String,
    /// Of the connection.
    pub connection: Connection,
    /// Of the peer.
    pub role: Role,
    /// Of the peer's replica.
    pub disk: DiskState,
    /// Of both replicas.
    pub replication: Replication,
    /// Bytes that the replicas do not share.
    pub out_of_sync: ByteSize,
    /// Whether the kernel takes it for a member with a replica, which has a vote (status: not `peer-client`).
    pub replica: bool,
}

/// A node's part of a volume as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, as the kernel tells it"
)]
pub struct Part {
    /// The volume.
    pub volume: VolumeName,
    /// The generation of the layout that the node keeps; 0: it keeps none, and what follows is left from before.
    pub generation: u64,
    /// Its number.
    pub me: MemberId,
    /// Whether the kernel has the resource. The rest says nothing otherwise.
    pub up: bool,
    /// Whether it may write.
    pub role: Role,
    /// Of its own replica.
    pub disk: DiskState,
    /// Whether it sees the majority.
    pub quorum: bool,
    /// Whether its I/O waits, for whatever reason.
    pub suspended: bool,
    /// Whether somebody has the device open.
    pub open: bool,
    /// Bytes of the device; 0: it is not known yet.
    pub size: ByteSize,
    /// Bytes of the file of its replica as the kernel has it attached; 0: it has none.
    pub backing: ByteSize,
    /// Whether its metadata is as `create-md` makes it: nothing was ever written through it.
    pub fresh: bool,
    /// Whether the kernel asks for a majority of current replicas ([`crate::Layout::majority_is_current`]).
    pub majority_is_current: bool,
    /// The others.
    pub links: Vec<Link>,
    /// What is wrong here, in words.
    pub troubles: Vec<String>,
}

impl Part {
    /// The part of a volume that the kernel does not have.
    pub const fn absent(volume: VolumeName) -> Self {
        Self {
            volume,
            generation: 0,
            me: MemberId(0),
            up: false,
            role: Role::Secondary,
            disk: DiskState::Diskless,
            quorum: false,
            suspended: false,
            open: false,
            size: ByteSize(0),
            backing: ByteSize(0),
            fresh: false,
            majority_is_current: false,
            links: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Whether the node keeps a layout of it, or its kernel has it. Otherwise it is metadata on a disk, which go with
    /// the file of the replica and with nothing else.
    pub const fn is_held(&self) -> bool {
        self.up || self.generation > 0
    }

    /// The link to a member.
    pub fn link(&self, peer: MemberId) -> Option<&Link> {
        self.links.iter().find(|link| link.peer == peer)
    }
}
