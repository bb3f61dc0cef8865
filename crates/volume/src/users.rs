//! Who uses a published volume.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of users of a published volume: one kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Pods, by CSI or FlexVolume.
    #[default]
    Pods,
    /// Somebody on the node, by a block device without a pod.
    Device,
    /// An iSCSI initiator, by a target on the node.
    Target,
}

impl Use {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(crate) const fn is_pods(&self) -> bool {
        matches!(self, Self::Pods)
    }

    /// How the use is ended, for an error.
    pub(crate) const fn way_out(self) -> &'static str {
        match self {
            Self::Pods => "unpublish it there first",
            Self::Device | Self::Target => {
                "take that access back first (backing-image-manager node unexpose on that node)"
            }
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pods => "pods",
            Self::Device => "a block device without a pod",
            Self::Target => "an iSCSI target",
        })
    }
}
