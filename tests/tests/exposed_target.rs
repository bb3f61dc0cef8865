//! Volumes that are exposed as iSCSI targets, on a running plugin and manager, with the real tgtd and QEMU's initiator:
//! one user at a time (430), tgtd killed and the node booted (431), the plugin killed at each step (432).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::csi::{Plugin, claim, refused};
use e2e::{
    FileSystem, Need, Node, Process, Sandbox, block_on, command, leftovers, needs, ports, programs,
    wait,
};
use proto::node::v1 as pb;
use proto::node::v1::expose_volume_request::Access;
use proto::storage::v1::{Publication, Use};
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;
const INITIATOR: &str = "iqn.2026-01.org.example:host";
const SECRET: &str = "geheimgeheim";

/// A node with a tgtd of its own, as in the pod of the targets.
struct Site {
    /// Ended last: whoever has the files open goes first.
    serving: Process,
    socket: PathBuf,
    portal: String,
    node: Node,
}

fn serve(sandbox: &Sandbox, socket: &Path) -> Process {
    let at = format!("--socket={}", socket.display());
    let program = programs::csi_plugin();
    let arguments = ["target", "serve", at.as_str()];
    let mut serving = Process::spawn(sandbox, "target", &program, arguments, &[]);
    serving.wait_ready(|| {
        let check = ["target", "check", at.as_str()];
        command::output(program.to_str().unwrap(), check)
            .status
            .success()
    });
    serving
}

impl Site {
    fn new(sandbox: &Sandbox) -> Self {
        let socket = sandbox.path("target/ctl");
        let at = format!("--socket={}", socket.display());
        let program = programs::csi_plugin().display().to_string();
        command::run(&program, ["target", "prepare", at.as_str(), "--owner=0:0"]);
        let mut site = Self {
            serving: serve(sandbox, &socket),
            socket,
            portal: ports::free().to_string(),
            node: Node::new(sandbox, FileSystem::Xfs),
        };
        site.node.plugin.process.terminate();
        site.start(sandbox, "");
        site
    }

    fn start(&mut self, sandbox: &Sandbox, failpoint: &str) {
        let socket = format!("--target-socket={}", self.socket.display());
        let portal = format!("--target-portal={}", self.portal);
        let (node, more) = (&mut self.node, [socket.as_str(), portal.as_str()]);
        node.plugin = Plugin::start_as(sandbox, &node.manager, node.disk.dir(), failpoint, &more);
    }

    fn expose(&self, volume: &str, access: Access) -> Result<pb::Exposed, Status> {
        let request = pb::ExposeVolumeRequest {
            volume: volume.to_owned(),
            access: Some(access),
            ..Default::default()
        };
        let exposed = block_on(self.node.plugin.node_service().expose_volume(request));
        exposed.map(tonic::Response::into_inner)
    }

    fn unexpose(&self, volume: &str, disconnect: bool) -> Result<(), Status> {
        let volume = volume.to_owned();
        let request = pb::UnexposeVolumeRequest { volume, disconnect };
        block_on(self.node.plugin.node_service().unexpose_volume(request)).map(drop)
    }

    fn list(&self) -> Vec<pb::Exposed> {
        let request = pb::ListExposedRequest {};
        let listed = block_on(self.node.plugin.node_service().list_exposed(request));
        listed.unwrap().into_inner().exposed
    }

    fn users(&self, volume: &str) -> Vec<Use> {
        let volume = self.node.manager.volume(volume).unwrap();
        volume.published.iter().map(Publication::r#use).collect()
    }

    /// What QEMU's initiator says of a target.
    fn initiator(&self, volume: &str, commands: &[&str]) -> Output {
        let image = format!(
            "driver=iscsi,transport=tcp,portal={},target=iqn.2019-10.io.longhorn:{volume},lun=1,user=site,\
             password={SECRET},initiator-name={INITIATOR}",
            self.portal
        );
        let commands = commands.iter().flat_map(|one| ["-c", one]);
        command::output(
            "qemu-io",
            ["--image-opts", image.as_str()].into_iter().chain(commands),
        )
    }

    #[track_caller]
    fn io(&self, volume: &str, commands: &[&str]) -> String {
        let output = self.initiator(volume, commands);
        let words = command::words(&output);
        assert!(
            output.status.success() && !words.contains("failed"),
            "{words}"
        );
        words
    }

    #[track_caller]
    fn assert_gone(&self, volume: &str) {
        assert_eq!(self.list(), Vec::new());
        let volumes = self.node.disk.dir().join("volumes");
        assert_eq!(leftovers::loops_below(&volumes), Vec::new());
        assert_eq!(self.users(volume), []);
        assert!(!self.initiator(volume, &["read 0 512"]).status.success());
    }
}

fn target() -> Access {
    Access::Target(pb::TargetAccess {
        initiator_names: vec![INITIATOR.to_owned()],
        chap_user: "site".to_owned(),
        chap_secret: SECRET.to_owned(),
        without_chap: false,
    })
}

fn device() -> Access {
    Access::BlockDevice(pb::BlockDeviceAccess {})
}

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::FileSystem("xfs"),
    Need::Tool("tgtd"),
    Need::Tool("qemu-io"),
    Need::Tool("qemu-img"),
];

#[test]
fn row_430_an_initiator_has_the_volume_alone() {
    needs!(NEEDS[0], NEEDS[1], NEEDS[2], NEEDS[3]);
    let sandbox = Sandbox::new("target-one");
    let site = Site::new(&sandbox);
    let plugin = &site.node.plugin;
    let mut made = plugin
        .provision(&claim("pvc-target-one", 64 * MIB, &[]))
        .unwrap();
    let volume = made.volume.volume_id.clone();
    let shown = site.expose(&volume, target()).unwrap();
    let found = shown.target.as_ref().unwrap();
    assert_eq!(
        (shown.size, found.lun, &found.portal),
        (64 * MIB, 1, &site.portal)
    );
    assert_eq!(
        (found.chap_user.as_str(), &found.initiator_names[0]),
        ("site", &INITIATOR.to_owned())
    );
    assert_eq!(shown.troubles, Vec::<String>::new());
    assert_eq!(site.expose(&volume, target()).unwrap(), shown);
    site.io(&volume, &["write -P 7 1M 4k", "flush", "read -P 7 1M 4k"]);

    let way_out = ["unexpose", volume.as_str()];
    refused(
        site.expose(&volume, device()),
        Code::AlreadyExists,
        &["iSCSI target", &volume],
    );
    refused(plugin.attach(&mut made), Code::FailedPrecondition, &way_out);
    let stage = plugin.stage(&made);
    refused(stage, Code::FailedPrecondition, &way_out);
    refused(plugin.delete(&made), Code::FailedPrecondition, &way_out);
    let attach = pb::AttachVolumeRequest {
        volume: volume.clone(),
        ..Default::default()
    };
    let attached = block_on(plugin.node_service().attach_volume(attach));
    refused(attached, Code::FailedPrecondition, &way_out);
    let Access::Target(mut other) = target() else {
        unreachable!()
    };
    other.chap_secret = "another-secret".to_owned();
    let another = site.expose(&volume, Access::Target(other));
    refused(another, Code::AlreadyExists, &["CHAP"]);
    // The other way round.
    site.unexpose(&volume, false).unwrap();
    site.assert_gone(&volume);
    let path = PathBuf::from(site.expose(&volume, device()).unwrap().path);
    let mut bytes = [0; 4096];
    File::open(&path)
        .unwrap()
        .read_exact_at(&mut bytes, MIB)
        .unwrap();
    assert_eq!(bytes, [7; 4096]);
    refused(
        site.expose(&volume, target()),
        Code::AlreadyExists,
        &["block device"],
    );
    site.unexpose(&volume, false).unwrap();
    plugin.attach(&mut made).unwrap();
    refused(
        site.expose(&volume, target()),
        Code::FailedPrecondition,
        &["pods"],
    );
    plugin.detach(&made).unwrap();
    site.assert_gone(&volume);
    for log in fs::read_dir(sandbox.path("logs")).unwrap().flatten() {
        let text = fs::read_to_string(log.path()).unwrap();
        assert!(!text.contains(SECRET), "{}", log.path().display());
    }
    plugin.delete(&made).unwrap();
}

#[test]
fn row_431_targets_come_back_and_grow() {
    const VOLUME: &str = "target-again";
    needs!(NEEDS[0], NEEDS[1], NEEDS[2], NEEDS[3]);
    let sandbox = Sandbox::new("target-again");
    let mut site = Site::new(&sandbox);
    site.node
        .manager
        .create_volume(VOLUME, "", 64 * MIB)
        .unwrap();
    site.expose(VOLUME, target()).unwrap();
    site.io(VOLUME, &["write -P 7 1M 4k", "flush"]);
    // tgtd is killed, and its pod starts it again.
    site.serving.kill_9();
    wait::until("the trouble is told", || {
        (!site.list().swap_remove(0).troubles.is_empty()).then_some(())
    });
    site.serving = serve(&sandbox, &site.socket);
    let served = |site: &Site| {
        wait::until("the target is there again", || {
            let shown = site.list().swap_remove(0);
            let output = site.initiator(VOLUME, &["read -P 7 1M 4k"]);
            (shown.troubles.is_empty() && output.status.success()).then_some(shown)
        })
    };
    served(&site);
    // The node boots: no tgtd, no device, and the plugin first.
    site.node.plugin.process.kill_9();
    site.serving.kill_9();
    let volumes = site.node.disk.dir().join("volumes");
    for (device, _) in leftovers::loops_below(&volumes) {
        command::run("losetup", [Path::new("--detach"), &device]);
    }
    site.start(&sandbox, "");
    site.serving = serve(&sandbox, &site.socket);
    served(&site);
    assert_eq!(leftovers::loops_below(&volumes).len(), 1);
    // By itself, and at once when asked.
    site.node.manager.grow_volume(VOLUME, 96 * MIB).unwrap();
    wait::until("the target has grown", || {
        (served(&site).size == 96 * MIB).then_some(())
    });
    site.io(VOLUME, &["write -P 8 90M 4k", "flush"]);
    site.node.manager.grow_volume(VOLUME, 128 * MIB).unwrap();
    assert_eq!(site.expose(VOLUME, target()).unwrap().size, 128 * MIB);
    site.io(VOLUME, &["write -P 9 120M 4k", "read -P 8 90M 4k"]);
    // Its volume loses its file: it is told, and taken back, also while no tgtd runs.
    fs::remove_file(volumes.join(VOLUME).join("volume")).unwrap();
    wait::until("the trouble is told", || {
        (!site.list().swap_remove(0).troubles.is_empty()).then_some(())
    });
    site.serving.kill_9();
    site.unexpose(VOLUME, false).unwrap();
    assert_eq!(
        (site.list(), leftovers::loops_below(&volumes)),
        (Vec::new(), Vec::new())
    );
}

#[test]
fn row_432_a_plugin_killed_while_it_makes_a_target_converges() {
    const VOLUME: &str = "target-killed";
    needs!(Need::Failpoints, NEEDS[0], NEEDS[1], NEEDS[2], NEEDS[3]);
    let sandbox = Sandbox::new("target-killed");
    let mut site = Site::new(&sandbox);
    site.node
        .manager
        .create_volume(VOLUME, "", 64 * MIB)
        .unwrap();
    for point in [
        "node.expose.recorded",
        "node.expose.published",
        "node.expose.attached",
        "node.expose.named",
        "node.unexpose.closed",
        "node.unexpose.detached",
        "node.unexpose.owed",
    ] {
        for again in [true, false] {
            site.node.plugin.process.terminate();
            site.start(&sandbox, &format!("{point}=return"));
            let exposed = site.expose(VOLUME, target());
            assert!(
                exposed.is_err() || site.unexpose(VOLUME, false).is_err(),
                "{point} is reached"
            );
            assert_eq!(
                site.node.plugin.process.wait_end().signal(),
                Some(9),
                "{point}"
            );
            site.start(&sandbox, "");
            if again {
                site.expose(VOLUME, target()).unwrap();
                site.io(VOLUME, &["write -P 7 1M 4k", "read -P 7 1M 4k"]);
            }
            site.unexpose(VOLUME, false).unwrap();
            site.assert_gone(VOLUME);
        }
    }
}

#[test]
fn row_433_a_device_is_given_back_without_an_answer_of_the_targets() {
    const VOLUME: &str = "target-refuses";
    needs!(NEEDS[0], NEEDS[1], NEEDS[2], NEEDS[3]);
    let sandbox = Sandbox::new("target-refuses");
    let mut site = Site::new(&sandbox);
    site.node
        .manager
        .create_volume(VOLUME, "", 64 * MIB)
        .unwrap();
    site.expose(VOLUME, device()).unwrap();
    // One that hangs up on everybody.
    site.serving.terminate();
    let _ = fs::remove_file(&site.socket);
    let refusing = UnixListener::bind(&site.socket).unwrap();
    std::thread::spawn(move || refusing.incoming().for_each(drop));
    site.unexpose(VOLUME, false).unwrap();
    site.assert_gone(VOLUME);
}
