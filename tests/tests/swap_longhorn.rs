//! In the place of Longhorn's own manager: the pods as its control plane starts them, and its loop, on disks
//! that its own manager filled.
#![allow(
    clippy::unwrap_used,
    reason = "tests: a panic with its cause is the result"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use e2e::data_source::DataSource;
use e2e::longhorn::{Pod, request, sealed, sealed_as, spec};
use e2e::manager::{Options, init_disk};
use e2e::netns::Network;
use e2e::noise::noise;
use e2e::server::{HttpServer, Reply};
use e2e::{Manager, Need, Sandbox, block_on, needs, sockets, wait};
use proto::bimrpc as pb;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
/// A file of so many bytes is not read within the time of any test.
const ENDLESS: u64 = 4 << 40;
/// What no file is the SHA-512 of, as far as anybody knows.
const MADE_UP: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What the control plane knows: the objects by their name, and what this manager is to have.
#[derive(Debug, Default)]
struct Control {
    objects: BTreeMap<&'static str, &'static str>,
    spec: BTreeMap<&'static str, &'static str>,
}

impl Control {
    /// One turn of its loop: it lists, and deletes each key that it has no object for or that the manager
    /// is not to have.
    fn turn(&self, manager: &Pod) -> HashMap<String, pb::BackingImageResponse> {
        let mut service = manager.service();
        let version = block_on(service.version_get(())).unwrap().into_inner();
        assert_eq!(version.backing_image_manager_api_version, 3);
        let listed = block_on(service.list(())).unwrap().into_inner();
        for (key, image) in &listed.backing_images {
            let uuid = &image.spec.as_ref().unwrap().uuid;
            let carried = self.spec.get(key.as_str()).is_some_and(|it| it == uuid);
            if self.objects.contains_key(key.as_str()) && carried {
                continue;
            }
            let (name, uuid) = (key.clone(), uuid.clone());
            let request = pb::DeleteRequest { name, uuid };
            block_on(service.delete(request)).unwrap();
        }
        listed.backing_images
    }

    /// Turns until every image that the manager is to have is ready.
    fn until_ready(&self, manager: &Pod) -> HashMap<String, pb::BackingImageResponse> {
        wait::until("all that the manager is to have is ready", || {
            let listed = self.turn(manager);
            let ready = |name: &&str| listed.get(*name).is_some_and(|it| state(it) == "ready");
            self.spec.keys().all(ready).then_some(listed)
        })
    }
}

fn state(image: &pb::BackingImageResponse) -> &str {
    &image.status.as_ref().unwrap().state
}

fn fetch(
    manager: &Pod,
    spec: pb::BackingImageSpec,
    data_source: &str,
) -> Result<pb::BackingImageResponse, tonic::Status> {
    let request = pb::FetchRequest {
        spec: Some(spec),
        data_source_address: data_source.into(),
    };
    block_on(manager.service().fetch(request)).map(tonic::Response::into_inner)
}

fn images(disk: &Path) -> Vec<String> {
    let names = fs::read_dir(disk.join("backing-images")).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What a data source tells of its file.
fn asked(source: &Pod) -> Value {
    let answer = request(&source.address, "GET", "/v1/file", &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// Sends the form of a browser, and waits until the file can be handed over.
fn upload(source: &Pod, bytes: &[u8]) {
    let form = [
        b"--x\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"blob\"\r\n\r\n",
        bytes,
        b"\r\n--x--\r\n",
    ]
    .concat();
    let kind = [("Content-Type", "multipart/form-data; boundary=x")];
    let target = format!("/v1/file?action=upload&size={}", bytes.len());
    let answer = request(&source.address, "POST", &target, &kind, &form);
    assert_eq!(answer.status, 200, "{}", answer.text());
    wait::until("the file is ready for transfer", || {
        (asked(source)["state"] == "ready-for-transfer").then_some(())
    });
}

/// Asks `there` for a copy of the image that `from` has, and waits until it is ready.
fn copy(control: &Control, spec: pb::BackingImageSpec, from: &Pod, there: &Pod) {
    let sum = spec.checksum.clone();
    let request = pb::SyncRequest {
        spec: Some(spec),
        from_address: from.address.clone(),
    };
    block_on(there.service().sync(request)).unwrap();
    let copied = control.until_ready(there);
    assert_eq!(copied["new"].status.as_ref().unwrap().checksum, sum);
}

/// The swap, as a cluster goes through it: the control plane finds our manager on disks that Longhorn's
/// own filled, carries the images one by one, makes a new one, copies it, and deletes one.
#[test]
fn the_control_plane_of_longhorn_finds_its_manager() {
    needs!(
        Need::Root,
        Need::Tool("unshare"),
        Need::Tool("ip"),
        Need::Tool("tc")
    );
    let sandbox = Sandbox::new("swap");
    let network = Network::new(3, 1000);
    let [one, two, source] = network.machines() else {
        panic!("three machines")
    };
    let disks = ["one", "two"].map(|name| sandbox.make_dir(format!("disk-{name}")));
    for disk in &disks {
        init_disk(disk);
    }
    let [disk, other_disk] = &disks;
    let bytes = noise(1, 3 * MIB);
    let mut sums = BTreeMap::new();
    for id in ["a-u0a", "b-u0b", "orphan-u0o", "dup-u0good", "dup-u1stale"] {
        sums.insert(id, sealed(disk, id.split_once('-').unwrap(), &bytes));
    }
    let all = images(disk);
    let manager = Pod::manager(&sandbox, one, disk);
    let log = manager.process.log();
    assert!(!log.contains("hyper") && !log.contains("h2::"), "{log}");
    let mut control = Control {
        objects: [("a", "u0a"), ("b", "u0b"), ("dup", "u0good")].into(),
        spec: BTreeMap::new(),
    };
    // Nothing is carried yet: what is on the disk is nobody's to delete.
    for _ in 0..2 {
        assert!(control.turn(&manager).is_empty());
    }
    let size = bytes.len() as u64;
    for (name, uuid) in [("a", "u0a"), ("dup", "u0good")] {
        control.spec.insert(name, uuid);
        let sum = &sums[format!("{name}-{uuid}").as_str()];
        let fetched = fetch(&manager, spec(name, uuid, size, sum), "").unwrap();
        assert_eq!(state(&fetched), "ready");
    }
    for _ in 0..2 {
        assert_eq!(control.until_ready(&manager).len(), 2);
    }
    assert_eq!(images(disk), all, "nothing was deleted");

    // A new image: its data source, the hand-over, a copy on another disk.
    let new = noise(2, 2 * MIB);
    let file = sandbox.write("new", &new);
    let sum = e2e::command::run("sha512sum", [&file])[..128].to_owned();
    let checksum = ["--checksum", &sum];
    let source = Pod::data_source(
        &sandbox,
        (source, disk),
        ("new", "u0n"),
        "upload",
        &checksum,
    );
    assert_eq!(asked(&source)["state"], "pending");
    upload(&source, &new);
    control.objects.insert("new", "u0n");
    control.spec.insert("new", "u0n");
    let new_spec = spec("new", "u0n", new.len() as u64, &sum);
    fetch(&manager, new_spec.clone(), &source.address).unwrap();
    control.until_ready(&manager);
    assert_eq!(asked(&source)["state"], "ready");
    drop(source);
    assert!(!disk.join("tmp/new-u0n").exists());

    let other = Pod::manager(&sandbox, two, other_disk);
    let objects = control.objects.clone();
    let spec = [("new", "u0n")].into();
    copy(&Control { objects, spec }, new_spec, &manager, &other);
    let copy = fs::read(other_disk.join("backing-images/new-u0n/backing")).unwrap();
    assert!(copy == new);

    // Its object goes: the image goes, and nothing else.
    control.objects.remove("new");
    control.spec.remove("new");
    control.turn(&manager);
    control.until_ready(&manager);
    assert_eq!(images(disk), all);
}

fn manager(sandbox: &Sandbox, name: &str) -> (Manager, PathBuf) {
    let disk = sandbox.make_dir(format!("disk-{name}"));
    init_disk(&disk);
    let mut options = Options::new(&disk).with("--allow-address", "127.0.0.0/8");
    name.clone_into(&mut options.name);
    (Manager::start(sandbox, &options), disk)
}

fn state_of(manager: &Manager, name: &str, uuid: &str) -> String {
    let image = manager.longhorn_get(name, uuid).unwrap();
    state(&image).to_owned()
}

/// A file with the size and the time that Longhorn's sidecar says is ready without being read: nobody
/// could read this one. It is found by a start, when it is asked for, and where a data source left it.
#[test]
fn what_longhorn_sealed_is_ready_at_the_first_fetch() {
    let sandbox = Sandbox::new("told");
    let (first, disk) = manager(&sandbox, "a");
    drop(first);
    let file = |id: &str| disk.join(format!("backing-images/{id}/backing"));
    sealed_as(&file("found-u1"), "u1", ENDLESS, MADE_UP);
    let manager = Manager::start(&sandbox, &Options::new(&disk));
    let fetched = manager.fetch(spec("found", "u1", ENDLESS, MADE_UP), "");
    let fetched = fetched.unwrap();
    assert_eq!(state(&fetched), "ready");
    assert_eq!(fetched.status.unwrap().checksum, MADE_UP);
    let ours = manager.image("found").unwrap();
    assert!(ours.message.contains("not verified yet"), "{ours:?}");

    sealed_as(&file("later-u2"), "u2", ENDLESS, MADE_UP);
    manager.fetch(spec("later", "u2", ENDLESS, ""), "").unwrap();
    let work = disk.join("tmp/moved-u3");
    sealed_as(&work, "u3", ENDLESS, MADE_UP);
    let info = json!({"uuid": "u3", "filePath": work, "state": "ready-for-transfer"});
    let source = HttpServer::start(move |request| match request.method.as_str() {
        "GET" => Reply::ok(info.to_string()),
        _ => Reply::ok(""),
    });
    let source = source.url("").trim_start_matches("http://").to_owned();
    let moved = manager.fetch(spec("moved", "u3", ENDLESS, MADE_UP), &source);
    moved.unwrap();
    for (name, uuid) in [("later", "u2"), ("moved", "u3")] {
        wait::until("it is ready", || {
            (state_of(&manager, name, uuid) == "ready").then_some(())
        });
    }
    assert!(!work.exists());
    for (name, uuid) in [("found", "u1"), ("later", "u2"), ("moved", "u3")] {
        manager.longhorn_delete(name, uuid).unwrap();
    }
    assert!(images(&disk).is_empty());
}

/// What Longhorn's sidecar says is proven in the background: bytes that it is not the checksum of are set
/// aside, and the others get what a manager of ours knows of an image.
#[test]
fn what_longhorn_sealed_is_read_later_and_set_aside_when_it_is_wrong() {
    let sandbox = Sandbox::new("rotten");
    let (first, disk) = manager(&sandbox, "a");
    drop(first);
    let bytes = noise(3, 2 * MIB);
    let sum = sealed(&disk, ("good", "u1"), &bytes);
    let path = disk.join("backing-images/rotten-u2/backing");
    sealed_as(&path, "u2", 2 << 20, &sum);
    let manager = Manager::start(&sandbox, &Options::new(&disk));
    wait::until("what is rotten is found", || {
        (state_of(&manager, "rotten", "u2") == "failed").then_some(())
    });
    let rotten = manager.image("rotten").unwrap();
    assert!(rotten.message.contains(&sum), "{rotten:?}");
    assert!(!path.exists());
    let aside = |name: &String| name.starts_with(".quarantine-rotten-u2");
    assert!(images(&disk).iter().any(aside), "{:?}", images(&disk));
    wait::until("what is good is proven", || {
        manager
            .image("good")
            .unwrap()
            .message
            .is_empty()
            .then_some(())
    });
    assert_eq!(state_of(&manager, "good", "u1"), "ready");
    assert!(disk.join("backing-images/good-u1/backing.chunks").exists());
}

/// An image that is not proven yet has no manifest to be copied by: it is pushed, as between managers of
/// Longhorn's.
#[test]
fn what_longhorn_sealed_is_copied_before_it_is_read() {
    let sandbox = Sandbox::new("pushed");
    let ((a, disk_a), (b, disk_b)) = (manager(&sandbox, "a"), manager(&sandbox, "b"));
    // The one that is read first, for as long as this test lives.
    let first = disk_a.join("backing-images/first-u1/backing");
    sealed_as(&first, "u1", ENDLESS, MADE_UP);
    a.fetch(spec("first", "u1", ENDLESS, ""), "").unwrap();
    wait::until("it is ready", || {
        (state_of(&a, "first", "u1") == "ready").then_some(())
    });
    let bytes = noise(4, 2 * MIB);
    let sum = sealed(&disk_a, ("second", "u2"), &bytes);
    let second = spec("second", "u2", bytes.len() as u64, &sum);
    a.fetch(second.clone(), "").unwrap();
    b.sync(second, &a).unwrap();
    wait::until("the copy is ready", || {
        (state_of(&b, "second", "u2") == "ready").then_some(())
    });
    let copy = fs::read(disk_b.join("backing-images/second-u2/backing")).unwrap();
    assert!(copy == bytes);
    a.longhorn_delete("first", "u1").unwrap();
}

/// The command line shows people everything that is on the disk, also what the control plane has not asked
/// for and must not be shown.
#[test]
fn people_see_what_the_control_plane_is_not_shown() {
    let sandbox = Sandbox::new("people");
    let (manager, disk) = manager(&sandbox, "a");
    let import = sandbox.make_dir("import");
    drop(manager);
    sealed(&disk, ("found", "u1"), &noise(5, MIB));
    let options = Options::new(&disk).with("--import-dir", &import);
    let manager = Manager::start(&sandbox, &options);
    let file = sandbox.write("import/made", noise(6, MIB));
    let made = manager.make_image(e2e::manager::from_file("made", &file));
    assert_eq!(made.unwrap().progress, 100);
    assert!(manager.longhorn_list().is_empty());
    assert_eq!(manager.files().list(), json!({}));
    let output = manager.cli("backing-image", &["list"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    for name in ["found", "made"] {
        assert_eq!(printed[name]["status"]["state"], "ready", "{printed}");
    }
    assert_eq!(manager.list_images().unwrap().len(), 2);
}

/// The way out of many clusters is a proxy, and it is the data source that downloads.
#[test]
fn a_data_source_downloads_through_the_proxy_of_its_environment() {
    let proxy = HttpServer::start(move |request| match &request.path[..] {
        "http://images.invalid/tail" => Reply::ok(vec![7; MIB]),
        _ => Reply {
            status: 502,
            ..Reply::default()
        },
    });
    let sandbox = Sandbox::new("proxy");
    let (manager, disk) = manager(&sandbox, "a");
    let environment = [("HTTP_PROXY", proxy.url("")), ("NO_PROXY", String::new())];
    let url = ["--parameters", "url=http://images.invalid/tail"];
    let source = DataSource::start_with(&sandbox, &disk, ("p", "download"), &url, &environment);
    source.wait_state("ready-for-transfer");
    let requests = proxy.served();
    assert!(requests > 0);
    let address = source.address().to_string();
    manager
        .fetch(spec("p", "uuid-p", 1 << 20, ""), &address)
        .unwrap();
    wait::until("it is ready", || {
        (state_of(&manager, "p", "uuid-p") == "ready").then_some(())
    });
    assert_eq!(proxy.served(), requests, "the hand-over went through it");
}

/// At an upgrade the old manager of a disk and the new one overlap: the new one waits, and is not ready
/// before it serves.
#[test]
fn a_second_manager_waits_for_the_disk() {
    let sandbox = Sandbox::new("overlap");
    let (mut old, disk) = manager(&sandbox, "old");
    let mut options = Options::new(&disk);
    options.name = "new".into();
    let mut new = Manager::spawn(&sandbox, &options);
    wait::until("the new one says for whom it waits", || {
        let who = format!("process {}", old.process.id());
        new.process.log().contains(&who).then_some(())
    });
    let listens = |manager: &Manager| sockets::listens(manager.process.id());
    assert!(
        listens(&old) && !listens(&new),
        "it listens before it serves"
    );
    assert!(old.disk().is_ok());
    old.process.terminate();
    new.wait_ready();
}

/// One that does not end in time keeps its disk.
#[test]
fn a_second_manager_gives_up_when_the_first_stays() {
    let sandbox = Sandbox::new("stays");
    let (first, disk) = manager(&sandbox, "first");
    let mut options = Options::new(&disk);
    options.name = "second".into();
    let mut second = Manager::spawn(&sandbox, &options);
    assert_eq!(second.process.wait_end().code(), Some(1));
    let log = second.process.log();
    assert!(log.contains("one disk has one manager"), "{log}");
    assert!(first.disk().is_ok());
}

/// A directory of the disk that somebody removed holds nothing, and is made again when it is needed: every
/// call goes on.
#[test]
fn directories_that_somebody_removed_hold_nothing() {
    let sandbox = Sandbox::new("removed");
    let (first, disk) = manager(&sandbox, "a");
    drop(first);
    let import = sandbox.make_dir("import");
    let options = Options::new(&disk).with("--import-dir", &import);
    let manager = Manager::start(&sandbox, &options);
    let file = sandbox.write("import/made", noise(7, MIB));
    for _ in 0..2 {
        for name in ["volumes", "backing-images", "tmp"] {
            match fs::remove_dir_all(disk.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
        assert!(manager.list_volumes().unwrap().is_empty());
        assert!(manager.volume("none").is_err());
        manager.longhorn_delete("none", "u0").unwrap();
        manager.delete_volume("none").unwrap();
        for image in manager.list_images().unwrap() {
            manager.longhorn_delete(&image.name, &image.uuid).unwrap();
        }
        sealed(&disk, ("adopted", "u1"), &noise(8, MIB));
        manager
            .fetch(spec("adopted", "u1", 1 << 20, ""), "")
            .unwrap();
        let made = manager.make_image(e2e::manager::from_file("made", &file));
        assert_eq!(made.unwrap().progress, 100);
        manager.create_volume("v", "made", 1 << 20).unwrap();
        let source = DataSource::start(&sandbox, &disk, "d", "upload", "127.0.0.1", &[]);
        assert!(disk.join("tmp").exists());
        drop(source);
        manager.delete_volume("v").unwrap();
    }
}

/// A listener that nobody may connect to.
struct Bait(std::net::TcpListener);

impl Bait {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }
}

/// Row 118: no call makes the manager connect to this machine or its link, by whatever protocol, unless the
/// operator allows it.
#[test]
fn row_118_no_call_leads_to_addresses_of_this_machine() {
    let sandbox = Sandbox::new("policy");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    sealed(&disk, ("image", "u1"), &noise(9, MIB));
    let manager = Manager::start(&sandbox, &Options::new(&disk).strict());
    let path = disk.join("backing-images/image-u1/backing");
    let path = path.display().to_string();
    let bait = Bait::new();
    let link = "169.254.169.254:80".to_owned();
    let by_name = bait.address().replace("127.0.0.1", "localhost");
    let mapped = bait.address().replace("127.0.0.1", "[::ffff:127.0.0.1]");
    for to in [bait.address(), by_name, mapped, link] {
        let target = format!("sendToPeer&to-address={to}");
        let refused = manager.files().act(&path, &target).unwrap_err();
        assert!(refused.contains("--allow-address"), "{to}: {refused}");
        let request = pb::SyncRequest {
            spec: Some(spec("other", "u2", 4096, "")),
            from_address: to.clone(),
        };
        let refused = block_on(manager.longhorn().sync(request)).unwrap_err();
        assert_eq!(
            refused.code(),
            tonic::Code::InvalidArgument,
            "{to}: {refused}"
        );
        let refused = manager
            .fetch(spec("other", "u2", 4096, ""), &to)
            .unwrap_err();
        assert_eq!(
            refused.code(),
            tonic::Code::InvalidArgument,
            "{to}: {refused}"
        );
    }
    let request = pb::SyncRequest {
        spec: Some(spec("other", "u2", 4096, "")),
        from_address: "unix:/run/some.sock".into(),
    };
    let refused = block_on(manager.longhorn().sync(request)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    let address = bait.0.local_addr().unwrap();
    let made = manager.make_image(e2e::manager::from_peers("peers", "u3", &[address]));
    let made = made.unwrap();
    assert!(made.message.contains("--allow-address"), "{made:?}");
    assert!(bait.0.accept().is_err(), "somebody connected");
}

/// Row 119: receivers that nobody sends to keep nothing else waiting, and listen only where they may.
#[test]
fn row_119_idle_receivers_keep_nobody_waiting() {
    let sandbox = Sandbox::new("idle");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let import = sandbox.make_dir("import");
    let options = Options::new(&disk).with("--import-dir", &import);
    let manager = Manager::start(&sandbox, &options);
    let receive = |n: u16, port: u16| {
        let path = disk.join(format!("backing-images/idle-{n:08x}/backing"));
        let (path, uuid) = (path.display().to_string(), format!("{n:08x}"));
        let port = port.to_string();
        let parameters = [
            ("file-path", path.as_str()),
            ("uuid", &uuid),
            ("size", "4096"),
            ("port", &port),
        ];
        manager.files().create("receiveFromPeer", &parameters)
    };
    for n in 0..16 {
        receive(n, e2e::ports::of_receiver()).unwrap();
    }
    let refused = receive(99, e2e::ports::free().port()).unwrap_err();
    assert!(refused.contains("--port-range"), "{refused}");
    let server = HttpServer::start(|_| Reply::ok(vec![7; MIB]));
    let made = manager.make_image(e2e::manager::from_url("url", &server.url("/image")));
    assert_eq!(made.unwrap().progress, 100);
    let file = sandbox.write("import/file", noise(10, MIB));
    let made = manager.make_image(e2e::manager::from_file("file", &file));
    assert_eq!(made.unwrap().progress, 100);
}

/// Row 121: an image that has another checksum than was asked for says which, in all of its faces.
#[test]
fn row_121_a_wrong_checksum_tells_the_one_that_was_found() {
    let sandbox = Sandbox::new("found");
    let (manager, disk) = manager(&sandbox, "a");
    let bytes = noise(11, MIB);
    let sum = {
        let file = sandbox.write("bytes", &bytes);
        e2e::command::run("sha512sum", [&file])[..128].to_owned()
    };
    let server = HttpServer::start(move |_| Reply::ok(bytes.clone()));
    let path = disk.join("backing-images/wrong-u1/backing");
    let path = path.display().to_string();
    let url = server.url("/image");
    let parameters = [
        ("file-path", path.as_str()),
        ("uuid", "u1"),
        ("url", &url),
        ("expected-checksum", MADE_UP),
    ];
    manager
        .files()
        .create("downloadFromURL", &parameters)
        .unwrap();
    let failed = manager.files().wait(&path, &["failed"]);
    assert_eq!(
        (&failed["progress"], &failed["currentChecksum"]),
        (&100.into(), &sum.as_str().into())
    );
    let status = manager.longhorn_get("wrong", "u1").unwrap().status.unwrap();
    assert_eq!((status.progress, status.checksum), (100, sum));
    let engine = [&parameters[..3], &[("data-engine", "v2")]].concat();
    let refused = manager.files().create("downloadFromURL", &engine);
    assert!(refused.unwrap_err().contains("engine v1"));
}

/// Row 122: Longhorn's manager takes a work file over and leaves what it does not know beside it.
#[test]
fn row_122_a_hand_over_to_longhorns_manager_leaves_nothing() {
    needs!(Need::Tool("curl"));
    let sandbox = Sandbox::new("leaves");
    let (manager, disk) = manager(&sandbox, "a");
    drop(manager);
    let original = sandbox.write("original", noise(12, MIB));
    let given = [
        "--parameters",
        "volume-name=vol",
        "--parameters",
        "token=hush",
    ];
    let mut source = DataSource::start(&sandbox, &disk, "up", "upload", "127.0.0.1", &given);
    let shown = source.file()["parameters"].clone();
    assert_eq!(shown, json!({"volume-name": "vol", "token": "<secret>"}));
    let form = format!("chunk=@{}", original.display());
    let url = format!(
        "http://{}/v1/file?action=upload&size={MIB}",
        source.address()
    );
    e2e::command::run("curl", ["--silent", "--fail", "-F", &form, &url]);
    source.wait_state("ready-for-transfer");
    assert_eq!(source.transfer().0, 200);
    // What Longhorn's manager does.
    let image = sandbox.make_dir("disk-a/backing-images/up-uuid-up");
    fs::rename(&source.file, image.join("backing")).unwrap();
    fs::remove_file(source.file.with_extension("cfg")).unwrap();
    source.process.terminate();
    let left: Vec<_> = fs::read_dir(disk.join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
