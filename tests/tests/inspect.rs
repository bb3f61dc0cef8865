//! Looks at sources: what an image would be, from a real registry, a web server and files, and from who lies.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use e2e::baseimage::{Build, raw_ext4, web_page};
use e2e::manager::{Options, from_file, from_registry, from_url, init_disk};
use e2e::server::{HttpServer, Reply};
use e2e::{Manager, Need, Registry, Sandbox, command, needs};
use proto::storage::v1 as pb;
use tonic::Code;

const MIB: u64 = 1 << 20;

fn manager(sandbox: &Sandbox, options: impl FnOnce(Options) -> Options) -> Manager {
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    Manager::start(sandbox, &options(Options::new(&disk)))
}

/// What a look must not leave.
fn is_empty(sandbox: &Sandbox) {
    let images = sandbox.path("disk/backing-images");
    let left = std::fs::read_dir(images).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a look made something");
}

/// The same source with credentials of the request.
fn with_credentials(
    mut request: pb::CreateBackingImageRequest,
    file: &Path,
) -> pb::CreateBackingImageRequest {
    if let Some(pb::Source {
        source: Some(pb::source::Source::Registry(registry)),
    }) = &mut request.source
    {
        registry.docker_config_json = std::fs::read(file).unwrap();
    }
    request
}

/// Row 405: all that the card of an image shows, and none of it made.
#[test]
#[expect(clippy::too_many_lines, reason = "one registry, several callers")]
fn row_405_a_private_registry_is_looked_at_with_the_credentials_of_the_request() {
    needs!(
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd"),
        Need::Tool("mkfs.ext4")
    );
    let sandbox = Sandbox::new("inspect-registry");
    let registry = Registry::start(&sandbox);
    let page = web_page(&sandbox);
    let build = Build {
        from: Some(&page),
        fs: Some("ext4"),
        size: Some("64Mi"),
        options: &["--label", "site"],
    };
    let reference = build.push(&registry, "rancher/longhorn-test:baseimage-ext4");
    let trusts = |options: Options| options.with("--registry-config", &registry.registry_config);
    let manager = manager(&sandbox, trusts);
    let request = from_registry("", &reference);
    let refused = manager.inspect(request.clone()).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains(&reference), "{refused}");
    let request = with_credentials(request, &registry.docker_config);
    let before = registry.requests(&["GET", "/manifests/"]);
    let look = manager.inspect(request.clone()).unwrap();
    // Refused without and with a token of basic authentication, and once given: a tag is resolved once.
    assert!(registry.requests(&["GET", "/manifests/"]) <= before + 2);
    assert_eq!(look.source, reference);
    assert!(
        look.name.starts_with("longhorn-test-baseimage-ext4-"),
        "{look:?}"
    );
    assert!(look.manifest_digest.starts_with("sha256:"), "{look:?}");
    assert_eq!(look.virtual_size, 64 * MIB, "{look:?}");
    assert!(look.transfer_size > 0, "{look:?}");
    let content = look.content.clone().unwrap();
    assert_eq!(content.kind(), pb::content::Kind::FileSystem);
    assert_eq!(
        (content.r#type.as_str(), content.label.as_str()),
        ("ext4", "site")
    );
    assert_eq!(look.state(), pb::State::Unspecified);
    is_empty(&sandbox);
    // They belonged to that request.
    let refused = manager.inspect(from_registry("", &reference)).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let missing = with_credentials(
        from_registry("", &registry.reference("rancher/none:v1")),
        &registry.docker_config,
    );
    let missing = manager.inspect(missing).unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");

    // What was said is what is made.
    let made = manager.make_image(request.clone()).unwrap();
    assert_eq!(made.state(), pb::State::Ready, "{}", made.message);
    assert_eq!(
        (&made.name, &made.manifest_digest),
        (&look.name, &look.manifest_digest)
    );
    assert_eq!(
        (&made.format, made.virtual_size),
        (&look.format, look.virtual_size)
    );
    assert_eq!(made.content, look.content);
    let there = manager.inspect(request).unwrap();
    assert_eq!(there.state(), pb::State::Ready);
    let config = registry.docker_config.display().to_string();
    let arguments = ["inspect", "--registry", &reference, "--auth-file", &config];
    let output = manager.cli("backing-image", &arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for word in [
        "Digest",
        "sha256:",
        "ext4, label site",
        "ready as longhorn-test",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let output = manager.cli("backing-image", &[&arguments[..], &["-o", "json"]].concat());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["virtualSize"], 64 * MIB, "{json}");
    assert_eq!(json["state"], "ready", "{json}");
}

/// Row 406: URLs, packed or not, and files of import directories alone.
#[test]
fn row_406_the_beginning_of_a_url_or_a_file_tells_what_is_in_it() {
    needs!(
        Need::Tool("mkfs.ext4"),
        Need::Tool("gzip"),
        Need::Tool("qemu-img")
    );
    let sandbox = Sandbox::new("inspect-url");
    let import = sandbox.make_dir("import");
    let manager = manager(&sandbox, |options| options.with("--import-dir", &import));
    let raw = raw_ext4(&sandbox, "import/disk.raw", 48 * MIB);
    let qcow2 = import.join("disk.qcow2");
    command::run(
        "qemu-img",
        ["convert", "-c", "-O", "qcow2"]
            .map(AsRef::as_ref)
            .into_iter()
            .chain([raw.as_os_str(), qcow2.as_os_str()]),
    );
    command::run("gzip", ["-k".as_ref(), raw.as_os_str()]);
    let dir = import.clone();
    let server = HttpServer::start(move |request| {
        match std::fs::read(dir.join(request.path.trim_start_matches('/'))) {
            Ok(bytes) => Reply::ok(bytes),
            Err(_) => Reply {
                status: 404,
                ..Reply::default()
            },
        }
    });
    let holds = |look: &pb::InspectSourceResponse| look.content.clone().unwrap_or_default().r#type;
    for (name, format, size) in [
        ("disk.raw", "raw", 48 * MIB),
        ("disk.raw.gz", "raw", 0),
        ("disk.qcow2", "qcow2", 48 * MIB),
    ] {
        let look = manager
            .inspect(from_url("", &server.url(&format!("/{name}"))))
            .unwrap();
        assert_eq!(
            (look.format.as_str(), look.virtual_size),
            (format, size),
            "{look:?}"
        );
        assert_eq!(holds(&look), "ext4", "{look:?}");
        let bytes = std::fs::metadata(import.join(name)).unwrap().len();
        assert_eq!(look.transfer_size, bytes, "{look:?}");
        assert_eq!(look.state(), pb::State::Unspecified);
    }
    let look = manager.inspect(from_file("", &raw)).unwrap();
    assert_eq!((holds(&look).as_str(), look.size), ("ext4", 48 * MIB));
    let none = manager
        .inspect(from_url("", &server.url("/none")))
        .unwrap_err();
    assert_eq!(none.code(), Code::NotFound, "{none}");
    let outside = manager
        .inspect(from_file("", Path::new("/etc/passwd")))
        .unwrap_err();
    assert_eq!(outside.code(), Code::InvalidArgument, "{outside}");
    let volume = e2e::manager::from_volume("", "v");
    let volume = manager.inspect(volume).unwrap_err();
    assert_eq!(volume.code(), Code::InvalidArgument, "{volume}");
    is_empty(&sandbox);
}

/// Answers the first request with bytes that do not end.
fn endless() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/disk.raw", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while stream.write_all(&[7; 16_384]).is_ok() {}
    });
    url
}

/// Row 407: bounded in bytes, memory and time.
#[test]
fn row_407_a_source_that_never_ends_or_unpacks_to_more_is_looked_at_in_bounds() {
    needs!(Need::Tool("gzip"));
    let sandbox = Sandbox::new("inspect-hostile");
    let manager = manager(&sandbox, |options| options);
    let look = manager.inspect(from_url("", &endless())).unwrap();
    assert_eq!(
        (look.format.as_str(), look.virtual_size),
        ("raw", 0),
        "{look:?}"
    );
    // 512 MiB of zeros in half a MiB.
    let bomb = sandbox.path("bomb");
    std::fs::File::create(&bomb)
        .unwrap()
        .set_len(512 * MIB)
        .unwrap();
    command::run("gzip", [&bomb]);
    let packed = std::fs::read(sandbox.path("bomb.gz")).unwrap();
    let server = HttpServer::start(move |request| match request.path.as_str() {
        "/bomb.gz" => Reply::ok(packed.clone()),
        "/page" => Reply {
            headers: vec![("Content-Type".into(), "text/html".into())],
            ..Reply::ok("<html>Sign in</html>")
        },
        _ => Reply {
            hold_after: Some(100),
            ..Reply::ok(vec![7; 1 << 20])
        },
    });
    let look = manager
        .inspect(from_url("", &server.url("/bomb.gz")))
        .unwrap();
    assert_eq!(look.content, None, "{look:?}");
    assert!(
        look.notes.iter().any(|note| note.contains("empty")),
        "{look:?}"
    );
    let page = manager
        .inspect(from_url("", &server.url("/page")))
        .unwrap_err();
    assert!(page.message().contains("HTML"), "{page}");
    let (most, _) = manager.process.memory();
    assert!(most < 96 * MIB, "{} MiB", most >> 20);

    // As many as there may be that wait, and one more.
    let slow = server.url("/slow");
    let codes: Vec<Code> = std::thread::scope(|scope| {
        let looks = (0..5).map(|_| scope.spawn(|| manager.inspect(from_url("", &slow))));
        let looks: Vec<_> = looks.collect();
        let codes = looks
            .into_iter()
            .map(|look| look.join().unwrap().unwrap_err().code());
        codes.collect()
    });
    server.release();
    let of = |code| codes.iter().filter(|said| **said == code).count();
    assert_eq!(of(Code::DeadlineExceeded), 4, "{codes:?}");
    assert_eq!(of(Code::ResourceExhausted), 1, "{codes:?}");
    is_empty(&sandbox);
}

/// Row 408: a look reaches no address that a pull does not.
#[test]
fn row_408_addresses_that_a_pull_refuses_are_refused() {
    let sandbox = Sandbox::new("inspect-addresses");
    let manager = manager(&sandbox, Options::strict);
    let server = HttpServer::start(|_| Reply::ok(vec![7; 4096]));
    let link_local = "http://169.254.169.254/latest/meta-data".to_owned();
    for (at, url) in [server.url("/disk.raw"), link_local].iter().enumerate() {
        let look = manager.inspect(from_url("", url)).unwrap_err();
        assert!(look.message().contains("--allow-address"), "{look}");
        let pull = manager
            .make_image(from_url(&format!("pull-{at}"), url))
            .unwrap();
        assert_eq!(pull.state(), pb::State::Failed);
        assert_eq!(
            look.code() as u32,
            pull.failure_code,
            "{look}: {}",
            pull.message
        );
    }
    for reference in [
        "127.0.0.1:5000/x:v1",
        "169.254.169.254/x:v1",
        "[::1]:5000/x:v1",
    ] {
        let look = manager.inspect(from_registry("", reference)).unwrap_err();
        assert!(look.message().contains("--allow-address"), "{look}");
    }
    assert_eq!(server.served(), 0);
}

/// Row 409: looks are counted.
#[test]
fn row_409_looks_that_are_too_many_are_refused() {
    let sandbox = Sandbox::new("inspect-rate");
    let manager = manager(&sandbox, |options| options);
    let look = || {
        manager
            .inspect(from_file("", Path::new("/none")))
            .unwrap_err()
            .code()
    };
    let codes: Vec<_> = (0..200).map(|_| look()).collect();
    let of = |code| codes.iter().filter(|said| **said == code).count();
    assert!(of(Code::InvalidArgument) >= 30, "{codes:?}");
    assert!(of(Code::ResourceExhausted) >= 1, "{codes:?}");
    // What Docker's notation leaves out is said.
    e2e::wait::until("a look is left", || {
        (look() == Code::InvalidArgument).then_some(())
    });
    let said = e2e::wait::until("docker.io is asked", || {
        let said = manager.inspect(from_registry("", "rancher/no-such-image:v1"));
        let said = said.unwrap_err();
        (said.code() != Code::ResourceExhausted).then_some(said)
    });
    assert!(
        said.message().contains("docker.io/rancher/no-such-image"),
        "{said}"
    );
}
