//! Requests about the blocks of snapshots.

use proto::csi::v1 as csi;
use types::ImageName;

use super::required;
use super::snapshot::SnapshotId;
use crate::error::{Error, Result, shown};

/// `GetMetadataAllocated`, and `GetMetadataDelta` with a base.
#[derive(Debug)]
pub(crate) struct ListBlocks {
    pub(crate) snapshot: ImageName,
    pub(crate) base: Option<ImageName>,
    pub(crate) starting_offset: u64,
    /// Ranges in an answer; 0: any number.
    pub(crate) max_results: u32,
}

impl ListBlocks {
    pub(crate) fn allocated(wire: &csi::GetMetadataAllocatedRequest) -> Result<Self> {
        Self::parse(
            id("snapshot_id", &wire.snapshot_id)?,
            None,
            wire.starting_offset,
            wire.max_results,
        )
    }

    pub(crate) fn delta(wire: &csi::GetMetadataDeltaRequest) -> Result<Self> {
        let base = id("base_snapshot_id", &wire.base_snapshot_id)?;
        Self::parse(
            id("target_snapshot_id", &wire.target_snapshot_id)?,
            Some(base),
            wire.starting_offset,
            wire.max_results,
        )
    }

    fn parse(
        snapshot: ImageName,
        base: Option<ImageName>,
        starting_offset: i64,
        max_results: i32,
    ) -> Result<Self> {
        let why = "it is negative";
        Ok(Self {
            snapshot,
            base,
            starting_offset: u64::try_from(starting_offset).map_err(|_| Error::Invalid {
                field: "starting_offset",
                why,
            })?,
            max_results: u32::try_from(max_results).map_err(|_| Error::Invalid {
                field: "max_results",
                why,
            })?,
        })
    }
}

/// The id of a snapshot whose blocks can be listed: one on a disk.
fn id(field: &'static str, text: &str) -> Result<ImageName> {
    match SnapshotId::parse(required(field, text)?)? {
        SnapshotId::Image(id) => Ok(id),
        SnapshotId::Backup(_) => Err(Error::BlocksOfBackup {
            snapshot_id: shown(text),
        }),
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    #[test]
    fn blocks_are_those_of_a_snapshot_on_a_disk() {
        let ask = |base: &str, target: &str, starting_offset, max_results| {
            ListBlocks::delta(&csi::GetMetadataDeltaRequest {
                base_snapshot_id: base.to_owned(),
                target_snapshot_id: target.to_owned(),
                starting_offset,
                max_results,
                ..Default::default()
            })
        };
        let asked = ask("one", "two", 4096, 7).unwrap();
        assert_eq!(asked.base.unwrap().as_str(), "one");
        assert_eq!((asked.starting_offset, asked.max_results), (4096, 7));
        for (base, target, offset, results, kind) in [
            ("", "two", 0, 0, ErrorKind::InvalidArgument),
            ("one", "", 0, 0, ErrorKind::InvalidArgument),
            ("one", "two", -1, 0, ErrorKind::InvalidArgument),
            ("one", "two", 0, -1, ErrorKind::InvalidArgument),
            ("../one", "two", 0, 0, ErrorKind::NotFound),
            (
                "one",
                "bak://pvc-1/two",
                0,
                0,
                ErrorKind::FailedPrecondition,
            ),
            (
                "bak://pvc-1/one",
                "two",
                0,
                0,
                ErrorKind::FailedPrecondition,
            ),
        ] {
            let error = ask(base, target, offset, results).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
