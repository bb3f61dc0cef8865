//! Servers of the web as they are: they break, lie about what they send, and have mirrors. What a user
//! of `backing-image create` gets from them, by the built programs.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::manager::{Options, init_disk};
use e2e::noise::noise;
use e2e::server::{HttpServer, Reply, Request};
use e2e::{Manager, Sandbox, command};
use proto::storage::v1 as pb;

const MIB: usize = 1 << 20;

/// A manager that may reach this machine.
fn manager(sandbox: &Sandbox) -> Manager {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk).with("--allow-address", "127.0.0.0/8");
    Manager::start(sandbox, &options)
}

/// Makes an image by the command line and waits for it; gives its SHA-512, or what was said.
fn create(manager: &Manager, name: &str, url: &str) -> Result<String, String> {
    let arguments = ["create", "--name", name, "--download-url", url];
    let wanted = [&arguments[..], &["--format", "raw", "--wait"]].concat();
    let output = manager.cli("backing-image", &wanted);
    if !output.status.success() {
        return Err(command::words(&output));
    }
    let image = manager.image(name).unwrap();
    assert_eq!(image.state(), pb::State::Ready);
    Ok(image.current_checksum)
}

/// The bytes of a disk: not zeros, not a known format.
fn disk() -> Vec<u8> {
    noise(7, 4 * MIB)
}

/// Breaks the first `breaks` transfers in the middle; `headers` are those of transfer N.
fn breaking(
    breaks: usize,
    headers: impl Fn(usize) -> Vec<(String, String)> + Send + Sync + 'static,
) -> HttpServer {
    let (asked, bytes) = (AtomicUsize::new(0), disk());
    HttpServer::start(move |_: &Request| {
        let time = asked.fetch_add(1, Ordering::SeqCst);
        Reply {
            headers: headers(time),
            cut_after: (time < breaks).then_some(MIB),
            ..Reply::ok(bytes.clone())
        }
    })
}

/// What breaks and cannot be resumed is read again from its first byte.
#[test]
fn row_173_a_download_that_cannot_be_resumed_is_begun_anew() {
    let sandbox = Sandbox::new("begun-anew");
    let manager = manager(&sandbox);
    let sum = types::Sha512::of(&disk()).to_string();
    let tag = |value: String| vec![("ETag".to_owned(), value)];
    // No word of which version it is; a weak one; a mirror with another one each time.
    for (name, server) in [
        ("nothing", breaking(2, |_| Vec::new())),
        ("weak", breaking(2, move |_| tag("W/\"1\"".to_owned()))),
        (
            "mirrors",
            breaking(1, move |time| tag(format!("\"{time}\""))),
        ),
    ] {
        let made = create(&manager, name, &server.url("/a.raw"));
        assert_eq!(made.as_deref(), Ok(sum.as_str()), "{name}");
        assert!(server.served() >= 2, "{name}");
    }
    // A cache that has lost the rest of the file.
    let (asked, bytes) = (AtomicUsize::new(0), disk());
    let cache = HttpServer::start(move |request| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        if request.header("range").is_some() {
            return Reply {
                status: 416,
                ..Reply::default()
            };
        }
        Reply {
            headers: vec![("ETag".to_owned(), "\"1\"".to_owned())],
            cut_after: first.then_some(MIB),
            ..Reply::ok(bytes.clone())
        }
    });
    let made = create(&manager, "cache", &cache.url("/a.raw"));
    assert_eq!(made.as_deref(), Ok(sum.as_str()));
}

/// A server that never gives the whole is given up, and nothing of it is kept.
#[test]
fn row_173_beginning_anew_ends() {
    let sandbox = Sandbox::new("given-up");
    let manager = manager(&sandbox);
    let server = breaking(usize::MAX, |_| Vec::new());
    let said = create(&manager, "never", &server.url("/a.raw")).unwrap_err();
    assert!(said.contains("cannot be resumed"), "{said}");
    assert_eq!(server.served(), 6);
    let images = sandbox.path("disk").join("backing-images");
    let left = std::fs::read_dir(images).unwrap().count();
    assert_eq!(left, 0);
}
