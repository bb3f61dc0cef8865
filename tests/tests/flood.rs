//! Clients that open idle connections on every port of both daemons: probes and requests of others
//! are still answered, and the resources of the daemons are not exhausted.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;

use e2e::csi::Plugin;
use e2e::manager::{Options, init_disk};
use e2e::{AddressFile, Manager, Need, Sandbox, command, needs};
use rustix::net::{AddressFamily, SocketType};

/// Descriptors that a daemon may have, and connections that strangers open at once.
const DESCRIPTORS: usize = 256;
const STRANGERS: u16 = 2000;

fn connect_from(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(socket.as_fd(), &SocketAddr::from((from, 0)))?;
    rustix::net::connect(socket.as_fd(), &to)?;
    Ok(TcpStream::from(socket))
}

/// Connections of four addresses that have each begun to ask for something.
fn half_open(to: SocketAddr) -> Vec<TcpStream> {
    let begin = |number: u16| {
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number % 4).unwrap() + 1);
        let mut stream = connect_from(from, to).ok()?;
        // One that made way already is no matter.
        let _ = stream.write_all(b"GET /h");
        Some(stream)
    };
    (0..STRANGERS).filter_map(begin).collect()
}

/// What a kubelet sees: a connection of its own, one question.
fn probe(at: SocketAddr, from: Ipv4Addr, path: &str) -> String {
    let mut stream = connect_from(from, at).unwrap();
    stream.set_read_timeout(Some(e2e::wait::LONG)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

#[track_caller]
fn answers_a_flood(at: SocketAddr, process: u32) {
    let strangers = half_open(at);
    assert!(strangers.len() > DESCRIPTORS, "{}", strangers.len());
    for from in [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(127, 0, 2, 1),
        Ipv4Addr::new(127, 0, 1, 1),
    ] {
        for path in ["/healthz", "/metrics"] {
            let answer = probe(at, from, path);
            assert!(
                answer.starts_with("HTTP/1.1 200"),
                "{from} {path}: {answer}"
            );
        }
    }
    let open = descriptors(process);
    assert!(open < DESCRIPTORS / 2, "{open} descriptors are held");
}

#[test]
fn row_199_silent_strangers_stop_neither_probes_nor_work() {
    needs!(Need::Root, Need::Tool("prlimit"));
    let sandbox = Sandbox::new("flood");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk).with("--metrics-listen", "127.0.0.1:0");
    let mut manager = Manager::start(&sandbox, &options);
    let metrics = manager.metrics_address();
    let bound = AddressFile::new(&sandbox);
    let bound_file = bound.path().display().to_string();
    let listen = [
        "--http-listen",
        "127.0.0.1:0",
        "--address-file",
        &bound_file,
    ];
    let plugin = Plugin::start_as(&sandbox, &manager, &disk, "", &listen);
    let http = bound.get("http");
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    for process in [&manager.process, &plugin.process] {
        command::run("prlimit", ["--pid", &process.id().to_string(), &limit]);
    }
    let (_, before) = manager.process.memory();
    answers_a_flood(metrics, manager.process.id());
    answers_a_flood(http, plugin.process.id());
    // And the ports of requests: four addresses do not hold them.
    let held = [
        half_open(manager.address()),
        half_open(manager.sync_address()),
    ];
    let answer = probe(
        manager.sync_address(),
        Ipv4Addr::new(127, 0, 2, 1),
        "/v1/files",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    manager.create_volume("made", "", 1 << 20).unwrap();
    assert!(probe(metrics, Ipv4Addr::LOCALHOST, "/healthz").starts_with("HTTP/1.1 200"));
    drop(held);
    let (most, _) = manager.process.memory();
    assert!(
        most < before + (64 << 20),
        "{before} bytes before, {most} at the most"
    );
    assert!(manager.process.ended().is_none());
}
