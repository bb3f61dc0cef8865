//! The snapshot metadata service: which blocks of a snapshot hold data, and which changed since an earlier one.
//! The manager that has the snapshots knows; here its ranges go on, message by message.

use std::pin::Pin;

use client::{Blocks, wire};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use proto::csi::v1 as csi;
use tonic::{Request, Response, Status};
use types::ImageName;

use crate::error::{Error, Result};
use crate::managers::Managers;
use crate::request::ListBlocks;
use crate::snapshots::Snapshots;
use crate::status::{answer, refuse};

/// What answers on the snapshot metadata service.
#[derive(Debug)]
pub(crate) struct BlocksService {
    managers: Managers,
}

type Stretch = wire::ListSnapshotBlocksResponse;
type Stretches<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl BlocksService {
    pub(crate) const fn new(managers: Managers) -> Self {
        Self { managers }
    }

    /// Begins to list: what is wrong with the request is the answer to the call itself.
    async fn list<T: 'static>(
        &self,
        request: ListBlocks,
        show: fn(Stretch) -> T,
    ) -> Result<Stretches<T>> {
        let client = self.find(&request.snapshot).await?.into_client();
        if let Some(base) = &request.base {
            let other = self.find(base).await?.into_client();
            if other.address() != client.address() {
                return Err(Error::SnapshotsApart {
                    base: base.clone(),
                    target: request.snapshot,
                });
            }
        }
        let mut blocks = client
            .snapshot_blocks(wire::ListSnapshotBlocksRequest {
                snapshot: request.snapshot.to_string(),
                base: request.base.map(String::from).unwrap_or_default(),
                starting_offset: request.starting_offset,
                max_ranges: request.max_results,
            })
            .await?;
        let first = blocks.next().await?;
        let first = stream::iter(first.map(Ok));
        let rest = stream::try_unfold(blocks, |mut blocks: Blocks| async move {
            let next = blocks.next().await.map_err(Error::from)?;
            Ok::<_, Error>(next.map(|next| (next, blocks)))
        });
        // A message without ranges says that the manager is at work.
        let rest = rest.try_filter(|next| std::future::ready(!next.ranges.is_empty()));
        let all = first.chain(rest);
        Ok(Box::pin(
            all.map_ok(show).map_err(|error| refuse(&error, 0)),
        ))
    }

    async fn find(&self, id: &ImageName) -> Result<Snapshots> {
        let found = self.managers.of_snapshot(id).await?;
        found.ok_or_else(|| Error::NoSuchSnapshot {
            snapshot_id: id.to_string(),
        })
    }
}

fn ranges(stretch: &Stretch) -> Vec<csi::BlockMetadata> {
    let show = |range: &wire::BlockRange| csi::BlockMetadata {
        byte_offset: range.offset.cast_signed(),
        size_bytes: range.length.cast_signed(),
    };
    stretch.ranges.iter().map(show).collect()
}

#[tonic::async_trait]
impl csi::snapshot_metadata_server::SnapshotMetadata for BlocksService {
    type GetMetadataAllocatedStream = Stretches<csi::GetMetadataAllocatedResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<csi::GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let wire = request.into_inner();
        answer("GetMetadataAllocated", &wire.snapshot_id, async {
            let request = ListBlocks::allocated(&wire)?;
            let show = |stretch: Stretch| csi::GetMetadataAllocatedResponse {
                block_metadata_type: csi::BlockMetadataType::VariableLength.into(),
                volume_capacity_bytes: stretch.size.cast_signed(),
                block_metadata: ranges(&stretch),
            };
            self.list(request, show).await
        })
        .await
    }

    type GetMetadataDeltaStream = Stretches<csi::GetMetadataDeltaResponse>;

    async fn get_metadata_delta(
        &self,
        request: Request<csi::GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let wire = request.into_inner();
        answer("GetMetadataDelta", &wire.target_snapshot_id, async {
            let request = ListBlocks::delta(&wire)?;
            let show = |stretch: Stretch| csi::GetMetadataDeltaResponse {
                block_metadata_type: csi::BlockMetadataType::VariableLength.into(),
                volume_capacity_bytes: stretch.size.cast_signed(),
                block_metadata: ranges(&stretch),
            };
            self.list(request, show).await
        })
        .await
    }
}
