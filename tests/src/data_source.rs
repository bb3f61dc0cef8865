//! A data source of one image, and Longhorn's replica that exports to one.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::bimrpc;
use proto::bimrpc::backing_image_manager_service_server::{
    BackingImageManagerService, BackingImageManagerServiceServer,
};
use proto::enginerpc::VolumeExportRequest;
use proto::enginerpc::sync_agent_service_server::{SyncAgentService, SyncAgentServiceServer};
use serde_json::Value;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::ssync::{Connection, Misbehave, push};
use crate::{AddressFile, Process, Sandbox, block_on, programs, wait};

/// A running data source.
#[derive(Debug)]
pub struct DataSource {
    /// The process.
    pub process: Process,
    addresses: AddressFile,
    /// The work file that it prepares.
    pub file: PathBuf,
}

/// How long an answer may take.
const PATIENCE: Duration = wait::LONG;

impl DataSource {
    /// Starts one for the image `name` with the uuid `uuid-NAME` and waits until it answers.
    /// `host` is the loopback address that senders reach it at: the port for exports is fixed.
    #[track_caller]
    pub fn start(
        sandbox: &Sandbox,
        disk: &Path,
        name: &str,
        source_type: &str,
        host: &str,
        more: &[&str],
    ) -> Self {
        let mut source = Self::spawn(sandbox, disk, name, source_type, host, more);
        source.wait_answering();
        source
    }

    /// Starts one of a type with more variables in its environment, and waits until it answers.
    #[track_caller]
    pub fn start_with(
        sandbox: &Sandbox,
        disk: &Path,
        (name, source_type): (&str, &str),
        more: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let mut source = Self::spawn_with(
            sandbox,
            disk,
            name,
            source_type,
            "127.0.0.1",
            more,
            environment,
        );
        source.wait_answering();
        source
    }

    fn wait_answering(&mut self) {
        let addresses = &self.addresses;
        self.process.wait_ready(|| addresses.written());
        let address = addresses.get("http").to_string();
        self.process.wait_ready(|| {
            let asked = Connection::new(&address, PATIENCE).ask("GET", "/v1/file", &[], b"");
            asked.is_ok()
        });
    }

    /// Starts one without waiting.
    pub fn spawn(
        sandbox: &Sandbox,
        disk: &Path,
        name: &str,
        source_type: &str,
        host: &str,
        more: &[&str],
    ) -> Self {
        Self::spawn_with(sandbox, disk, name, source_type, host, more, &[])
    }

    fn spawn_with(
        sandbox: &Sandbox,
        disk: &Path,
        name: &str,
        source_type: &str,
        host: &str,
        more: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let addresses = AddressFile::new(sandbox);
        let address_file = addresses.path().display().to_string();
        let (uuid, disk_text) = (format!("uuid-{name}"), disk.display().to_string());
        let mut arguments = vec![
            "data-source",
            "--listen",
            "127.0.0.1:0",
            "--sync-listen",
            "127.0.0.1:0",
            "--address-file",
            &address_file,
            "--disk",
            &disk_text,
            "--name",
            name,
            "--uuid",
            &uuid,
            "--source-type",
            source_type,
            "--allow-address",
            "127.0.0.0/8",
        ];
        arguments.extend_from_slice(more);
        let more = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let environment: Vec<_> = [("POD_IP", host)].into_iter().chain(more).collect();
        let process = Process::spawn(
            sandbox,
            &format!("data-source-{name}"),
            &programs::manager(),
            arguments,
            &environment,
        );
        Self {
            process,
            addresses,
            file: disk.join(format!("tmp/{name}-{uuid}")),
        }
    }

    /// Where it listens.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.addresses.get("http")
    }

    /// Where its sync server listens.
    #[track_caller]
    pub fn sync(&self) -> SocketAddr {
        self.addresses.get("sync")
    }

    /// One request.
    pub fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String) {
        let mut connection = Connection::new(&self.address().to_string(), PATIENCE);
        let asked = connection.ask(method, target, headers, body);
        let (status, body) = asked.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// What it tells of its file.
    #[track_caller]
    pub fn file(&self) -> Value {
        let (status, body) = self.ask("GET", "/v1/file", &[], b"");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("it is JSON")
    }

    /// Waits for a state of its file.
    #[track_caller]
    pub fn wait_state(&self, state: &str) -> Value {
        wait::until(&format!("the data source is {state}"), || {
            let file = self.file();
            if file["state"] == state {
                return Some(file);
            }
            assert!(state == "failed" || file["state"] != "failed", "{file}");
            None
        })
    }

    /// Hands the file over.
    pub fn transfer(&self) -> (u16, String) {
        self.ask("POST", "/v1/file?action=transfer", &[], b"")
    }
}

/// A file that a peer of Longhorn's has, and how it sends it.
#[derive(Debug, Clone)]
pub struct Peer {
    file: PathBuf,
    data: Vec<Range<u64>>,
    misbehave: Misbehave,
    /// Where it was asked to send to.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// One that has `file`, whose data is in these ranges.
    pub fn new(file: &Path, data: &[Range<u64>], misbehave: Misbehave) -> Self {
        Self {
            file: file.to_owned(),
            data: data.to_vec(),
            misbehave,
            asked: Arc::default(),
        }
    }

    /// Where it was asked to send to.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// Serves as a replica's sync agent; gives the replica's address, which is two ports before.
    pub fn serve_as_replica(&self) -> String {
        loop {
            let listener = block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
                .expect("bind a port of the kernel's choice");
            let port = listener
                .local_addr()
                .expect("a bound socket has an address")
                .port();
            if port <= 2 {
                continue;
            }
            let service = SyncAgentServiceServer::new(self.clone());
            serve(
                listener,
                tonic::transport::Server::builder().add_service(service),
            );
            return format!("127.0.0.1:{}", port - 2);
        }
    }

    /// Serves as a manager of Longhorn's; gives its gRPC address. `sync_server` is where it says that
    /// its sync server is.
    pub fn serve_as_manager(&self, sync_server: &str) -> String {
        let listener = block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("bind a port of the kernel's choice");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let manager = GoManager {
            peer: self.clone(),
            sync_server: sync_server.to_owned(),
        };
        let service = BackingImageManagerServiceServer::new(manager);
        serve(
            listener,
            tonic::transport::Server::builder().add_service(service),
        );
        address.to_string()
    }

    fn push_to(&self, to: String) -> tokio::task::JoinHandle<Result<(), String>> {
        let peer = self.clone();
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(to.clone());
        tokio::task::spawn_blocking(move || push(&to, &peer.file, &peer.data, peer.misbehave))
    }
}

fn serve(listener: tokio::net::TcpListener, router: tonic::transport::server::Router) {
    block_on(async {
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    });
}

#[tonic::async_trait]
impl SyncAgentService for Peer {
    async fn volume_export(
        &self,
        request: Request<VolumeExportRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        if request.snapshot_file_name == "no-such-snapshot" {
            return Err(Status::unknown("cannot find snapshot no-such-snapshot"));
        }
        let to = format!("{}:{}", request.host, request.port);
        let sent = self.push_to(to).await;
        let sent = sent.map_err(|error| Status::internal(error.to_string()))?;
        sent.map(Response::new).map_err(Status::unknown)
    }
}

/// Longhorn's own manager, as far as a receiver sees it.
#[derive(Debug)]
struct GoManager {
    peer: Peer,
    sync_server: String,
}

type Empty = Result<Response<()>, Status>;

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl BackingImageManagerService for GoManager {
    type WatchStream = tokio_stream::Empty<Result<(), Status>>;

    /// Answers at once; whether it works out only its log says.
    async fn send(&self, request: Request<bimrpc::SendRequest>) -> Empty {
        drop(self.peer.push_to(request.into_inner().to_address));
        Ok(Response::new(()))
    }

    async fn prepare_download(
        &self,
        request: Request<bimrpc::PrepareDownloadRequest>,
    ) -> Result<Response<bimrpc::PrepareDownloadResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(bimrpc::PrepareDownloadResponse {
            src_file_path: format!(
                "/data/backing-images/{}-{}/backing",
                request.name, request.uuid
            ),
            address: self.sync_server.clone(),
        }))
    }

    async fn delete(&self, _: Request<bimrpc::DeleteRequest>) -> Empty {
        unused()
    }

    async fn get(
        &self,
        _: Request<bimrpc::GetRequest>,
    ) -> Result<Response<bimrpc::BackingImageResponse>, Status> {
        unused()
    }

    async fn list(&self, _: Request<()>) -> Result<Response<bimrpc::ListResponse>, Status> {
        unused()
    }

    async fn version_get(
        &self,
        _: Request<()>,
    ) -> Result<Response<bimrpc::VersionResponse>, Status> {
        unused()
    }

    async fn sync(
        &self,
        _: Request<bimrpc::SyncRequest>,
    ) -> Result<Response<bimrpc::BackingImageResponse>, Status> {
        unused()
    }

    async fn fetch(
        &self,
        _: Request<bimrpc::FetchRequest>,
    ) -> Result<Response<bimrpc::BackingImageResponse>, Status> {
        unused()
    }

    async fn backup_create(&self, _: Request<bimrpc::BackupCreateRequest>) -> Empty {
        unused()
    }

    async fn backup_status(
        &self,
        _: Request<bimrpc::BackupStatusRequest>,
    ) -> Result<Response<bimrpc::BackupStatusResponse>, Status> {
        unused()
    }

    async fn watch(&self, _: Request<()>) -> Result<Response<Self::WatchStream>, Status> {
        unused()
    }
}
