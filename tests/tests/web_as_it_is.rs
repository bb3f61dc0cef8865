//! Real-world web servers: they break, lie about their data, and have mirrors. What a user of
//! `backing-image create` gets from them, with the built programs.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::manager::{Options, init_disk};
use e2e::noise::noise;
use e2e::server::{HttpServer, Reply, Request};
use e2e::{Manager, Need, Sandbox, command, needs};
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
    Ok(manager.summed_image(name).current_checksum)
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
    assert!(said.contains("cannot resume"), "{said}");
    assert_eq!(server.served(), 6);
    let images = sandbox.path("disk").join("backing-images");
    let left = std::fs::read_dir(images).unwrap().count();
    assert_eq!(left, 0);
}

/// A manager that takes files from the directory `import` of the sandbox besides.
fn importing(sandbox: &Sandbox) -> Manager {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let import = sandbox.make_dir("import");
    let options = Options::new(&disk)
        .with("--allow-address", "127.0.0.0/8")
        .with("--import-dir", import);
    Manager::start(sandbox, &options)
}

/// What is no disk: a name, a word of its refusal, and its bytes. `pack` makes a tar archive of a format.
fn no_disks(
    big: &[u8],
    pack: impl Fn(&str, &str) -> Vec<u8>,
) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let starts = |magic: &[u8]| [magic, big].concat();
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    vec![
        ("ova", "tar archive", pack("ustar", "app.ova")),
        ("v7", "tar archive", pack("v7", "old.tar")),
        ("gnu", "tar archive", pack("gnu", "gnu.tar")),
        ("zip", "zip", starts(b"PK\x03\x04\x14\0")),
        ("sevenz", "7z", starts(b"7z\xbc\xaf\x27\x1c")),
        ("lz4", "lz4 -d", starts(b"\x04\x22\x4d\x18")),
        ("lzma", "lzma", starts(b"\x5d\0\0\x80\0\xff\xff")),
        ("bzip2", "bzip2 -d", starts(b"BZh91AY")),
        ("sparse", "simg2img", starts(b"\x3a\xff\x26\xed\x01\0")),
        ("lfs", "git-lfs", lfs.into()),
        ("json", "JSON", br#"{"errors":[]}"#.to_vec()),
        (
            "xml",
            "XML",
            b"<?xml version=\"1.0\"?><Error><Code>x</Code></Error>".to_vec(),
        ),
        (
            "html",
            "HTML",
            b"<!doctype HTML>\n<title>Sign in</title>".to_vec(),
        ),
        (
            "passwd",
            "text",
            b"root:x:0:0:root:/root:/bin/sh\n".repeat(512),
        ),
    ]
}

/// Archives, compressed files, pages and pointers never become disks, by whatever way they come, unless
/// somebody declares that they are.
#[test]
fn row_174_what_is_no_disk_is_refused_by_name() {
    needs!(Need::Tool("tar"), Need::Tool("gzip"));
    let sandbox = Sandbox::new("no-disk");
    let manager = importing(&sandbox);
    let import = sandbox.path("import");
    let files = import.display();
    let big = noise(1, 2 * MIB);
    sandbox.write("import/d.vmdk", &big);
    let pack = |format: &str, name: &str| {
        let to = format!("{files}/{name}");
        let format = format!("--format={format}");
        command::run(
            "tar",
            [&format, "-cf", &to, "-C", &files.to_string(), "d.vmdk"],
        );
        std::fs::read(to).unwrap()
    };
    let cases = no_disks(&big, pack);
    for (name, word, bytes) in &cases {
        let path = sandbox.write(format!("import/{name}"), bytes);
        let file = path.display().to_string();
        let served = bytes.clone();
        let server = HttpServer::start(move |_| Reply::ok(served.clone()));
        let url = server.url("/disk");
        for (way, from) in [("--file", file.as_str()), ("--download-url", &url)] {
            let wanted = ["create", "--name", name, way, from, "--wait"];
            let output = manager.cli("backing-image", &wanted);
            let said = command::words(&output);
            assert!(
                !output.status.success() && said.contains(word),
                "{name} {way}: {said}"
            );
        }
        // Who declares it has the last word.
        let wanted = [
            "create", "--name", name, "--file", &file, "--format", "raw", "--wait",
        ];
        let output = manager.cli("backing-image", &wanted);
        assert!(
            output.status.success(),
            "{name}: {}",
            command::words(&output)
        );
    }
    // Also behind a packing that is taken off on the way.
    command::run("gzip", [format!("{files}/app.ova")]);
    let packed = std::fs::read(import.join("app.ova.gz")).unwrap();
    let server = HttpServer::start(move |_| Reply::ok(packed.clone()));
    let url = server.url("/disk.tar.gz");
    let wanted = [
        "create",
        "--name",
        "targz",
        "--download-url",
        &url,
        "--wait",
    ];
    let said = command::words(&manager.cli("backing-image", &wanted));
    assert!(said.contains("tar archive"), "{said}");
}

/// A disk is a disk, whatever else its first bytes look like.
#[test]
fn row_174_a_disk_that_looks_like_something_else_is_taken() {
    needs!(Need::Tool("mkfs.ext4"));
    let sandbox = Sandbox::new("a-disk");
    let manager = importing(&sandbox);
    let import = sandbox.path("import");
    let zeros = vec![0; 8 * MIB];
    let mut boot = noise(3, 512);
    boot[..4].copy_from_slice(b"PK\x03\x04");
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    for (name, head) in [
        ("ext4", b"PK\x03\x04".as_slice()),
        ("notes", b"notes of a raw volume\n"),
        ("boot", &boot),
        ("zeros", b""),
    ] {
        let path = sandbox.write(format!("import/{name}"), &zeros);
        if name == "ext4" {
            command::run(
                "mkfs.ext4",
                ["-q".as_ref(), "-F".as_ref(), path.as_os_str()],
            );
        }
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, head, 0).unwrap();
        let from = import.join(name).display().to_string();
        let wanted = ["create", "--name", name, "--file", &from, "--wait"];
        let output = manager.cli("backing-image", &wanted);
        assert!(
            output.status.success(),
            "{name}: {}",
            command::words(&output)
        );
    }
}

/// An object that its store gives a label of the upload: it is taken as it is.
#[test]
fn row_175_an_object_of_a_store_that_repeats_how_it_came_is_taken() {
    let sandbox = Sandbox::new("aws-chunked");
    let manager = manager(&sandbox);
    let bytes = disk();
    let server = HttpServer::start(move |_| Reply {
        headers: vec![("Content-Encoding".to_owned(), "aws-chunked".to_owned())],
        ..Reply::ok(bytes.clone())
    });
    let sum = types::Sha512::of(&disk()).to_string();
    assert_eq!(create(&manager, "labelled", &server.url("/a")), Ok(sum));
}
