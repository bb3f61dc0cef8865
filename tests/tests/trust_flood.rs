//! Clients that abuse TLS: handshakes that are begun and not ended, floods of new keys, older versions. Others are
//! served meanwhile, and the daemon stays small.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;

use e2e::certificates::{self, Authority};
use e2e::manager::{Options, init_disk};
use e2e::{Manager, Need, Sandbox, block_on, command, needs};
use proto::storage::v1 as pb;
use proto::storage::v1::disks_client::DisksClient;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use trust::held::{H2, HTTP1};
use trust::{Expected, Role};

/// Handshakes that are begun (issue 15).
const STRANGERS: u16 = 10_000;
/// Descriptors that the daemon may have.
const DESCRIPTORS: usize = 1024;
/// What all of this may cost the daemon. A connection in a handshake holds some 30 KiB; one in four of its descriptors
/// may be connections.
const MEMORY_MAX: u64 = 64 << 20;

fn start(sandbox: &Sandbox, authority: &Authority) -> Manager {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    Manager::start(sandbox, &Options::new(&disk).trusting(authority, "n1"))
}

/// A connection of one of four addresses of this machine.
fn connect(number: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number % 4).unwrap() + 1);
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(socket.as_fd(), &SocketAddr::from((from, 0)))?;
    rustix::net::connect(socket.as_fd(), &to)?;
    Ok(TcpStream::from(socket))
}

/// The first message of a client of TLS 1.3, as our own library writes it.
fn hello_of_tls_1_3(authority: &Authority) -> Vec<u8> {
    let (held, manager) = (authority.held("cli/p"), Expected::role(Role::Manager));
    block_on(async {
        let (client, mut server) = tokio::io::duplex(16 << 10);
        let greeting =
            tokio::spawn(async move { held.connect(client, &manager, H2).await.map(drop) });
        let mut head = [0; 5];
        server.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        server.read_exact(&mut body).await.unwrap();
        greeting.abort();
        [&head[..], &body].concat()
    })
}

#[test]
fn row_265_ten_thousand_half_open_handshakes_stop_nobody() {
    needs!(Need::Root, Need::Tool("prlimit"));
    let maximum = getrlimit(Resource::Nofile).maximum;
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, most).unwrap();
    assert!(maximum.is_none_or(|most| most > u64::from(STRANGERS) + 500));
    let sandbox = Sandbox::new("trust-flood");
    let authority = Authority::new(&sandbox, "authority");
    let mut manager = start(&sandbox, &authority);
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    command::run(
        "prlimit",
        ["--pid", &manager.process.id().to_string(), &limit],
    );
    let (_, before) = manager.process.memory();
    let hello = hello_of_tls_1_3(&authority);
    assert!(hello.len() > 150, "{hello:?}");
    let mut held = Vec::new();
    for address in [manager.address(), manager.sync_address()] {
        // The first part of a greeting, all of it, or nothing.
        for number in 0..STRANGERS / 2 {
            if let Ok(mut stream) = connect(number, address) {
                let said = match number % 3 {
                    0 => &hello[..20],
                    1 => &hello[..],
                    _ => &[],
                };
                // One that made way already is no matter.
                let _ = stream.write_all(said);
                held.push(stream);
            }
            if number % 1000 == 0 {
                let mut disks = DisksClient::new(manager.new_channel());
                block_on(disks.get_disk(pb::GetDiskRequest::default())).unwrap();
            }
        }
    }
    assert!(
        held.len() > usize::from(STRANGERS) * 9 / 10,
        "{}",
        held.len()
    );
    let person = authority.held("cli/p");
    let answer = certificates::request(manager.sync_address(), &person, "GET", "/v1/files");
    assert_eq!(answer.unwrap().0, 200);
    manager.create_volume("made", "", 1 << 20).unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", manager.process.id()))
        .unwrap()
        .count();
    assert!(open < DESCRIPTORS * 3 / 4, "{open} descriptors are held");
    let (most, _) = manager.process.memory();
    assert!(
        most < before + MEMORY_MAX,
        "{} MiB more",
        (most - before) >> 20
    );
    assert!(manager.process.ended().is_none());
}

#[test]
fn row_266_a_client_that_changes_its_keys_without_end_is_cut_off() {
    let sandbox = Sandbox::new("trust-keys");
    let authority = Authority::new(&sandbox, "authority");
    let mut manager = start(&sandbox, &authority);
    let held = authority.held("manager/n2/p");
    let address = manager.sync_address();
    let updates = block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let expected = Expected::role(Role::Manager);
        let (mut stream, _) = held.connect(stream, &expected, HTTP1).await.unwrap();
        // Each asks the other side for a new key as well (RFC 8446, section 4.6.3): no byte of a request is sent.
        let flood = async {
            for sent in 0..100_000 {
                if stream.get_mut().1.refresh_traffic_keys().is_err()
                    || stream.flush().await.is_err()
                {
                    return sent;
                }
            }
            100_000
        };
        tokio::time::timeout(e2e::wait::LONG, flood).await.unwrap()
    });
    assert!(updates < 100_000, "all of them were taken");
    manager.disk().unwrap();
    let (_, now) = manager.process.memory();
    assert!(now < 128 << 20, "{} MiB", now >> 20);
    assert!(manager.process.ended().is_none());
}

#[test]
fn row_267_no_older_version_than_tls_1_3_is_spoken() {
    let sandbox = Sandbox::new("trust-older");
    let authority = Authority::new(&sandbox, "authority");
    let manager = start(&sandbox, &authority);
    for address in [manager.address(), manager.sync_address()] {
        let answer = certificates::say(address, &certificates::hello_of_tls_1_2()).unwrap();
        // An alert, fatal, protocol_version (RFC 8446, sections 4.2.1 and 6.2).
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
        assert_eq!(answer.get(5..7), Some(&[2, 70][..]), "{answer:?}");
    }
    manager.disk().unwrap();
}
