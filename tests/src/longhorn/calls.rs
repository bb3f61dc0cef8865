//! Longhorn's service of a manager of the harness, as its control plane calls it.

use std::collections::HashMap;

use proto::bimrpc as pb;
use proto::bimrpc::backing_image_manager_service_client::BackingImageManagerServiceClient;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use super::Files;
use crate::{Manager, block_on};

type Service = BackingImageManagerServiceClient<Channel>;

/// What a request says of an image.
pub fn spec(name: &str, uuid: &str, size: u64, checksum: &str) -> pb::BackingImageSpec {
    pb::BackingImageSpec {
        name: name.into(),
        uuid: uuid.into(),
        size: size.try_into().expect("a size of a test"),
        checksum: checksum.into(),
        ..Default::default()
    }
}

impl Manager {
    /// Longhorn's service, for callers that are many.
    pub fn longhorn(&self) -> Service {
        Service::new(self.channel()).max_decoding_message_size(64 << 20)
    }

    /// Its sync server.
    pub fn files(&self) -> Files {
        Files {
            address: self.sync_address().to_string(),
        }
    }

    /// `List`: what was asked for since the manager started, as Longhorn's control plane sees it.
    pub fn longhorn_list(&self) -> HashMap<String, pb::BackingImageResponse> {
        let listed = block_on(self.longhorn().list(())).expect("List answers");
        listed.into_inner().backing_images
    }

    /// `List` as our command line calls it: every image of the disk.
    pub fn longhorn_list_all(&self) -> HashMap<String, pb::BackingImageResponse> {
        let mut request = tonic::Request::new(());
        let value = MetadataValue::from_static("true");
        request.metadata_mut().insert("longhorn-list-all", value);
        let listed = block_on(self.longhorn().list(request)).expect("List answers");
        listed.into_inner().backing_images
    }

    /// `Sync` from another manager.
    pub fn sync(
        &self,
        spec: pb::BackingImageSpec,
        from: &Self,
    ) -> Result<pb::BackingImageResponse, Status> {
        let request = pb::SyncRequest {
            spec: Some(spec),
            from_address: from.address().to_string(),
        };
        block_on(self.longhorn().sync(request)).map(tonic::Response::into_inner)
    }

    /// `Fetch` from a data source; from none, of what is on the disk.
    pub fn fetch(
        &self,
        spec: pb::BackingImageSpec,
        data_source: &str,
    ) -> Result<pb::BackingImageResponse, Status> {
        let request = pb::FetchRequest {
            spec: Some(spec),
            data_source_address: data_source.into(),
        };
        block_on(self.longhorn().fetch(request)).map(tonic::Response::into_inner)
    }

    /// `Get`.
    pub fn longhorn_get(&self, name: &str, uuid: &str) -> Result<pb::BackingImageResponse, Status> {
        let request = pb::GetRequest {
            name: name.into(),
            uuid: uuid.into(),
        };
        block_on(self.longhorn().get(request)).map(tonic::Response::into_inner)
    }

    /// `Delete`.
    pub fn longhorn_delete(&self, name: &str, uuid: &str) -> Result<(), Status> {
        let request = pb::DeleteRequest {
            name: name.into(),
            uuid: uuid.into(),
        };
        block_on(self.longhorn().delete(request)).map(drop)
    }
}
