//! `bimrpc.BackingImageManagerService`, version 3: the interface for Longhorn's control plane.
//!
//! Longhorn's manager forwards every call to its own sync server over HTTP, and its errors show
//! this. Ours come directly from the same operations, in the same words.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use proto::bimrpc as pb;
use proto::bimrpc::backing_image_manager_service_server::BackingImageManagerService;
use tokio_stream::Stream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use types::{Classify, ErrorKind, ImageId, report};

use super::data_source_client::DataSourceClient;
use super::query::{aligned, checksum};
use super::{Files, address, backups, rest, transfer};
use crate::Registration;
use crate::error::{Error, Result};
use crate::from_manager::FromManager;
use catalog::Lifecycle;
use catalog::source::Source;
use store::Place;

/// The version of the API that Longhorn's control plane looks for.
pub const API_VERSION: i64 = 3;
/// Changes of images are told this far apart at least: a message carries nothing, so two say no more
/// than one, and each makes the control plane list everything.
const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// How often a ready image's file is looked at for changes from outside, while somebody watches.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    files: Files,
    /// Where the sync server listens.
    sync_server: SocketAddr,
    /// Whether it gives images by our own protocol.
    gives: bool,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

fn missing() -> Status {
    Status::invalid_argument("missing required argument")
}

/// An error as Longhorn's manager passes it on from its sync server.
fn relayed(error: &Error) -> Status {
    let text = report(error).to_string();
    tracing::warn!(text, "request refused");
    match error.kind() {
        ErrorKind::Unimplemented => Status::unimplemented(text),
        // What Longhorn never answers: a name that no image can have, an image that is in use.
        ErrorKind::FailedPrecondition => Status::failed_precondition(text),
        ErrorKind::InvalidArgument if !matches!(error, Error::UnalignedSize(_)) => {
            Status::invalid_argument(text)
        }
        _ => Status::unknown(format!(
            "resp.StatusCode(500) != http.StatusOK(200), response body content: {text}\n"
        )),
    }
}

/// The image that a request names.
fn id_of(name: &str, uuid: &str) -> std::result::Result<ImageId, Status> {
    if name.is_empty() || uuid.is_empty() {
        return Err(missing());
    }
    ImageId::new(name, uuid).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// What a request says of the image that it wants.
fn wanted(spec: Option<pb::BackingImageSpec>) -> std::result::Result<Registration, Status> {
    let spec = spec.ok_or_else(missing)?;
    let id = id_of(&spec.name, &spec.uuid)?;
    let size = u64::try_from(spec.size).map_err(|_| missing())?;
    Ok(Registration {
        id,
        source: None,
        size: aligned(size).map_err(|error| relayed(&error))?,
        expected: checksum(&spec.checksum).map_err(|error| relayed(&error))?,
        format: None,
        disk_uuid: None,
    })
}

impl Manager {
    /// The service of `files`, whose sync server listens at `sync_server`.
    pub fn new(files: Files, sync_server: SocketAddr) -> Self {
        Self {
            files,
            sync_server,
            gives: true,
        }
    }

    /// The same, where our own protocol is not served over the network: other managers are not told of it.
    #[must_use]
    pub fn without_own_protocol(mut self) -> Self {
        self.gives = false;
        self
    }

    fn register(&self, mut registration: Registration) -> Result<pb::BackingImageResponse> {
        registration.disk_uuid = Some(self.files.disk().uuid().clone());
        let name = registration.id.name.to_string();
        let path = self.files.image_path(&registration.id);
        Ok(self.files.register(&path, registration)?.response(&name))
    }

    /// Where a data source prepares the file of an image.
    fn work_file(&self, id: &ImageId) -> PathBuf {
        let layout = self.files.disk().layout();
        layout.shown(&layout.image(Place::Work, id).backing)
    }

    /// The `host:port` of another manager. One that may not be connected to is refused at once; one whose
    /// name is not known now may be known later.
    async fn manager_at(&self, text: &str) -> std::result::Result<String, Status> {
        let wrong =
            |error: client::InvalidAddress| Status::invalid_argument(report(&error).to_string());
        let authority = match text.parse().map_err(wrong)? {
            client::Address::Tcp(authority) => authority,
            client::Address::Unix(_) => {
                let why = format!("{text:?} is a socket of this machine: name HOST:PORT");
                return Err(Status::invalid_argument(why));
            }
        };
        match self.files.transfers().policy.resolve_one(&authority).await {
            Err(error @ fetch::Error::Forbidden { .. }) => Err(relayed(&error.into())),
            _ => Ok(authority),
        }
    }

    /// Sees that the data source has the file of this image ready, and has it let go of it.
    async fn take_over(&self, registration: &Registration, address: &str) -> Answer<()> {
        let policy = &self.files.transfers().policy;
        let client = DataSourceClient::new(address, policy).await;
        let client = client.map_err(|error| relayed(&error))?;
        let prepared = client.get().await.map_err(|error| relayed(&error))?;
        let path = self.work_file(&registration.id);
        let file = &prepared.file;
        let not_that = |what: String| Status::failed_precondition(format!("{address}: {what}"));
        if file.uuid != registration.id.uuid.as_str() || path != *file.file_path {
            return Err(not_that(format!(
                "its file is {} with uuid {}, not {}",
                file.file_path,
                file.uuid,
                path.display()
            )));
        }
        if !matches!(file.state.as_str(), "ready" | "ready-for-transfer") {
            return Err(not_that(format!(
                "its file is {}: {}",
                file.state, file.message
            )));
        }
        client.transfer().await.map_err(|error| relayed(&error))?;
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl BackingImageManagerService for Manager {
    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Answer<()> {
        let pb::DeleteRequest { name, uuid } = request.into_inner();
        if name.is_empty() || uuid.is_empty() {
            // Longhorn waits for something that cannot be gone, then says so.
            return Err(Status::unknown(if name.is_empty() && uuid.is_empty() {
                "failed to wait for the backing image () deleted within 3 second".to_owned()
            } else {
                format!(
                    "failed to wait for the backing image {name}({uuid}) deleted within 3 second"
                )
            }));
        }
        let id = id_of(&name, &uuid)?;
        let deleted = self.files.delete_image(&id).await;
        deleted.map_err(|error| relayed(&error))?;
        Ok(Response::new(()))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Answer<pb::BackingImageResponse> {
        let request = request.get_ref();
        let id = id_of(&request.name, &request.uuid)?;
        match self.files.get(&self.files.image_path(&id)) {
            Ok(file) => Ok(Response::new(file.response(id.name.as_str()))),
            Err(Error::FileNotFound(_)) => Err(Status::not_found(format!(
                "cannot find backing image {}({})",
                id.name, id.uuid
            ))),
            Err(error) => Err(relayed(&error)),
        }
    }

    /// The control plane deletes each key of this that it has no object for, or that its object does
    /// not carry yet. So it is shown what it asked for and nothing else, and of one name one image.
    async fn list(&self, request: Request<()>) -> Answer<pb::ListResponse> {
        let all = request.metadata().contains_key(client::LIST_ALL);
        let catalog = self.files.images();
        let mut images = catalog.list();
        let asked =
            |status: &catalog::Status| self.files.memory().of(status).map(|asked| asked.order);
        images.retain(|status| all || asked(status).is_some());
        // Of several images of one name, the one that was asked for last has the bare name.
        images.sort_by_key(|status| {
            let ready = matches!(status.state, Lifecycle::Ready(_));
            std::cmp::Reverse((asked(status), ready))
        });
        let mut backing_images = HashMap::with_capacity(images.len());
        for status in images {
            let name = status.id.name.to_string();
            let key = match backing_images.contains_key(&name) {
                false => name.clone(),
                true if all => status.id.to_string(),
                true => continue,
            };
            let file = self.files.info(catalog, &status);
            backing_images.insert(key, file.response(&name));
        }
        Ok(Response::new(pb::ListResponse { backing_images }))
    }

    async fn version_get(&self, _: Request<()>) -> Answer<pb::VersionResponse> {
        Ok(Response::new(pb::VersionResponse {
            backing_image_manager_api_version: API_VERSION,
            backing_image_manager_api_min_version: API_VERSION,
            ..Default::default()
        }))
    }

    async fn sync(&self, request: Request<pb::SyncRequest>) -> Answer<pb::BackingImageResponse> {
        let pb::SyncRequest { spec, from_address } = request.into_inner();
        let mut registration = wanted(spec)?;
        if from_address.is_empty() {
            return Err(missing());
        }
        let address = self.manager_at(&from_address).await?;
        registration.source = Some(Source::Origin(Arc::new(FromManager {
            address,
            size: registration.size,
            transfers: self.files.transfers().clone(),
        })));
        let registered = self.register(registration);
        registered
            .map(Response::new)
            .map_err(|error| relayed(&error))
    }

    async fn send(&self, request: Request<pb::SendRequest>) -> Answer<()> {
        let pb::SendRequest {
            name,
            uuid,
            to_address,
        } = request.into_inner();
        if name.is_empty() || to_address.is_empty() {
            return Err(missing());
        }
        let path = self.files.image_path(&id_of(&name, &uuid)?);
        let sent = transfer::send(&self.files, &path, &to_address).await;
        sent.map_err(|error| relayed(&error))?;
        Ok(Response::new(()))
    }

    async fn fetch(&self, request: Request<pb::FetchRequest>) -> Answer<pb::BackingImageResponse> {
        let pb::FetchRequest {
            spec,
            data_source_address,
        } = request.into_inner();
        let mut registration = wanted(spec)?;
        if !data_source_address.is_empty() {
            self.take_over(&registration, &data_source_address).await?;
            let to = self.files.image_path(&registration.id);
            let from = self.work_file(&registration.id);
            registration.source = rest::adoption(&from, &to);
        }
        let registered = self.register(registration);
        registered
            .map(Response::new)
            .map_err(|error| relayed(&error))
    }

    async fn prepare_download(
        &self,
        request: Request<pb::PrepareDownloadRequest>,
    ) -> Answer<pb::PrepareDownloadResponse> {
        let request = request.get_ref();
        let id = id_of(&request.name, &request.uuid)?;
        let path = self.files.image_path(&id);
        let file = match self.files.get(&path) {
            Ok(file) => file,
            Err(Error::FileNotFound(_)) => {
                let text = format!("cannot find backing image {}({})", id.name, id.uuid);
                return Err(Status::not_found(text));
            }
            Err(error) => return Err(relayed(&error)),
        };
        let port = self.sync_server.port();
        let peers = SocketAddr::new(address::for_peers(self.sync_server), port).to_string();
        let peers = MetadataValue::try_from(peers).map_err(|_| Status::internal("no address"))?;
        if file.state != "ready" {
            let mut status = Status::failed_precondition(format!(
                "backing image {}({}) is {}, not ready for being downloaded",
                id.name, id.uuid, file.state
            ));
            // Managers of ours give what they have got so far. How one gives what it has only begun to look
            // at is not known yet.
            if self.gives && matches!(file.state.as_str(), "starting" | "in-progress") {
                status.metadata_mut().insert(client::PEER_ADDRESS, peers);
            }
            return Err(status);
        }
        let mut response = Response::new(pb::PrepareDownloadResponse {
            src_file_path: file.file_path,
            address: address::of_pod_at(self.sync_server),
        });
        // Without a chunk manifest it can be pushed only, as between managers of Longhorn's.
        if self.gives && self.files.images().has_manifest(&id) {
            response.metadata_mut().insert(client::PEER_ADDRESS, peers);
        }
        Ok(response)
    }

    async fn backup_create(&self, request: Request<pb::BackupCreateRequest>) -> Answer<()> {
        let request = request.into_inner();
        if request.name.is_empty() || request.uuid.is_empty() || request.checksum.is_empty() {
            return Err(Status::unknown(
                "failed to initialize backup : missing input parameter",
            ));
        }
        let id = id_of(&request.name, &request.uuid)?;
        let begun = async {
            let new = backups::new_backup(request, id)?;
            Ok::<_, Error>(self.files.backups()?.create_image(new).await?)
        };
        begun.await.map_err(|error| relayed(&error))?;
        Ok(Response::new(()))
    }

    async fn backup_status(
        &self,
        request: Request<pb::BackupStatusRequest>,
    ) -> Answer<pb::BackupStatusResponse> {
        let name = &request.get_ref().name;
        if name.is_empty() {
            return Err(Status::unknown(
                "empty backing image name for getting backup backing image status",
            ));
        }
        let backups = self.files.backups().map_err(|error| relayed(&error))?;
        match backups.find_image(name) {
            Some(view) => Ok(Response::new(backups::status(&view))),
            None => Err(Status::unknown(format!(
                "backup backing image not found {}",
                types::shown(name)
            ))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = std::result::Result<(), Status>> + Send>>;

    async fn watch(&self, _: Request<()>) -> Answer<Self::WatchStream> {
        let catalog = self.files.images().clone();
        let (stopped, mut changes) = (catalog.stopped(), catalog.changes());
        // What happened before is not news.
        changes.borrow_and_update();
        let events =
            futures_util::stream::unfold((catalog, changes), async |(catalog, mut changes)| {
                loop {
                    tokio::select! {
                        changed = changes.changed() => {
                            changed.ok()?;
                            tokio::time::sleep(WATCH_PAUSE).await;
                            changes.borrow_and_update();
                            return Some((Ok(()), (catalog, changes)));
                        }
                        () = tokio::time::sleep(LOOK_EVERY) => catalog.notice_all(),
                    }
                }
            });
        Ok(Response::new(Box::pin(events.take_until(stopped))))
    }
}
