//! Calls of Longhorn's own service, which Longhorn's managers answer as well as ours.

use std::collections::BTreeMap;

use proto::bimrpc as wire;
use proto::bimrpc::backing_image_manager_service_client::BackingImageManagerServiceClient;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use types::{ImageId, Sha512};

use crate::client::{ANSWER_BYTES_MAX, Client};
use crate::{Error, Result};

/// Calls of `bimrpc.BackingImageManagerService`.
#[derive(Debug, Clone)]
pub struct Longhorn {
    client: Client,
    service: BackingImageManagerServiceClient<Channel>,
}

/// Where a ready image can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The path that names its file in the sync server's REST.
    pub file_path: String,
    /// The sync server, `host:port`.
    pub address: String,
}

impl Client {
    /// The same manager in Longhorn's own words.
    pub fn longhorn(&self) -> Longhorn {
        let service = BackingImageManagerServiceClient::new(self.channel())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        Longhorn {
            client: self.clone(),
            service,
        }
    }
}

/// An image as a request for it says it.
fn spec(id: &ImageId, size: u64, checksum: Option<Sha512>) -> Result<wire::BackingImageSpec> {
    Ok(wire::BackingImageSpec {
        name: id.name.to_string(),
        uuid: id.uuid.to_string(),
        size: i64::try_from(size).map_err(|_| Error::Refused {
            kind: types::ErrorKind::InvalidArgument,
            message: format!("size {size} is larger than any file"),
        })?,
        checksum: checksum.map(String::from).unwrap_or_default(),
        ..Default::default()
    })
}

/// The metadata of PrepareDownload in which a manager of ours says where it gives images to others.
pub const PEER_ADDRESS: &str = "longhorn-peer-address";

/// The metadata of List with which a manager of ours lists every image of its disk. Without it, it lists
/// what was asked for since it started, as Longhorn's managers do: the control plane deletes what it is
/// shown and does not know.
pub const LIST_ALL: &str = "longhorn-list-all";

/// What Longhorn's managers put before the text of their sync server.
const RELAYED: &str = "response body content: ";

impl Longhorn {
    /// Calls, and takes the words of the sync server out of what the manager says around them.
    async fn call<T>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        match self.client.call(operation, answer).await {
            Err(Error::Refused { kind, message }) => {
                let words = message
                    .split_once(RELAYED)
                    .map_or(&*message, |(_, words)| words);
                let message = words.trim_end().to_owned();
                Err(Error::Refused { kind, message })
            }
            other => other,
        }
    }

    /// Every image, by name; a second one of a name by name and uuid.
    pub async fn list(&self) -> Result<BTreeMap<String, wire::BackingImageResponse>> {
        let mut service = self.service.clone();
        let mut request = tonic::Request::new(());
        let value = MetadataValue::from_static("true");
        request.metadata_mut().insert(LIST_ALL, value);
        let listed = self.call("list its images", service.list(request));
        Ok(listed.await?.backing_images.into_iter().collect())
    }

    /// One image.
    pub async fn get(&self, id: &ImageId) -> Result<wire::BackingImageResponse> {
        let mut service = self.service.clone();
        let request = wire::GetRequest {
            name: id.name.to_string(),
            uuid: id.uuid.to_string(),
        };
        let got = service.get(request);
        self.call("describe the image", got).await
    }

    /// Deletes an image; fine when there is none.
    pub async fn delete(&self, id: &ImageId) -> Result<()> {
        let mut service = self.service.clone();
        let request = wire::DeleteRequest {
            name: id.name.to_string(),
            uuid: id.uuid.to_string(),
        };
        let deleted = service.delete(request);
        self.call("delete the image", deleted).await
    }

    /// Has the manager take over the file that the data source at `data_source` prepared; without one,
    /// adopt the file that is on its disk.
    pub async fn fetch(
        &self,
        id: &ImageId,
        size: u64,
        checksum: Option<Sha512>,
        data_source: &str,
    ) -> Result<wire::BackingImageResponse> {
        let mut service = self.service.clone();
        let request = wire::FetchRequest {
            spec: Some(spec(id, size, checksum)?),
            data_source_address: data_source.to_owned(),
        };
        let fetched = service.fetch(request);
        self.call("fetch the image", fetched).await
    }

    /// Has the manager copy an image from the one at `from`.
    pub async fn sync(
        &self,
        id: &ImageId,
        size: u64,
        checksum: Option<Sha512>,
        from: &str,
    ) -> Result<wire::BackingImageResponse> {
        let mut service = self.service.clone();
        let request = wire::SyncRequest {
            spec: Some(spec(id, size, checksum)?),
            from_address: from.to_owned(),
        };
        let synced = service.sync(request);
        self.call("copy the image", synced).await
    }

    /// Has the manager send an image to the receiver at `to`.
    pub async fn send(&self, id: &ImageId, to: &str) -> Result<()> {
        let mut service = self.service.clone();
        let request = wire::SendRequest {
            name: id.name.to_string(),
            uuid: id.uuid.to_string(),
            to_address: to.to_owned(),
        };
        let sent = service.send(request);
        self.call("send the image", sent).await
    }

    /// Where a ready image can be downloaded.
    pub async fn prepare_download(&self, id: &ImageId) -> Result<Download> {
        let mut service = self.service.clone();
        let request = wire::PrepareDownloadRequest {
            name: id.name.to_string(),
            uuid: id.uuid.to_string(),
        };
        let prepared = service.prepare_download(request);
        let prepared = self.call("prepare the download", prepared).await?;
        Ok(Download {
            file_path: prepared.src_file_path,
            address: prepared.address,
        })
    }

    /// Where a manager of ours gives other managers the image that it has, or is getting; `None`: it is
    /// one of Longhorn's, and has it.
    pub async fn peer_address(&self, id: &ImageId) -> Result<Option<String>> {
        let mut service = self.service.clone();
        let request = wire::PrepareDownloadRequest {
            name: id.name.to_string(),
            uuid: id.uuid.to_string(),
        };
        let address = |metadata: &tonic::metadata::MetadataMap| {
            let address = metadata.get(PEER_ADDRESS)?;
            address.to_str().ok().map(str::to_owned)
        };
        let asked = async {
            match service.prepare_download(request).await {
                Ok(prepared) => Ok(tonic::Response::new(address(prepared.metadata()))),
                Err(status) => match address(status.metadata()) {
                    Some(address) => Ok(tonic::Response::new(Some(address))),
                    None => Err(status),
                },
            }
        };
        self.call("answer how it sends the image", asked).await
    }

    /// Which version of the API the manager speaks.
    pub async fn version(&self) -> Result<wire::VersionResponse> {
        let mut service = self.service.clone();
        let version = service.version_get(());
        self.call("report its version", version).await
    }
}
