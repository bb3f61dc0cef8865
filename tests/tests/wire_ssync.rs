//! The recorded copy from one of Longhorn's managers to another: its requests sent to our receiver,
//! and the requests of our sender beside them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use e2e::longhorn::{self, Exchange, assert_sidecar_agrees, request};
use e2e::manager::{Options, from_file, init_disk};
use e2e::noise::noise;
use e2e::ssync::Receiver;
use e2e::{Manager, Sandbox, block_on, command, ports};
use proto::bimrpc::SendRequest;
use proto::bimrpc::backing_image_manager_service_client::BackingImageManagerServiceClient;

const UUID: &str = "uuid-img";

/// The recorded requests to the receiver: `open` first, `close` last, the others as they came.
fn recorded() -> Vec<Exchange> {
    let exchanges = longhorn::rest().into_iter();
    let mut copy: Vec<Exchange> = exchanges
        .filter(|exchange| exchange.at == "ssync receiver")
        .collect();
    // They are in the order of their connections; it is the last that closes.
    let close = copy
        .iter()
        .position(|exchange| exchange.target.contains("/close?"));
    let close = copy.remove(close.unwrap());
    copy.push(close);
    copy
}

/// The range of a request.
fn range(target: &str) -> Range<u64> {
    let parameter = |name: &str| {
        let mut pairs = target.split(['?', '&']);
        let value = pairs.find_map(|pair| pair.strip_prefix(name));
        value.unwrap().parse().unwrap()
    };
    parameter("begin=")..parameter("end=")
}

/// An image with data where the recorded one has it.
fn write_image(path: &Path, copy: &[Exchange]) {
    let file = File::create(path).unwrap();
    file.set_len(range(&copy[0].target).end).unwrap();
    for exchange in copy {
        if exchange.target.contains("/writeData?") {
            let at = range(&exchange.target);
            let bytes = noise(at.start, at.end - at.start);
            file.write_all_at(&bytes, at.start).unwrap();
        }
    }
}

fn manager(sandbox: &Sandbox) -> Manager {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let import = sandbox.make_dir("import");
    Manager::start(sandbox, &Options::new(&disk).with("--import-dir", &import))
}

#[test]
fn the_recorded_senders_requests_are_answered_as_recorded() {
    let sandbox = Sandbox::new("recorded-sender");
    let manager = manager(&sandbox);
    let copy = recorded();
    let original = sandbox.path("original");
    write_image(&original, &copy);
    let (size, port) = (range(&copy[0].target).end, ports::of_receiver());
    let path = sandbox.path("disk/backing-images/img-uuid-img/backing");
    let path = path.display().to_string();
    let disk_uuid = manager.disk().unwrap().uuid;
    let parameters = [
        ("file-path", path.as_str()),
        ("uuid", UUID),
        ("disk-uuid", &disk_uuid),
        ("size", &size.to_string()),
        ("port", &port.to_string()),
    ];
    let files = manager.files();
    files.create("receiveFromPeer", &parameters).unwrap();
    let receiver = format!("127.0.0.1:{port}");
    let image = File::open(&original).unwrap();
    for exchange in &copy {
        let mut body = Vec::new();
        if exchange.target.contains("/writeData?") {
            let at = range(&exchange.target);
            body.resize(usize::try_from(at.end - at.start).unwrap(), 0);
            image.read_exact_at(&mut body, at.start).unwrap();
        }
        let answer = request(&receiver, &exchange.method, &exchange.target, &[], &body);
        let said = (answer.status, answer.text());
        assert_eq!(
            said,
            (exchange.status, exchange.body.clone()),
            "{}",
            exchange.target
        );
        for (name, value) in &exchange.headers {
            assert_eq!(
                answer.header(name),
                Some(value.as_str()),
                "{}",
                exchange.target
            );
        }
    }
    let file = files.wait_ready(&path);
    let sidecar = std::fs::read(format!("{path}.cfg")).unwrap();
    assert_sidecar_agrees(&file, &serde_json::from_slice(&sidecar).unwrap());
    command::run("cmp", [&original, Path::new(&path)]);
}

#[test]
fn our_sender_asks_what_the_recorded_one_asked() {
    let sandbox = Sandbox::new("our-sender");
    let manager = manager(&sandbox);
    let copy = recorded();
    let original = sandbox.path("import/img");
    write_image(&original, &copy);
    let mut made = from_file("img", &original);
    made.uuid = UUID.into();
    assert_eq!(manager.make_image(made).unwrap().progress, 100);
    let received = sandbox.path("received");
    let receiver = Receiver::start(&received);
    let mut client = BackingImageManagerServiceClient::new(manager.channel());
    let sent = client.send(SendRequest {
        name: "img".into(),
        uuid: UUID.into(),
        to_address: receiver.address(),
    });
    block_on(sent).unwrap();
    let asked = receiver.wait_closed();
    let recorded: Vec<String> = copy
        .iter()
        .map(|exchange| format!("{} {}", exchange.method, exchange.target))
        .collect();
    assert_eq!(
        (asked.first(), asked.last()),
        (recorded.first(), recorded.last())
    );
    // Between these there are the same requests, in whatever order: they go over several connections.
    assert_eq!(shapes(&asked), shapes(&recorded));
    // Holes are kept in steps of 32 KiB here: what is data there is data here, and a little around it.
    let data = |lines: &[String]| -> Vec<Range<u64>> {
        let lines = lines.iter().filter(|line| line.contains("/writeData?"));
        lines.map(|line| range(line)).collect()
    };
    let ours = data(&asked);
    for theirs in data(&recorded) {
        let holds = |ours: &Range<u64>| ours.start <= theirs.start && theirs.end <= ours.end;
        assert!(ours.iter().any(holds), "{theirs:?} in {ours:?}");
    }
    command::run("cmp", [&original, &received]);
}

/// Requests without their numbers.
fn shapes(lines: &[String]) -> Vec<String> {
    let shape = |line: &String| line.replace(|c: char| c.is_ascii_digit(), "");
    let mut shapes: Vec<String> = lines.iter().map(shape).collect();
    shapes.sort_unstable();
    shapes
}
