//! The two pods that Longhorn's control plane starts: their exact argument lists, their
//! environment, their mounts, and its readiness check.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::Path;

use proto::bimrpc::backing_image_manager_service_client::BackingImageManagerServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::daemon::WITH_DATA;
use crate::netns::Machine;
use crate::{Process, Sandbox, block_on, command, programs};

/// A running pod with an address of its own.
#[derive(Debug)]
pub struct Pod {
    /// The process.
    pub process: Process,
    /// `address:8000`.
    pub address: String,
}

impl Pod {
    /// The manager of a disk.
    #[track_caller]
    pub fn manager(sandbox: &Sandbox, machine: &Machine, disk: &Path) -> Self {
        let words = "daemon --listen :8000 --sync-listen :8001";
        Self::start(sandbox, machine, disk, words.split(' '))
    }

    /// The data source of the image `name` with this uuid; `more` is `--parameters k=v` and so on.
    #[track_caller]
    pub fn data_source(
        sandbox: &Sandbox,
        (machine, disk): (&Machine, &Path),
        (name, uuid): (&str, &str),
        source_type: &str,
        more: &[&str],
    ) -> Self {
        let words = "data-source --listen :8000 --sync-listen :8001";
        let which = ["--name", name, "--uuid", uuid, "--source-type", source_type];
        let words = words.split(' ').chain(which).chain(more.iter().copied());
        Self::start(sandbox, machine, disk, words)
    }

    #[track_caller]
    fn start<'a>(
        sandbox: &Sandbox,
        machine: &Machine,
        disk: &Path,
        words: impl Iterator<Item = &'a str>,
    ) -> Self {
        let name = format!("pod-{}", machine.namespace);
        let root = sandbox.make_dir(format!("root-{name}"));
        let net = format!("--net=/run/netns/{}", machine.namespace);
        let unshare = "unshare -m --propagation private sh -c";
        let mut arguments: Vec<OsString> = vec![net.into()];
        arguments.extend(unshare.split(' ').map(OsString::from));
        arguments.extend([WITH_DATA.into(), "sh".into(), root.into(), disk.into()]);
        // Of the environment a pod has its image's PATH and what the control plane writes.
        let pod_ip = format!("POD_IP={}", machine.address);
        let clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", &pod_ip];
        arguments.extend(clean.map(OsString::from));
        arguments.push(programs::manager().into());
        arguments.push("--debug".into());
        arguments.extend(words.map(OsString::from));
        let nsenter = command::find("nsenter").expect("nsenter(1) is on the path");
        let mut process = Process::spawn(sandbox, &name, &nsenter, arguments, &[]);
        let address = format!("{}:8000", machine.address);
        process.wait_ready(|| TcpStream::connect(&address).is_ok());
        Self { process, address }
    }

    /// Longhorn's service of a manager.
    pub fn service(&self) -> BackingImageManagerServiceClient<Channel> {
        let channel = block_on(async {
            Endpoint::from_shared(format!("http://{}", self.address))
                .expect("an address makes a URI")
                .connect_lazy()
        });
        BackingImageManagerServiceClient::new(channel)
    }
}
