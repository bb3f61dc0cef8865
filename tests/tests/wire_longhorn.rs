//! The recorded session of the incumbent, replayed against our daemon: the same requests, the same
//! answers. Exceptions: times, `realSize`, `virtualSize` (the incumbent had no `qemu-img` there),
//! and that our state may be further ahead. The bytes of the image were not recorded, so its
//! checksums are ours.
#![allow(
    clippy::unwrap_used,
    reason = "tests: a panic with its cause is the result"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use e2e::longhorn::{self, Exchange, GrpcExchange, LonghornDaemon, in_namespaces, request};
use e2e::server::{HttpServer, Reply};
use e2e::{Need, Sandbox, needs};
use prost::Message;
use proto::bimrpc as pb;
use serde_json::Value;

/// The checksum of the recorded image, which stands for ours.
const RECORDED_SUM: &str = "82d8c5e0996b630f3aca3375904c03e939d9ea7a9988f57cf492b6e80050778b9adac96fb750a4ea2d007b9e39eeae6efbf07fb268f964e3257743428c01792e";
const IMAGE: u64 = 8 << 20;

#[test]
fn the_recorded_session_is_answered_the_same() {
    needs!(Need::Root, Need::Tool("unshare"), Need::Tool("ip"));
    in_namespaces("inside_the_recorded_session");
}

/// An image with three runs of data, as the recorded one.
fn write_image(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    file.set_len(IMAGE).unwrap();
    for (offset, length) in [(0, 8192), (1_048_576, 69_632), (5_246_976, 12_288)] {
        let bytes: Vec<u8> = (0..length)
            .map(|i: u32| (i * 7 + 1).to_le_bytes()[0])
            .collect();
        file.write_all_at(&bytes, offset).unwrap();
    }
    file.sync_all().unwrap();
}

fn sha512(path: &Path) -> String {
    let output = e2e::command::run("sha512sum", [path]);
    output.split(' ').next().unwrap().to_owned()
}

/// A JSON answer without what differs from run to run.
fn settled(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    let files: Vec<&mut Value> = if value.get("state").is_some() {
        vec![&mut value]
    } else {
        value.as_object_mut().unwrap().values_mut().collect()
    };
    for file in files {
        for key in ["realSize", "virtualSize", "modificationTime"] {
            file[key] = Value::Null;
        }
    }
    value
}

/// Whether ours is the recorded file, in the same state or a later one.
fn assert_same_file(recorded: &str, ours: &str) {
    let (mut recorded, mut ours) = (settled(recorded), settled(ours));
    let states = (recorded["state"].clone(), ours["state"].clone());
    let pair = (
        states.0.as_str().unwrap_or(""),
        states.1.as_str().unwrap_or(""),
    );
    match pair {
        (a, b) if a == b => {}
        ("starting", "in-progress" | "ready") | ("pending", "failed") => {
            for key in [
                "state",
                "progress",
                "processedSize",
                "currentChecksum",
                "message",
            ] {
                recorded[key] = Value::Null;
                ours[key] = Value::Null;
            }
        }
        _ => panic!("{recorded} became {ours}"),
    }
    assert_eq!(recorded, ours);
}

/// Sends a recorded request and compares the answer.
fn play(exchange: &Exchange, daemon: &LonghornDaemon, sum: &str) {
    let target = exchange.target.replace(RECORDED_SUM, sum);
    let headers = [
        ("User-Agent", "Go-http-client/1.1"),
        ("Accept-Encoding", "gzip"),
    ];
    let answer = request(
        &daemon.files.address,
        &exchange.method,
        &target,
        &headers,
        b"",
    );
    let asked = format!("{} {}", exchange.method, exchange.target);
    assert_eq!(answer.status, exchange.status, "{asked}: {}", answer.text());
    let json = exchange
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "application/json");
    for (name, value) in &exchange.headers {
        // The length of a JSON answer is that of its numbers and times.
        if !(json && name == "content-length") {
            assert_eq!(answer.header(name), Some(value.as_str()), "{asked}: {name}");
        }
    }
    let kind = exchange
        .headers
        .get("content-type")
        .map_or("", String::as_str);
    match kind {
        "application/json" => {
            let recorded = exchange.body.replace(RECORDED_SUM, sum);
            assert_same_file(&recorded, &answer.text());
            assert_eq!(keys(&recorded), keys(&answer.text()), "{asked}");
        }
        "application/octet-stream" => {
            assert!(answer.complete && answer.body.starts_with(&[0x1f, 0x8b]));
        }
        "" => assert_eq!(answer.text(), "", "{asked}"),
        _ => assert_eq!(answer.text(), exchange.body.clone() + "\n", "{asked}"),
    }
}

/// The keys of a JSON text in their order.
fn keys(text: &str) -> Vec<String> {
    text.split('"')
        .zip(text.split('"').skip(1))
        .filter(|(before, _)| before.ends_with(['{', ',']))
        .map(|(_, key)| key.to_owned())
        .collect()
}

/// The exchanges at one face whose target holds all of these.
fn recorded(at: &str, method: &str, parts: &[&str]) -> Vec<Exchange> {
    let all = longhorn::rest().into_iter();
    all.filter(|e| {
        e.at == at && e.method == method && parts.iter().all(|part| e.target.contains(part))
    })
    .collect()
}

/// Calls a method with the recorded bytes and compares the bytes that come back.
fn play_grpc(exchange: &GrpcExchange, daemon: &LonghornDaemon, sum: &str) {
    let request = replace(&exchange.request, RECORDED_SUM.as_bytes(), sum.as_bytes());
    let answer = daemon.grpc.call(&exchange.method, &request);
    match (&exchange.response, answer) {
        (Some(recorded), Ok(ours)) => {
            let recorded = replace(recorded, RECORDED_SUM.as_bytes(), sum.as_bytes());
            match exchange.method.as_str() {
                "Get" | "Sync" | "Fetch" => {
                    let (recorded, ours) = (without_sizes(&recorded), without_sizes(&ours));
                    assert_eq!(recorded, ours, "{}", exchange.method);
                }
                _ => assert_eq!(recorded, ours, "{}", exchange.method),
            }
        }
        (None, Err(status)) => {
            assert_eq!(i32::from(status.code()), exchange.status, "{status}");
            assert_eq!(status.message(), exchange.message);
        }
        (recorded, ours) => panic!("{}: {recorded:?} became {ours:?}", exchange.method),
    }
}

/// The bytes of an answer with an image, which must be those that our encoder makes of it, without
/// the sizes that differ from run to run.
fn without_sizes(bytes: &[u8]) -> Vec<u8> {
    let mut image = pb::BackingImageResponse::decode(bytes).unwrap();
    assert_eq!(
        image.encode_to_vec(),
        bytes,
        "the encoding is the one there is"
    );
    let spec = image.spec.as_mut().unwrap();
    (spec.real_size, spec.virtual_size) = (0, 0);
    image.encode_to_vec()
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(from.len() - 1) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// A data source that answers as the recorded one did, and keeps what it was asked.
fn data_source(port: u16, at: &'static str, sum: String) -> (HttpServer, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let server = HttpServer::start_on(port, move |request| {
        let line = format!("{} {}", request.method, request.path);
        log.lock().unwrap().push(line);
        let mut known = longhorn::rest().into_iter();
        match known.find(|e| e.at == at && e.method == request.method && e.target == request.path) {
            Some(exchange) => Reply::ok(exchange.body.replace(RECORDED_SUM, &sum)),
            None => Reply {
                status: 404,
                ..Reply::default()
            },
        }
    });
    (server, asked)
}

fn printed(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", e2e::command::words(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What our command prints is what the incumbent's printed.
fn play_cli(command: &Value, daemon: &LonghornDaemon, sum: &str) {
    let text = command["command"].as_str().unwrap();
    let words: Vec<_> = text
        .split(' ')
        .skip(1)
        .map(|word| word.replace(RECORDED_SUM, sum))
        .collect();
    let output = daemon.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
    if let Some(error) = command["error"].as_str() {
        assert_eq!(output.status.code(), Some(1), "{text}");
        // The words of the manager, without those of two RPC systems around them.
        let cause = error.rsplit("desc = ").next().unwrap();
        let cause = cause
            .rsplit("response body content: ")
            .next()
            .unwrap()
            .trim();
        let ours = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(ours.contains(cause), "{text}: {ours}");
        return;
    }
    let recorded = command["stdout"]
        .as_str()
        .unwrap()
        .replace(RECORDED_SUM, sum);
    let ours = printed(&output);
    assert_eq!(without_varying(&recorded), without_varying(&ours), "{text}");
}

/// A printed answer without the lines that differ from run to run.
fn without_varying(text: &str) -> String {
    let varies = ["\"realSize\"", "\"virtualSize\""];
    let lines = text.lines();
    let kept: Vec<_> = lines
        .filter(|line| !varies.iter().any(|key| line.trim_start().starts_with(key)))
        .collect();
    kept.join("\n")
}

#[test]
#[ignore = "runs in namespaces that another test makes"]
fn inside_the_recorded_session() {
    let sandbox = Sandbox::new("wire");
    let a = LonghornDaemon::start(
        &sandbox,
        "a",
        "disk-1",
        18000,
        &["--port-range", "31001-31010"],
    );
    let b = LonghornDaemon::start(
        &sandbox,
        "b",
        "disk-2",
        28000,
        &["--port-range", "32001-32010"],
    );
    let prepared = a.disk.join("tmp/img-uuid-img");
    write_image(&prepared);
    let sum = sha512(&prepared);
    nothing_is_there(&a, &b);
    what_is_there_is_fetched(&a, &sum);
    what_is_not_there_is_told(&a, &b, &sum);
    empty_messages_are_answered(&a);
}

fn nothing_is_there(a: &LonghornDaemon, b: &LonghornDaemon) {
    for daemon in [a, b] {
        let at = if daemon.address().contains("18000") {
            "sync A"
        } else {
            "sync B"
        };
        for exchange in recorded(at, "GET", &[]) {
            if exchange.target == "/" || exchange.target == "/v1/files" {
                play(&exchange, daemon, RECORDED_SUM);
            }
        }
    }
    assert_eq!(printed(&a.cli(&["list"])), "{}\n");
}

/// Hand-over from a data source, by our command: the answers, and what the data source was asked.
fn what_is_there_is_fetched(a: &LonghornDaemon, sum: &str) {
    let (_server, asked) = data_source(38000, "data-source", sum.to_owned());
    let commands = longhorn::cli();
    let fetch = commands
        .iter()
        .find(|c| c["command"].as_str().unwrap().contains("sync --name img"))
        .unwrap();
    play_cli(fetch, a, sum);
    assert_eq!(
        *asked.lock().unwrap(),
        ["GET /v1/file", "POST /v1/file?action=transfer"]
    );
    let (path, file) = a.image_file("img-uuid-img");
    a.files.wait_ready(&path);
    assert!(file.is_file() && !a.disk.join("tmp/img-uuid-img").exists());
    let image = "%2Fimg-uuid-img%2F";
    for exchange in recorded("sync A", "GET", &[image]) {
        // The answers from before it was ready are not those of now.
        if !exchange.body.contains("starting") {
            play(&exchange, a, sum);
        }
    }
    for exchange in longhorn::grpc() {
        let of_image = ["Get", "PrepareDownload"].contains(&exchange.method.as_str());
        if exchange.at.ends_with('A') && of_image {
            play_grpc(&exchange, a, sum);
        }
    }
    for command in commands.iter().filter(|c| {
        let text = c["command"].as_str().unwrap();
        c["error"].is_null() && (text.contains(" get ") || text.contains("prepare-download"))
    }) {
        play_cli(command, a, sum);
    }
    // What a browser or curl gets is the image.
    let packed = a.files.download(&path, "", &[]);
    let at = a.disk.join("tmp/img.gz");
    File::create(&at)
        .unwrap()
        .write_all_at(&packed.body, 0)
        .unwrap();
    let unpacked = e2e::command::run(
        "sh",
        ["-c", &format!("gunzip -c {} | sha512sum", at.display())],
    );
    assert!(unpacked.starts_with(sum), "{unpacked}");
}

fn what_is_not_there_is_told(a: &LonghornDaemon, b: &LonghornDaemon, sum: &str) {
    for exchange in recorded("sync A", "GET", &["nope"]) {
        play(&exchange, a, sum);
    }
    for (method, parts) in [
        ("POST", &["action=fetch", "gone"][..]),
        ("GET", &["gone"]),
        ("POST", &["uuid-bad"]),
        ("DELETE", &["img"]),
    ] {
        for exchange in recorded("sync B", method, parts) {
            play(&exchange, b, sum);
        }
    }
    for exchange in recorded("sync A", "DELETE", &["%2F-%2F"]) {
        play(&exchange, a, sum);
    }
    for exchange in recorded("sync B", "GET", &["img-uuid-img"]) {
        if exchange.status == 404 {
            play(&exchange, b, sum);
        }
    }
    for exchange in longhorn::grpc() {
        let absent = exchange.method == "Delete" || exchange.status == 5;
        if exchange.at.ends_with('B') && absent {
            play_grpc(&exchange, b, sum);
        }
    }
    let refused = ["--name nope", "--name bad", "delete --name img"];
    for command in longhorn::cli() {
        let text = command["command"].as_str().unwrap().to_owned();
        if refused.iter().any(|part| text.contains(part)) {
            play_cli(&command, b, sum);
        }
    }
}

fn empty_messages_are_answered(a: &LonghornDaemon) {
    let mut seen = BTreeSet::new();
    for recorded in longhorn::empty() {
        let method = recorded["method"].as_str().unwrap();
        seen.insert(method.to_owned());
        match (a.grpc.call(method, b""), recorded["response"].as_str()) {
            (Ok(ours), Some(hex)) => {
                assert_eq!(ours, longhorn::from_hex(hex), "{method}");
            }
            (Err(status), None) => {
                let code = format!("{:?}", status.code()).to_uppercase();
                let recorded_code = recorded["code"].as_str().unwrap().replace('_', "");
                assert_eq!(code, recorded_code, "{method}: {status}");
                assert_eq!(
                    status.message(),
                    recorded["message"].as_str().unwrap(),
                    "{method}"
                );
            }
            (ours, _) => panic!("{method}: {ours:?}"),
        }
    }
    // The incumbent dies of these two.
    for method in ["Sync", "Fetch"] {
        let status = a.grpc.call(method, b"").unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{method}");
    }
    assert_eq!(seen.len(), 8);
}
