//! A cluster of guests: in each our manager and our plugin, outside them the API server of Kubernetes, the controller and
//! who calls CSI as Kubernetes does.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proto::csi::v1 as pb;
use proto::csi::v1::node_client::NodeClient;
use serde_json::Value;
use tonic::Status;
use tonic::transport::Channel;

use super::Guests;
use super::machine::{Machine, Shape};
use super::network::here;
use super::remote::Remote;
use crate::csi::{Claim, Plugin, block};
use crate::kube_api::KubeApi;
use crate::{Process, Sandbox, block_on, command, wait};

/// The directory of a guest's only disk, of its kubelet, and of what the plugin keeps.
const DISK: &str = "/disks/a/longhorn";
const KUBELET: &str = "/disks/a/kubelet";
/// Sockets of a guest.
const MANAGER: &str = "/run/longhorn-base-image/manager.sock";
const PLUGIN: &str = "/disks/a/kubelet/plugins/driver.longhorn.io/csi.sock";
const NODE: &str = "/disks/a/kubelet/plugins/driver.longhorn.io/node.sock";

/// The programs of one guest, while it is on.
#[derive(Debug)]
struct Programs {
    _manager: Remote,
    _plugin: Remote,
}

/// Three guests and what is around them.
#[derive(Debug)]
pub struct Cluster {
    programs: HashMap<u8, Programs>,
    nodes: HashMap<u8, NodeClient<Channel>>,
    /// The machines.
    pub guests: Guests,
    /// `None` while it is away.
    pub controller: Option<Plugin>,
    /// The API server.
    pub api: KubeApi,
    sockets: HashMap<u8, [PathBuf; 2]>,
    _web: Process,
    sandbox: Sandbox,
}

/// A volume as a claim has it, and who may use it.
#[derive(Debug, Clone)]
pub struct Volume {
    /// What the claim has.
    pub claim: Claim,
}

impl Volume {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.claim.volume.volume_id
    }
}

/// Where images are downloaded from.
fn web() -> String {
    format!("{}:8080", here())
}

impl Cluster {
    /// Starts everything. `None`: something is missing, and said so.
    #[track_caller]
    pub fn start(name: &str, guests: u8) -> Option<Self> {
        let missing = super::missing().or_else(KubeApi::missing);
        if let Some(missing) = missing {
            crate::needs::skip(&missing);
            return None;
        }
        let sandbox = Sandbox::new(name);
        let api = KubeApi::start(&sandbox);
        let guests = Guests::start(&sandbox, guests, &Shape::default());
        let directory = sandbox.make_dir("web");
        let arguments = [
            "httpd",
            "-f",
            "-p",
            &web(),
            "-h",
            &directory.display().to_string(),
        ];
        let program = command::find("busybox").expect("busybox");
        let web = Process::spawn(&sandbox, "web", &program, arguments, &[]);
        let mut cluster = Self {
            programs: HashMap::new(),
            nodes: HashMap::new(),
            guests,
            controller: None,
            api,
            sockets: HashMap::new(),
            _web: web,
            sandbox,
        };
        for n in cluster.all() {
            let machine = &cluster.guests[n];
            machine.sh(&format!(
                "mkdir -p {DISK} {KUBELET} && backing-image-manager disk init {DISK}"
            ));
            let sockets = [MANAGER, NODE].map(|path| machine.socket(path));
            let plugin = machine.socket(PLUGIN);
            cluster.sockets.insert(n, sockets);
            cluster
                .nodes
                .insert(n, NodeClient::new(crate::csi::connect(&plugin)));
            cluster.start_programs(n);
        }
        cluster.start_controller();
        Some(cluster)
    }

    /// The numbers of the guests.
    pub fn all(&self) -> Vec<u8> {
        (1..).zip(self.guests.iter()).map(|(n, _)| n).collect()
    }

    /// Makes a disk image that any node can download.
    pub fn image(&self, name: &str, size: u64) {
        let source = crate::baseimage::raw_ext4(&self.sandbox, name, size);
        let to = self.sandbox.path("web").join(name);
        if source != to {
            std::fs::copy(source, to).expect("copy the image");
        }
    }

    /// Starts our programs in a guest.
    pub fn start_programs(&mut self, n: u8) {
        let machine = &self.guests[n];
        let (name, address) = (machine.name(), machine.address());
        let log = |program: &str| format!(">>/run/{program}.log 2>&1");
        let manager = format!(
            "mkdir -p /run/longhorn-base-image; POD_IP={address} exec backing-image-manager daemon --disk {DISK} --node-id {name} --socket {MANAGER} \
             --listen {address}:8000 --sync-listen {address}:8001 --own-api=plain --allow-address 10.77.0.0/16 {}",
            log("manager")
        );
        let plugin = format!(
            "exec longhorn-csi-plugin --mode node --endpoint unix://{PLUGIN} --kubelet-dir {KUBELET} --node-id {name} \
             --disk {DISK} --no-registration --replication-address {address} --log-level info {}",
            log("plugin")
        );
        let started = [manager, plugin].map(|script| machine.start(&["sh", "-c", &script]));
        let [manager, plugin] = started;
        let programs = Programs {
            _manager: manager,
            _plugin: plugin,
        };
        self.programs.insert(n, programs);
        let end = Instant::now() + Duration::from_mins(1);
        while !self.guests[n]
            .run(&format!("test -S {MANAGER} && test -S {NODE}"))
            .is_ok()
        {
            assert!(Instant::now() < end, "programs: {}", self.logs());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Ends our programs in a guest, at once.
    pub fn kill_programs(&mut self, n: u8) {
        self.guests[n].run("pkill -9 backing-image; pkill -9 longhorn-csi");
        self.programs.remove(&n);
    }

    /// Starts the controller.
    pub fn start_controller(&mut self) {
        let socket = |which: usize| -> String {
            let all = self.all().into_iter();
            let all = all.map(|n| format!("unix:{}", self.sockets[&n][which].display()));
            all.collect::<Vec<_>>().join(",")
        };
        let (managers, nodes) = (socket(0), socket(1));
        let account = self.api.account().display().to_string();
        let more = [
            "--node-service",
            &nodes,
            "--account-dir",
            &account,
            "--log-level",
            "debug",
        ];
        let controller = Plugin::controller_at(
            &self.sandbox,
            "controller",
            &managers,
            &more,
            &self.api.environment(),
        );
        self.controller = Some(controller);
    }

    fn plugin(&self) -> &Plugin {
        self.controller.as_ref().expect("the controller is there")
    }

    /// Cuts the power of a guest.
    pub fn cut_power(&mut self, n: u8) {
        self.programs.remove(&n);
        self.guests.cut_power(n);
    }

    /// Switches guests on, with our programs.
    #[track_caller]
    pub fn switch_on(&mut self, which: &[u8]) {
        self.guests.switch_on(&self.sandbox, which);
        for n in which {
            self.start_programs(*n);
        }
    }

    /// What a raw block claim of a class with three replicas gets.
    #[track_caller]
    pub fn provision(&self, name: &str, size: u64, parameters: &[(&str, &str)]) -> Volume {
        let three = [("numberOfReplicas", "3"), ("staleReplicaTimeout", "20")];
        let mut request = crate::csi::claim(name, size, &[&three, parameters].concat());
        request.volume_capabilities = vec![block()];
        let claim = self.plugin().provision(&request);
        let claim = claim.unwrap_or_else(|status| panic!("{name}: {status}\n{}", self.logs()));
        Volume { claim }
    }

    /// The parameters of a volume that begins with an image of [`Self::image`].
    pub fn of_image(name: &str) -> [(&'static str, String); 3] {
        let url = serde_json::json!({"url": format!("http://{}/{name}", web())});
        [
            ("backingImage", name.replace('.', "-")),
            ("backingImageDataSourceType", "download".to_owned()),
            ("backingImageDataSourceParameters", url.to_string()),
        ]
    }

    /// ControllerPublishVolume and NodeStageVolume on a guest, as often as Kubernetes would try.
    #[track_caller]
    pub fn attach(&self, volume: &mut Volume, n: u8) -> String {
        let name = self.guests[n].name();
        wait::until(&format!("{} is attached on {name}", volume.id()), || {
            self.try_attach(volume, n).ok()
        })
    }

    /// One attempt of it; gives the device that a pod sees.
    pub fn try_attach(&self, volume: &mut Volume, n: u8) -> Result<String, Status> {
        let capability = volume.claim.request.volume_capabilities.first().cloned();
        let request = pb::ControllerPublishVolumeRequest {
            volume_id: volume.id().into(),
            node_id: self.guests[n].name(),
            volume_capability: capability.clone(),
            volume_context: volume.claim.volume.volume_context.clone(),
            ..Default::default()
        };
        let published = block_on(
            self.plugin()
                .controller()
                .controller_publish_volume(request),
        )?;
        volume.claim.publish_context = published.into_inner().publish_context;
        let (staging, target) = (Self::staging(volume), Self::target(volume));
        self.guests[n].sh(&format!("mkdir -p {staging} $(dirname {target})"));
        let request = pb::NodeStageVolumeRequest {
            volume_id: volume.id().into(),
            staging_target_path: staging.clone(),
            volume_capability: capability.clone(),
            volume_context: volume.claim.volume.volume_context.clone(),
            publish_context: volume.claim.publish_context.clone(),
            ..Default::default()
        };
        let mut node = self.nodes[&n].clone();
        block_on(node.node_stage_volume(request))?;
        let request = pb::NodePublishVolumeRequest {
            volume_id: volume.id().into(),
            staging_target_path: staging,
            target_path: target.clone(),
            volume_capability: capability,
            volume_context: volume.claim.volume.volume_context.clone(),
            publish_context: volume.claim.publish_context.clone(),
            ..Default::default()
        };
        block_on(node.node_publish_volume(request))?;
        Ok(target)
    }

    fn staging(volume: &Volume) -> String {
        format!(
            "{KUBELET}/plugins/kubernetes.io/csi/volumeDevices/staging/{}",
            volume.id()
        )
    }

    fn target(volume: &Volume) -> String {
        format!(
            "{KUBELET}/plugins/kubernetes.io/csi/volumeDevices/publish/{}/pod",
            volume.id()
        )
    }

    /// What the kubelet does when a pod ends, and then the attacher.
    #[track_caller]
    pub fn detach(&self, volume: &Volume, n: u8) {
        self.unstage(volume, n)
            .unwrap_or_else(|status| panic!("{status}\n{}", self.logs()));
        self.release(volume, n);
    }

    /// What a kubelet does with the volume of a pod that has ended, as often as it takes.
    #[track_caller]
    pub fn unstage_soon(&self, volume: &Volume, n: u8) {
        let end = Instant::now() + Duration::from_mins(1);
        while let Err(status) = self.unstage(volume, n) {
            assert!(Instant::now() < end, "{status}\n{}", self.logs());
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// NodeUnpublishVolume and NodeUnstageVolume.
    pub fn unstage(&self, volume: &Volume, n: u8) -> Result<(), Status> {
        let mut node = self.nodes[&n].clone();
        block_on(node.node_unpublish_volume(pb::NodeUnpublishVolumeRequest {
            volume_id: volume.id().into(),
            target_path: Self::target(volume),
        }))?;
        block_on(node.node_unstage_volume(pb::NodeUnstageVolumeRequest {
            volume_id: volume.id().into(),
            staging_target_path: Self::staging(volume),
        }))?;
        Ok(())
    }

    /// ControllerUnpublishVolume alone: also what a force-detach does.
    #[track_caller]
    pub fn release(&self, volume: &Volume, n: u8) {
        let request = pb::ControllerUnpublishVolumeRequest {
            volume_id: volume.id().into(),
            node_id: self.guests[n].name(),
            ..Default::default()
        };
        let mut controller = self.plugin().controller();
        let asked = controller.controller_unpublish_volume(request);
        block_on(asked).unwrap_or_else(|status| panic!("{status}\n{}", self.logs()));
    }

    /// ControllerExpandVolume.
    #[track_caller]
    pub fn expand(&self, volume: &Volume, size: u64) {
        let request = pb::ControllerExpandVolumeRequest {
            volume_id: volume.id().into(),
            capacity_range: Some(pb::CapacityRange {
                required_bytes: i64::try_from(size).expect("a size"),
                limit_bytes: 0,
            }),
            volume_capability: volume.claim.request.volume_capabilities.first().cloned(),
            ..Default::default()
        };
        wait::until("the volume is grown", || {
            let mut controller = self.plugin().controller();
            block_on(controller.controller_expand_volume(request.clone())).ok()
        });
    }

    /// What `volume evacuate` writes into a record.
    pub fn evacuate(&self, volume: &Volume, n: u8) {
        let patch = format!("{{\"spec\":{{\"evacuate\":[\"node-{n}\"]}}}}");
        let asked = ["patch", "rv", volume.id(), "--type=merge", "-p", &patch];
        self.api.kubectl(&asked, "");
    }

    /// DeleteVolume.
    #[track_caller]
    pub fn delete(&self, volume: &Volume) {
        let request = pb::DeleteVolumeRequest {
            volume_id: volume.id().into(),
            ..Default::default()
        };
        let mut controller = self.plugin().controller();
        let asked = controller.delete_volume(request);
        block_on(asked).unwrap_or_else(|status| panic!("{status}\n{}", self.logs()));
    }

    /// The record of a volume, if it has one.
    pub fn record(&self, volume: &str) -> Option<Value> {
        let asked = ["get", "rv", volume, "--ignore-not-found", "-o", "json"];
        let found = self.api.kubectl(&asked, "");
        (!found.is_empty()).then(|| serde_json::from_str(&found).expect("JSON"))
    }

    /// Waits until the record says that the volume has all its replicas.
    #[track_caller]
    pub fn wait_healthy(&self, volume: &Volume, within: Duration) -> Value {
        let end = Instant::now() + within;
        loop {
            let record = self.record(volume.id()).unwrap_or_default();
            if record["status"]["health"] == "Healthy" {
                return record;
            }
            assert!(
                Instant::now() < end,
                "{} is not healthy: {record:#}\n{}",
                volume.id(),
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// What the programs of the guests said last, and what their kernels have.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for n in self.programs.keys() {
            let machine: &Machine = &self.guests[*n];
            let ran = machine.run(
                "tail -n 25 /run/manager.log /run/plugin.log; drbdsetup status --verbose; dmesg | grep drbd | tail -n 30",
            );
            // Writing to a text does not fail.
            let _ = write!(all, "== {}\n{}\n", machine.name(), ran.output);
        }
        if let Some(controller) = &self.controller {
            let log = controller.process.log();
            let lines: Vec<&str> = log.lines().collect();
            all.push_str(&lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        all
    }

    /// Where a guest is on the storage network.
    pub fn address(&self, n: u8) -> Ipv4Addr {
        self.guests[n].address()
    }

    /// How many files of a volume the managers of running guests have.
    pub fn files(&self, volume: &str) -> usize {
        let here = |n: &u8| {
            let path = format!("{DISK}/volumes/{volume}/volume");
            self.guests[*n].run(&format!("test -e {path}")).is_ok()
        };
        self.programs.keys().filter(|n| here(n)).count()
    }
}
