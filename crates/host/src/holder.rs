//! For whom a volume is attached.

/// For whom a volume is attached; each has a mark of its own on the device, and leaves the other's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Pods: CSI or FlexVolume staged it.
    Pods,
    /// The node service, for one of its callers.
    Node,
    /// DRBD: it is one replica of a replicated volume.
    Replica,
    /// Somebody without a pod: by a block device with the volume's name, or by an iSCSI target.
    Exposed,
}

impl Holder {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Pods, Self::Node, Self::Replica, Self::Exposed];

    /// What the mark of a device begins with that is attached for it.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Pods => "longhorn:",
            Self::Node => "longhorn-node:",
            Self::Replica => "longhorn-drbd:",
            Self::Exposed => "longhorn-dev:",
        }
    }

    /// What it has done, for an error.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Pods => "staged for pods",
            Self::Node => "attached by the node service",
            Self::Replica => "attached as a replica",
            Self::Exposed => "exposed without a pod",
        }
    }

    /// How it is ended, for an error.
    pub(crate) const fn way_out(self) -> &'static str {
        match self {
            Self::Pods => "end its pods on this node first",
            Self::Node => {
                "detach it first (backing-image-manager node detach, or whoever attached it)"
            }
            Self::Replica => "it is used through its device /dev/drbdN",
            Self::Exposed => "take that access back first (backing-image-manager node unexpose)",
        }
    }
}
