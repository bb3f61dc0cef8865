//! A manager of one disk, driven by gRPC and by its own command line.

mod backups;
mod images;
mod volumes;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use proto::storage::v1 as pb;
use proto::storage::v1::backing_images_client::BackingImagesClient;
use proto::storage::v1::disks_client::DisksClient;
use proto::storage::v1::volumes_client::VolumesClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::certificates::{self, Authority};
use crate::netns::Machine;
use crate::{AddressFile, Process, Registry, Sandbox, block_on, command, programs, wait};

pub use self::backups::{backup_key, from_backup, new_backup};
pub use crate::requests::{
    from_file, from_peers, from_registry, from_upload, from_url, from_volume,
};

/// The node that every manager of the tests is on, unless it is told otherwise.
pub const NODE: &str = "node-1";

/// How to start a manager; each start takes a new port.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the log file.
    pub name: String,
    /// The disk directory.
    pub disk: PathBuf,
    /// More arguments of `daemon`.
    pub arguments: Vec<OsString>,
    /// `FAILPOINTS` of the process; empty: none.
    pub failpoints: String,
    /// More variables of its environment.
    pub environment: Vec<(String, String)>,
    /// The namespace that it runs in; `None`: this one, on ports of the kernel's choice.
    pub machine: Option<Machine>,
    /// The directory of the certificate by which the harness proves that it may drive the manager; `None`:
    /// without TLS.
    pub driver: Option<PathBuf>,
}

impl Options {
    /// The plain options for a disk.
    pub fn new(disk: &Path) -> Self {
        Self {
            name: "manager".into(),
            disk: disk.to_owned(),
            // Everything of a test is on this machine.
            arguments: ["--node-id", NODE, "--allow-address", "127.0.0.0/8"]
                .map(OsString::from)
                .to_vec(),
            failpoints: String::new(),
            environment: Vec::new(),
            machine: None,
            driver: None,
        }
    }

    /// As the manager of a node with a certificate of that authority. The harness drives it as a person.
    #[must_use]
    pub fn trusting(mut self, authority: &Authority, node: &str) -> Self {
        let at = self.arguments.iter().position(|it| it == "--node-id");
        self.arguments[at.expect("every manager has a node") + 1] = node.into();
        node.clone_into(&mut self.name);
        self.driver = Some(authority.issue("cli/harness"));
        self.with(
            "--certificates",
            authority.issue(&format!("manager/{node}/p")),
        )
    }

    /// On another node, with a log of that name.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        node.clone_into(&mut self.name);
        self.arguments = ["--node-id", node].map(OsString::from).to_vec();
        self
    }

    /// In a namespace, on the usual ports.
    #[must_use]
    pub fn on(mut self, machine: &Machine) -> Self {
        self.machine = Some(machine.clone());
        self
    }

    /// With one more option of `daemon` that has a value.
    #[must_use]
    pub fn with(mut self, option: &str, value: impl Into<OsString>) -> Self {
        self.arguments.extend([option.into(), value.into()]);
        self
    }

    /// To whom the daemon is open: to everybody, unless the test is about just that; with a socket of its own.
    fn openness(&self, addresses: &AddressFile) -> Vec<OsString> {
        let says = |option: &str| {
            let mut said = self.arguments.iter().filter_map(|said| said.to_str());
            said.any(|said| said == option || said.starts_with(&format!("{option}=")))
        };
        let mut arguments = Vec::new();
        if !["--own-api", "--certificates", "--authority"]
            .into_iter()
            .any(says)
        {
            arguments.push("--own-api=plain".into());
        }
        if !says("--socket") {
            arguments.extend([
                "--socket".into(),
                addresses.path().with_extension("sock").into(),
            ]);
        }
        arguments
    }

    /// As it comes: without access to addresses of this machine.
    #[must_use]
    pub fn strict(mut self) -> Self {
        let at = self.arguments.iter().position(|it| it == "--allow-address");
        if let Some(at) = at {
            self.arguments.drain(at..at + 2);
        }
        self
    }

    /// With what it needs to pull from a registry of the tests.
    #[must_use]
    pub fn with_registry(self, registry: &Registry) -> Self {
        self.with("--registry-config", &registry.registry_config)
            .with("--auth-file", &registry.docker_config)
            .with("--allow-address", "127.0.0.0/8")
    }

    /// With one more variable of its environment.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With a failpoint, for example `store.seal.renamed=return`.
    #[must_use]
    pub fn with_failpoint(mut self, failpoint: impl Into<String>) -> Self {
        self.failpoints = failpoint.into();
        self
    }
}

/// Makes a directory a disk of ours: `disk init`. Twice is once.
pub fn init_disk(disk: &Path) {
    let arguments = ["disk".as_ref(), "init".as_ref(), disk.as_os_str()];
    let output = command::output(&programs::manager().display().to_string(), arguments);
    assert!(
        output.status.success(),
        "disk init: {}",
        command::words(&output)
    );
}

/// A running manager.
#[derive(Debug)]
pub struct Manager {
    /// The daemon.
    pub process: Process,
    addresses: AddressFile,
    driver: Option<PathBuf>,
    /// `None` until it serves.
    serving: Option<Serving>,
}

/// A manager that listens.
#[derive(Debug)]
struct Serving {
    grpc: SocketAddr,
    sync: SocketAddr,
    channel: Channel,
}

impl Manager {
    /// Starts one on an initialised disk and waits until it serves.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, options: &Options) -> Self {
        let mut manager = Self::spawn(sandbox, options);
        manager.wait_ready();
        manager
    }

    /// Starts one without waiting: it may be meant to end.
    pub fn spawn(sandbox: &Sandbox, options: &Options) -> Self {
        let at = |port| match &options.machine {
            Some(machine) => SocketAddr::from((machine.address, port)).to_string(),
            None => "127.0.0.1:0".to_owned(),
        };
        let (listen, sync) = (at(8000), at(8001));
        let addresses = AddressFile::new(sandbox);
        let mut arguments: Vec<OsString> = [
            "daemon",
            "--listen",
            &listen,
            "--sync-listen",
            &sync,
            "--disk",
        ]
        .map(OsString::from)
        .to_vec();
        arguments.push(options.disk.clone().into());
        arguments.extend(["--address-file".into(), addresses.path().into()]);
        arguments.extend(options.openness(&addresses));
        arguments.extend(options.arguments.iter().cloned());
        let more = options.environment.iter();
        let environment: Vec<_> = [
            ("FAILPOINTS", options.failpoints.as_str()),
            ("RUST_LOG", "info"),
        ]
        .into_iter()
        .chain(more.map(|(name, value)| (name.as_str(), value.as_str())))
        .collect();
        let mut program = programs::manager();
        if let Some(machine) = &options.machine {
            // `ip netns exec` would make a mount namespace as well: a copy of all mounts, which keeps
            // the loop devices of every other test busy.
            let within = OsString::from(format!("--net=/run/netns/{}", machine.namespace));
            let whole = [within, program.into()].into_iter().chain(arguments);
            arguments = whole.collect();
            program = "nsenter".into();
        }
        let process = Process::spawn(sandbox, &options.name, &program, arguments, &environment);
        Self {
            process,
            addresses,
            driver: options.driver.clone(),
            serving: None,
        }
    }

    /// Waits until it serves.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let addresses = &self.addresses;
        self.process.wait_ready(|| addresses.written());
        let grpc = addresses.get("grpc");
        let channel = self.channel_to(grpc);
        let disks = DisksClient::new(channel.clone());
        self.serving = Some(Serving {
            grpc,
            sync: addresses.get("sync"),
            channel,
        });
        self.process.wait_ready(|| {
            let mut disks = disks.clone();
            block_on(disks.get_disk(pb::GetDiskRequest::default())).is_ok()
        });
    }

    #[track_caller]
    fn serving(&self) -> &Serving {
        let serving = self.serving.as_ref();
        serving.expect("a manager is asked when it serves: wait_ready")
    }

    /// Where it listens.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.serving().grpc
    }

    /// Where its sync server listens.
    #[track_caller]
    pub fn sync_address(&self) -> SocketAddr {
        self.serving().sync
    }

    /// Where it tells health and metrics, when it was asked to by `--metrics-listen`.
    #[track_caller]
    pub fn metrics_address(&self) -> SocketAddr {
        self.addresses.get("metrics")
    }

    /// The same of one that may not serve yet; `None`: it has bound nothing.
    pub fn metrics_address_when_bound(&self) -> Option<SocketAddr> {
        self.addresses.written().then(|| self.metrics_address())
    }

    /// The connection, for other services than those that have a method here.
    #[track_caller]
    pub fn channel(&self) -> Channel {
        self.serving().channel.clone()
    }

    /// Another connection, which is made by the first call.
    pub fn new_channel(&self) -> Channel {
        self.channel_to(self.address())
    }

    fn channel_to(&self, grpc: SocketAddr) -> Channel {
        if let Some(driver) = &self.driver {
            return certificates::channel(grpc, &certificates::held(driver));
        }
        block_on(async {
            Endpoint::from_shared(format!("http://{grpc}"))
                .expect("an address makes a URI")
                .connect_timeout(wait::LONG)
                .connect_lazy()
        })
    }

    /// The client of images, for callers that are many.
    pub fn images(&self) -> BackingImagesClient<Channel> {
        BackingImagesClient::new(self.channel())
    }

    /// The client of volumes.
    pub fn volumes(&self) -> VolumesClient<Channel> {
        VolumesClient::new(self.channel())
    }

    /// The disk, as the manager sees it.
    pub fn disk(&self) -> Result<pb::Disk, Status> {
        let mut disks = DisksClient::new(self.channel());
        block_on(disks.get_disk(pb::GetDiskRequest::default())).map(tonic::Response::into_inner)
    }

    /// Starts to make an image.
    pub fn create_image(
        &self,
        request: pb::CreateBackingImageRequest,
    ) -> Result<pb::BackingImage, Status> {
        block_on(self.images().create_backing_image(request)).map(tonic::Response::into_inner)
    }

    /// Appends a piece to an upload.
    pub fn write_upload(
        &self,
        image: &pb::BackingImage,
        offset: u64,
        data: &[u8],
    ) -> Result<pb::BackingImage, Status> {
        let request = pb::WriteUploadRequest {
            name: image.name.clone(),
            uuid: image.uuid.clone(),
            offset,
            data: data.to_vec().into(),
        };
        block_on(self.images().write_upload(request)).map(tonic::Response::into_inner)
    }

    /// Looks at the source of a request.
    pub fn inspect(
        &self,
        request: pb::CreateBackingImageRequest,
    ) -> Result<pb::InspectSourceResponse, Status> {
        let source = request.source;
        let request = pb::InspectSourceRequest { source };
        block_on(self.images().inspect_source(request)).map(tonic::Response::into_inner)
    }

    /// The image as it is now.
    pub fn image(&self, name: &str) -> Result<pb::BackingImage, Status> {
        let request = pb::GetBackingImageRequest {
            name: name.into(),
            uuid: String::new(),
        };
        block_on(self.images().get_backing_image(request)).map(tonic::Response::into_inner)
    }

    /// All images.
    pub fn list_images(&self) -> Result<Vec<pb::BackingImage>, Status> {
        let listed = block_on(
            self.images()
                .list_backing_images(pb::ListBackingImagesRequest::default()),
        );
        listed.map(|reply| reply.into_inner().backing_images)
    }

    /// Deletes an image.
    pub fn delete_image(&self, name: &str) -> Result<(), Status> {
        let request = pb::DeleteBackingImageRequest {
            name: name.into(),
            uuid: String::new(),
        };
        block_on(self.images().delete_backing_image(request)).map(drop)
    }

    /// Runs the command line against this manager: `cli(["backing-image"], ["list"])` is
    /// `backing-image-manager backing-image --url … list`.
    pub fn cli(&self, noun: &str, rest: &[&str]) -> Output {
        let url = self.address().to_string();
        let mut arguments: Vec<OsString> = [noun, "--url", &url].map(OsString::from).to_vec();
        if let Some(driver) = &self.driver {
            arguments.extend(["--certificates".into(), driver.into()]);
        }
        arguments.extend(rest.iter().map(OsString::from));
        command::output(&programs::manager().display().to_string(), arguments)
    }
}
