//! Peers that take without measure, on both servers of the daemon: others are served meanwhile, and
//! the daemon stays small.
#![allow(
    clippy::unwrap_used,
    reason = "a panic with its cause is a test's result"
)]

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;

use e2e::longhorn::RawGrpc;
use e2e::longhorn::frames::{self, END_HEADERS, call, frame, header, kind};
use e2e::manager::{Options, init_disk};
use e2e::{Manager, Need, Sandbox, needs, sockets};
use rustix::net::{AddressFamily, SocketType};

const VERSION: &str = "/bimrpc.BackingImageManagerService/VersionGet";
const MEMORY_MAX: u64 = 160 << 20;

fn manager(sandbox: &Sandbox, failpoints: &str) -> Manager {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    Manager::start(sandbox, &Options::new(&disk).with_failpoint(failpoints))
}

/// Another peer than the test's own connections: 127.0.0.2. It is served.
#[track_caller]
fn another_peer_is_served(manager: &Manager) {
    for address in [manager.address(), manager.sync_address()] {
        let stream = connect_from(Ipv4Addr::new(127, 0, 0, 2), address);
        stream.set_read_timeout(Some(e2e::wait::LONG)).unwrap();
        let mut stream = stream;
        if address == manager.sync_address() {
            stream
                .write_all(b"GET /v1/files HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            assert!(frames::until_closed(&mut stream) > 0, "no answer from REST");
        } else {
            stream.write_all(frames::PREFACE).unwrap();
            stream.write_all(&frame(kind::SETTINGS, 0, 0, &[])).unwrap();
            stream
                .write_all(&frame(kind::HEADERS, END_HEADERS, 1, &call(VERSION)))
                .unwrap();
            stream.write_all(&frame(kind::DATA, 1, 1, &[0; 5])).unwrap();
            let mut answer = [0; 9];
            std::io::Read::read_exact(&mut stream, &mut answer).expect("an answer from gRPC");
        }
    }
}

fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(socket.as_fd(), &SocketAddr::from((from, 0))).unwrap();
    rustix::net::connect(socket.as_fd(), &to).unwrap();
    TcpStream::from(socket)
}

/// Whether the other side has closed neither the connection nor its half of it.
fn is_open(stream: &TcpStream) -> bool {
    let looked = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]));
    looked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[track_caller]
fn is_small(manager: &mut Manager) {
    assert!(manager.process.ended().is_none(), "the daemon ended");
    let (most, _) = manager.process.memory();
    assert!(most < MEMORY_MAX, "{} MiB", most >> 20);
}

#[test]
fn row_84_no_peer_keeps_the_others_out() {
    let sandbox = Sandbox::new("limits");
    let mut manager = manager(&sandbox, "");
    let grpc = manager.address().to_string();
    let rest = manager.sync_address().to_string();

    // A message that says it has 1 GB, and sends on and on.
    let mut huge = frames::connect(&grpc).unwrap();
    huge.write_all(&frame(kind::HEADERS, END_HEADERS, 1, &call(VERSION)))
        .unwrap();
    huge.write_all(&frame(kind::DATA, 0, 1, &[0, 0x3f, 0xff, 0xff, 0xff]))
        .unwrap();
    let piece = frame(kind::DATA, 0, 1, &[7; 16384]);
    let sent = (0..65536)
        .take_while(|_| huge.write_all(&piece).is_ok())
        .count();
    assert!(sent < 65536, "1 GiB was taken");
    another_peer_is_served(&manager);

    // Heads without end: one too large, and one that goes on in pieces.
    let mut bomb = frames::connect(&grpc).unwrap();
    let large = [call(VERSION), header("x", &"y".repeat(15_000))].concat();
    bomb.write_all(&frame(kind::HEADERS, 0, 1, &large)).unwrap();
    let more = frame(kind::CONTINUATION, 0, 1, &header("x", &"y".repeat(15_000)));
    let taken = (0..10_000)
        .take_while(|_| bomb.write_all(&more).is_ok())
        .count();
    assert!(taken < 10_000, "150 MB of headers were taken");
    let mut bomb = TcpStream::connect(&rest).unwrap();
    bomb.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let line = format!("x: {}\r\n", "y".repeat(1000));
    let taken = (0..100_000)
        .take_while(|_| bomb.write_all(line.as_bytes()).is_ok())
        .count();
    assert!(taken < 100_000, "100 MB of headers were taken");
    let mut long = TcpStream::connect(&rest).unwrap();
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let _ = long.write_all(target.as_bytes());
    assert!(
        frames::until_closed(&mut long) < 4096,
        "an answer to a line of 100 kB"
    );
    another_peer_is_served(&manager);

    // 10,000 calls on one connection that are never sent to their end.
    let mut streams = frames::connect(&grpc).unwrap();
    for n in 0..10_000 {
        let open = frame(kind::HEADERS, END_HEADERS, n * 2 + 1, &call(VERSION));
        if streams.write_all(&open).is_err() {
            break;
        }
    }
    another_peer_is_served(&manager);

    // As many connections as there are, that say nothing, or say it slowly: they still hold the daemon when the
    // other has been served. (The daemon gives up what says nothing for ten seconds: a machine that slow is
    // flooded again.)
    e2e::wait::until("a peer is served during a flood", || {
        let flood: Vec<_> = [&grpc, &rest]
            .iter()
            .flat_map(|address| (0..350).map(move |_| TcpStream::connect(address)))
            .collect();
        let mut open: Vec<_> = flood.into_iter().flatten().collect();
        for stream in open.iter_mut().step_by(2) {
            let _ = stream.write_all(b"G");
        }
        another_peer_is_served(&manager);
        open.iter().any(is_open).then_some(())
    });
    drop(streams);

    // And this peer is served again.
    e2e::wait::until("the flood is over", || {
        RawGrpc::new(&grpc).call("VersionGet", b"").ok()
    });
    is_small(&mut manager);
}

/// Row 56: an image is deleted while it is sent and while it is received: at once, and nothing stays.
#[test]
fn row_56_an_image_is_deleted_while_it_is_read() {
    let sandbox = Sandbox::new("delete");
    let manager = manager(&sandbox, "");
    let disk = sandbox.path("disk");
    let path = disk.join("backing-images/image-00000056/backing");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    manager
        .fetch(e2e::longhorn::spec("image", "00000056", 1 << 30, ""), "")
        .unwrap();
    let files = manager.files();
    let name = path.display().to_string();
    files.wait_ready(&name);
    // Three that read slowly: they have the head of the answer and do not take the rest.
    let target = format!(
        "/v1/files/{}/download?forV2Creation=true",
        e2e::longhorn::file_id(&name)
    );
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(manager.sync_address()).unwrap();
            write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut first = [0; 64];
            std::io::Read::read_exact(&mut stream, &mut first).unwrap();
            stream
        })
        .collect();
    // Until everything between here and the manager is full: it cannot even say that it ends.
    for reader in &readers {
        let (here, there) = (reader.local_addr().unwrap(), reader.peer_addr().unwrap());
        e2e::wait::until("the reader holds the manager up", || {
            (sockets::unsent(there, here) > 0).then_some(())
        });
    }
    manager.longhorn_delete("image", "00000056").unwrap();
    let left = std::fs::read_dir(disk.join("backing-images"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "something was left behind");
    for mut reader in readers {
        reader.set_read_timeout(Some(e2e::wait::LONG)).unwrap();
        assert!(
            frames::until_closed(&mut reader) < 1 << 30,
            "the whole image came"
        );
    }
}

/// Row 105: few descriptors and many images.
#[test]
fn row_105_few_descriptors_and_ten_thousand_images() {
    needs!(Need::Tool("prlimit"));
    let sandbox = Sandbox::new("many");
    let mut manager = manager(&sandbox, "");
    let disk = sandbox.path("disk");
    e2e::longhorn::fill(&manager, &disk, 10_000);
    manager.process.terminate();
    let options = Options::new(&disk);
    let mut manager = Manager::start(&sandbox, &options);
    let id = manager.process.id().to_string();
    e2e::command::run("prlimit", ["--pid", &id, "--nofile=256:256"]);
    let count = |manager: &Manager| manager.longhorn_list_all().len();
    assert_eq!(count(&manager), 10_000);
    assert_eq!(manager.list_images().unwrap().len(), 10_000);
    // More connections than descriptors: they wait, or are closed; nothing breaks.
    let address = manager.sync_address();
    let held: Vec<_> = (0..400)
        .filter_map(|_| TcpStream::connect(address).ok())
        .collect();
    e2e::wait::until(
        "the daemon has no descriptor left, or has accepted all",
        || {
            let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
            (open > 250 || sockets::not_accepted(address) == 0).then_some(())
        },
    );
    drop(held);
    e2e::wait::until("the daemon answers again", || {
        (count(&manager) == 10_000).then_some(())
    });
    is_small(&mut manager);
}

/// Row 96: a manager that hangs keeps nobody else up, and a copy from it goes on when it is back.
#[test]
fn row_96_a_manager_that_hangs_keeps_nobody_up() {
    let sandbox = Sandbox::new("hangs");
    let sides = ["a", "b"].map(|name| {
        let disk = sandbox.make_dir(name);
        init_disk(&disk);
        let mut options = Options::new(&disk);
        name.clone_into(&mut options.name);
        (Manager::start(&sandbox, &options), disk)
    });
    let [(a, disk_a), (b, disk_b)] = &sides;
    let path = disk_a.join("backing-images/image-00000096/backing");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; 8 << 20], 0).unwrap();
    a.fetch(e2e::longhorn::spec("image", "00000096", 8 << 20, ""), "")
        .unwrap();
    a.files().wait_ready(&path.display().to_string());
    a.process.signal(rustix::process::Signal::STOP);
    b.sync(e2e::longhorn::spec("image", "00000096", 8 << 20, ""), a)
        .unwrap();
    // Everything else goes on.
    for _ in 0..50 {
        let image = b.longhorn_get("image", "00000096").unwrap();
        assert_ne!(image.status.unwrap().state, "ready");
        assert!(b.list_images().is_ok());
    }
    let other = disk_b.join("backing-images/other-00000097/backing");
    std::fs::create_dir_all(other.parent().unwrap()).unwrap();
    std::fs::File::create(&other)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    b.fetch(e2e::longhorn::spec("other", "00000097", 1 << 20, ""), "")
        .unwrap();
    b.files().wait_ready(&other.display().to_string());
    a.process.signal(rustix::process::Signal::CONT);
    let copy = disk_b.join("backing-images/image-00000096/backing");
    b.files().wait_ready(&copy.display().to_string());
    // And one that hangs can be deleted.
    a.process.signal(rustix::process::Signal::STOP);
    b.longhorn_delete("image", "00000096").unwrap();
    b.sync(e2e::longhorn::spec("image", "00000096", 8 << 20, ""), a)
        .unwrap();
    b.longhorn_delete("image", "00000096").unwrap();
    assert!(!copy.parent().unwrap().exists());
    a.process.signal(rustix::process::Signal::CONT);
}
