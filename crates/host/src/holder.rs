//! For whom a volume is attached.

/// For whom a volume is attached; each has a mark of its own on the device, and leaves the other's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Pods: CSI or FlexVolume staged it.
    Pods,
    /// The node service, for one of its callers.
    Node,
}

impl Holder {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Pods => Self::Node,
            Self::Node => Self::Pods,
        }
    }

    /// What it has done, for an error.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Pods => "staged for pods",
            Self::Node => "attached by the node service",
        }
    }

    /// How it is ended, for an error.
    pub(crate) const fn way_out(self) -> &'static str {
        match self {
            Self::Pods => "end its pods on this node first",
            Self::Node => {
                "detach it first (backing-image-manager node detach, or whoever attached it)"
            }
        }
    }
}
