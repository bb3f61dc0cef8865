//! Snapshots that are backups, as the external snapshotter takes them.

use std::collections::HashMap;

use proto::csi::v1 as pb;
use tonic::Status;

use super::{Plugin, still_going_on};
use crate::{block_on, wait};

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

/// What the snapshotter asks for on behalf of a VolumeSnapshot of a class of type `bak`, with these parameters and
/// this secret besides.
pub fn backup_of(
    name: &str,
    volume_id: &str,
    parameters: &[(&str, &str)],
    secret: &[(&str, &str)],
) -> pb::CreateSnapshotRequest {
    let parameters = [&[("type", "bak")], parameters].concat();
    pb::CreateSnapshotRequest {
        name: name.into(),
        source_volume_id: volume_id.into(),
        parameters: map(&parameters),
        secrets: map(secret),
    }
}

impl Plugin {
    /// CreateSnapshot, again while it is still going on and until the snapshot can be used.
    pub fn back_up(&self, request: &pb::CreateSnapshotRequest) -> Result<pb::Snapshot, Status> {
        wait::until("the backup is complete", || {
            match self.back_up_once(request) {
                Err(status) if still_going_on(&status) => None,
                Ok(snapshot) if !snapshot.ready_to_use => None,
                other => Some(other),
            }
        })
    }

    /// One CreateSnapshot.
    pub fn back_up_once(
        &self,
        request: &pb::CreateSnapshotRequest,
    ) -> Result<pb::Snapshot, Status> {
        let reply = block_on(self.controller().create_snapshot(request.clone()))?;
        let snapshot = reply.into_inner().snapshot;
        snapshot.ok_or_else(|| Status::internal("no snapshot"))
    }

    /// ListSnapshots of one volume or of one id, each with its `ready_to_use`.
    pub fn snapshots_of(
        &self,
        volume_id: &str,
        snapshot_id: &str,
    ) -> Result<Vec<(String, bool)>, Status> {
        let request = pb::ListSnapshotsRequest {
            source_volume_id: volume_id.into(),
            snapshot_id: snapshot_id.into(),
            ..Default::default()
        };
        let reply = block_on(self.controller().list_snapshots(request))?;
        let entries = reply.into_inner().entries.into_iter();
        let found = entries.filter_map(|entry| entry.snapshot);
        Ok(found
            .map(|one| (one.snapshot_id, one.ready_to_use))
            .collect())
    }
}
