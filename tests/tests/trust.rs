//! Callers of a daemon that are not whom they should be, and what they are told.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use e2e::certificates::{self, Authority, LIFE};
use e2e::manager::{Options, from_file, from_peers, from_volume, init_disk};
use e2e::noise::noise;
use e2e::{Manager, Sandbox, block_on, command, programs, wait};
use proto::storage::v1 as pb;
use proto::storage::v1::backing_images_client::BackingImagesClient;
use proto::storage::v1::disks_client::DisksClient;
use proto::storage::v1::volumes_client::VolumesClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use trust::Held;

const UUID: &str = "1a2b3c4d";

/// A manager on a disk of its own, which may import the files of the sandbox.
fn start(sandbox: &Sandbox, name: &str, options: impl FnOnce(Options) -> Options) -> Manager {
    let disk = sandbox.make_dir(format!("disk-{name}"));
    init_disk(&disk);
    let mut options = options(Options::new(&disk)).with("--import-dir", sandbox.make_dir("import"));
    name.clone_into(&mut options.name);
    Manager::start(sandbox, &options)
}

/// One of node `node` with a certificate.
fn trusting(sandbox: &Sandbox, authority: &Authority, node: &str) -> Manager {
    start(sandbox, node, |options| options.trusting(authority, node))
}

/// What a caller with a certificate is told who asks for the list of volumes.
fn as_caller(manager: &Manager, held: &Held) -> Result<(), Status> {
    let mut volumes = VolumesClient::new(certificates::channel(manager.address(), held));
    block_on(volumes.list_volumes(pb::ListVolumesRequest::default())).map(drop)
}

/// An error with all of its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(words, ": {error}").unwrap();
        cause = error.source();
    }
    words
}

#[track_caller]
fn assert_says(error: &Status, says: &str) {
    let words = words(error);
    assert!(words.contains(says), "{words}");
}

#[test]
fn row_261_a_plain_client_and_a_port_with_tls_do_not_meet_and_say_so() {
    let sandbox = Sandbox::new("trust-plain");
    let authority = Authority::new(&sandbox, "authority");
    let tls = trusting(&sandbox, &authority, "n1");
    let open = start(&sandbox, "plain", |options| options);
    let cli = |more: &[&str]| {
        let output = command::output(&programs::manager().display().to_string(), more);
        assert!(!output.status.success(), "{}", command::words(&output));
        command::words(&output)
    };
    let url = tls.address().to_string();
    let said = cli(&["volume", "--url", &url, "list"]);
    assert!(said.contains("this port needs TLS"), "{said}");
    let person = authority.issue("cli/person").display().to_string();
    let url = open.address().to_string();
    let said = cli(&["volume", "--url", &url, "--certificates", &person, "list"]);
    assert!(said.contains("does not use TLS on this port"), "{said}");
    let question = b"GET /v1/files HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = certificates::say(tls.sync_address(), question).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("this port needs TLS"), "{answer}");
    // Managers among each other.
    let file = sandbox.write("import/image", noise(1, 1 << 20));
    for manager in [&tls, &open] {
        let mut request = from_file("image", &file);
        request.uuid = UUID.into();
        manager.make_image(request).unwrap();
    }
    for (to, from, says) in [
        (&tls, &open, "does not use TLS on this port"),
        (&open, &tls, "refuses: this port needs TLS"),
    ] {
        let request = from_peers("copy", UUID, &[from.sync_address()]);
        let said = to.make_image(request).unwrap().message;
        assert!(said.contains(says), "{said}");
    }
    // Each still serves its own.
    tls.disk().unwrap();
    open.disk().unwrap();
}

#[test]
fn row_262_who_is_not_certified_by_our_authority_now_is_nobody() {
    let sandbox = Sandbox::new("trust-nobody");
    let authority = Authority::new(&sandbox, "authority");
    let other = Authority::new(&sandbox, "other");
    let manager = trusting(&sandbox, &authority, "n1");
    let now = SystemTime::now();
    let minutes = Duration::from_mins;
    // A certificate is good from 10 minutes before it was made, so that clocks may differ by 5 minutes.
    let made_by = |program: &str, at| {
        let directory = authority.issue_at(program, at, LIFE);
        as_caller(&manager, &certificates::held(&directory))
    };
    made_by("controller/behind", now + minutes(5)).unwrap();
    made_by("controller/ahead", now - LIFE + minutes(5)).unwrap();
    made_by("controller/early", now + minutes(11)).unwrap_err();
    made_by("controller/late", now - LIFE - minutes(1)).unwrap_err();
    // Somebody else's authority signed it, and ours is told to be believed.
    let foreign = other.issue("controller/c");
    fs::copy(authority.dir().join("ca.crt"), foreign.join("ca.crt")).unwrap();
    as_caller(&manager, &certificates::held(&foreign)).unwrap_err();
    // Who believes another authority does not talk to this manager.
    let refused = as_caller(&manager, &other.held("controller/d")).unwrap_err();
    assert_says(&refused, "another certificate authority");
    // The command line says what is wrong with its own.
    let program = programs::manager().display().to_string();
    let url = manager.address().to_string();
    let late = authority.issue_at("cli/late", now - 2 * LIFE, LIFE);
    for (directory, says) in [
        (&foreign, "no authority in ca.crt signed it"),
        (&late, "it has expired; make a new one"),
    ] {
        let directory = directory.display().to_string();
        let arguments = [
            "volume",
            "--url",
            &url,
            "--certificates",
            &directory,
            "list",
        ];
        let said = command::words(&command::output(&program, arguments));
        assert!(said.contains(says), "{said}");
    }
    // The manager itself goes on.
    as_caller(&manager, &authority.held("controller/c")).unwrap();
}

#[test]
fn row_262_a_daemon_whose_certificate_nobody_believes_says_so_and_takes_a_new_one() {
    let sandbox = Sandbox::new("trust-daemon");
    let authority = Authority::new(&sandbox, "authority");
    let old = SystemTime::now() - 2 * LIFE;
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk)
        .trusting(&authority, "n1")
        .with("--metrics-listen", "127.0.0.1:0");
    let directory = authority.issue_at("manager/n1/p", old, LIFE);
    let key = directory.join("tls.key");
    let mut manager = Manager::spawn(&sandbox, &options);
    let readiness = |manager: &mut Manager, says: &str| {
        manager.process.wait_ready(|| true);
        wait::until(&format!("/readyz says {says:?}"), || {
            let at = manager.metrics_address_when_bound()?;
            let answer = certificates::say(at, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
            String::from_utf8_lossy(&answer)
                .contains(says)
                .then_some(())
        });
    };
    readiness(&mut manager, "has expired");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    authority.issue("manager/n1/p");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    wait::until("the key is refused", || {
        let log = manager.process.log();
        log.contains("this private key can be read by others")
            .then_some(())
    });
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    manager.wait_ready();
    manager.list_volumes().unwrap();
}

#[test]
fn row_262_a_manager_of_another_node_or_another_program_is_not_talked_to() {
    let sandbox = Sandbox::new("trust-server");
    let authority = Authority::new(&sandbox, "authority");
    // It has the certificate of the node service, or one of node n2, and says that it is n1.
    let pretend = |program: &str, name: &str| {
        start(&sandbox, name, |options| {
            let mut options = options.trusting(&authority, "n1");
            let at = options
                .arguments
                .iter()
                .position(|it| it == "--certificates");
            options.arguments[at.unwrap() + 1] = authority.issue(program).into();
            options
        })
    };
    let wrong_node = pretend("manager/n2/p", "wrong-node");
    let said = wrong_node.cli("disk", &["get"]);
    let said = command::words(&said);
    assert!(said.contains("certificate of node n2"), "{said}");
    assert!(said.contains("answers for node \"n1\""), "{said}");
}

/// The files below a directory and what is in them.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Each method about volumes and each that changes something, with the names of what is there.
fn try_everything(channel: &Channel) -> Vec<(&'static str, Result<(), Status>)> {
    let mut volumes = VolumesClient::new(channel.clone());
    let mut images = BackingImagesClient::new(channel.clone());
    let mut disks = DisksClient::new(channel.clone());
    let name = || "victim".to_owned();
    let snapshot = || "snapshot".to_owned();
    macro_rules! tried {
        ($($client:ident . $method:ident ( $request:expr )),+ $(,)?) => {
            vec![$((stringify!($method), block_on($client.$method($request)).map(drop))),+]
        };
    }
    let create = || pb::CreateVolumeRequest {
        name: "stolen".into(),
        origin: Some(pb::create_volume_request::Origin::Volume(
            pb::VolumeOrigin { name: name() },
        )),
        ..Default::default()
    };
    tried![
        volumes.get_volume(pb::GetVolumeRequest { name: name() }),
        volumes.list_volumes(pb::ListVolumesRequest::default()),
        volumes.find_volume(create()),
        volumes.create_volume(create()),
        volumes.grow_volume(pb::GrowVolumeRequest {
            name: name(),
            required_bytes: 8 << 20,
            limit_bytes: 0
        }),
        volumes.modify_volume(pb::ModifyVolumeRequest {
            name: name(),
            ..Default::default()
        }),
        volumes.publish_volume(pb::PublishVolumeRequest {
            name: name(),
            node_id: "n2".into(),
            ..Default::default()
        }),
        volumes.unpublish_volume(pb::UnpublishVolumeRequest {
            name: name(),
            node_id: "n1".into(),
            ..Default::default()
        }),
        volumes.delete_volume(pb::DeleteVolumeRequest { name: name() }),
        images.create_backing_image(from_volume("stolen", "victim")),
        images.snapshot_group(pb::SnapshotGroupRequest::default()),
        images.get_backing_image(pb::GetBackingImageRequest {
            name: snapshot(),
            uuid: String::new()
        }),
        images.list_backing_images(pb::ListBackingImagesRequest::default()),
        images.watch_backing_image(pb::GetBackingImageRequest {
            name: snapshot(),
            uuid: String::new()
        }),
        images.delete_backing_image(pb::DeleteBackingImageRequest {
            name: snapshot(),
            uuid: String::new()
        }),
        disks.get_disk(pb::GetDiskRequest::default()),
        disks.record_disks(pb::RecordDisksRequest::default()),
        disks.forget_disk(pb::ForgetDiskRequest::default()),
    ]
}

#[test]
fn row_264_the_certificates_of_a_broken_node_open_no_volume_of_another() {
    let sandbox = Sandbox::new("trust-broken-node");
    let authority = Authority::new(&sandbox, "authority");
    let manager = trusting(&sandbox, &authority, "n1");
    let disk = sandbox.path("disk-n1");
    manager.create_volume("victim", "", 4 << 20).unwrap();
    sandbox.write(disk.join("volumes/victim/volume"), noise(7, 4 << 20));
    let snapshot = manager
        .make_image(from_volume("snapshot", "victim"))
        .unwrap();
    manager.publish_volume("victim", "n1").unwrap();
    let file = sandbox.write("import/base", noise(8, 1 << 20));
    let base = manager.make_image(from_file("base", &file)).unwrap();
    let before = contents(&disk.join("volumes"));
    let image =
        |of: &pb::BackingImage, what: &str| format!("/v2/images/{}/{}/{what}", of.name, of.uuid);
    let read = |program: &str, target: &str| {
        certificates::request(
            manager.sync_address(),
            &authority.held(program),
            "GET",
            target,
        )
        .unwrap()
    };
    for program in ["node/n2/p", "manager/n2/p", "manager/n1/p"] {
        let channel = certificates::channel(manager.address(), &authority.held(program));
        for (method, answer) in try_everything(&channel) {
            let refused = answer
                .as_ref()
                .is_err_and(|error| error.code() == Code::PermissionDenied);
            assert!(refused, "{program} may call {method}: {answer:?}");
        }
    }
    // What a volume holds is not given away as an image either.
    for what in ["manifest", "have", "data"] {
        let (status, answer) = read("manager/n2/p", &image(&snapshot, what));
        assert_eq!(status, 404, "{answer}");
        assert!(answer.contains("snapshot of a volume"), "{answer}");
        assert_eq!(read("node/n2/p", &image(&snapshot, what)).0, 403);
        assert_eq!(read("node/n2/p", &image(&base, what)).0, 403);
    }
    assert_eq!(read("manager/n2/p", &image(&base, "data")).0, 200);
    for program in ["manager/n1/p", "cli/p"] {
        let (status, answer) = read(program, &image(&snapshot, "data"));
        assert_eq!(status, 200, "{program}: {answer}");
    }
    assert_eq!(
        contents(&disk.join("volumes")),
        before,
        "nothing has changed"
    );
    let files = ["/v1/files", "/v1/backingimages/x/download"];
    for target in files {
        assert_eq!(read("manager/n2/p", target).0, 403, "{target}");
    }
    // The node service of the node itself uses its volumes, and no image.
    let channel = certificates::channel(manager.address(), &authority.held("node/n1/p"));
    for (method, answer) in try_everything(&channel) {
        let refused = answer
            .as_ref()
            .is_err_and(|error| error.code() == Code::PermissionDenied);
        let may = method.ends_with("_volume") || ["list_volumes", "get_disk"].contains(&method);
        assert_eq!(refused, !may, "{method}: {answer:?}");
    }
}
