//! What is kept of a replicated volume: its layout, and the secret of its members.

use replication::{Layout, Secret};
use serde::{Deserialize, Serialize};
use types::VolumeName;

use crate::kept::Entry;

/// The version of the file that this program writes.
const VERSION: u32 = 1;

/// A layout that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prepared {
    version: u32,
    pub(crate) layout: Layout,
    pub(crate) secret: Secret,
}

impl Prepared {
    pub(crate) const fn new(layout: Layout, secret: Secret) -> Self {
        Self {
            version: VERSION,
            layout,
            secret,
        }
    }
}

impl Entry for Prepared {
    fn volume(&self) -> &VolumeName {
        &self.layout.volume
    }

    fn is_known(&self) -> bool {
        self.version == VERSION
    }
}
