//! Copies between ours and Longhorn's own ends of ssync, in both directions, through the built program.
#![allow(
    non_snake_case,
    clippy::unwrap_used,
    reason = "some names are upstream's; a panic with its cause is a test's result"
)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::data_source::Peer;
use e2e::manager::{Options, from_file, init_disk};
use e2e::server::{HttpServer, Reply};
use e2e::ssync::{Connection, Misbehave, Receiver, push};
use e2e::{Manager, Need, Sandbox, block_on, command, needs, ports, wait};
use proto::bimrpc as pb;
use proto::bimrpc::backing_image_manager_service_client::BackingImageManagerServiceClient;
use serde_json::Value;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = wait::LONG;

struct Site {
    sandbox: Sandbox,
    disk: PathBuf,
    manager: Manager,
}

fn site(name: &str, options: &[(&str, &str)]) -> Site {
    site_with(name, options, &[])
}

/// The same with more variables in the environment of the manager.
fn site_with(name: &str, options: &[(&str, &str)], environment: &[(&str, &str)]) -> Site {
    let sandbox = Sandbox::new(name);
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let import = sandbox.make_dir("import");
    let mut all = Options::new(&disk).with("--import-dir", &import);
    for (option, value) in options {
        all = all.with(option, *value);
    }
    for (variable, value) in environment {
        all = all.with_environment(variable, value);
    }
    let manager = Manager::start(&sandbox, &all);
    Site {
        sandbox,
        disk,
        manager,
    }
}

/// A file with this much noise at its start and at 48 MiB, and holes.
fn sample(site: &Site, name: &str, noise: u64) -> (PathBuf, Vec<std::ops::Range<u64>>, u64) {
    let path = site.sandbox.write(format!("import/{name}"), b"");
    let file = File::options().write(true).open(&path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ noise;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let bytes: Vec<u8> = words
        .flatten()
        .take(usize::try_from(noise).unwrap())
        .collect();
    let second = (noise + 48 * MIB).next_multiple_of(MIB);
    let size = second + 8192 + 64 * MIB;
    file.set_len(size).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.write_all_at(&bytes[..8192], second).unwrap();
    (path, vec![0..noise, second..second + 8192], size)
}

fn sha512(path: &Path) -> String {
    command::run("sha512sum", [path])[..128].to_owned()
}

impl Site {
    fn backing(&self, name: &str) -> PathBuf {
        self.disk
            .join(format!("backing-images/{name}-uuid-{name}/backing"))
    }

    fn sync_server(&self) -> String {
        self.manager.sync_address().to_string()
    }

    fn client(&self) -> BackingImageManagerServiceClient<tonic::transport::Channel> {
        BackingImageManagerServiceClient::new(self.manager.channel())
    }

    fn sync_from(&self, address: &str, name: &str, size: u64, checksum: &str) {
        let spec = pb::BackingImageSpec {
            name: name.into(),
            uuid: format!("uuid-{name}"),
            size: i64::try_from(size).unwrap(),
            checksum: checksum.into(),
            ..Default::default()
        };
        let request = pb::SyncRequest {
            spec: Some(spec),
            from_address: address.into(),
        };
        let answer = block_on(self.client().sync(request)).unwrap().into_inner();
        assert_eq!(answer.status.unwrap().state, "starting");
    }

    fn send(&self, name: &str, to: &str) -> Result<(), tonic::Status> {
        let request = pb::SendRequest {
            name: name.into(),
            uuid: format!("uuid-{name}"),
            to_address: to.into(),
        };
        block_on(self.client().send(request)).map(drop)
    }

    /// One request to the sync server.
    fn rest(&self, method: &str, target: &str) -> (u16, String) {
        let mut connection = Connection::new(&self.sync_server(), PATIENCE);
        let (status, body) = connection.ask(method, target, &[], b"").unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    fn file(&self, name: &str) -> Option<Value> {
        let id = self.backing(name).display().to_string().replace('/', "%2F");
        let (status, body) = self.rest("GET", &format!("/v1/files/{id}"));
        (status == 200).then(|| serde_json::from_str(&body).unwrap())
    }

    fn receive(&self, name: &str, size: u64, port: u16, more: &str) -> (u16, String) {
        let path = self.backing(name).display().to_string().replace('/', "%2F");
        self.rest(
            "POST",
            &format!(
                "/v1/files?action=receiveFromPeer&file-path={path}&uuid=uuid-{name}&size={size}\
                 &port={port}{more}"
            ),
        )
    }

    fn send_to_peer(&self, name: &str, port: u16) -> (u16, String) {
        let id = self.backing(name).display().to_string().replace('/', "%2F");
        self.rest(
            "POST",
            &format!("/v1/files/{id}?action=sendToPeer&to-address=127.0.0.1%3A{port}"),
        )
    }

    #[track_caller]
    fn wait_state(&self, name: &str, state: &str) -> Value {
        wait::until(&format!("{name} is {state}"), || {
            let file = self.file(name)?;
            if file["state"] == state {
                return Some(file);
            }
            assert!(state == "failed" || file["state"] != "failed", "{file}");
            None
        })
    }

    /// An image of ours, ready to be sent.
    fn image(&self, name: &str, path: &Path) {
        let mut request = from_file(name, path);
        request.uuid = format!("uuid-{name}");
        let image = self.manager.make_image(request).unwrap();
        assert_eq!(image.progress, 100, "{image:?}");
    }
}

/// A Go manager as a receiver of ours sees it: its sync server speaks no protocol of ours.
fn go_manager(peer: &Peer) -> (HttpServer, String) {
    let foreign = HttpServer::start(|_| Reply {
        status: 404,
        body: b"404 page not found\n".to_vec(),
        ..Reply::default()
    });
    let sync_server = foreign.url("");
    let sync_server = sync_server.strip_prefix("http://").unwrap();
    let address = peer.serve_as_manager(sync_server.trim_end_matches('/'));
    (foreign, address)
}

/// Rolling upgrade, one way: the file comes whole, sparse, and with the checksum that was expected.
#[test]
fn a_go_manager_copies_to_ours() {
    let site = site("go-to-ours", &[]);
    let (path, data, size) = sample(&site, "image", 5 * MIB);
    let peer = Peer::new(&path, &data, Misbehave::default());
    let (_foreign, address) = go_manager(&peer);
    site.sync_from(&address, "img", size, &sha512(&path));
    let file = site.wait_state("img", "ready");
    assert_eq!(
        (&file["size"], &file["progress"]),
        (&size.into(), &100.into())
    );
    assert!(file["realSize"].as_u64().unwrap() < 8 * MIB, "{file}");
    command::run("cmp", [&path, &site.backing("img")]);
    // The port of the pool, on the address that peers reach us at, is free again.
    let asked = peer.asked();
    assert_eq!(asked.len(), 1);
    let port = asked[0].strip_prefix("127.0.0.1:").unwrap();
    assert!((30001..=31000).contains(&port.parse::<u16>().unwrap()));
    ports::wait_free(&asked[0]);
}

/// The other way: our requests are those of the recording, and the file is whole.
#[test]
fn ours_copies_to_a_go_manager() {
    let site = site("ours-to-go", &[]);
    let (path, data, size) = sample(&site, "image", 5 * MIB + 4096);
    site.image("img", &path);
    let target = site.sandbox.path("received");
    let receiver = Receiver::start(&target);
    site.send("img", &receiver.address()).unwrap();
    let lines = receiver.wait_closed();
    command::run("cmp", [&path, &target]);
    assert!(std::fs::metadata(&target).unwrap().blocks() * 512 < 8 * MIB);
    // As recorded: open first, close last, the parameters in the order of the alphabet.
    assert_eq!(
        lines[0],
        format!("GET /v1-ssync/open?begin=0&directIO=false&end={size}")
    );
    assert_eq!(
        lines[lines.len() - 1],
        "POST /v1-ssync/close?checksum=&checksumMethod="
    );
    let mut covered = 0;
    for line in &lines[1..lines.len() - 1] {
        let pair = line
            .strip_prefix("POST /v1-ssync/writeData?begin=")
            .or_else(|| line.strip_prefix("POST /v1-ssync/sendHole?begin="))
            .unwrap_or_else(|| panic!("{line}"));
        let (begin, end) = pair.split_once("&end=").unwrap();
        let (begin, end): (u64, u64) = (begin.parse().unwrap(), end.parse().unwrap());
        assert!(begin < end && begin.is_multiple_of(4096) && end.is_multiple_of(4096));
        assert!(
            line.contains("sendHole") || end - begin <= 2 * MIB,
            "{line}"
        );
        covered += end - begin;
    }
    assert_eq!(covered, size);
    let holes = lines
        .iter()
        .filter(|line| line.contains("sendHole"))
        .count();
    assert_eq!((holes, data.len()), (2, 2), "one request for each hole");
}

/// Row 104: so many copies by ssync at once, first in, then out, take a bounded memory: a send reads no
/// more ahead than all may together, and what is received is not held.
#[test]
fn row_104_eight_copies_each_way_keep_to_64_mib() {
    const COPIES: usize = 8;
    let site = site("ssync-memory", &[]);
    let (path, data, size) = sample(&site, "image", 24 * MIB);
    let peer = Peer::new(&path, &data, Misbehave::default());
    let (_foreign, address) = go_manager(&peer);
    let names: Vec<String> = (0..COPIES).map(|n| format!("img{n}")).collect();
    for name in &names {
        site.sync_from(&address, name, size, "");
    }
    for name in &names {
        site.wait_state(name, "ready");
    }
    let (received, _) = site.manager.process.memory();
    let receivers: Vec<(PathBuf, Receiver)> = names
        .iter()
        .map(|name| {
            let target = site.sandbox.path(format!("received-{name}"));
            let receiver = Receiver::start(&target);
            (target, receiver)
        })
        .collect();
    for (name, (_, receiver)) in names.iter().zip(&receivers) {
        site.send(name, &receiver.address()).unwrap();
    }
    for (target, receiver) in &receivers {
        receiver.wait_closed();
        command::run("cmp", [&path, target]);
    }
    let (sent, _) = site.manager.process.memory();
    println!(
        "received with {} MiB, sent with {}",
        received >> 20,
        sent >> 20
    );
    assert!(sent <= 64 << 20, "{received} bytes, then {sent}");
}

/// Defect 1 of the incumbent, row 47: its sender closes after a failure too. Without an expected
/// checksum a Go receiver is `ready` then, with missing data. Ours has failed, and says how much came.
#[test]
fn row_47_a_sender_that_fails_or_dies_leaves_no_image() {
    let site = site("broken-sender", &[]);
    let (path, data, size) = sample(&site, "image", 24 * MIB);
    for (name, misbehave) in [
        (
            "closes",
            Misbehave {
                fail_after: Some(8 * MIB),
                dies: false,
            },
        ),
        (
            "closes0",
            Misbehave {
                fail_after: Some(0),
                dies: false,
            },
        ),
    ] {
        let peer = Peer::new(&path, &data, misbehave);
        let (_foreign, address) = go_manager(&peer);
        site.sync_from(&address, name, size, "");
        let file = site.wait_state(name, "failed");
        let message = file["message"].as_str().unwrap();
        let expected = format!("of {size} bytes, then its sender closed the file");
        assert!(message.contains(&expected), "{message}");
        assert!(!site.backing(name).exists());
        assert!(!site.backing(name).with_extension("tmp").exists());
    }
    // What failed can be had again from a peer that works.
    let id = site
        .backing("closes")
        .display()
        .to_string()
        .replace('/', "%2F");
    assert_eq!(site.rest("DELETE", &format!("/v1/files/{id}")).0, 200);
    let peer = Peer::new(&path, &data, Misbehave::default());
    let (_foreign, address) = go_manager(&peer);
    site.sync_from(&address, "closes", size, "");
    site.wait_state("closes", "ready");
    command::run("cmp", [&path, &site.backing("closes")]);
}

/// A wrong checksum is a failure within one pass, and names both sums.
#[test]
fn row_53_a_peer_with_other_bytes_is_refused() {
    let site = site("other-bytes", &[]);
    let (path, data, size) = sample(&site, "image", MIB);
    let (other, _, _) = sample(&site, "other", MIB + 4096);
    let (actual, wrong) = (sha512(&path), sha512(&other));
    let peer = Peer::new(&path, &data, Misbehave::default());
    let (_foreign, address) = go_manager(&peer);
    site.sync_from(&address, "img", size, &wrong);
    let file = site.wait_state("img", "failed");
    let message = file["message"].as_str().unwrap();
    assert!(
        message.contains(&actual) && message.contains(&wrong),
        "{message}"
    );
}

/// Row 52 and defect 18: garbage at a receiver's port harms neither the copy nor the process.
#[test]
fn row_52_garbage_at_a_receivers_port() {
    use std::io::{Read, Write};

    let site = site("garbage", &[]);
    let (path, data, size) = sample(&site, "image", 3 * MIB);
    let port = ports::of_receiver();
    assert_eq!(site.receive("img", size, port, "").0, 200);
    let to = format!("127.0.0.1:{port}");
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1-ssync/writeData?begin=0&end=99999999999999999999 HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST /v1-ssync/writeData?begin=-1&end=4096 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"POST /v1-ssync/sendHole?begin=0&end=9223372036854775807 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"GET /v1-ssync/open?begin=0&end=-512 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = std::net::TcpStream::connect(&to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(garbage).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{garbage:?}: {answer}");
    }
    push(&to, &path, &data, Misbehave::default()).unwrap();
    site.wait_state("img", "ready");
    command::run("cmp", [&path, &site.backing("img")]);
}

/// Row 46: a file that is almost all hole costs what its data costs, both ways.
#[test]
fn row_46_a_sparse_image_stays_sparse_both_ways() {
    let site = site("sparse", &[]);
    let path = site.sandbox.write("import/sparse", b"");
    let file = File::options().write(true).open(&path).unwrap();
    // The checksum of a TiB takes half an hour; that of 3 GiB says the same.
    let size = 3072 * MIB;
    file.set_len(size).unwrap();
    let start = 1700 * MIB;
    file.write_all_at(&vec![5; 1 << 20], start).unwrap();
    let peer = Peer::new(
        &path,
        std::slice::from_ref(&(start..start + MIB)),
        Misbehave::default(),
    );
    let (_foreign, address) = go_manager(&peer);
    site.sync_from(&address, "img", size, "");
    let image = site.wait_state("img", "ready");
    assert!(image["realSize"].as_u64().unwrap() <= 2 * MIB, "{image}");
    let target = site.sandbox.path("received");
    let receiver = Receiver::start(&target);
    site.send("img", &receiver.address()).unwrap();
    let lines = receiver.wait_closed();
    assert!(lines.len() <= 6, "{lines:?}");
    let meta = std::fs::metadata(&target).unwrap();
    assert_eq!(meta.len(), size);
    assert!(meta.blocks() * 512 <= 2 * MIB);
}

/// Upstream sends 512 MiB with 1 s ticks; here a rate limit keeps the first three under way.
#[test]
fn BenchmarkOneReceiveAndMultiSendWithSendingLimit() {
    let site = site("send-limit", &[("--sync-rate-limit", "67108864")]);
    let (path, _, size) = sample(&site, "image", 64 * MIB);
    site.image("img", &path);
    let ports: Vec<u16> = (0..6).map(|_| ports::of_receiver()).collect();
    for (n, port) in ports.iter().enumerate() {
        let name = format!("copy{n}");
        assert_eq!(site.receive(&name, size, *port, "").0, 200);
    }
    for port in &ports[..3] {
        let (status, words) = site.send_to_peer("img", *port);
        assert_eq!(status, 200, "{words}");
    }
    let sending = site.file("img").unwrap()["sendingReference"]
        .as_u64()
        .unwrap();
    assert!(sending >= 3, "{sending}");
    for port in &ports[3..] {
        let (status, words) = site.send_to_peer("img", *port);
        assert_eq!(status, 500);
        assert!(
            words.contains("reaches to the simultaneous sending limit"),
            "{words}"
        );
    }
    for n in 0..3 {
        let name = format!("copy{n}");
        site.wait_state(&name, "ready");
        command::run("cmp", [&path, &site.backing(&name)]);
    }
    wait::until("all sends have ended", || {
        (site.file("img")?["sendingReference"] == 0).then_some(())
    });
    let (status, words) = site.send_to_peer("img", ports[3]);
    assert_eq!(status, 200, "{words}");
    site.wait_state("copy3", "ready");
}

/// Upstream: 3 × 512 MiB.
#[test]
fn BenchmarkMultiReceiveAndMultiSend() {
    let site = site("multi-send", &[]);
    let mut copies = Vec::new();
    for n in 0..3_u64 {
        let (path, _, size) = sample(&site, &format!("image{n}"), (48 + n) * MIB);
        site.image(&format!("img{n}"), &path);
        let port = ports::of_receiver();
        let sum = sha512(&path);
        let more = format!("&expected-checksum={sum}");
        assert_eq!(site.receive(&format!("copy{n}"), size, port, &more).0, 200);
        copies.push((path, port));
    }
    for (n, (_, port)) in copies.iter().enumerate() {
        assert_eq!(site.send_to_peer(&format!("img{n}"), *port).0, 200);
    }
    for (n, (path, _)) in copies.iter().enumerate() {
        let name = format!("copy{n}");
        site.wait_state(&name, "ready");
        command::run("cmp", [path, &site.backing(&name)]);
    }
    let (most, _) = site.manager.process.memory();
    assert!(most < 128 * MIB, "{most} bytes of memory");
}

/// What fails is said, and the port is free. A unit test of the receiver has the real 60 seconds.
#[test]
fn TestTimeoutReceiveFromPeers() {
    needs!(Need::Failpoints);
    let site = site("receive-timeout", &[]);
    let port = ports::of_receiver();
    assert_eq!(site.receive("img", MIB, port, "").0, 200);
    site.wait_state("img", "starting");
    // Its port is in use: the second one is told of the first.
    let (status, words) = site.receive("img", MIB, port, "");
    assert!(status == 500 && words.contains("already exists"), "{words}");
    drop(site);
    let site = site_with("receive-timeout", &[], &[("TEST_PATIENCE_SECONDS", "1")]);
    assert_eq!(site.receive("img", MIB, port, "").0, 200);
    let file = site.wait_state("img", "failed");
    let message = file["message"].as_str().unwrap();
    assert!(
        message.contains("failed to wait for processing begin in 1 seconds"),
        "{message}"
    );
    ports::wait_free(("127.0.0.1", port));
}

/// Row 56: a deletion ends a copy, and what it used is free.
#[test]
fn row_56_deleting_what_is_received_and_what_is_sent() {
    let site = site("delete", &[("--sync-rate-limit", "65536")]);
    let (path, _, size) = sample(&site, "image", 64 * MIB);
    site.image("img", &path);
    let port = ports::of_receiver();
    assert_eq!(site.receive("copy", size, port, "").0, 200);
    assert_eq!(site.send_to_peer("img", port).0, 200);
    site.wait_state("copy", "in-progress");
    for name in ["copy", "img"] {
        // The rest of it would take a quarter of an hour.
        let id = site.backing(name).display().to_string().replace('/', "%2F");
        assert_eq!(site.rest("DELETE", &format!("/v1/files/{id}")).0, 200);
        assert!(!site.backing(name).parent().unwrap().exists());
    }
    ports::wait_free(("127.0.0.1", port));
}
