//! A CSI plugin and its caller: what the external provisioner, the attacher and the kubelet do with
//! one volume, in their order.

mod backups;
mod claim;
mod groups;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use proto::csi::v1 as pb;
use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::node_client::NodeClient;
use proto::csi::v1::snapshot_metadata_client::SnapshotMetadataClient;
use proto::node::v1::node_client::NodeClient as NodeServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub use backups::backup_of;
pub use claim::{block, claim, mounted, of_snapshot, of_volume};

use claim::at_least;

use crate::{Manager, Process, Sandbox, block_on, programs, wait};

/// A running plugin, and the kubelet's directory that it works in.
#[derive(Debug)]
pub struct Plugin {
    /// The plugin.
    pub process: Process,
    kubelet: PathBuf,
    channel: Channel,
}

/// A volume on its way from CreateVolume to a pod.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The name that the provisioner chooses, and what it asks for.
    pub request: pb::CreateVolumeRequest,
    /// What CreateVolume answered.
    pub volume: pb::Volume,
    /// What ControllerPublishVolume answered.
    pub publish_context: HashMap<String, String>,
}

impl Claim {
    /// How large the volume was made.
    pub fn size(&self) -> u64 {
        u64::try_from(self.volume.capacity_bytes).expect("a size is positive")
    }
}

impl Plugin {
    /// Starts a plugin on the node of a manager, and waits until it is ready.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, manager: &Manager, disk: &Path) -> Self {
        Self::start_with(sandbox, manager, disk, "")
    }

    /// The same, with failpoints.
    #[track_caller]
    pub fn start_with(sandbox: &Sandbox, manager: &Manager, disk: &Path, failpoints: &str) -> Self {
        Self::start_as(sandbox, manager, disk, failpoints, &[])
    }

    /// The same, with failpoints and more of a command line.
    #[track_caller]
    pub fn start_as(
        sandbox: &Sandbox,
        manager: &Manager,
        disk: &Path,
        failpoints: &str,
        more: &[&str],
    ) -> Self {
        let kubelet = sandbox.make_dir("kubelet");
        let socket = sandbox
            .make_dir("kubelet/plugins/driver.longhorn.io")
            .join("csi.sock");
        let options: [(&str, OsString); 6] = [
            ("--endpoint", format!("unix://{}", socket.display()).into()),
            ("--node-id", crate::manager::NODE.into()),
            ("--manager", manager.address().to_string().into()),
            ("--disk", disk.into()),
            ("--dev-dir", sandbox.path("dev/longhorn").into()),
            ("--kubelet-dir", kubelet.clone().into()),
        ];
        let arguments = options
            .into_iter()
            .flat_map(|(option, value)| [option.into(), value])
            .chain(more.iter().map(OsString::from));
        let environment = [("FAILPOINTS", failpoints), ("RUST_LOG", "info")];
        let program = programs::csi_plugin();
        nobody_serves(&socket);
        let process = Process::spawn(sandbox, "csi-plugin", &program, arguments, &environment);
        Self::ready(process, kubelet, &socket)
    }

    /// The plugin of a process that was started, when it answers at its socket.
    #[track_caller]
    fn ready(process: Process, kubelet: PathBuf, socket: &Path) -> Self {
        let mut plugin = Self {
            process,
            kubelet,
            channel: connect(socket),
        };
        plugin.wait_ready();
        plugin
    }

    /// Starts the controller alone, over several managers, and waits until it is ready.
    #[track_caller]
    pub fn controller_of(
        sandbox: &Sandbox,
        name: &str,
        managers: &[&Manager],
        more: &[&str],
    ) -> Self {
        Self::controller_in(sandbox, name, managers, more, &[])
    }

    /// The same, with more of its environment: that of a pod.
    #[track_caller]
    pub fn controller_in(
        sandbox: &Sandbox,
        name: &str,
        managers: &[&Manager],
        more: &[&str],
        pod: &[(&str, String)],
    ) -> Self {
        let addresses: Vec<_> = managers.iter().map(|m| m.address().to_string()).collect();
        Self::controller_at(sandbox, name, &addresses.join(","), more, pod)
    }

    /// The same over the managers at these addresses, separated by commas.
    #[track_caller]
    pub fn controller_at(
        sandbox: &Sandbox,
        name: &str,
        managers: &str,
        more: &[&str],
        pod: &[(&str, String)],
    ) -> Self {
        let kubelet = sandbox.make_dir(name);
        let socket = kubelet.join("csi.sock");
        let endpoint = format!("unix://{}", socket.display());
        let arguments = [
            "--mode",
            "controller",
            "--endpoint",
            &endpoint,
            "--manager",
            managers,
        ];
        let arguments = arguments.iter().chain(more);
        let pod = pod.iter().map(|(name, value)| (*name, value.as_str()));
        let environment: Vec<_> = [("RUST_LOG", "info")].into_iter().chain(pod).collect();
        let program = programs::csi_plugin();
        nobody_serves(&socket);
        let process = Process::spawn(sandbox, name, &program, arguments, &environment);
        Self::ready(process, kubelet, &socket)
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let identity = IdentityClient::new(self.channel.clone());
        self.process.wait_ready(|| {
            let mut identity = identity.clone();
            let probed = block_on(identity.probe(pb::ProbeRequest {}));
            probed.is_ok_and(|reply| reply.into_inner().ready.unwrap_or(true))
        });
    }

    /// The client of the identity service.
    pub fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    /// The client of the controller service.
    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    /// The client of the snapshot metadata service.
    pub fn snapshot_metadata(&self) -> SnapshotMetadataClient<Channel> {
        SnapshotMetadataClient::new(self.channel.clone())
    }

    /// The client of the node service.
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// The socket of the node service.
    pub fn node_socket(&self) -> PathBuf {
        self.kubelet.join("plugins/driver.longhorn.io/node.sock")
    }

    /// The records of the node service.
    pub fn node_state(&self) -> PathBuf {
        self.kubelet.join("plugins/driver.longhorn.io/attachments")
    }

    /// The records of volumes that are exposed without a pod.
    pub fn exposed_state(&self) -> PathBuf {
        self.kubelet.join("plugins/driver.longhorn.io/exposed")
    }

    /// The client of the node service, on a connection of its own.
    pub fn node_service(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(connect(&self.node_socket()))
    }

    /// CreateVolume as the external provisioner calls it: again while the answer is that it is
    /// still going on (ABORTED, UNAVAILABLE, DEADLINE_EXCEEDED).
    pub fn provision(&self, request: &pb::CreateVolumeRequest) -> Result<Claim, Status> {
        wait::until("the volume is provisioned", || {
            match self.provision_once(request) {
                Err(status) if still_going_on(&status) => None,
                other => Some(other),
            }
        })
    }

    /// One CreateVolume.
    pub fn provision_once(&self, request: &pb::CreateVolumeRequest) -> Result<Claim, Status> {
        let reply = block_on(self.controller().create_volume(request.clone()))?;
        let volume = reply.into_inner().volume;
        let volume = volume.ok_or_else(|| Status::internal("an answer without a volume"))?;
        Ok(Claim {
            request: request.clone(),
            volume,
            publish_context: HashMap::new(),
        })
    }

    /// ControllerPublishVolume as the external attacher calls it.
    pub fn attach(&self, claim: &mut Claim) -> Result<(), Status> {
        let request = pb::ControllerPublishVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            node_id: crate::manager::NODE.into(),
            volume_capability: claim.request.volume_capabilities.first().cloned(),
            volume_context: claim.volume.volume_context.clone(),
            ..Default::default()
        };
        let reply = block_on(self.controller().controller_publish_volume(request))?;
        claim.publish_context = reply.into_inner().publish_context;
        Ok(())
    }

    /// NodeStageVolume as the kubelet calls it, which makes the staging directory first.
    pub fn stage(&self, claim: &Claim) -> Result<PathBuf, Status> {
        let staging = self.staging(claim);
        fs::create_dir_all(&staging).expect("make the staging directory");
        let request = pb::NodeStageVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            staging_target_path: staging.display().to_string(),
            volume_capability: claim.request.volume_capabilities.first().cloned(),
            volume_context: claim.volume.volume_context.clone(),
            publish_context: claim.publish_context.clone(),
            ..Default::default()
        };
        block_on(self.node().node_stage_volume(request)).map(|_| staging)
    }

    /// NodePublishVolume as the kubelet calls it, which makes the parent of the target first.
    pub fn publish(&self, claim: &Claim, pod: &str) -> Result<PathBuf, Status> {
        let target = self.target(claim, pod);
        fs::create_dir_all(target.parent().expect("a target has a parent"))
            .expect("make the pod's directory");
        let request = pb::NodePublishVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            staging_target_path: self.staging(claim).display().to_string(),
            target_path: target.display().to_string(),
            volume_capability: claim.request.volume_capabilities.first().cloned(),
            volume_context: claim.volume.volume_context.clone(),
            publish_context: claim.publish_context.clone(),
            ..Default::default()
        };
        block_on(self.node().node_publish_volume(request)).map(|_| target)
    }

    /// Everything from the attachment to the pod: the directory (or device) that the pod sees.
    pub fn run_pod(&self, claim: &mut Claim, pod: &str) -> Result<PathBuf, Status> {
        self.attach(claim)?;
        self.stage(claim)?;
        self.publish(claim, pod)
    }

    /// CreateSnapshot as the external snapshotter calls it, again while it is still going on.
    pub fn snapshot(&self, name: &str, volume_id: &str) -> Result<pb::Snapshot, Status> {
        let request = pb::CreateSnapshotRequest {
            name: name.into(),
            source_volume_id: volume_id.into(),
            ..Default::default()
        };
        wait::until("the snapshot is taken", || {
            let reply = block_on(self.controller().create_snapshot(request.clone()));
            match reply {
                Err(status) if still_going_on(&status) => None,
                Err(status) => Some(Err(status)),
                Ok(reply) => {
                    let snapshot = reply.into_inner().snapshot;
                    let snapshot = snapshot.ok_or_else(|| Status::internal("no snapshot"));
                    Some(snapshot).filter(|taken| taken.as_ref().map_or(true, |s| s.ready_to_use))
                }
            }
        })
    }

    /// DeleteSnapshot.
    pub fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        let request = pb::DeleteSnapshotRequest {
            snapshot_id: id.into(),
            ..Default::default()
        };
        block_on(self.controller().delete_snapshot(request)).map(drop)
    }

    /// ControllerExpandVolume, as the external resizer calls it.
    pub fn grow(&self, claim: &Claim, size: u64) -> Result<(), Status> {
        let request = pb::ControllerExpandVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            capacity_range: Some(at_least(size)),
            ..Default::default()
        };
        block_on(self.controller().controller_expand_volume(request)).map(drop)
    }

    /// The same and then NodeExpandVolume for a pod, as the kubelet calls it.
    pub fn expand(&self, claim: &Claim, pod: &str, size: u64) -> Result<(), Status> {
        self.grow(claim, size)?;
        let request = pb::NodeExpandVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            volume_path: self.target(claim, pod).display().to_string(),
            capacity_range: Some(at_least(size)),
            ..Default::default()
        };
        block_on(self.node().node_expand_volume(request)).map(drop)
    }

    /// NodeUnpublishVolume.
    pub fn unpublish(&self, claim: &Claim, pod: &str) -> Result<(), Status> {
        let request = pb::NodeUnpublishVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            target_path: self.target(claim, pod).display().to_string(),
        };
        block_on(self.node().node_unpublish_volume(request)).map(drop)
    }

    /// NodeUnstageVolume.
    pub fn unstage(&self, claim: &Claim) -> Result<(), Status> {
        let request = pb::NodeUnstageVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            staging_target_path: self.staging(claim).display().to_string(),
        };
        block_on(self.node().node_unstage_volume(request)).map(drop)
    }

    /// ControllerUnpublishVolume.
    pub fn detach(&self, claim: &Claim) -> Result<(), Status> {
        let request = pb::ControllerUnpublishVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            node_id: crate::manager::NODE.into(),
            ..Default::default()
        };
        block_on(self.controller().controller_unpublish_volume(request)).map(drop)
    }

    /// DeleteVolume.
    pub fn delete(&self, claim: &Claim) -> Result<(), Status> {
        let request = pb::DeleteVolumeRequest {
            volume_id: claim.volume.volume_id.clone(),
            ..Default::default()
        };
        block_on(self.controller().delete_volume(request)).map(drop)
    }

    /// Everything from the pod's end to the volume's.
    pub fn end_pod(&self, claim: &Claim, pod: &str) -> Result<(), Status> {
        self.unpublish(claim, pod)?;
        self.unstage(claim)?;
        self.detach(claim)
    }

    /// The kubelet's own directory.
    pub fn kubelet_dir(&self) -> &Path {
        &self.kubelet
    }

    /// Where the kubelet stages a volume. It names the directory by a hash of the volume id; the id
    /// itself does for one node.
    pub fn staging(&self, claim: &Claim) -> PathBuf {
        let plugin = self
            .kubelet
            .join("plugins/kubernetes.io/csi/driver.longhorn.io");
        plugin.join(&claim.volume.volume_id).join("globalmount")
    }

    /// Where the kubelet wants a volume for a pod.
    pub fn target(&self, claim: &Claim, pod: &str) -> PathBuf {
        let volumes = self
            .kubelet
            .join("pods")
            .join(pod)
            .join("volumes/kubernetes.io~csi");
        volumes.join(&claim.request.name).join("mount")
    }
}

/// A plugin that ends only after its successor started would answer for it, and the successor, which
/// finds the socket served or not as the two are scheduled, ends or lives.
#[track_caller]
fn nobody_serves(socket: &Path) {
    let served = UnixStream::connect(socket).is_ok();
    assert!(!served, "end the plugin at {} first", socket.display());
}

pub(crate) fn connect(socket: &Path) -> Channel {
    block_on(async {
        Endpoint::from_shared(format!("unix://{}", socket.display()))
            .expect("a path makes a URI")
            .connect_timeout(wait::LONG)
            .connect_lazy()
    })
}

/// Fails unless a call was refused with this code, by an error that says all of these words.
#[track_caller]
pub fn refused<T: Debug>(result: Result<T, Status>, code: Code, words: &[&str]) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    for word in words {
        let said = status.message();
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Whether the external provisioner takes a status for "not yet" (its README, "CSI error handling").
fn still_going_on(status: &Status) -> bool {
    use Code::{Aborted, DeadlineExceeded, Unavailable};
    matches!(status.code(), Aborted | DeadlineExceeded | Unavailable)
}
