//! What is kept of a volume that is used without a pod: how it shall be used. The secret of a target is in it.

use std::fmt;

use host::target::{Chap, Initiator};
use proto::storage::v1::Use;
use serde::{Deserialize, Serialize};
use types::{DiskUuid, VolumeName};

use crate::error::{Error, Result};
use crate::kept::Entry;

/// The version of the file that this program writes.
const VERSION: u32 = 1;

/// How a volume shall be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    version: u32,
    pub(super) volume: VolumeName,
    /// The disk that has it; `None`: it is replicated.
    pub(super) disk: Option<DiskUuid>,
    pub(super) read_only: bool,
    pub(super) access: Access,
}

/// The way to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Access {
    /// A block device with its name.
    Device,
    /// An iSCSI target for these initiators.
    Target {
        initiators: Vec<String>,
        /// `None`: their names are enough.
        chap: Option<Account>,
    },
}

/// The account by which initiators prove themselves.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) user: String,
    secret: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl From<&Chap> for Account {
    fn from(chap: &Chap) -> Self {
        Self {
            user: chap.user().to_owned(),
            secret: chap.secret().to_owned(),
        }
    }
}

impl Access {
    /// For whom the manager publishes the volume.
    pub(super) const fn users(&self) -> Use {
        match self {
            Self::Device => Use::Device,
            Self::Target { .. } => Use::Target,
        }
    }

    /// The initiators of a target and what they prove.
    pub(super) fn of_target(&self) -> Result<(Vec<Initiator>, Option<Chap>)> {
        let Self::Target { initiators, chap } = self else {
            return Ok((Vec::new(), None));
        };
        let initiators = initiators.iter().map(|name| name.parse());
        let chap = (chap.as_ref()).map(|account| Chap::new(&account.user, &account.secret));
        Ok((initiators.collect::<host::Result<_>>()?, chap.transpose()?))
    }
}

impl Record {
    pub(super) const fn new(
        volume: VolumeName,
        disk: Option<DiskUuid>,
        read_only: bool,
        access: Access,
    ) -> Self {
        Self {
            version: VERSION,
            volume,
            disk,
            read_only,
            access,
        }
    }

    /// Refuses another way to use the volume than this one.
    pub(super) fn suits(&self, asked: &Self) -> Result<()> {
        let difference = match (&self.access, &asked.access) {
            _ if self.disk != asked.disk => "on another disk",
            (Access::Device, Access::Target { .. }) => "as a block device",
            (Access::Target { .. }, Access::Device) => "as an iSCSI target",
            _ if self.read_only && !asked.read_only => "for reading only",
            _ if self.read_only != asked.read_only => "for writing",
            _ if self.access != asked.access => {
                "for other initiators, or with another CHAP account"
            }
            _ => return Ok(()),
        };
        Err(Error::ExposedOtherwise {
            volume: self.volume.clone(),
            difference,
        })
    }
}

impl Entry for Record {
    fn volume(&self) -> &VolumeName {
        &self.volume
    }

    fn is_known(&self) -> bool {
        self.version == VERSION
    }
}
